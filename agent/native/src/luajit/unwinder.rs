//! LuaJIT as the unwinder sees it. In: machine frames without a C function of their own. Out: Lua
//! frames and the registers of the C code that called in. Never: a Lua stack that was not captured with
//! its sample, a guess where nothing was captured.
//!
//! Read later, while the target runs on, is only what does not change as long as it is there, and
//! whether it is there still is checked: prototypes by their key, traces by their number, place and
//! code. Frames of a capture that was not exclusive are marked as racy, unless a trace confirms them.

use super::builtins::Builtins;
use super::callsite::Call;
use super::capture::{self, Moment};
use super::functions::Functions;
use super::layout;
use super::memory::Memory;
use super::names;
use super::segment::{self, From, Item, Segment};
use super::snapshot::{self, Inlined};
use super::state;
use super::threads::View;
use super::trace::{self, Trace, TraceTable};
use crate::arch::{self, Regs};
use crate::interpose::{CaptureContext, Interposed, InterposedUnwinder, Outcome, StepContext};
use crate::modules::Module;
use crate::space::Space;
use crate::sys;
use foldhash::HashMap;
use model::profile::{Frame, FrameKind};
use std::sync::{Mutex, PoisonError, RwLock};

/// A trace table is looked at again when it is old, or at once when an address is in no trace, but not more often than
/// this.
const TRACES_GAP_NS: u64 = 5_000_000;
/// A search that found nothing is repeated after this long, and then after twice as long each time.
const SEARCH_GAP_NS: u64 = 5_000_000;
/// Doublings of it: at last 20 s.
const DOUBLINGS_MAX: u32 = 12;
/// Searches in the memory of one process in a second: a hostile one may have a VM for each sample.
const SEARCHES_A_SECOND_MAX: u32 = 16;
/// Furthest that code of the VM runs below its frame on the machine stack: spill slots and saved
/// registers of a trace that is being left.
const BELOW_FRAME_MAX: u64 = 8 << 10;
/// VMs of one process that are kept before all of them are forgotten.
const VMS_A_PROCESS_MAX: usize = 64;
/// VMs that are kept before all are forgotten.
const VMS_MAX: usize = 1024;
/// Bytes of traces that are kept before those of a process that adds to them are forgotten. 64 workers
/// with two VMs and 2,300 traces each take a quarter.
const TRACE_BYTES_MAX: usize = 128 << 20;
/// Where a Lua segment could not be followed.
pub const FAILED: &str = "[lua-unwind-failed]";
/// Where one coroutine was resumed by another.
pub const JOINT: &str = "[co]";

/// The memory of a process.
#[derive(Clone, Copy, Debug)]
struct ProcessMemory(u32);

impl Memory for ProcessMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> usize {
        sys::read_process(self.0, address, into)
    }

    fn read_each(&self, addresses: &[u64], length: usize, into: &mut [u8]) -> usize {
        sys::read_process_each(self.0, addresses, length, into)
    }
}

#[derive(Debug, Default)]
struct Vm {
    traces: TraceTable,
    traces_ns: u64,
    traces_search: Search,
    builtins: Builtins,
    builtins_search: Search,
    /// Whether its instructions have the numbers that are known; none before it was asked.
    has_known_bytecode: Option<bool>,
}

/// When something was looked for that was not there.
#[derive(Debug, Default)]
struct Search {
    last_ns: u64,
    tries: u32,
}

impl Search {
    /// Whether to look now. Counts it.
    fn is_due(&mut self, now: u64) -> bool {
        let gap = SEARCH_GAP_NS << self.tries.min(DOUBLINGS_MAX);
        let due = self.tries == 0 || now.saturating_sub(self.last_ns) >= gap;
        if due {
            self.last_ns = now;
            self.tries = self.tries.saturating_add(1);
        }
        due
    }
}

#[derive(Debug, Default)]
struct Known {
    vms: HashMap<(u32, u64), Vm>,
    /// By process: a second, and the searches in it.
    searches: HashMap<u32, (u64, u32)>,
    functions: Functions,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LuaJit {
    /// Read at real-time priority, but only tried there: whoever writes is waited for by nobody.
    views: RwLock<HashMap<u32, View>>,
    /// For normal threads.
    known: Mutex<Known>,
    /// Paths of requests are wanted.
    paths: bool,
}

impl LuaJit {
    /// One that also keeps the path of the request that a sample was taken in, if `paths`.
    #[must_use]
    pub fn new(paths: bool) -> Self {
        Self {
            paths,
            ..Self::default()
        }
    }

