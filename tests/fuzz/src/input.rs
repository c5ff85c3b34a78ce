//! Choices read off the front of the fuzzer's bytes. In: bytes. Out: numbers and slices.
//! Never: an error; behind the end there are zeros.

/// Bytes not yet used up.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.slice(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn word(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    /// Eight bytes, little-endian.
    pub fn long(&mut self) -> u64 {
        (0..8).fold(0, |sum, i| sum | u64::from(self.byte()) << (8 * i))
    }

    /// Up to `len` bytes.
    pub fn slice(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        front
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}
