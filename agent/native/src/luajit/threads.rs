//! Coroutines on a machine stack. In: the sampled stack and the target's memory. Out: `lua_State`s with
//! the machine frames of the interpreter that run them, innermost first. Never: a frame that only looks
//! like one, as long as the target stands still.

use super::capture::Moment;
use super::layout::Machine;
use super::memory::{Memory, is_object};
use super::state::{self, LuaState};
use crate::words::StackWords;

/// Bytes of machine stack that are searched.
const SEARCH_BYTES_MAX: u64 = 96 << 10;
/// Places that look like a frame of the interpreter.
const HITS_MAX: usize = 48;
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
    let mut hits = [(0, 0); HITS_MAX];
    let mut count = 0;
    let mut at = words.start.next_multiple_of(8);
    let end = words
        .end()
        .min(words.start.saturating_add(SEARCH_BYTES_MAX));
    while at < end && count < HITS_MAX {
        if let Some(state) = looks_like_frame(view, machine, words, at) {
            hits[count] = (at, state);
            count += 1;
        }
        at += 8;
    }
    let hits = &hits[..count];
    let mut found = 0;
    for (index, &(_, address)) in hits.iter().enumerate() {
        let again = hits[..index].iter().any(|h| h.1 == address);
        if again || found == THREADS_MAX {
            continue;
        }
        let Some(state) = state::read(memory, address) else {
            continue;
        };
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

/// The `lua_State` of the frame of the interpreter that may begin at `at`.
fn looks_like_frame(view: &View, machine: &Machine, words: StackWords<'_>, at: u64) -> Option<u64> {
    let state = words.word(at.checked_add(machine.state)?)?;
    if !is_object(state) {
        return None;
    }
    let previous = words.word(at.checked_add(machine.previous)?)? & !3;
    let above = previous > at && previous - at < STACK_BYTES_MAX;
    if previous != 0 && !above {
        return None;
    }
    let back = words.word(at.checked_add(machine.return_address)?)?;
    view.is_code(back.wrapping_sub(1)).then_some(state)
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