    /// As [`InterposedUnwinder::capture`], from this memory of the process.
    pub fn capture_from(
        &self,
        memory: &impl Memory,
        context: &CaptureContext<'_>,
        keep: &mut Vec<u64>,
    ) {
        let Ok(views) = self.views.try_read() else {
            return;
        };
        let Some(view) = views.get(&context.pid) else {
            return;
        };
        let moment = Moment {
            regs: context.regs,
            words: context.words,
            exclusive: context.exclusive,
            wants_path: self.paths,
        };
        let in_time = || (context.now)() < context.deadline;
        capture::capture(memory, view, &layout::HERE, &moment, &in_time, keep);
    }
}

impl InterposedUnwinder for LuaJit {
    fn capture(&self, context: &CaptureContext<'_>, keep: &mut Vec<u64>) {
        self.capture_from(&ProcessMemory(context.pid), context, keep);
    }

    fn claims(&self, module: &Module, address: u64) -> bool {
        module
            .interpreter
            .is_some_and(|(start, length)| address.wrapping_sub(start) < length)
    }

    fn step(&self, context: &StepContext<'_>) -> Option<Interposed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.step(context)
    }

    fn mapped(&self, pid: u32, space: &Space) {
        let mut view = View::default();
        for (start, end, module) in space.executable() {
            match view.code.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => view.code.push((start, end)),
            }
            if let Some((module, bias)) = module
                && let Some((first, length)) = module.interpreter
            {
                let first = first.wrapping_add(bias);
                view.interpreters.push((first, first.wrapping_add(length)));
            }
        }
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        if view.interpreters.is_empty() {
            views.remove(&pid);
        } else {
            views.insert(pid, view);
        }
    }

    fn path(&self, captured: &[u64]) -> Option<Vec<u8>> {
        segment::path(captured)
    }

    fn retain(&self, alive: &dyn Fn(u32) -> bool) {
        let is_gone = |pid: &u32| !alive(*pid);
        let gone: Vec<u32> = match self.views.read() {
            Ok(views) => views.keys().copied().filter(is_gone).collect(),
            Err(_) => Vec::new(),
        };
        if !gone.is_empty() {
            let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
            views.retain(|pid, _| alive(*pid));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.vms.retain(|key, _| alive(key.0));
        known.searches.retain(|pid, _| alive(*pid));
        known.functions.retain(alive);
    }
}

impl Known {
    fn step(&mut self, context: &StepContext<'_>) -> Option<Interposed> {
        let sp = context.regs.sp();
        let segment = segment::read(context.captured)
            .filter(|s| s.cframe >= sp && s.cframe - sp <= BELOW_FRAME_MAX)
            .min_by_key(|s| s.cframe);
        if !context.is_anonymous {
            return Some(match segment {
                Some(segment) => self.interpreter(context, segment),
                None if context.is_leaf && context.is_called_by_anonymous => helper(context),
                None => failed(),
            });
        }
        let trace = self.trace(context, context.address)?;
        Some(match segment {
            Some(segment) if segment.from == From::Trace => self.compiled(context, segment, &trace),
            _ => failed(),
        })
    }

    /// Code of the VM itself.
    fn interpreter(&mut self, context: &StepContext<'_>, segment: Segment<'_>) -> Interposed {
        if segment.from == From::Trace
            && context.is_leaf
            && let Some(back) = context.words.word(context.regs.sp())
            && self.trace(context, back.wrapping_sub(1)).is_some()
        {
            return helper(context);
        }
        let frames = self.frames(context.pid, segment, None);
        whole(context, segment, frames)
    }

