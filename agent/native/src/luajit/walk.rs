//! The Lua stack, frame by frame. In: a `lua_State` and the base that runs. Out: functions, leaf
//! first, and the borders where C code called in. Never: a step upwards, more steps or time than their
//! bounds.
//!
//! A frame is two slots: the function and, above it at `f`, a link. A link that is a multiple of 4 is
//! the caller's program counter, whose instruction before it tells how far down the caller's frame
//! begins; others carry a type in their lowest three bits and the distance above it (lj_frame.h).

use super::layout::{function, prototype, slot};
use super::memory::{Memory, half_at, is_object, word_at};
use super::state::{LuaState, tagged};

/// Bytes of a Lua stack below the base that are looked at. Frames below them are cut.
pub const WINDOW_BYTES: usize = 24 << 10;
/// Frames that one walk goes down. Not each is a function that is kept: hostile ones may all be none.
const STEPS_MAX: usize = 512;
/// Frames between two looks at the clock: each may cost a read.
const STEPS_A_LOOK: usize = 16;
/// Functions that are looked at to find the one that runs.
const OWNERS_MAX: usize = 32;
/// `LJ_CONT_FFI_CALLBACK`: a continuation that stands for C code.
const CONTINUATION_OF_C: u64 = 1;

/// Calls that are read with the slots.
const CALLS_MAX: usize = 32;
/// Slots in which they are looked for, from the uppermost down.
const CALL_SLOTS: usize = 512;

/// Part of a Lua stack, as it was at one moment.
#[derive(Debug)]
pub struct Window {
    start: u64,
    length: usize,
    bytes: [u8; WINDOW_BYTES],
    /// Where callers go on, and the instructions before that, of those that could be read.
    calls: ([u64; CALLS_MAX], [u8; CALLS_MAX * 4], usize),
}

impl Window {
    /// One with nothing in it.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            start: 0,
            length: 0,
            bytes: [0; WINDOW_BYTES],
            calls: ([0; CALLS_MAX], [0; CALLS_MAX * 4], 0),
        }
    }
}

impl Window {
    /// Takes the slots below `end`, as many as there are and as fit.
    pub fn take(&mut self, memory: &impl Memory, state: &LuaState, end: u64) {
        let end = end.min(state.stack_end);
        self.start = state.stack.max(end.saturating_sub(WINDOW_BYTES as u64));
        let wanted = usize::try_from(end.saturating_sub(self.start)).unwrap_or(0);
        let into = &mut self.bytes[..wanted.min(WINDOW_BYTES)];
        self.length = memory.read(self.start, into);
        self.take_calls(memory);
    }

    /// Reads the instructions of all calls in one go: a system call for each is most of what a deep stack costs. What
    /// looks like the address of an instruction is one: numbers and objects are tagged.
    fn take_calls(&mut self, memory: &impl Memory) {
        let (links, instructions, read) = &mut self.calls;
        let mut count = 0;
        let slots = self.bytes[..self.length].rchunks_exact(8);
        for slot in slots.take(CALL_SLOTS) {
            let link = word_at(slot, 0);
            if is_instruction(link) && link & 3 == 0 && count < CALLS_MAX {
                links[count] = link - 4;
                count += 1;
            }
        }
        *read = if count > 1 {
            memory.read_each(&links[..count], 4, instructions)
        } else {
            0
        };
    }

    /// Bytes from a frame down to its caller's: the call instruction before `pc` says at which slot of its own the caller
    /// put the function.
    fn called_from(&self, memory: &impl Memory, pc: u64) -> Option<u64> {
        if !is_instruction(pc) {
            return None;
        }
        let call = pc - 4;
        let (links, instructions, read) = &self.calls;
        let known = links[..*read].iter().position(|link| *link == call);
        let operand = match known {
            Some(at) => *instructions.get(at * 4 + 1)?,
            None => memory.bytes::<4>(call)?[1],
        };
        Some(8 * (2 + u64::from(operand)))
    }

    /// Whether a slot lies below what was taken, where there are more.
    fn is_cut_off(&self, state: &LuaState, address: u64) -> bool {
        address < self.start && address >= state.stack
    }

    /// The slot at an address.
    #[must_use]
    pub fn slot(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let end = at.checked_add(8)?;
        (end <= self.length).then(|| word_at(&self.bytes, at))
    }
}

/// What the walk meets, leaf first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A function: the address of its `GCfunc`.
    Function(u64),
    /// Lua called the function before this, and goes on at this instruction.
    Called(u64),
    /// C code called the function before this.
    Border,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the bottom of the stack.
    Bottom,
    /// `meet` wanted no more.
    Enough,
    /// Somewhere above it: there are more frames than fit the bounds, in number, bytes or time.
    Cut,
    /// What was read cannot be a frame.
    Damaged,
}

