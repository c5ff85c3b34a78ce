//! The door for unwinders of code that has no unwind tables (LuaJIT's interpreter and traces).
//! In: registers and stack of a sample. Out: frames, and where native unwinding goes on.
//! Never: an allocation in `capture`, which runs at real-time priority.

use crate::arch::Regs;
use crate::modules::Module;
use crate::space::Space;
use crate::words::StackWords;
use model::profile::Frame;
use std::fmt;

/// What `capture` may look at while the target stands still.
#[derive(Clone, Copy)]
pub struct CaptureContext<'a> {
    /// The process.
    pub pid: u32,
    /// Its registers.
    pub regs: &'a Regs,
    /// Its stack from the stack pointer up.
    pub words: StackWords<'a>,
    /// Whether the target really stands still; else it may run on while it is read.
    pub exclusive: bool,
    /// Event time now, in nanoseconds.
    pub now: &'a dyn Fn() -> u64,
    /// Event time at which the sample is dropped.
    pub deadline: u64,
}

/// What `step` is told.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// The process.
    pub pid: u32,
    /// What `capture` kept.
    pub captured: &'a [u64],
    /// Registers at this frame.
    pub regs: &'a Regs,
    /// An address of the code that runs in this frame: for a caller, of the call.
    pub address: u64,
    /// The sampled stack.
    pub words: StackWords<'a>,
    /// Whether this is the frame that was sampled.
    pub is_leaf: bool,
    /// Whether the code lies in anonymous memory; else in a file.
    pub is_anonymous: bool,
    /// Whether the word on top of the stack leads into anonymous memory: code there called this function.
    pub is_called_by_anonymous: bool,
}

/// How a segment of foreign frames came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it, read while the target stood still.
    Whole,
    /// All of it, but the target could run on meanwhile.
    Racy,
    /// It could not be followed.
    Failed,
}

/// What an interposed unwinder found.
#[derive(Clone, Debug, Default)]
pub struct Interposed {
    /// Frames, leaf first.
    pub frames: Vec<Frame>,
    /// Where native unwinding goes on; without it the native unwinder goes on from this frame.
    pub resume: Option<Regs>,
    /// How it came out; none when it was only a step on the way.
    pub outcome: Option<Outcome>,
}

/// Asked first at frames in anonymous executable memory and in code that it claims.
pub trait InterposedUnwinder: Send + Sync + fmt::Debug {
    /// Reads what is needed of the target into `keep`, whose capacity must not be exceeded.
    /// Runs at real-time priority: no allocation, no lock that is waited for, and back before the
    /// deadline.
    fn capture(&self, context: &CaptureContext<'_>, keep: &mut Vec<u64>);

    /// Whether the function at this ELF address of this image is its own (a VM's interpreter).
    fn claims(&self, module: &Module, address: u64) -> bool;

    /// Unwinds from this frame on; none leaves it to the native unwinder. Runs in a normal thread.
    fn step(&self, context: &StepContext<'_>) -> Option<Interposed>;

    /// The executable memory of a process was looked at anew. Runs in a normal thread.
    fn mapped(&self, pid: u32, space: &Space);

    /// The path of the request that the sample was taken in, if `capture` kept one. Runs in a normal thread.
    fn path(&self, captured: &[u64]) -> Option<Vec<u8>>;

    /// Forgets processes that are gone. Runs in a normal thread.
    fn retain(&self, alive: &dyn Fn(u32) -> bool);
}
