//! Memory of a target, by address. In: addresses that the target's own memory states. Out: bytes, or
//! none. Never: trust that anything is there.

/// Reads a target's memory. Implementations neither allocate nor lock.
pub trait Memory {
    /// Copies from `address`; returns how many bytes from the start could be read.
    fn read(&self, address: u64, into: &mut [u8]) -> usize;

    /// Copies `length` bytes from each address, one behind the other; returns how many whole pieces
    /// from the first on could be read.
    fn read_each(&self, addresses: &[u64], length: usize, into: &mut [u8]) -> usize {
        each_by_itself(|at, piece| self.read(at, piece), addresses, length, into)
    }

    /// Whether the object at `address` is read as it was when the sample was taken, and not as it is now. Said by memory
    /// of a target that runs on; one that stands still is of the sample as a whole.
    fn is_of_sample(&self, _address: u64) -> bool {
        true
    }

    /// So many bytes from `address`, all of them.
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        (self.read(address, &mut bytes) == N).then_some(bytes)
    }

    /// A 64-bit word.
    fn word(&self, address: u64) -> Option<u64>
    where
        Self: Sized,
    {
        self.bytes(address).map(u64::from_le_bytes)
    }
}

/// [`Memory::read_each`] by a read for each piece.
pub fn each_by_itself(
    read: impl Fn(u64, &mut [u8]) -> usize,
    addresses: &[u64],
    length: usize,
    into: &mut [u8],
) -> usize {
    let pieces = into.chunks_exact_mut(length.max(1));
    let mut each = addresses.iter().zip(pieces);
    let failed = each.position(|(address, piece)| read(*address, piece) != length);
    failed.unwrap_or(addresses.len().min(into.len() / length.max(1)))
}

/// The 64-bit word at an offset; 0 beyond the end.
#[must_use]
pub fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at.saturating_add(8))
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// The 32-bit word at an offset; 0 beyond the end.
#[must_use]
pub fn half_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at.saturating_add(4))
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// The 16-bit word at an offset; 0 beyond the end.
#[must_use]
pub fn quarter_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at.saturating_add(2))
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

/// Whether this may be the address of an object: user space, aligned, not in the first page.
#[must_use]
pub fn is_object(address: u64) -> bool {
    // Without a branch: whole stacks are looked at.
    let span = (1 << super::layout::slot::ADDRESS_BITS) - 4096;
    (address.wrapping_sub(4096) < span) & address.is_multiple_of(8)
}
