//! Compiled code: which trace an address is in. In: the trace table of a VM. Out: traces by address of
//! their code. Never: a whole reading when nothing changed, a table larger than its bound, a search
//! or a reading without one.
//!
//! A busy gateway has thousands of traces and makes new ones all the time, so only slots whose pointer
//! changed are read again.

use super::layout::{global, object, trace};
use super::memory::{Memory, half_at, is_object, quarter_at, word_at};

/// Largest trace table, in slots (`TraceNo1` is 16 bits).
const SLOTS_MAX: usize = 1 << 16;
/// Slots of a table that are looked at to tell whether it is one.
const SLOTS_TRIED: usize = 128;
/// Places and traces that are read in one search for the table: every word of a hostile
/// `global_State` may look like the head of one.
const TRIED_MAX: usize = 1024;
/// Traces that are read in one refreshment; what else changed comes with the next ones.
const CHANGED_MAX: usize = 4096;
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

/// Whether a trace still is what it was when it was read. As long as it is, what belongs to it (its
/// snapshots, the functions inlined into it) is too.
pub fn is_there(memory: &impl Memory, trace: &Trace) -> bool {
    memory
        .bytes::<{ trace::BYTES }>(trace.address)
        .is_some_and(|bytes| read(&bytes, trace.address, usize::from(trace.number)) == Some(*trace))
}

/// The traces of one VM.
#[derive(Clone, Debug, Default)]
pub struct TraceTable {
    /// Where `J.trace` is.
    at: Option<u64>,
    /// What each slot held when its trace was read; 0 when it was not.
    slots: Vec<u64>,
    by_code: Vec<Trace>,
    /// Times in a row that nothing had changed.
    unchanged: u32,
}

/// A table is old after this long; one that stays as it is after twice as long each time, up to eight times as long.
/// Whether a trace is there still is asked for each sample.
const OLD_NS: u64 = 25_000_000;
const DOUBLINGS_MAX: u32 = 3;

impl TraceTable {
    /// Whether a table that was looked at so long ago is to be looked at again.
    #[must_use]
    pub fn is_old(&self, age_ns: u64) -> bool {
        age_ns > OLD_NS << self.unchanged.min(DOUBLINGS_MAX)
    }

    /// Brings the table up to date. Returns how many traces were read.
    pub fn refresh(&mut self, memory: &impl Memory, global: u64) -> usize {
        if self.at.is_none() {
            self.at = find(memory, global);
        }
        let Some((table, count)) = self.at.and_then(|at| header(memory, at)) else {
            return 0;
        };
        let slots = pointers(memory, table, count);
        let shrank = slots.len() < self.slots.len();
        self.slots.resize(slots.len(), 0);
        let changed: Vec<(usize, u64)> = slots
            .iter()
            .copied()
            .enumerate()
            .filter(|&(number, pointer)| self.slots[number] != pointer)
            .collect();
        if changed.is_empty() && !shrank {
            self.unchanged = self.unchanged.saturating_add(1);
            return 0;
        }
        self.unchanged = 0;
        for &(number, _) in &changed {
            self.slots[number] = 0;
        }
        let known = &self.slots;
        self.by_code
            .retain(|t| known.get(usize::from(t.number)) == Some(&t.address));
        let there = changed.iter().filter(|c| is_object(c.1));
        let there: Vec<_> = there.copied().take(CHANGED_MAX).collect();
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
                    self.by_code.push(trace);
                    self.slots[number] = address;
                }
            }
        }
        self.by_code.sort_unstable_by_key(|t| (t.code, t.address));
        there.len()
    }

    /// Whether it is known where the table is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.at.is_some()
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>() + self.by_code.len() * size_of::<Trace>()
    }

    /// A trace is gone, and another may lie in its place: its slot is read again.
    pub fn forget(&mut self, gone: &Trace) {
        if let Some(slot) = self.slots.get_mut(usize::from(gone.number)) {
            *slot = 0;
        }
        self.by_code.retain(|t| t.number != gone.number);
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
    let mut left = TRIED_MAX;
    let mut places = (0..got.saturating_sub(15)).step_by(8);
    places.find_map(|at| {
        let (table, free, count) = header_of(bytes.get(at..)?)?;
        let fits = free as usize <= count;
        (fits && points_to_traces(memory, table, count, &mut left)).then_some(from + at as u64)
    })
}

/// Whether the first slots hold traces of their own number or nothing, and one of them a trace. `left`
/// is how much may still be read.
fn points_to_traces(memory: &impl Memory, table: u64, count: usize, left: &mut usize) -> bool {
    if !spend(left) {
        return false;
    }
    let mut seen = false;
    for (number, &pointer) in pointers(memory, table, count.min(SLOTS_TRIED))
        .iter()
        .enumerate()
    {
        if pointer == 0 {
            continue;
        }
        let is_trace = number > 0
            && spend(left)
            && memory
                .bytes::<{ trace::BYTES }>(pointer)
                .is_some_and(|bytes| read(&bytes, pointer, number).is_some());
        if !is_trace {
            return false;
        }
        seen = true;
    }
    seen
}

fn spend(left: &mut usize) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
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