    /// Compiled code: the functions inlined at this address, and what called the trace.
    fn compiled(
        &mut self,
        context: &StepContext<'_>,
        segment: Segment<'_>,
        trace: &Trace,
    ) -> Interposed {
        let memory = ProcessMemory(context.pid);
        let mut frames = Vec::new();
        for inlined in snapshot::inlined(&memory, trace, context.address) {
            let Inlined::Proto(prototype) = inlined else {
                continue;
            };
            let head: Option<[u8; layout::prototype::HEAD_BYTES]> = memory.bytes(prototype);
            if let Some(head) = head {
                let key = names::key(&head);
                frames.push(
                    self.functions
                        .frame(&memory, context.pid, prototype, key, None),
                );
            }
        }
        for frame in &mut frames {
            frame.kind = FrameKind::Jit;
        }
        let is_there = trace::is_there(&memory, trace);
        if !is_there {
            frames.clear();
            self.vm(context.pid, segment.global).traces.forget(trace);
        }
        // A trace that is gone confirms nothing.
        let mut below = self.frames(context.pid, segment, is_there.then_some(trace));
        if let Some(first) = below.first_mut().filter(|f| f.kind == FrameKind::Lua) {
            // The code was compiled, whichever trace it was of.
            first.kind = FrameKind::Jit;
        }
        frames.extend(below);
        whole(context, segment, frames)
    }

    /// The frames of a segment. The first one is compiled when a trace is given.
    fn frames(&mut self, pid: u32, segment: Segment<'_>, trace: Option<&Trace>) -> Vec<Frame> {
        let memory = ProcessMemory(pid);
        let mut frames = Vec::new();
        let mut items = segment.items().enumerate().peekable();
        while let Some((index, item)) = items.next() {
            let next = items.peek().map(|next| next.1);
            let mut frame = match item {
                Item::Lua {
                    prototype,
                    key,
                    call,
                } => {
                    let call = self.call(pid, segment.global, call, next);
                    self.functions.frame(&memory, pid, prototype, key, call)
                }
                Item::Builtin(number) => self.builtin(pid, segment.global, number),
                Item::Joint => Frame::marker(JOINT),
                Item::Cut => Frame::marker("[truncated]"),
            };
            frame.racy = segment.racy;
            if let (0, Some(trace), Item::Lua { prototype, .. }) = (index, trace, item) {
                frame.kind = FrameKind::Jit;
                // The trace was found by the sampled address, and says where it begins.
                frame.racy &= prototype != trace.start_proto;
            }
            frames.push(frame);
        }
        frames
    }

    /// The call in the next function of a segment, where the build's instructions are known.
    fn call(&mut self, pid: u32, global: u64, number: u32, next: Option<Item>) -> Option<Call> {
        let Some(Item::Lua { prototype, key, .. }) = next.filter(|_| number > 0) else {
            return None;
        };
        let vm = self.vm(pid, global);
        let known = || state::has_known_bytecode(&ProcessMemory(pid), global);
        let is_known = *vm.has_known_bytecode.get_or_insert_with(known);
        is_known.then_some(Call {
            prototype,
            key,
            instruction: number,
        })
    }

    fn vm(&mut self, pid: u32, global: u64) -> &mut Vm {
        if !self.vms.contains_key(&(pid, global)) {
            let own = self.vms.keys().filter(|key| key.0 == pid).count();
            if own >= VMS_A_PROCESS_MAX {
                self.vms.retain(|key, _| key.0 != pid);
            }
            if self.vms.len() >= VMS_MAX {
                self.vms.clear();
            }
        }
        self.vms.entry((pid, global)).or_default()
    }

    /// Whether a process may be searched once more in this second. Counts it.
    fn may_search(&mut self, pid: u32, now: u64) -> bool {
        let second = now / 1_000_000_000;
        let searches = self.searches.entry(pid).or_default();
        if searches.0 != second {
            *searches = (second, 0);
        }
        searches.1 += 1;
        searches.1 <= SEARCHES_A_SECOND_MAX
    }

    fn builtin(&mut self, pid: u32, global: u64, number: u8) -> Frame {
        let now = sys::mono_ns();
        let vm = self.vm(pid, global);
        if vm.builtins.is_empty() && vm.builtins_search.is_due(now) && self.may_search(pid, now) {
            self.vm(pid, global).builtins = Builtins::read(&ProcessMemory(pid), global);
        }
        let name = self.vm(pid, global).builtins.name(number);
        Frame::named(FrameKind::Lua, name.unwrap_or("[builtin]"), "")
    }

    /// The trace at an address, of any VM of this sample.
    fn trace(&mut self, context: &StepContext<'_>, address: u64) -> Option<Trace> {
        let mut globals: Vec<u64> = segment::read(context.captured)
            .filter(|s| s.from == From::Trace)
            .map(|s| s.global)
            .collect();
        globals.dedup();
        for global in globals {
            self.refresh(context.pid, global, address);
            if let Some(trace) = self.vm(context.pid, global).traces.find(address) {
                return Some(*trace);
            }
        }
        None
    }

