//! The door for unwinders of code that has no unwind tables (LuaJIT's interpreter and traces).
//! In: registers and stack of a sample. Out: frames, and where native unwinding goes on.
//! Never: an allocation in `capture`, which runs at real-time priority.

use crate::arch::Regs;
use model::profile::Frame;
use std::fmt;

/// What `capture` may look at while the target stands still.
#[derive(Debug)]
pub struct CaptureContext<'a> {
    /// The process.
    pub pid: u32,
    /// Its registers.
    pub regs: &'a Regs,
    /// Its stack from the stack pointer up.
    pub stack: &'a [u8],
    /// Event time (nanoseconds) at which the sample is dropped.
    pub deadline: u64,
}

/// What `step` is told.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The process.
    pub pid: u32,
    /// What `capture` kept.
    pub captured: &'a [u64],
    /// Registers at this frame.
    pub regs: &'a Regs,
    /// The sampled stack; its first byte is at `stack_start`.
    pub stack: &'a [u8],
    /// Address of the stack's first byte.
    pub stack_start: u64,
    /// Whether this is the frame that was sampled.
    pub is_leaf: bool,
    /// Whether the code lies in anonymous memory; else in a file.
    pub is_anonymous: bool,
}

/// What an interposed unwinder found.
#[derive(Clone, Debug, Default)]
pub struct Interposed {
    /// Frames, leaf first.
    pub frames: Vec<Frame>,
    /// Where native unwinding goes on; none ends the stack here.
    pub resume: Option<Regs>,
}

/// Asked first at frames in anonymous executable memory and in code that it claims.
pub trait InterposedUnwinder: Send + Sync + fmt::Debug {
    /// Reads what is needed of the target into `keep`, whose capacity must not be exceeded.
    /// Runs at real-time priority: no allocation, no lock, and back before the deadline.
    fn capture(&self, context: &CaptureContext<'_>, keep: &mut Vec<u64>);

    /// Whether the function at this ELF address of this module is its own (a VM's interpreter).
    fn claims(&self, module: &str, address: u64) -> bool;

    /// Unwinds from this frame on; none leaves it to the native unwinder. Runs in a normal thread.
    fn step(&self, context: &StepContext<'_>) -> Option<Interposed>;
}
