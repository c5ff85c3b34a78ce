//! Compiled code: which trace an address is in. In: the trace table of a VM. Out: traces by address of
//! their code. Never: a whole reading when nothing changed, a table larger than its bound.
//!
//! A busy gateway has thousands of traces and makes new ones all the time, so only slots whose pointer
//! changed are read again.

use super::layout::{global, object, trace};
use super::memory::{Memory, half_at, is_object, quarter_at, word_at};

/// Largest trace table, in slots (`TraceNo1` is 16 bits).
const SLOTS_MAX: usize = 1 << 16;
/// Slots of a table that are looked at to tell whether it is one.
const SLOTS_TRIED: usize = 128;
/// Largest machine code of one trace.
const CODE_BYTES_MAX: u64 = 1 << 20;
/// Traces that are read in one go.
const PIECES: usize = 64;

/// One trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Where its `GCtrace` is.
    pub address: u64,
    /// Its number.
    pub number: u16,
    /// Its code.
    pub code: u64,
    /// Behind its code.
    pub code_end: u64,
    /// The prototype that it begins in.
    pub start_proto: u64,
    /// Its IR, biased.
    pub ir: u64,
    /// Its snapshots and how many they are.
    pub snapshots: (u64, u16),
    /// The snapshots' map and its words.
    pub map: (u64, u32),
}

/// The trace in these bytes; none unless it is number `number`.
fn read(bytes: &[u8], address: u64, number: usize) -> Option<Trace> {
    let of = quarter_at(bytes, trace::NUMBER);
    if bytes.get(object::TYPE) != Some(&object::TRACE) || usize::from(of) != number {
        return None;
    }
    let code = word_at(bytes, trace::CODE);
    let length = u64::from(half_at(bytes, trace::CODE_BYTES));
    Some(Trace {
        address,
        number: of,
        code,
        code_end: code.checked_add(length.min(CODE_BYTES_MAX))?,
        start_proto: word_at(bytes, trace::START_PROTO),
        ir: word_at(bytes, trace::IR),
        snapshots: (
            word_at(bytes, trace::SNAPSHOT),
            quarter_at(bytes, trace::SNAPSHOTS),
        ),
        map: (word_at(bytes, trace::MAP), half_at(bytes, trace::MAP_WORDS)),
    })
}

/// The traces of one VM.
#[derive(Clone, Debug, Default)]
pub struct TraceTable {
    /// Where `J.trace` is.
    at: Option<u64>,
    slots: Vec<u64>,
    by_slot: Vec<Option<Trace>>,
    by_code: Vec<Trace>,
}

impl TraceTable {
    /// Brings the table up to date. Returns how many traces were read.
    pub fn refresh(&mut self, memory: &impl Memory, global: u64) -> usize {
        if self.at.is_none() {
            self.at = find(memory, global);
        }
        let Some((table, count)) = self.at.and_then(|at| header(memory, at)) else {
            return 0;
        };
        let slots = pointers(memory, table, count);
        self.by_slot.resize(slots.len(), None);
        self.slots.resize(slots.len(), 0);
        let changed: Vec<(usize, u64)> = slots
            .iter()
            .copied()
            .enumerate()
            .filter(|&(number, pointer)| self.slots[number] != pointer)
            .collect();
        let gone = self.by_code.len() != self.by_slot.iter().flatten().count();
        if changed.is_empty() && !gone {
            return 0;
        }
        for &(number, _) in &changed {
            self.by_slot[number] = None;
            self.slots[number] = 0;
        }
        let there: Vec<_> = changed.iter().filter(|c| is_object(c.1)).copied().collect();
        let mut bytes = vec![0; PIECES * trace::BYTES];
        for some in there.chunks(PIECES) {
            let mut addresses = [0; PIECES];
            for (to, from) in addresses.iter_mut().zip(some) {
                *to = from.1;
            }
            let got = memory.read_each(&addresses[..some.len()], trace::BYTES, &mut bytes);
            for (piece, &(number, address)) in bytes.chunks_exact(trace::BYTES).zip(some).take(got)
            {
                // One that is half made is looked at again.
                if let Some(trace) = read(piece, address, number) {
                    self.by_slot[number] = Some(trace);
                    self.slots[number] = address;
                }
            }
        }
        self.by_code = self.by_slot.iter().flatten().copied().collect();
        self.by_code.sort_unstable_by_key(|t| (t.code, t.address));
        there.len()
    }

    /// The trace whose code is at `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Trace> {
        let after = self.by_code.partition_point(|t| t.code <= address);
        let trace = self.by_code.get(after.checked_sub(1)?)?;
        (address < trace.code_end).then_some(trace)
    }
}

/// Where `J.trace` is: a pointer, `freetrace` and `sizetrace`. It moved between builds, so it is known
/// by what it points to: slot 0 is empty, and the others hold traces of their own number.
fn find(memory: &impl Memory, address: u64) -> Option<u64> {
    let from = address.checked_add(global::TRACES_FROM)?;
    let mut bytes = vec![0; global::TRACES_BYTES];
    let got = memory.read(from, &mut bytes);
    let bytes = bytes.get(..got)?;
    (0..got.saturating_sub(15)).step_by(8).find_map(|at| {
        let at_address = from + at as u64;
        let (table, free, count) = header_of(bytes.get(at..)?)?;
        if free as usize > count {
            return None;
        }
        let slots = pointers(memory, table, count.min(SLOTS_TRIED));
        let mut seen = 0;
        for (number, &pointer) in slots.iter().enumerate() {
            if pointer == 0 {
                continue;
            }
            let bytes: [u8; trace::BYTES] = memory.bytes(pointer)?;
            read(&bytes, pointer, number).filter(|_| number > 0)?;
            seen += 1;
        }
        (seen > 0).then_some(at_address)
    })
}

fn header(memory: &impl Memory, at: u64) -> Option<(u64, usize)> {
    let bytes: [u8; 16] = memory.bytes(at)?;
    header_of(&bytes).map(|(table, _, count)| (table, count))
}

fn header_of(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    let (table, free, count) = (word_at(bytes, 0), half_at(bytes, 8), half_at(bytes, 12));
    let count = count as usize;
    (is_object(table) && (1..=SLOTS_MAX).contains(&count)).then_some((table, free, count))
}

fn pointers(memory: &impl Memory, table: u64, count: usize) -> Vec<u64> {
    let mut bytes = vec![0; count * 8];
    let mut filled = 0;
    while filled < bytes.len() {
        let got = memory.read(table.saturating_add(filled as u64), &mut bytes[filled..]);
        if got == 0 {
            break;
        }
        filled += got;
    }
    bytes[..filled]
        .chunks_exact(8)
        .map(|c| word_at(c, 0))
        .collect()
}