    /// Brings the traces of a VM up to date, if it is time or `address` is in none.
    fn refresh(&mut self, pid: u32, global: u64, address: u64) {
        let now = sys::mono_ns();
        let vm = self.vm(pid, global);
        let age = now.saturating_sub(vm.traces_ns);
        let is_missing = vm.traces.find(address).is_none();
        let is_known = vm.traces.is_known();
        let due = if is_known {
            vm.traces.is_old(age) || (is_missing && age > TRACES_GAP_NS)
        } else {
            vm.traces_search.is_due(now)
        };
        if !due || !(is_known || self.may_search(pid, now)) {
            return;
        }
        let vm = self.vm(pid, global);
        vm.traces_ns = now;
        vm.traces.refresh(&ProcessMemory(pid), global);
        let kept: usize = self.vms.values().map(|vm| vm.traces.bytes()).sum();
        if kept > TRACE_BYTES_MAX {
            self.vms.retain(|key, _| key.0 != pid);
        }
    }
}

/// A helper of the VM that compiled code called: it has no frame but the address on top of the stack.
fn helper(context: &StepContext<'_>) -> Interposed {
    let back = context.words.word(context.regs.sp());
    let resume = back.map(|back| {
        let mut regs = *context.regs;
        regs.ip = back;
        regs.r[usize::from(arch::SP)] = context.regs.sp().wrapping_add(8);
        regs
    });
    Interposed {
        frames: Vec::new(),
        resume,
        outcome: None,
    }
}

fn failed() -> Interposed {
    Interposed {
        frames: vec![Frame::marker(FAILED)],
        resume: None,
        outcome: Some(Outcome::Failed),
    }
}

fn whole(context: &StepContext<'_>, segment: Segment<'_>, mut frames: Vec<Frame>) -> Interposed {
    let resume = caller(context, segment);
    let outcome = if segment.from == From::Nowhere || resume.is_none() {
        frames.push(Frame::marker(FAILED));
        Outcome::Failed
    } else if segment.racy {
        Outcome::Racy
    } else {
        Outcome::Whole
    };
    Interposed {
        frames,
        resume,
        outcome: Some(outcome),
    }
}

/// The registers of the C code that called the VM, which its frame saved.
fn caller(context: &StepContext<'_>, segment: Segment<'_>) -> Option<Regs> {
    let machine = &layout::HERE;
    let word = |at: u64| context.words.word(segment.cframe.checked_add(at)?);
    let mut regs = *context.regs;
    for &(register, at) in machine.saved {
        regs.r[usize::from(register)] = word(at)?;
    }
    if segment.from == From::Trace {
        for &(register, at) in machine.saved_by_trace {
            if let Some(value) = context.words.word(segment.cframe.wrapping_add_signed(at)) {
                regs.r[usize::from(register)] = value;
            }
        }
    }
    regs.ip = word(machine.return_address)?;
    regs.r[usize::from(arch::SP)] = segment.cframe.checked_add(machine.size)?;
    Some(regs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_is_looked_for_less_and_less_often() {
        let mut search = Search::default();
        let looks: Vec<u64> = (0..60_000)
            .filter(|ms| search.is_due(ms * 1_000_000))
            .collect();
        assert_eq!(looks[..4], [0, 10, 30, 70]);
        assert!(looks.len() < 20, "{looks:?}");
    }

    #[test]
    fn a_process_with_a_vm_for_each_sample_is_searched_a_bounded_number_of_times_and_fills_nothing()
    {
        let mut known = Known::default();
        let (hostile, other) = (1, 2);
        known.vm(other, 8);
        let searched = (0..1_000).filter(|_| known.may_search(hostile, 5)).count();
        assert_eq!(searched, SEARCHES_A_SECOND_MAX as usize);
        assert!(known.may_search(hostile, 1_000_000_005));
        for global in 0..10_000 {
            known.vm(hostile, global * 8);
        }
        assert!(known.vms.len() <= VMS_A_PROCESS_MAX + 1);
        assert!(known.vms.contains_key(&(other, 8)));
    }
}
