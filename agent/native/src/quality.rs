//! How well samples went. In: samples and their stacks. Out: counts. Never: a judgement.

use crate::capture::Slot;
use crate::interpose::Outcome;
use crate::summary::Durations;
use crate::unwind::Stack;

/// What unwinding came to.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Samples folded.
    pub samples: u64,
    /// Stacks cut short.
    pub truncated: u64,
    /// Stacks with user frames.
    pub user_stacks: u64,
    /// Those that reached their root.
    pub rooted: u64,
    /// User frames.
    pub user_frames: u64,
    /// User frames of which not even the function's start is known.
    pub unknown_frames: u64,
    /// Deepest stack.
    pub depth_max: usize,
    /// Stacks with Lua frames.
    pub lua_stacks: u64,
    /// Runs of Lua frames between C code: all, those read while the target could run on, and those
    /// that could not be followed.
    pub lua_segments: [u64; 3],
    /// Samples over which an unwinder panicked.
    pub panicked: u64,
    /// From sample to handling.
    pub latency: Durations,
    /// Handling.
    pub work: Durations,
}

impl Quality {
    /// Counts one sample. `unknown_frames` is how many of its user frames have no known function.
    pub fn add(&mut self, slot: &Slot, stack: &Stack, unknown_frames: u64) {
        self.samples += 1;
        self.latency.add(slot.latency_ns);
        self.work.add(slot.work_ns);
        self.truncated += u64::from(stack.truncated);
        if stack.frames.is_empty() {
            return;
        }
        self.user_stacks += 1;
        for outcome in &stack.segments {
            self.lua_segments[0] += 1;
            self.lua_segments[1] += u64::from(*outcome == Outcome::Racy);
            self.lua_segments[2] += u64::from(*outcome == Outcome::Failed);
        }
        let has_lua = |o: &Outcome| *o != Outcome::Failed;
        self.lua_stacks += u64::from(stack.segments.iter().any(has_lua));
        self.rooted += u64::from(stack.rooted);
        self.user_frames += stack.frames.len() as u64;
        self.depth_max = self.depth_max.max(stack.frames.len());
        self.unknown_frames += unknown_frames;
    }
}
