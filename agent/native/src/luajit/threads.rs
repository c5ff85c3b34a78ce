//! Coroutines on a machine stack. In: the sampled stack and the target's memory. Out: `lua_State`s with
//! the machine frames of the interpreter that run them, innermost first. Never: a frame that only looks
//! like one, as long as the target stands still.

use super::capture::Moment;
use super::layout::{self, Machine};
use super::memory::{Memory, is_object};
use super::state::{self, LuaState};
use crate::words::StackWords;

/// Bytes of machine stack that are searched.
const SEARCH_BYTES_MAX: u64 = 96 << 10;
/// Places that look like a frame of the interpreter.
const HITS_MAX: usize = 48;
/// Objects that may be a `lua_State` and are read in one go.
const STATES_AT_ONCE: usize = 8;
/// Coroutines on one machine stack.
pub const THREADS_MAX: usize = 8;
/// C frames of one coroutine.
pub const CHAIN_MAX: usize = 24;
/// Largest machine stack that a chain may reach over.
const STACK_BYTES_MAX: u64 = 64 << 20;

/// Where the code of a process is, by run-time address.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Interpreters of LuaJIT: first address and the one behind the last.
    pub interpreters: Vec<(u64, u64)>,
    /// Everything executable, in order.
    pub code: Vec<(u64, u64)>,
}

impl View {
    /// Whether something executable is there.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        let after = self.code.partition_point(|r| r.0 <= address);
        after > 0 && self.code.get(after - 1).is_some_and(|r| address < r.1)
    }

    /// Where the first code begins and the last ends.
    fn code_bounds(&self) -> (u64, u64) {
        let bounds = self.code.first().zip(self.code.last());
        bounds.map_or((u64::MAX, 0), |(first, last)| (first.0, last.1))
    }

    /// Whether an interpreter is there.
    #[must_use]
    pub fn is_interpreter(&self, address: u64) -> bool {
        self.interpreters
            .iter()
            .any(|r| address >= r.0 && address < r.1)
    }
}

/// A coroutine.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its `lua_State`.
    pub state: LuaState,
    /// Its machine frames, innermost first.
    pub chain: [u64; CHAIN_MAX],
    /// How many there are.
    pub length: usize,
}

