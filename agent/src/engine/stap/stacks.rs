//! Counted stacks into the recorder, named as the native engine names them.
//!
//! In: what `report` reads, and who the targets are. Out: rows of the recorder, an account. Never: a stack of a process
//! that is no target, or a run-time address in a frame.

use super::report::{Copied, Counted, Hears, Missed, SumOf};
use crate::engine::SharedRecorder;
use model::profile::{Frame, FrameId, FrameKind, Process, Series, SeriesId};
use native::{AddressNames, CopiedSample, Regs, VmPlace};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

const SECOND_MS: u64 = 1_000;
/// A second further than this from the start is none of a capture's (an hour, and its end).
const BIN_MAX: u64 = 4_000;
/// Stacks in user space after which it is judged whether they are whole.
const JUDGED_AFTER: u64 = 200;

/// DWARF numbers of a copied sample's registers behind the program counter (System V ABI, figure 3.36).
const REGISTERS: [usize; 8] = [7, 6, 3, 1, 12, 13, 14, 15];

/// What does not change during a capture.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// The host's name.
    pub host: String,
    /// The engine's mode.
    pub mode: String,
    /// The event's word.
    pub event: String,
    /// Nanoseconds between two samples; of waits, the shortest that counts.
    pub period_ns: u64,
    /// Of so many samples, waits or events one is taken, and stands for all.
    pub one_in: u64,
    /// Waits by their length are measured, not samples.
    pub waits: bool,
    /// Milliseconds of a slice.
    pub slice_ms: u64,
    /// Frames of a stack that were kept.
    pub depth: usize,
}

/// The kernel's function that a stack's leaf has called, where the sum says it.
fn called(sum_of: SumOf) -> Option<Frame> {
    let name = match sum_of {
        SumOf::Read | SumOf::ReadNs => "vfs_read",
        SumOf::Written | SumOf::WrittenNs => "vfs_write",
        _ => return None,
    };
    Some(Frame::named(FrameKind::Kernel, name, "vmlinux"))
}

impl Taken {
    /// The series of one process.
    pub(super) fn series(&self, process: &Process, thread: &str) -> Series {
        Series {
            host: self.host.clone(),
            process: process.clone(),
            thread: thread.to_owned(),
            engine: "stap".to_owned(),
            mode: self.mode.clone(),
            event: self.event.clone(),
            // No period: a wait has its own length.
            period_ns: if self.waits { 0 } else { self.sample_ns() },
        }
    }

    /// A stack's values, in the order of the probe's measures.
    fn values(&self, stack: &Counted) -> [u64; 3] {
        let count = stack.count;
        let [counted, sum] = [count, stack.sum].map(|value| value.saturating_mul(self.one_in));
        match (self.waits, stack.sum_of) {
            (false, _) => [count, count.saturating_mul(self.sample_ns()), 0],
            (true, SumOf::Plain | SumOf::Read | SumOf::Written) => [counted, sum, 0],
            (true, SumOf::Cpu) => [counted, 0, sum],
            (true, SumOf::CpuAfter | SumOf::ReadNs | SumOf::WrittenNs) => [0, 0, sum],
        }
    }

    /// Waits or events that one stands for.
    fn stands_for(&self) -> u64 {
        if self.waits { self.one_in } else { 1 }
    }

    /// Nanoseconds that a sample stands for.
    fn sample_ns(&self) -> u64 {
        self.period_ns.saturating_mul(self.one_in)
    }
}

/// Puts stacks where they belong.
pub(super) struct Stacks {
    recorder: SharedRecorder,
    taken: Taken,
    names: AddressNames,
    targets: BTreeMap<u32, Process>,
    series: HashMap<u32, SeriesId>,
    /// The host's clock at the start and at the last mark, in milliseconds.
    began_ms: Option<u64>,
    marked_ms: u64,
    /// Samples of others than the targets, which are nobody's: they count as lost.
    pub others: u64,
    /// Stacks that did not reach their root.
    pub truncated: u64,
    /// Samples with a user stack, and those of them with one frame only.
    user: (u64, u64),
    /// Events of the look before the start, once they are known.
    pub seen: Option<u64>,
    /// Memory that was not followed, once it is known.
    pub missed: Option<Missed>,
    now_ns: u64,
    ids: Vec<FrameId>,
}

impl Stacks {
    /// With names that were learned already.
    pub(super) fn new(recorder: SharedRecorder, taken: Taken, names: AddressNames) -> Self {
        Self {
            recorder,
            taken,
            names,
            targets: BTreeMap::new(),
            series: HashMap::new(),
            began_ms: None,
            marked_ms: 0,
            others: 0,
            truncated: 0,
            user: (0, 0),
            seen: None,
            missed: None,
            now_ns: 1,
            ids: Vec::new(),
        }
    }