/// Walks down from `base`, whose slots and those below are in `window`, as long as there is time.
/// `meet` gets each level and the address of its link, and says whether to go on.
pub fn walk(
    memory: &impl Memory,
    window: &Window,
    state: &LuaState,
    base: u64,
    in_time: &dyn Fn() -> bool,
    mut meet: impl FnMut(Level, u64) -> bool,
) -> End {
    let bottom = state.stack.saturating_add(8);
    let mut f = base.wrapping_sub(8);
    // A function with variable arguments has two frames; the lower is not a call of its own.
    let mut twin = false;
    let mut steps = 0;
    while f > bottom && f < state.stack_end {
        if steps == STEPS_MAX || (steps % STEPS_A_LOOK == STEPS_A_LOOK - 1 && !in_time()) {
            return End::Cut;
        }
        steps += 1;
        let (Some(link), Some(word)) = (window.slot(f), window.slot(f - 8)) else {
            let cut = window.is_cut_off(state, f - 8);
            return if cut { End::Cut } else { End::Damaged };
        };
        // A thread stands where an error was raised without a frame.
        let function = tagged(word, slot::FUNCTION);
        if let Some(function) = function
            && !twin
            && !meet(Level::Function(function), f)
        {
            return End::Enough;
        }
        if function.is_some() && link & 3 == 0 && !meet(Level::Called(link), f) {
            return End::Enough;
        }
        twin = false;
        let (down, border) = match link & 7 {
            0 | 4 => (window.called_from(memory, link), false),
            1 | 5 => (Some(link & !7), true),
            2 => (
                Some(link & !7),
                f > bottom + 24 && window.slot(f - 24) == Some(CONTINUATION_OF_C),
            ),
            3 => {
                twin = true;
                (Some(link & !7), false)
            }
            _ => (Some(link & !7), false),
        };
        if border && !meet(Level::Border, f) {
            return End::Enough;
        }
        match down {
            Some(down) if down >= 16 && down <= f - state.stack => f -= down,
            _ => return End::Damaged,
        }
    }
    End::Bottom
}

/// Whether an instruction may lie before this address.
fn is_instruction(pc: u64) -> bool {
    pc >= 4096 && pc >> slot::ADDRESS_BITS == 0
}

/// A function, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of Lua, with the address of its prototype.
    Lua(u64),
    /// Of C, registered by a module.
    C,
    /// One of LuaJIT's own, by number.
    Builtin(u8),
}

/// What a `GCfunc`'s first bytes say; none when it is not one.
#[must_use]
pub fn kind_of(bytes: &[u8]) -> Option<Kind> {
    use super::layout::object;
    if bytes.get(object::TYPE) != Some(&object::FUNCTION) {
        return None;
    }
    match *bytes.get(function::KIND)? {
        0 => {
            let prototype = word_at(bytes, function::PC).checked_sub(prototype::BYTES as u64)?;
            is_object(prototype).then_some(Kind::Lua(prototype))
        }
        1 => Some(Kind::C),
        number => Some(Kind::Builtin(number)),
    }
}

/// Whether the function whose frame begins at `base` may be the one that runs at `pc`: a function of
/// Lua must own the instruction.
pub fn owns(memory: &impl Memory, window: &Window, base: u64, pc: u64) -> Option<bool> {
    let word = window.slot(base.checked_sub(16)?)?;
    let function = tagged(word, slot::FUNCTION)?;
    let bytes: [u8; function::BYTES] = memory.bytes(function)?;
    match kind_of(&bytes)? {
        Kind::C | Kind::Builtin(_) => Some(true),
        Kind::Lua(prototype) => Some(contains(memory, prototype, pc)),
    }
}

fn contains(memory: &impl Memory, prototype: u64, pc: u64) -> bool {
    let Some(bytes) = memory.bytes::<{ prototype::HEAD_BYTES }>(prototype) else {
        return false;
    };
    let first = prototype + prototype::BYTES as u64;
    let instructions = u64::from(half_at(&bytes, prototype::INSTRUCTIONS));
    pc >= first && pc - first <= 4 * instructions
}

/// The base of the uppermost function below `from` that owns `pc`: where a call or a return is half
/// done, neither register nor memory says where the frame is.
pub fn owner(memory: &impl Memory, window: &Window, from: u64, pc: u64) -> Option<u64> {
    let mut looked = 0;
    let mut at = from & !7;
    while looked < OWNERS_MAX {
        at = at.checked_sub(8)?;
        let word = window.slot(at)?;
        if tagged(word, slot::FUNCTION).is_some() {
            looked += 1;
            let base = at + 16;
            if owns_as_lua(memory, word, pc) {
                return Some(base);
            }
        }
    }
    None
}

fn owns_as_lua(memory: &impl Memory, word: u64, pc: u64) -> bool {
    let bytes = tagged(word, slot::FUNCTION)
        .and_then(|function| memory.bytes::<{ function::BYTES }>(function));
    match bytes.as_ref().and_then(|b| kind_of(b)) {
        Some(Kind::Lua(prototype)) => contains(memory, prototype, pc),
        _ => false,
    }
}