/// Coroutines whose C frames are on the machine stack, innermost first.
pub fn find(
    memory: &impl Memory,
    view: &View,
    machine: &Machine,
    moment: &Moment<'_>,
    threads: &mut [Option<Thread>; THREADS_MAX],
) -> usize {
    let words = moment.words;
    let mut hits = Hits::default();
    hits.search(view, machine, words);
    let (addresses, hits) = (hits.states(), &hits.hits[..hits.count]);
    let (addresses, mut next, mut found) = (&addresses.0[..addresses.1], 0, 0);
    let mut bytes = [0; STATES_AT_ONCE * layout::state::BYTES];
    let mut states = [None; STATES_AT_ONCE];
    let mut read = 0..0;
    while found < THREADS_MAX {
        let Some(at) = read.next() else {
            let Some(wanted) = addresses.get(next..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let wanted = &wanted[..wanted.len().min(STATES_AT_ONCE)];
            let got = memory.read_each(wanted, layout::state::BYTES, &mut bytes);
            let pieces = bytes.chunks_exact(layout::state::BYTES);
            for (slot, (address, piece)) in states.iter_mut().zip(wanted.iter().zip(pieces)) {
                *slot = state::of(*address, piece);
            }
            // What cannot be read ends a read: it goes on behind it.
            next += (got + 1).min(wanted.len());
            read = 0..got;
            continue;
        };
        let Some(state) = states[at] else { continue };
        let address = state.address;
        let mut thread = Thread {
            state,
            chain: [0; CHAIN_MAX],
            length: 0,
        };
        if !follow_chain(machine, words, &mut thread) {
            if moment.exclusive && memory.is_of_sample(address) {
                continue;
            }
            // The target ran on: what the stack copy shows is all there is.
            thread.length = 0;
            for &(cframe, _) in hits.iter().filter(|h| h.1 == address).take(CHAIN_MAX) {
                thread.chain[thread.length] = cframe;
                thread.length += 1;
            }
        }
        threads[found] = Some(thread);
        found += 1;
    }
    threads[..found].sort_by_key(|t| t.map(|t| t.chain[0]));
    found
}

/// Places of a stack that look like frames of the interpreter.
struct Hits {
    /// Where, and the `lua_State` that is named there.
    hits: [(u64, u64); HITS_MAX],
    count: usize,
}

impl Default for Hits {
    fn default() -> Self {
        Self {
            hits: [(0, 0); HITS_MAX],
            count: 0,
        }
    }
}

impl Hits {
    /// Looks at each word of the stack, as [`looks_like_frame`] does. All but the last of the kernel's copy are looked at in
    /// three slices side by side: of a stack of 24 KiB it is 3,000 places, in a time in which the target stands still.
    fn search(&mut self, view: &View, machine: &Machine, words: StackWords<'_>) {
        // A target may put any number into its stack pointer.
        let Some(first) = words.start.checked_next_multiple_of(8) else {
            return;
        };
        let end = words
            .end()
            .min(words.start.saturating_add(SEARCH_BYTES_MAX));
        let mut at = first;
        let offsets = [machine.state, machine.previous, machine.return_address];
        if offsets.iter().all(|offset| offset.is_multiple_of(8)) {
            let lead = usize::try_from(first - words.start).unwrap_or(usize::MAX);
            let (copy, _) = words.copy.get(lead..).unwrap_or_default().as_chunks::<8>();
            let from = |offset: u64| {
                let at = usize::try_from(offset / 8).unwrap_or(usize::MAX);
                copy.get(at..).unwrap_or_default().iter()
            };
            let [states, previous, backs] = offsets.map(from);
            let within = (end.saturating_sub(at) / 8) as usize;
            let places = states.zip(previous).zip(backs).take(within);
            let code = view.code_bounds();
            for ((state, previous), back) in places {
                let [state, previous, back] =
                    [state, previous, back].map(|bytes| u64::from_ne_bytes(*bytes));
                // All of it without a branch: each would be taken by half of the words, and guessed wrong as often.
                let may_be = is_object(state)
                    & lies_above(at, previous)
                    & (back.wrapping_sub(1) >= code.0)
                    & (back <= code.1);
                if may_be && view.is_code(back.wrapping_sub(1)) {
                    if self.count == HITS_MAX {
                        return;
                    }
                    self.add(at, state);
                }
                at = at.saturating_add(8);
            }
        }
        while at < end && self.count < HITS_MAX {
            if let Some(state) = looks_like_frame(view, machine, words, at) {
                self.add(at, state);
            }
            at = at.saturating_add(8);
        }
    }

    fn add(&mut self, at: u64, state: u64) {
        self.hits[self.count] = (at, state);
        self.count += 1;
    }

    /// The states that are named, each once, and how many they are.
    fn states(&self) -> ([u64; HITS_MAX], usize) {
        let (mut states, mut count) = ([0; HITS_MAX], 0);
        for (_, state) in &self.hits[..self.count] {
            if !states[..count].contains(state) {
                states[count] = *state;
                count += 1;
            }
        }
        (states, count)
    }
}

/// Whether the C frame before one at `at` may be `previous`: there is none, or it lies above it.
fn lies_above(at: u64, previous: u64) -> bool {
    let previous = previous & !3;
    (previous == 0) | ((previous > at) & (previous.wrapping_sub(at) < STACK_BYTES_MAX))
}

/// The `lua_State` of the frame of the interpreter that may begin at `at`.
fn looks_like_frame(view: &View, machine: &Machine, words: StackWords<'_>, at: u64) -> Option<u64> {
    let state = words.word(at.checked_add(machine.state)?)?;
    if !is_object(state) {
        return None;
    }
    let previous = words.word(at.checked_add(machine.previous)?)?;
    let back = words.word(at.checked_add(machine.return_address)?)?;
    (lies_above(at, previous) && view.is_code(back.wrapping_sub(1))).then_some(state)
}

/// Follows `lua_State.cframe`; false unless each frame has this state and lies above the one before.
fn follow_chain(machine: &Machine, words: StackWords<'_>, thread: &mut Thread) -> bool {
    let mut cframe = thread.state.cframe;
    let mut below = words.start.saturating_sub(1);
    while cframe != 0 && thread.length < CHAIN_MAX {
        let holds = cframe > below
            && cframe.is_multiple_of(8)
            && words.word(cframe.wrapping_add(machine.state)) == Some(thread.state.address);
        if !holds {
            // Beyond the copied stack there may be more; what is here is right.
            return thread.length > 0 && cframe >= words.end();
        }
        thread.chain[thread.length] = cframe;
        thread.length += 1;
        below = cframe;
        match words.word(cframe.wrapping_add(machine.previous)) {
            Some(previous) => cframe = previous & !3,
            None => break,
        }
    }
    thread.length > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luajit::layout::X86_64;
    use proptest::prelude::*;

    /// Words as a stack has them: addresses of objects, of the stack itself and of code, small numbers, nothing.
    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            (0x7f00_0000_u64..0x7f00_0040).prop_map(|w| w * 8),
            0x1000_u64..0x1800,
            0x40_0000_u64..0x40_0100,
            any::<u64>(),
        ]
    }

    #[test]
    fn a_stack_pointer_at_the_end_of_all_addresses_ends_the_search() {
        let bytes = [0x41; 64];
        for (start, copy) in [
            (u64::MAX - 3, &[][..]),
            (u64::MAX - 7, &[][..]),
            (u64::MAX - 7, &bytes[..]),
            (u64::MAX - 31, &bytes[..]),
        ] {
            let words = StackWords {
                start,
                copy,
                extension: &[],
            };
            let mut hits = Hits::default();
            hits.search(&View::default(), &X86_64, words);
            assert_eq!(hits.count, 0);
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_look_at_each_word_finds(
            stack in proptest::collection::vec(word(), 0..300),
            lead in 0_u64..8,
            cut in 0_usize..2_400,
        ) {
            let view = View {
                interpreters: vec![],
                code: vec![(0x40_0000, 0x40_0080), (0x40_00a0, 0x40_00b0)],
            };
            let mut bytes: Vec<u8> = stack.iter().flat_map(|w| w.to_ne_bytes()).collect();
            bytes.splice(0..0, vec![1; usize::try_from(lead).unwrap()]);
            let (copy, extension) = bytes.split_at(cut.min(bytes.len()));
            let words = StackWords { start: 0x1000 - lead, copy, extension };
            let mut hits = Hits::default();
            hits.search(&view, &X86_64, words);
            let each = (0x1000..words.end()).step_by(8);
            let slow: Vec<(u64, u64)> = each
                .filter_map(|at| Some((at, looks_like_frame(&view, &X86_64, words, at)?)))
                .take(HITS_MAX)
                .collect();
            prop_assert_eq!(&hits.hits[..hits.count], &slow[..]);
        }
    }
}
