//! The engine: arm, start, stop. In: a [`NativeConfig`] and a recorder. Out: rows in the recorder
//! and a [`NativeSummary`]. Never: a thread, descriptor or mapping left behind by `stop` or drop.

use crate::arming::{self, CpuThread};
use crate::capture::Shared;
use crate::clock::ClockOffset;
use crate::config::NativeConfig;
use crate::drain::{Drain, lock};
use crate::luajit::LuaJit;
use crate::mode::Mode;
use crate::offcpu;
use crate::proc;
use crate::registry::{Registry, Window};
use crate::scan::Scanner;
use crate::summary::NativeSummary;
use crate::sys;
use model::finding::{Finding, FindingCode};
use model::profile::Recorder;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A sampler that is ready, and what it found on the way.
#[derive(Debug)]
pub struct Armed(pub Sampler, pub Vec<Finding>);

/// A capture. Dropping it stops it.
#[derive(Debug)]
pub struct Sampler {
    pub(crate) mode: Mode,
    pub(crate) clock: ClockOffset,
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Mutex<Registry>>,
    pub(crate) cpu_threads: Vec<CpuThread>,
    pub(crate) drain: Option<JoinHandle<(Drain, u64)>>,
    pub(crate) scanner: Option<JoinHandle<u64>>,
    pub(crate) drain_stop: Arc<AtomicBool>,
    pub(crate) found: Arc<Mutex<Vec<Finding>>>,
    pub(crate) own_threads: Arc<Mutex<Vec<u32>>>,
    pub(crate) started_mono_ns: u64,
    pub(crate) told: Vec<Finding>,
}

impl Sampler {
    /// Opens events and rings, starts the threads, finds the targets and reads their ELF files.
    /// Nothing is sampled before [`Sampler::start_at`].
    ///
    /// # Errors
    /// A finding when nothing could be sampled: no permission, no such process.
    pub fn arm(config: NativeConfig, recorder: Arc<Mutex<Recorder>>) -> Result<Armed, Finding> {
        let lua = LuaJit::new(config.uri_segments > 0);
        arming::arm(config, recorder, Some(Arc::new(lua)))
    }

    /// Sampling begins at this instant of this process's `CLOCK_MONOTONIC` (nanoseconds), and
    /// second 0 with it; at once if it has passed. A second call has no effect.
    pub fn start_at(&mut self, mono_ns: u64) {
        if self.started_mono_ns != 0 {
            return;
        }
        self.started_mono_ns = mono_ns.max(sys::mono_ns());
        let start = self.started_mono_ns.wrapping_add(self.clock.offset_ns);
        self.shared.start_time.store(start, Relaxed);
        let normal = self.scanner.iter().map(|s| s.thread());
        self.cpu_threads
            .iter()
            .map(|t| t.handle.thread())
            .chain(normal)
            .for_each(|t| t.unpark());
    }

    /// The instant that sampling begins at, on this process's `CLOCK_MONOTONIC`; 0 before
    /// [`Sampler::start_at`].
    #[must_use]
    pub fn started_mono_ns(&self) -> u64 {
        self.started_mono_ns
    }

    /// How samples are taken.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How event time stands to our clock.
    #[must_use]
    pub fn clock(&self) -> ClockOffset {
        self.clock
    }

