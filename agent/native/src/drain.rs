//! The unwinding thread: samples in, rows of the recorder out. Runs at nice 10. Never: at
//! real-time priority; a panic over a hostile sample passed on.

use crate::capture::{Shared, SideEvent, Slot};
use crate::config::NativeConfig;
use crate::fold::Folder;
use crate::kallsyms::KernelSymbols;
use crate::modules::ModuleStore;
use crate::offcpu::{EventWait, Recorded, Wait, WaitTotals, WaitWindow, Waiting, Waits};
use crate::proc;
use crate::quality::Quality;
use crate::record::{self, Record, Sample};
use crate::registry::{self, Registry};
use crate::request_path::RequestPaths;
use crate::space::Space;
use crate::steps::PeriodSteps;
use crate::sys;
use crate::unwind::{Pc, Stack, Unwinder};
use crate::words::StackWords;
use foldhash::HashMap;
use model::finding::{Finding, FindingCode};
use model::profile::{CounterKind, CounterSource, Frame, FrameId, Recorder, SeriesId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks even if a thread panicked with it: the values are counts, whole at any time.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's state.
#[derive(Debug)]
pub struct Drain {
    config: Arc<NativeConfig>,
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    recorder: Arc<Mutex<Recorder>>,
    mode: String,
    spaces: HashMap<u32, Space>,
    store: ModuleStore,
    unwinder: Unwinder,
    folder: Folder,
    series: HashMap<(u32, String), SeriesId>,
    /// Names of threads, and the series of those that were sampled.
    threads: HashMap<(u32, u32), (String, Option<SeriesId>)>,
    ids: Vec<FrameId>,
    steps: PeriodSteps,
    quality: Quality,
    counted: [u64; 3],
    findings: Vec<Finding>,
    pruned_ns: u64,
    waits: Option<Waits>,
    event_wait: EventWait,
    /// Of requests, where they are wanted.
    pub paths: RequestPaths,
}

/// Thread names that are remembered before they are read again.
const THREADS_MAX: usize = 65_536;
/// Samples that are folded before side events are looked at again.
const BATCH: usize = 64;

impl Drain {
    /// A drain that knows the kernel's names.
    #[must_use]
    pub fn new(
        config: Arc<NativeConfig>,
        shared: Arc<Shared>,
        registry: Arc<Mutex<Registry>>,
        recorder: Arc<Mutex<Recorder>>,
        symbols: KernelSymbols,
    ) -> Self {
        Self {
            unwinder: Unwinder::new(shared.interposed.clone()),
            folder: Folder::new(symbols),
            steps: PeriodSteps::new(config.period_ns()),
            waits: config.is_off_cpu().then(|| Waits::new(config.min_wait_ns)),
            event_wait: EventWait::default(),
            paths: RequestPaths::new(config.uri_segments),
            config,
            shared,
            registry,
            recorder,
            mode: String::new(),
            spaces: HashMap::default(),
            store: ModuleStore::default(),
            series: HashMap::default(),
            threads: HashMap::default(),
            ids: Vec::new(),
            quality: Quality::default(),
            counted: [0; 3],
            findings: Vec::new(),
            pruned_ns: 0,
        }
    }

    /// The mode that stands in the series.
    pub fn set_mode(&mut self, mode: &str) {
        mode.clone_into(&mut self.mode);
    }

    /// Scans and parses what the targets have mapped, so that nothing big is left for later.
    pub fn preload(&mut self) {
        let now = sys::mono_ns();
        let pids = lock(&self.registry).pids();
        for pid in pids {
            self.refreshed(pid, now);
        }
        self.publish_requests();
    }

    /// Tells the scanner where each target keeps its number of requests.
    fn publish_requests(&self) {
        let sources = self.spaces.iter();
        let sources = sources.filter_map(|(pid, space)| Some((*pid, space.request_pointer()?)));
        *lock(&self.shared.requests) = sources.collect();
    }

    fn refreshed(&mut self, pid: u32, now: u64) -> &mut Space {
        let space = self.spaces.entry(pid).or_default();
        if space.refresh(pid, now, &mut self.store)
            && let Some(unwinder) = &self.shared.interposed
        {
            unwinder.mapped(pid, space);
        }
        space
    }

    /// What went wrong so far, taken.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// What files could not be used.
    #[must_use]
    pub fn file_findings(&self) -> &[Finding] {
        self.store.findings()
    }

    /// What unwinding came to.
    #[must_use]
    pub fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Handles what is waiting. Returns whether there was anything.
    pub fn turn(&mut self) -> bool {
        self.side_events();
        self.count_losses();
        // Asked first: what is older was passed on before now.
        let now = self.shared.event_now();
        let horizon = self.shared.switches.as_ref().map_or(0, |s| s.horizon(now));
        let mut any = self.take_switches();
        let mut emptied = false;
        for _ in 0..BATCH {
            let Some(slot) = self.shared.full.pop() else {
                emptied = true;
                break;
            };
            any = true;
            // The code below is written not to panic; a sample of a hostile target must not be
            // the proof that ends the capture.
            if catch_unwind(AssertUnwindSafe(|| self.sample(&slot))).is_err() {
                self.quality.panicked += 1;
            }
            self.shared.recycle(slot);
        }
        // A stack that is not unwound yet would miss its switch.
        if let Some(waits) = &mut self.waits
            && (emptied || waits.is_crowded())
        {
            let ended = waits.settle(horizon);
            self.record_waits(ended);
        }
        self.prune();
        any
    }

    fn window(&self) -> WaitWindow {
        WaitWindow {
            start: self.shared.start_time.load(Relaxed),
            end: self.shared.stop_time.load(Relaxed),
        }
    }

    fn take_switches(&mut self) -> bool {
        let window = self.window();
        match (&mut self.waits, &self.shared.switches) {
            (Some(waits), Some(channel)) => waits.take(channel, window),
            _ => false,
        }
    }

    fn record_waits(&mut self, ended: Vec<Wait<Waiting>>) {
        let window = self.window();
        // Most have no stack where switches are thinned, and nothing to write down.
        for wait in ended.into_iter().filter(|wait| wait.weight > 0) {
            let mut series = None;
            let mut since = 0;
            // It waited already when it was first looked at.
            if wait.stack.is_none() && wait.from == 0 {
                let first = lock(&self.registry).first_seen(wait.pid);
                since = first.map_or(0, |mono| mono.wrapping_add(self.shared.clock_offset));
                series = self.series_of(wait.pid, wait.tid);
            }
            if let Some(waits) = &mut self.waits {
                waits.record(&mut lock(&self.recorder), wait, since, series, window);
            }
        }
    }

    /// The end: what is open ends with the capture. The account, what was written down, and the
    /// threads of targets that were never seen; none where no waits were measured.
    pub fn finish_waits(&mut self) -> Option<(WaitTotals, Recorded, u64)> {
        let end = self.window().end;
        let waits = self.waits.as_mut()?;
        let mut unseen = 0;
        for pid in lock(&self.registry).pids() {
            let threads = proc::threads(pid);
            unseen += threads.iter().filter(|&&tid| !waits.knows(tid)).count() as u64;
        }
        let ended = waits.finish(end);
        self.record_waits(ended);
        let (totals, recorded) = self.waits.as_ref()?.totals();
        Some((totals, recorded, unseen))
    }

    fn bin(&self, time: u64) -> u32 {
        let start = self.shared.start_time.load(Relaxed);
        u32::try_from(time.saturating_sub(start) / 1_000_000_000).unwrap_or(0)
    }

    fn side_events(&mut self) {
        while let Some(event) = self.shared.side.pop() {
            match event {
                SideEvent::Mapped(pid) => {
                    if let Some(space) = self.spaces.get_mut(&pid) {
                        space.mark_dirty();
                    }
                }
                SideEvent::Exec(pid, _) => {
                    self.spaces.entry(pid).or_default().forget();
                    self.forget_threads(pid);
                    lock(&self.registry).hint(pid);
                }
                SideEvent::Named(pid, tid) => {
                    self.threads.remove(&(pid, tid));
                }
                SideEvent::Forked(_, child) => lock(&self.registry).hint(child),
                SideEvent::Exited(pid, time) => {
                    let mono = time.wrapping_sub(self.shared.clock_offset);
                    lock(&self.registry).end(pid, mono);
                    self.shared.targets.set(pid, false);
                    self.forget_threads(pid);
                }
            }
        }
        if self.shared.losses.side_lost.swap(0, Relaxed) > 0 {
            self.spaces.values_mut().for_each(Space::mark_dirty);
        }
    }

    fn forget_threads(&mut self, pid: u32) {
        self.threads.retain(|key, _| key.0 != pid);
        self.series.retain(|key, _| key.0 != pid);
    }

    fn count_losses(&mut self) {
        let losses = &self.shared.losses;
        let dropped = losses.dropped_full.load(Relaxed) + losses.dropped_late.load(Relaxed);
        let now = [
            losses.lost.load(Relaxed),
            losses.throttled.load(Relaxed),
            dropped,
        ];
        if now == self.counted || self.shared.start_time.load(Relaxed) == u64::MAX {
            return;
        }
        let bin = self.bin(self.shared.event_now());
        let kinds = [
            CounterKind::Lost,
            CounterKind::Throttled,
            CounterKind::Dropped,
        ];
        let mut recorder = lock(&self.recorder);
        for ((kind, now), before) in kinds.into_iter().zip(now).zip(self.counted) {
            if now > before {
                recorder.count(CounterSource::Host, bin, kind, now - before);
            }
        }
        self.counted = now;
    }

    fn sample(&mut self, slot: &Slot) {
        let Some(bytes) = slot.record.get(..slot.length) else {
            return;
        };
        let Record::Sample(sample) = record::parse(bytes) else {
            self.shared
                .losses
                .damaged
                .fetch_add(slot.length as u64, Relaxed);
            return;
        };
        let stack = self.unwind(&sample, slot);
        let Some(series) = self.series_of(sample.pid, sample.tid) else {
            return;
        };
        let bin = self.bin(sample.time);
        let mut recorder = lock(&self.recorder);
        self.folder
            .fold(&mut recorder, sample.kernel_chain(), &stack, &mut self.ids);
        if stack.truncated {
            recorder.count(
                CounterSource::Series(series),
                bin,
                CounterKind::Truncated,
                1,
            );
        }
        if let (true, Some(unwinder)) = (self.paths.are_wanted(), &self.shared.interposed)
            && let Some(path) = unwinder.path(&slot.interposed)
        {
            let frame = self.paths.frame(&mut recorder, &path);
            self.ids.insert(0, frame);
        }
        if let Some(waits) = &mut self.waits {
            let symbols = self.folder.symbols();
            if self.event_wait.is(symbols, sample.kernel_chain(), &stack) {
                let marker = recorder.frame(&Frame::marker("[event loop]"));
                self.ids.insert(0, marker);
            }
            let frames = self.ids.as_slice().into();
            let waiting = Waiting { series, frames };
            waits.stack(sample.time, sample.pid, sample.tid, waiting);
            drop(recorder);
            return self.measure(slot, &stack);
        }
        let cpu_ns = self.steps.rounded(series, slot.period_ns);
        recorder.add_stack(series, bin, &self.ids, &[1, cpu_ns, 0]);
        drop(recorder);
        self.measure(slot, &stack);
    }

    fn unwind(&mut self, sample: &Sample<'_>, slot: &Slot) -> Stack {
        let Some(regs) = sample.regs else {
            return Stack::default();
        };
        let extension = slot.extension.as_deref().unwrap_or_default();
        let words = StackWords {
            start: regs.sp(),
            copy: sample.stack,
            extension: extension.get(..slot.extension_length).unwrap_or_default(),
        };
        let pid = sample.pid;
        let now = sys::mono_ns();
        self.refreshed(pid, now);
        let space = self.spaces.entry(pid).or_default();
        let stack = self
            .unwinder
            .unwind(pid, space, regs, words, &slot.interposed);
        let lost_its_way = stack.frames.iter().any(|f| matches!(f, Pc::Unknown));
        if lost_its_way && space.refresh_for_unknown(pid, now, &mut self.store) {
            if let Some(unwinder) = &self.shared.interposed {
                unwinder.mapped(pid, space);
            }
            return self
                .unwinder
                .unwind(pid, space, regs, words, &slot.interposed);
        }
        stack
    }

    fn series_of(&mut self, pid: u32, tid: u32) -> Option<SeriesId> {
        if self.threads.len() >= THREADS_MAX {
            self.threads.clear();
        }
        let read = || (proc::thread_name(pid, tid).unwrap_or_default(), None);
        let known = self.threads.entry((pid, tid)).or_insert_with(read);
        if let Some(id) = known.1 {
            return Some(id);
        }
        let thread = known.0.clone();
        let id = self.named_series(pid, &thread)?;
        if let Some(known) = self.threads.get_mut(&(pid, tid)) {
            known.1 = Some(id);
        }
        Some(id)
    }

    fn named_series(&mut self, pid: u32, thread: &str) -> Option<SeriesId> {
        let key = (pid, thread.to_owned());
        if let Some(&id) = self.series.get(&key) {
            return Some(id);
        }
        let process = lock(&self.registry).process(pid)?.clone();
        let thread_name = if thread.is_empty() {
            &process.comm
        } else {
            thread
        };
        let series = registry::series(&self.config, &self.mode, &process, thread_name);
        let id = lock(&self.recorder).series(&series);
        // A thread may take any number of names.
        if self.series.len() >= THREADS_MAX {
            self.series.clear();
        }
        self.series.insert(key, id);
        Some(id)
    }

    fn measure(&mut self, slot: &Slot, stack: &Stack) {
        let unknown_frames = self.folder.unknown_frames();
        self.quality.add(slot, stack, unknown_frames);
    }

    /// Once a second: forgets processes that are gone, and says which have too many mappings.
    fn prune(&mut self) {
        let now = sys::mono_ns();
        if now.saturating_sub(self.pruned_ns) < 1_000_000_000 {
            return;
        }
        self.pruned_ns = now;
        self.publish_requests();
        for (pid, space) in &mut self.spaces {
            if std::mem::take(&mut space.cut) {
                self.findings.push(Finding::new(
                    FindingCode::TargetTooBig,
                    format!("process {pid} has {} mappings", space.seen),
                ));
            }
        }
        if self.shared.full.is_empty() {
            let alive = lock(&self.registry).pids();
            self.spaces
                .retain(|pid, _| alive.binary_search(pid).is_ok());
            self.threads
                .retain(|key, _| alive.binary_search(&key.0).is_ok());
            self.series
                .retain(|key, _| alive.binary_search(&key.0).is_ok());
            if let Some(unwinder) = &self.shared.interposed {
                unwinder.retain(&|pid| alive.binary_search(&pid).is_ok());
            }
        }
        // Those that came since, so that their first samples are whole.
        let new: Vec<u32> = lock(&self.registry)
            .pids()
            .into_iter()
            .filter(|pid| !self.spaces.contains_key(pid))
            .collect();
        for pid in new {
            self.refreshed(pid, now);
        }
    }
}
