//! Samples that another tool has copied out of a process: unwound and named as the sampler's own. In: registers, the machine
//! stack, and what of LuaJIT's memory changes while it runs. Out: frame ids, and where VMs keep what runs. Never: a part of a
//! machine stack that was not copied with its sample.
//!
//! What was not copied is read from the process a moment later: objects that stay as they are (functions, prototypes, traces),
//! and Lua stacks further down than the copy, whose frames rarely change. Coroutines that were not copied at all are marked racy.

use crate::addresses::AddressNames;
use crate::arch::Regs;
use crate::capture::INTERPOSED_WORDS;
use crate::interpose::{CaptureContext, InterposedUnwinder, Outcome};
use crate::luajit::memory::{Memory, each_by_itself};
use crate::luajit::{LuaJit, segment, state};
use crate::summary;
use crate::sys;
use crate::unwind::{Pc, Unwinder};
use crate::words::StackWords;
use foldhash::HashMap;
use model::finding::Finding;
use model::profile::{FrameId, Recorder};
use std::sync::Arc;

/// VMs of one process whose stacks are copied.
pub const VMS_MAX: usize = 4;

/// One sample.
#[derive(Clone, Debug)]
pub struct CopiedSample {
    /// Whose.
    pub pid: u32,
    /// Registers.
    pub regs: Regs,
    /// What was copied, by address. One begins at the stack pointer.
    pub memory: Vec<(u64, Vec<u8>)>,
}

impl CopiedSample {
    fn stack(&self) -> StackWords<'_> {
        let start = self.regs.sp();
        let copy = self.memory.iter().find(|(at, _)| *at == start);
        StackWords {
            start,
            copy: copy.map_or(&[], |(_, bytes)| bytes),
            extension: &[],
        }
    }
}

/// Where the agent has found that a VM keeps which coroutine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmPlace {
    /// The process.
    pub pid: u32,
    /// Number of the VM in it, below [`VMS_MAX`].
    pub number: usize,
    /// Address of `cur_L`, and behind it `jit_base`.
    pub address: u64,
}

/// What is kept between samples.
#[derive(Debug)]
pub(crate) struct Copies {
    unwinder: Unwinder,
    lua: Arc<LuaJit>,
    captured: Vec<u64>,
    /// By process and `global_State`.
    vms: HashMap<(u32, u64), VmPlace>,
    /// Runs of Lua frames: all, read while the target ran on, not followed.
    segments: [u64; 3],
}

impl Default for Copies {
    fn default() -> Self {
        let lua = Arc::new(LuaJit::default());
        let interposed: Arc<dyn InterposedUnwinder> = Arc::<LuaJit>::clone(&lua);
        Self {
            unwinder: Unwinder::new(Some(interposed)),
            lua,
            captured: Vec::with_capacity(INTERPOSED_WORDS),
            vms: HashMap::default(),
            segments: [0; 3],
        }
    }
}

/// A process as it was where it was copied, and as it is elsewhere.
struct Overlay<'a>(&'a CopiedSample);

impl Memory for Overlay<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> usize {
        let mut got = sys::read_process(self.0.pid, address, into);
        let end = address.saturating_add(into.len() as u64);
        for (start, bytes) in &self.0.memory {
            let (from, to) = (
                address.max(*start),
                end.min(start.saturating_add(bytes.len() as u64)),
            );
            let place = |at: u64, of: u64| usize::try_from(at - of).unwrap_or(usize::MAX);
            if from < to
                && let Some(part) = bytes.get(place(from, *start)..place(to, *start))
                && let Some(room) = into.get_mut(place(from, address)..place(to, address))
            {
                room.copy_from_slice(part);
                if place(from, address) <= got {
                    got = got.max(place(to, address));
                }
            }
        }
        got
    }

    /// In one go where nothing of it was copied, as of most objects.
    fn read_each(&self, addresses: &[u64], length: usize, into: &mut [u8]) -> usize {
        let is_copied = |at: &u64| {
            let end = at.saturating_add(length as u64);
            let mut copies = self.0.memory.iter();
            copies.any(|(start, bytes)| {
                *at < start.saturating_add(bytes.len() as u64) && *start < end
            })
        };
        if addresses.iter().any(is_copied) {
            return each_by_itself(|at, piece| self.read(at, piece), addresses, length, into);
        }
        sys::read_process_each(self.0.pid, addresses, length, into)
    }

    fn is_of_sample(&self, address: u64) -> bool {
        self.0.memory.iter().any(|(start, _)| *start == address)
    }
}

impl AddressNames {
    /// Whether a process has LuaJIT's interpreter mapped.
    #[must_use]
    pub fn has_luajit(&self, pid: u32) -> bool {
        self.spaces.get(&pid).is_some_and(|space| {
            space
                .executable()
                .any(|(_, _, module)| module.is_some_and(|(m, _)| m.interpreter.is_some()))
        })
    }