    /// From now on they are taken otherwise: another rate, other sizes.
    pub(super) fn retake(&mut self, taken: Taken) {
        self.taken = taken;
        self.series.clear();
    }

    /// A process is a target. One that has its pid from another takes that one's place.
    pub(super) fn add(&mut self, process: Process) {
        let pid = process.pid;
        let known = self.targets.get(&pid).map(|p| p.start_ticks);
        if known.is_some_and(|ticks| ticks != process.start_ticks) {
            self.names.forget(pid);
        }
        self.series.remove(&pid);
        self.targets.insert(pid, process);
    }

    /// The agent's time, by which mappings are read again.
    pub(super) fn at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// How many stacks in user space there were, if every single one had one frame only: SystemTap cannot read the
    /// memory of processes then, and does not say so.
    pub(super) fn only_leaves(&self) -> Option<u64> {
        let (all, leaves) = self.user;
        (all >= JUDGED_AFTER && leaves == all).then_some(all)
    }

    /// What went wrong with the targets' files.
    pub(super) fn findings(&self) -> &[model::Finding] {
        self.names.findings()
    }

    /// VMs of LuaJIT that were found in the targets.
    pub(super) fn vms(&self) -> BTreeSet<VmPlace> {
        self.names.vms().collect()
    }

    /// Runs of Lua frames in copied samples, as [`AddressNames::lua_segments`] gives them.
    pub(super) fn lua_segments(&self) -> ([u64; 3], Option<model::Finding>) {
        self.names.lua_segments()
    }

    fn bin(&self) -> u32 {
        let began = self.began_ms.unwrap_or(self.marked_ms);
        // What is printed now was counted in the slice before.
        let ms = (self.marked_ms + self.taken.slice_ms / 2).saturating_sub(began);
        u32::try_from((ms / SECOND_MS).min(BIN_MAX)).unwrap_or(0)
    }
}

impl Hears for Stacks {
    fn mark(&mut self, ms: u64) {
        self.began_ms.get_or_insert(ms);
        self.marked_ms = self.marked_ms.max(ms);
    }

    fn copied(&mut self, sample: Copied) {
        let Some(process) = self.targets.get(&sample.pid) else {
            self.others = self.others.saturating_add(1);
            return;
        };
        let bin = self.bin();
        let mut regs = Regs {
            ip: sample.registers[0],
            r: Default::default(),
        };
        for (number, value) in REGISTERS.into_iter().zip(&sample.registers[1..]) {
            regs.r[number] = *value;
        }
        let counts = sample.counts;
        let sample = CopiedSample {
            pid: sample.pid,
            regs,
            memory: sample.memory,
        };
        if !counts {
            return self.names.find_vms(&sample, self.now_ns);
        }
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let series = *self
            .series
            .entry(sample.pid)
            .or_insert_with(|| recorder.series(&self.taken.series(process, &process.comm)));
        let cut = self
            .names
            .fold_copied(&mut recorder, &sample, self.now_ns, &mut self.ids);
        self.truncated = self.truncated.saturating_add(u64::from(cut));
        let values = [1, self.taken.sample_ns(), 0];
        recorder.add_stack(series, bin, &self.ids, &values);
    }

    fn seen(&mut self, events: u64) {
        self.seen = Some(events);
    }

    fn missed(&mut self, missed: Missed) {
        self.missed = Some(missed);
    }

