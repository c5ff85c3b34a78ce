//! LuaJIT's stacks without debug information: interpreter, compiled code, coroutines. In: samples of
//! processes that have LuaJIT's interpreter mapped. Out: Lua frames between the machine's. Never: a
//! run-time address in a frame, work at real-time priority beyond `capture`.
//!
//! ```text
//!  real time    capture: machine frames ─▶ lua_State ─▶ walk ─▶ segments (words)
//!  later        step: segment of this machine frame ─▶ names, trace ─▶ inlined functions
//! ```
//! Everything is found by structure and checked; builds without 64-bit references (GC64) fail the
//! checks and give their machine frames only.

pub mod builtins;
pub mod callsite;
pub mod capture;
pub mod functions;
pub mod layout;
pub mod memory;
pub mod names;
pub mod request;
pub mod segment;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod threads;
pub mod trace;
pub mod walk;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;
mod unwinder;

pub use unwinder::LuaJit;