    /// Looks for the VMs that a sample runs in: their coroutines are copied from now on if whoever copies is told.
    pub fn find_vms(&mut self, sample: &CopiedSample, now_ns: u64) {
        let (pid, words) = (sample.pid, sample.stack());
        self.refresh(pid, now_ns);
        let memory = Overlay(sample);
        let context = CaptureContext {
            pid,
            regs: &sample.regs,
            words,
            // Where no VM was copied, all of its memory is as it is now.
            exclusive: sample.memory.len() > 1,
            now: &|| 0,
            deadline: u64::MAX,
        };
        let copies = &mut self.copies;
        copies.captured.clear();
        copies
            .lua
            .capture_from(&memory, &context, &mut copies.captured);
        for segment in segment::read(&copies.captured) {
            let key = (pid, segment.global);
            if copies.vms.contains_key(&key) {
                continue;
            }
            let number = copies.vms.keys().filter(|k| k.0 == pid).count();
            if number < VMS_MAX
                && let Some(address) = state::running_at(&memory, segment.global)
            {
                let place = VmPlace {
                    pid,
                    number,
                    address,
                };
                copies.vms.insert(key, place);
            }
        }
    }

    /// Ids of a copied sample's stack, root first, into `out`. Whether the stack did not reach its root.
    pub fn fold_copied(
        &mut self,
        recorder: &mut Recorder,
        sample: &CopiedSample,
        now_ns: u64,
        out: &mut Vec<FrameId>,
    ) -> bool {
        self.find_vms(sample, now_ns);
        let (pid, words) = (sample.pid, sample.stack());
        for again in [true, false] {
            let copies = &mut self.copies;
            let space = self.spaces.entry(pid).or_default();
            self.stack = copies
                .unwinder
                .unwind(pid, space, sample.regs, words, &copies.captured);
            let is_lost = self.stack.frames.iter().any(|f| matches!(f, Pc::Unknown));
            if !(again && is_lost && space.refresh_for_unknown(pid, now_ns, &mut self.store)) {
                break;
            }
            copies.lua.mapped(pid, space);
        }
        for outcome in &self.stack.segments {
            self.copies.segments[0] += 1;
            self.copies.segments[1] += u64::from(*outcome == Outcome::Racy);
            self.copies.segments[2] += u64::from(*outcome == Outcome::Failed);
        }
        // What was copied is not all where the root was not met.
        self.stack.truncated |= !self.stack.rooted;
        self.folder
            .fold(recorder, std::iter::empty(), &self.stack, out);
        self.stack.truncated
    }

    /// VMs that were found so far.
    pub fn vms(&self) -> impl Iterator<Item = VmPlace> {
        self.copies.vms.values().copied()
    }

    /// Runs of Lua frames in copied samples: all, those that were read while the target ran on, those that could not be
    /// followed; and what is to be said of it.
    #[must_use]
    pub fn lua_segments(&self) -> ([u64; 3], Option<Finding>) {
        let [all, racy, failed] = self.copies.segments;
        (
            self.copies.segments,
            summary::lua_finding(all, racy, failed),
        )
    }

    /// What is kept of a process's VMs is of another one now.
    pub(crate) fn forget_vms(&mut self, pid: u32) {
        self.copies.vms.retain(|key, _| key.0 != pid);
        self.copies.lua.retain(&|other| other != pid);
    }

    /// What is kept of all processes' VMs is given up.
    pub(crate) fn forget_all_vms(&mut self) {
        self.copies.vms.clear();
        self.copies.lua.retain(&|_| false);
    }

    /// Reads what a process has mapped if it is time to.
    pub(crate) fn refresh(&mut self, pid: u32, now_ns: u64) {
        self.make_room(pid);
        let space = self.spaces.entry(pid).or_default();
        if space.refresh(pid, now_ns, &mut self.store) {
            self.copies.lua.mapped(pid, space);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_lies_over_what_is_there_now() {
        let now = [1_u8; 32];
        let at = now.as_ptr() as usize as u64;
        let sample = CopiedSample {
            pid: std::process::id(),
            regs: Regs {
                ip: 0,
                r: [0; crate::arch::REGISTERS],
            },
            memory: vec![
                (at + 8, vec![2; 8]),
                (8, vec![3; 4]),
                (u64::MAX - 3, vec![4; 9]),
            ],
        };
        let memory = Overlay(&sample);
        assert_eq!(memory.bytes(at + 4), Some([1, 1, 1, 1, 2, 2, 2, 2]));
        assert_eq!(memory.bytes(at + 12), Some([2, 2, 2, 2, 1, 1, 1, 1]));
        assert_eq!(memory.bytes(at + 10), Some([2, 2]));
        // Where nothing is any more, only the copy is.
        assert_eq!(memory.bytes(8), Some([3, 3, 3, 3]));
        assert_eq!(memory.bytes::<5>(8), None);
        assert_eq!(memory.bytes::<5>(7), None);
        assert_eq!(memory.bytes::<2>(u64::MAX - 3), Some([4, 4]));
        // Pieces that were copied and such that were not, in one go.
        let mut pieces = [0; 12];
        assert_eq!(memory.read_each(&[at + 16, at + 8, 8], 4, &mut pieces), 3);
        assert_eq!(pieces, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(memory.read_each(&[at, 7, 8], 4, &mut pieces), 1);
        assert_eq!(memory.read_each(&[at, at + 4], 4, &mut pieces), 2);
        assert!(memory.is_of_sample(8) && !memory.is_of_sample(9));
        assert_eq!(now, [1; 32]);
    }
}