    /// Targets and their windows so far.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        lock(&self.registry).windows()
    }

    /// Findings since the last call.
    pub fn poll_findings(&mut self) -> Vec<Finding> {
        let mut new = std::mem::take(&mut *lock(&self.found));
        new.extend(lock(&self.registry).take_findings());
        self.told.extend(new.iter().cloned());
        new
    }

    /// CPU time of the sampler's threads so far, in nanoseconds.
    #[must_use]
    pub fn own_cpu_ns(&self) -> u64 {
        let own = lock(&self.own_threads);
        own.iter()
            .filter_map(|&tid| proc::schedstat(std::process::id(), tid))
            .map(|s| s.0)
            .sum()
    }

    /// Ends the capture: events are closed, what is queued is folded, the last counters are read.
    #[must_use]
    pub fn stop(mut self) -> NativeSummary {
        let mut summary = self.end();
        self.poll_findings();
        summary.findings.splice(0..0, self.told.drain(..));
        summary
    }

    fn end(&mut self) -> NativeSummary {
        let mut summary = NativeSummary {
            mode: self.mode.to_string(),
            started_mono_ns: self.started_mono_ns,
            stopped_mono_ns: sys::mono_ns(),
            ..NativeSummary::default()
        };
        let now = summary.stopped_mono_ns.wrapping_add(self.clock.offset_ns);
        self.shared.stop_time.store(now, Relaxed);
        self.shared.stop.store(true, Relaxed);
        // It reads the last counters, which should be of the same instant.
        if let Some(scanner) = &self.scanner {
            scanner.thread().unpark();
        }
        for thread in self.cpu_threads.drain(..) {
            thread.handle.thread().unpark();
            summary.own_cpu_ns += thread.handle.join().unwrap_or(0);
        }
        if let Some(scanner) = self.scanner.take() {
            summary.own_cpu_ns += scanner.join().unwrap_or(0);
        }
        self.drain_stop.store(true, Relaxed);
        let drained = self.drain.take().and_then(|d| d.join().ok());
        let losses = &self.shared.losses;
        summary.lost = losses.lost.load(Relaxed);
        summary.throttled = losses.throttled.load(Relaxed);
        summary.dropped_late = losses.dropped_late.load(Relaxed);
        summary.dropped_full = losses.dropped_full.load(Relaxed);
        if let Some((mut drain, cpu_ns)) = drained {
            summary.own_cpu_ns += cpu_ns;
            if let Some((totals, recorded, unseen)) = drain.finish_waits() {
                let thinned = losses.thinned.load(Relaxed);
                summary
                    .findings
                    .extend(offcpu::judge(&totals, &recorded, unseen, thinned));
                summary.waits = Some((totals, recorded));
            }
            let findings = drain.take_findings();
            summary.findings.extend(findings);
            summary
                .findings
                .extend(drain.file_findings().iter().cloned());
            let q = drain.quality();
            summary.samples = q.samples;
            summary.truncated = q.truncated;
            summary.user_stacks = q.user_stacks;
            summary.rooted = q.rooted;
            summary.user_frames = q.user_frames;
            summary.unknown_frames = q.unknown_frames;
            summary.depth_max = q.depth_max;
            summary.lua_stacks = q.lua_stacks;
            [summary.lua_segments, summary.lua_racy, summary.lua_failed] = q.lua_segments;
            summary.latency_ns = (q.latency.quantile(0.5), q.latency.quantile(0.99));
            summary.work_ns = (q.work.quantile(0.5), q.work.quantile(0.99));
            summary.findings.extend(drain.paths.finding(q.lua_stacks));
            if q.panicked > 0 {
                let evidence = format!("{} stacks could not be unwound", q.panicked);
                summary
                    .findings
                    .push(Finding::new(FindingCode::TargetFile, evidence));
            }
        }
        self.judge(&mut summary);
        summary
    }

    fn judge(&self, summary: &mut NativeSummary) {
        let registry = lock(&self.registry);
        summary.windows = registry.windows();
        for window in summary.windows.iter_mut().filter(|w| !w.ended) {
            window.last_mono_ns = summary.stopped_mono_ns;
        }
        let ended = registry.ended_count();
        if ended > 0 {
            let of = summary
                .windows
                .len()
                .max(usize::try_from(ended).unwrap_or(usize::MAX));
            let evidence = format!("{ended} of {of} target processes ended during the capture");
            summary
                .findings
                .push(Finding::new(FindingCode::TargetVanished, evidence));
        }
        let lost = summary.lost + summary.dropped_full;
        if lost + summary.throttled > 0 {
            let evidence = format!(
                "{} records lost by the kernel, throttled {} times, {} samples found no buffer",
                summary.lost, summary.throttled, summary.dropped_full
            );
            summary
                .findings
                .push(Finding::new(FindingCode::SamplesLost, evidence));
        }
        if summary.dropped_late > 0 {
            let evidence = format!("{} samples took over 1 ms", summary.dropped_late);
            summary
                .findings
                .push(Finding::new(FindingCode::SamplerSlow, evidence));
        }
        summary.findings.extend(summary.lua_finding());
        let damaged = self.shared.losses.damaged.load(Relaxed);
        if damaged > 0 {
            let evidence = format!("{damaged} bytes of perf records made no sense");
            summary
                .findings
                .push(Finding::new(FindingCode::SamplesLost, evidence));
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if self.drain.is_some() {
            self.end();
        }
    }
}

/// The unwinding thread looks again after this; the queue holds at least twice as much
/// (`budget::plan`).
const DRAIN_PAUSE: Duration = Duration::from_millis(25);

/// What the unwinding thread does until it is told to stop and nothing is left.
pub(crate) fn run_drain(drain: &mut Drain, stop: &AtomicBool, found: &Mutex<Vec<Finding>>) {
    loop {
        let ending = stop.load(Relaxed);
        let busy = drain.turn();
        let new = drain.take_findings();
        if !new.is_empty() {
            lock(found).extend(new);
        }
        if !busy {
            if ending {
                return;
            }
            std::thread::park_timeout(DRAIN_PAUSE);
        }
    }
}

/// What the scanning thread does.
pub(crate) fn run_scanner(scanner: &mut Scanner) {
    scanner.run();
}