    fn stack(&mut self, stack: &Counted) {
        let Some(process) = self.targets.get(&stack.pid) else {
            let stands_for = self.taken.stands_for();
            let others = stack.count.saturating_mul(stands_for);
            self.others = self.others.saturating_add(others);
            return;
        };
        let bin = self.bin();
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let series = *self
            .series
            .entry(stack.pid)
            .or_insert_with(|| recorder.series(&self.taken.series(process, &process.comm)));
        let cut = stack.user.len() >= self.taken.depth || stack.kernel.len() >= self.taken.depth;
        self.names.fold(
            &mut recorder,
            stack.pid,
            &stack.kernel,
            &stack.user,
            cut,
            self.now_ns,
            &mut self.ids,
        );
        if self.ids.is_empty() {
            let unknown = Frame::unnamed(FrameKind::User, "", None, 0);
            self.ids.push(recorder.frame(&unknown));
        }
        if let Some(function) = called(stack.sum_of) {
            self.ids.push(recorder.frame(&function));
        }
        if stack.kernel.is_empty() && !stack.user.is_empty() {
            self.user.0 = self.user.0.saturating_add(stack.count);
            let leaf = if stack.user.len() == 1 {
                stack.count
            } else {
                0
            };
            self.user.1 = self.user.1.saturating_add(leaf);
        }
        if cut {
            let cut = stack.count.saturating_mul(self.taken.stands_for());
            self.truncated = self.truncated.saturating_add(cut);
        }
        recorder.add_stack(series, bin, &self.ids, &self.taken.values(stack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stap::report::Reader;
    use model::profile::{Measure, Recorder, RecorderLimits};
    use std::sync::{Arc, Mutex};

    fn stacks() -> (Stacks, SharedRecorder) {
        let recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
        let recorder = Arc::new(Mutex::new(recorder));
        let taken = Taken {
            host: "h".into(),
            mode: "oncpu-user".into(),
            event: "cpu-clock".into(),
            period_ns: 10_101_010,
            one_in: 1,
            waits: false,
            slice_ms: 500,
            depth: 96,
        };
        let stacks = Stacks::new(Arc::clone(&recorder), taken, AddressNames::new(false));
        (stacks, recorder)
    }

    fn process(pid: u32) -> Process {
        Process {
            pid,
            start_ticks: 1,
            comm: "a b\"\n(deleted)".into(),
            ..Process::default()
        }
    }

    #[test]
    fn what_a_probe_printed_is_what_is_recorded() {
        let (mut stacks, recorder) = stacks();
        stacks.add(process(106));
        let mut reader = Reader::default();
        let text = include_bytes!("../../../testdata/stap/oncpu-user.stdout");
        reader.feed(text, &mut stacks);
        let account = reader.end();
        let mut recorder = recorder.lock().unwrap();
        assert_eq!(recorder.samples(), account.samples);
        assert_eq!((stacks.others, stacks.only_leaves()), (0, None));
        let segment = recorder.take(1_000);
        assert!(!segment.is_empty());
        // Five seconds, by the marks.
        assert_eq!(stacks.bin(), 5);
    }

    #[test]
    fn stacks_of_others_are_counted_and_not_recorded() {
        let (mut stacks, recorder) = stacks();
        stacks.add(process(7));
        Reader::default().feed(b"@5\n+8 3 3 |0x10\n+7 1 1 |0x10\n+7 1 1 |\n", &mut stacks);
        assert_eq!((stacks.others, recorder.lock().unwrap().samples()), (3, 2));
    }

    #[test]
    fn only_leaves_are_noticed_and_one_whole_stack_is_enough_against_it() {
        let (mut stacks, _) = stacks();
        stacks.add(process(7));
        let mut reader = Reader::default();
        reader.feed(b"+7 199 199 |0x10\n", &mut stacks);
        assert_eq!(stacks.only_leaves(), None, "too few to judge");
        reader.feed(b"+7 1 1 |0x10\n", &mut stacks);
        assert_eq!(stacks.only_leaves(), Some(200));
        reader.feed(b"+7 1 1 |0x10 0x20\n", &mut stacks);
        assert_eq!(stacks.only_leaves(), None);
    }

    #[test]
    fn waits_count_by_their_length_and_by_what_was_waited_for() {
        let (stacks, _) = stacks();
        let taken = Taken {
            waits: true,
            ..stacks.taken
        };
        let values = |sum_of| {
            taken.values(&Counted {
                count: 2,
                sum: 70,
                sum_of,
                ..Counted::default()
            })
        };
        assert_eq!(values(SumOf::Plain), [2, 70, 0]);
        assert_eq!(values(SumOf::Cpu), [2, 0, 70]);
        assert_eq!(values(SumOf::CpuAfter), [0, 0, 70]);
        assert_eq!(values(SumOf::Written), [2, 70, 0]);
        assert_eq!(values(SumOf::WrittenNs), [0, 0, 70]);
        assert_eq!(taken.series(&process(7), "").period_ns, 0);
        // One of four waits stands for all; one of four samples is one, of four times the time.
        let values = |waits| {
            let taken = Taken {
                waits,
                one_in: 4,
                ..taken.clone()
            };
            let counted = Counted {
                count: 2,
                sum: 70,
                ..Counted::default()
            };
            (
                taken.values(&counted),
                taken.series(&process(7), "").period_ns,
            )
        };
        assert_eq!(values(true), ([8, 280, 0], 0));
        assert_eq!(values(false), ([2, 80_808_080, 0], 40_404_040));
    }
}
