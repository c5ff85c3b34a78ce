//! LuaJIT as the unwinder sees it. In: machine frames without a C function of their own. Out: Lua
//! frames and the registers of the C code that called in. Never: a frame that was not captured while
//! the target stood still, a guess where nothing was captured.

use super::builtins::Builtins;
use super::capture::{self, Moment};
use super::functions::Functions;
use super::layout;
use super::memory::Memory;
use super::names;
use super::segment::{self, From, Item, Segment};
use super::snapshot::{self, Inlined};
use super::threads::View;
use super::trace::{Trace, TraceTable};
use crate::arch::{self, Regs};
use crate::interpose::{CaptureContext, Interposed, InterposedUnwinder, Outcome, StepContext};
use crate::modules::Module;
use crate::space::Space;
use crate::sys;
use foldhash::HashMap;
use model::profile::{Frame, FrameKind};
use std::sync::{Mutex, PoisonError, RwLock};

/// A trace table is looked at again after this long, or at once when an address is in no trace.
const TRACES_FRESH_NS: u64 = 25_000_000;
/// But not more often than this.
const TRACES_GAP_NS: u64 = 5_000_000;
/// Builtins are looked for again after this long while none was found.
const BUILTINS_GAP_NS: u64 = 1_000_000_000;
/// Furthest that code of the VM runs below its frame on the machine stack: spill slots and saved
/// registers of a trace that is being left.
const BELOW_FRAME_MAX: u64 = 8 << 10;
/// VMs that are kept before all are forgotten.
const VMS_MAX: usize = 1024;
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
    builtins: Builtins,
    builtins_ns: u64,
}

#[derive(Debug, Default)]
struct Known {
    vms: HashMap<(u32, u64), Vm>,
    functions: Functions,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LuaJit {
    /// Read at real-time priority, but only tried there: whoever writes is waited for by nobody.
    views: RwLock<HashMap<u32, View>>,
    /// For normal threads.
    known: Mutex<Known>,
}

impl InterposedUnwinder for LuaJit {
    fn capture(&self, context: &CaptureContext<'_>, keep: &mut Vec<u64>) {
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
        };
        let in_time = || (context.now)() < context.deadline;
        let memory = ProcessMemory(context.pid);
        capture::capture(&memory, view, &layout::HERE, &moment, &in_time, keep);
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
            // A helper of the VM that compiled code called: it has no frame but this address.
            let mut regs = *context.regs;
            regs.ip = back;
            regs.r[usize::from(arch::SP)] += 8;
            return Interposed {
                frames: Vec::new(),
                resume: Some(regs),
                outcome: None,
            };
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
                frames.push(self.functions.frame(&memory, context.pid, prototype, key));
            }
        }
        for frame in &mut frames {
            frame.kind = FrameKind::Jit;
        }
        frames.extend(self.frames(context.pid, segment, Some(trace)));
        whole(context, segment, frames)
    }

    /// The frames of a segment. The first one is compiled when a trace is given.
    fn frames(&mut self, pid: u32, segment: Segment<'_>, trace: Option<&Trace>) -> Vec<Frame> {
        let memory = ProcessMemory(pid);
        let mut frames = Vec::new();
        let mut first = trace.is_some();
        for item in segment.items() {
            let mut frame = match item {
                Item::Lua { prototype, key } => self.functions.frame(&memory, pid, prototype, key),
                Item::Builtin(number) => self.builtin(pid, segment.global, number),
                Item::Joint => Frame::marker(JOINT),
                Item::Cut => Frame::marker("[truncated]"),
            };
            if std::mem::take(&mut first) && frame.kind == FrameKind::Lua {
                frame.kind = FrameKind::Jit;
            } else {
                frame.racy = segment.racy;
            }
            frames.push(frame);
        }
        frames
    }

    fn vm(&mut self, pid: u32, global: u64) -> &mut Vm {
        if self.vms.len() >= VMS_MAX {
            self.vms.clear();
        }
        self.vms.entry((pid, global)).or_default()
    }

    fn builtin(&mut self, pid: u32, global: u64, number: u8) -> Frame {
        let now = sys::mono_ns();
        let vm = self.vm(pid, global);
        let due = vm.builtins_ns == 0 || now - vm.builtins_ns > BUILTINS_GAP_NS;
        if vm.builtins.is_empty() && due {
            vm.builtins_ns = now;
            vm.builtins = Builtins::read(&ProcessMemory(pid), global);
        }
        let name = vm.builtins.name(number).unwrap_or("[builtin]");
        Frame::named(FrameKind::Lua, name, "")
    }

    /// The trace at an address, of any VM of this sample.
    fn trace(&mut self, context: &StepContext<'_>, address: u64) -> Option<Trace> {
        let mut globals: Vec<u64> = segment::read(context.captured)
            .filter(|s| s.from == From::Trace)
            .map(|s| s.global)
            .collect();
        globals.dedup();
        let memory = ProcessMemory(context.pid);
        for global in globals {
            let now = sys::mono_ns();
            let vm = self.vm(context.pid, global);
            let age = now.saturating_sub(vm.traces_ns);
            let found = vm.traces.find(address).is_some();
            if age > TRACES_FRESH_NS || (!found && age > TRACES_GAP_NS) {
                vm.traces_ns = now;
                vm.traces.refresh(&memory, global);
            }
            if let Some(trace) = vm.traces.find(address) {
                return Some(*trace);
            }
        }
        None
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
