//! `lua_State` and `global_State`, believed only when their parts agree. In: addresses from a C
//! frame. Out: what is needed of them. Never: an offset taken on trust that differs between builds.

use super::layout::{bytecode, global, object, slot, state};
use super::memory::{Memory, half_at, is_object, word_at};

/// A `lua_State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LuaState {
    /// Where it is.
    pub address: u64,
    /// Its `global_State`.
    pub global: u64,
    /// `BASE` as it was last stored.
    pub base: u64,
    /// First slot of its stack.
    pub stack: u64,
    /// Behind the last slot.
    pub stack_end: u64,
    /// The table of globals.
    pub env: u64,
    /// The innermost C frame; 0 when it is suspended.
    pub cframe: u64,
    /// What may be the request that ngx_lua runs it for; 0 when there is none.
    pub request: u64,
    /// ngx_lua's context of it; 0 when there is none.
    pub context: u64,
}

/// Largest Lua stack in slots (`LJ_STACK_MAX` and what LuaJIT adds to it).
const STACK_SLOTS_MAX: u64 = 1 << 20;

/// Reads the `lua_State` at `address`; none when it cannot be one.
pub fn read(memory: &impl Memory, address: u64) -> Option<LuaState> {
    if !is_object(address) {
        return None;
    }
    let bytes: [u8; state::BYTES] = memory.bytes(address)?;
    of(address, &bytes)
}

/// What the bytes at `address` say as a `lua_State`; none when they cannot be one.
#[must_use]
pub fn of(address: u64, bytes: &[u8]) -> Option<LuaState> {
    if bytes.get(object::TYPE) != Some(&object::THREAD) {
        return None;
    }
    let word = |at| word_at(bytes, at);
    let slots = u64::from(half_at(bytes, state::STACK_SLOTS));
    let (stack, base, global) = (word(state::STACK), word(state::BASE), word(state::GLOBAL));
    let stack_end = stack.checked_add(slots * 8)?;
    let fits = is_object(stack)
        && is_object(global)
        && slots <= STACK_SLOTS_MAX
        && base.is_multiple_of(8)
        && base >= stack
        && base <= stack_end;
    fits.then_some(LuaState {
        address,
        global,
        base,
        stack,
        stack_end,
        env: word(state::ENV),
        cframe: word(state::CFRAME) & !3,
        request: word(state::EXDATA),
        context: word(state::EXDATA2),
    })
}

/// What a `global_State` says of the thread that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The `lua_State` that runs.
    pub state: u64,
    /// `BASE` when compiled code runs; else 0.
    pub jit_base: u64,
}

/// Reads what runs. `cur_L` and `jit_base` moved between builds: they follow two instructions
/// that every build has there.
pub fn running(memory: &impl Memory, address: u64) -> Option<Running> {
    let mut bytes = [0; global::SEARCH_BYTES];
    let got = memory.read(address.checked_add(global::SEARCH_FROM)?, &mut bytes);
    let bytes = bytes.get(..got)?;
    let found = c_functions(bytes)?;
    let (state, jit_base) = (word_at(bytes, found + 8), word_at(bytes, found + 16));
    let fits = (state == 0 || is_object(state)) && (jit_base == 0 || is_object(jit_base));
    fits.then_some(Running { state, jit_base })
}

/// Where [`running`] reads it: the address of `cur_L`, behind which `jit_base` is.
pub fn running_at(memory: &impl Memory, address: u64) -> Option<u64> {
    let from = address.checked_add(global::SEARCH_FROM)?;
    let mut bytes = [0; global::SEARCH_BYTES];
    let got = memory.read(from, &mut bytes);
    from.checked_add(c_functions(bytes.get(..got)?)? as u64 + 8)
}

/// Where the two instructions are that every build has before `cur_L`.
fn c_functions(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len().saturating_sub(23)).step_by(8).find(|&at| {
        let (first, second) = (half_at(bytes, at), half_at(bytes, at + 4));
        let same_operands = [first, second].map(|i| i >> 8) == [global::C_FUNCTION_A; 2];
        same_operands && first & 0xff != 0
    })
}

/// Whether the build numbers its instructions as [`bytecode`] does: the head of a C function has nearly
/// the last number, so that one more or less anywhere would show.
pub fn has_known_bytecode(memory: &impl Memory, address: u64) -> bool {
    let mut bytes = [0; global::SEARCH_BYTES];
    let got = memory.read(address.saturating_add(global::SEARCH_FROM), &mut bytes);
    let bytes = &bytes[..got];
    let op = c_functions(bytes).map(|at| half_at(bytes, at) & 0xff);
    let known = [bytecode::FUNCC, bytecode::FUNCC + 1].map(u32::from);
    op.is_some_and(|op| known.contains(&op))
}

/// The main thread of a VM: it lies right before the `global_State`.
pub fn main_thread(memory: &impl Memory, global: u64) -> Option<LuaState> {
    state::BEFORE_GLOBAL
        .step_by(8)
        .filter_map(|before| read(memory, global.checked_sub(before)?))
        .find(|state| state.global == global)
}

/// The address in a slot that is tagged as `tag`.
#[must_use]
pub fn tagged(word: u64, tag: u64) -> Option<u64> {
    let address = word & ((1 << slot::ADDRESS_BITS) - 1);
    (word >> slot::ADDRESS_BITS == tag && is_object(address)).then_some(address)
}
