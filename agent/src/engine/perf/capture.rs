//! A capture's life: arm, start, watch over it each second, end.
//!
//! In: targets, and how they are sampled. Out: stacks, counters, findings. Never: a process counted by two perfs, or a new
//! worker that is missed without a word.
//!
//! perf follows what its processes start, so the workers of a reloaded gateway come with their
//! master. A target that appears without such a parent gets a perf of its own, up to a bound.

use super::command::Sampling;
use super::pipeline::{Ended, Into, Pipeline};
use super::sources::{Sources, View};
use super::tool;
use crate::clock::Clock;
use crate::engine::Stopped;
use crate::engine::task::{Told, lock};
use crate::process::Processes;
use model::coverage::CaptureStats;
use model::profile::{CounterKind, CounterSource, Process};
use model::{Finding, FindingCode};
use native::{TargetUse, TargetWatch};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

const SECOND_NS: u64 = 1_000_000_000;
/// How often perf is asked for what it has. It sorts by time and gives what is older than the
/// answer before, so that a stack comes about one to two of these after it was taken.
const PING: Duration = Duration::from_millis(500);
/// Events are enabled this much early: what comes before the start is left out by its time.
const EARLY_NS: u64 = 5_000_000;
/// perfs at one time, for targets that come later.
const PIPELINES_MAX: usize = 8;
/// Such a perf is ready within this time. Meanwhile nothing else is looked after.
const LATE: Duration = Duration::from_secs(5);
/// Tries to attach when a process ends between being found and being attached to.
const TRIES: usize = 3;

/// Who is to be captured.
pub(super) struct Watch {
    pub targets: TargetWatch,
    /// Nobody can come later.
    pub only_pids: bool,
}

/// The task's state.
pub(super) struct Capture {
    perf: PathBuf,
    sampling: Sampling,
    into: Into,
    processes: Arc<Processes>,
    clock: Clock,
    pub told: Arc<Mutex<Told>>,
    /// None while it looks, on a thread that may block.
    watch: Option<TargetWatch>,
    sources: Arc<Mutex<Sources>>,
    pipelines: BTreeMap<usize, Pipeline>,
    next_number: usize,
    only_pids: bool,
    start_ns: u64,
    metered_ns: u64,
    rate_max: Option<i64>,
    cpu_ended_ns: u64,
    cpu_at_start_ns: u64,
    ended: Ended,
}

impl Capture {
    /// A capture that has opened nothing.
    pub(super) fn new(
        perf: PathBuf,
        sampling: Sampling,
        into: Into,
        (processes, clock): (Arc<Processes>, Clock),
        watch: Watch,
    ) -> Self {
        Self {
            perf,
            sampling,
            into,
            processes,
            clock,
            told: Arc::default(),
            watch: Some(watch.targets),
            sources: Arc::default(),
            pipelines: BTreeMap::new(),
            next_number: 0,
            only_pids: watch.only_pids,
            start_ns: 0,
            metered_ns: 0,
            rate_max: tool::rate_max(),
            cpu_ended_ns: 0,
            cpu_at_start_ns: 0,
            ended: Ended::default(),
        }
    }

    /// Finds the targets and starts a perf that holds their events, disabled.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn arm(&mut self) -> Result<Vec<Finding>, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut tries = 0;
        loop {
            tries += 1;
            self.scan().await;
            let pids = self.pids();
            if pids.is_empty() {
                let said = "no process matches the target";
                let finding = Finding::new(FindingCode::TargetNotFound, said);
                if self.only_pids {
                    return Err(vec![finding]);
                }
                findings.push(finding);
                break;
            }
            match self.open(&self.fitting(&pids, &mut findings)).await {
                Ok(()) => break,
                Err(why) => {
                    let is = |code| why.iter().any(|f| f.code == code);
                    if is(FindingCode::TargetNotFound) && tries < TRIES {
                        continue;
                    }
                    if is(FindingCode::ResourceLimit)
                        && let Some(smaller) = self.sampling.smaller()
                    {
                        self.sampling = smaller;
                        if tries == 1 {
                            findings.extend(why);
                        }
                        tries = tries.min(TRIES - 1);
                        continue;
                    }
                    return Err(why);
                }
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.arm();
        }
        Ok(findings)
    }

    fn pids(&self) -> Vec<u32> {
        self.watch.as_ref().map_or_else(Vec::new, TargetWatch::pids)
    }

    /// The processes for which perf can have events: one for each thread and CPU.
    fn fitting(&self, pids: &[u32], findings: &mut Vec<Finding>) -> Vec<u32> {
        let cpus = native::online_cpus().len();
        let max = tool::events_max();
        let mut events = 0;
        let fits = |pid: &&u32| {
            events += native::threads(**pid).len() * cpus;
            events <= max
        };
        let fitting: Vec<u32> = pids.iter().take_while(fits).copied().collect();
        if fitting.len() < pids.len() {
            let said = format!(
                "{} of {} processes: perf needs an event for each thread and each of {cpus} CPUs, and may have {max}",
                fitting.len(),
                pids.len()
            );
            findings.push(Finding::new(FindingCode::TargetUncovered, said));
        }
        fitting
    }

    async fn open(&mut self, pids: &[u32]) -> Result<(), Vec<Finding>> {
        let number = self.next_number;
        self.next_number += 1;
        let view = View(Arc::clone(&self.sources), number);
        let pipeline = Pipeline::open(
            &self.processes,
            &self.perf,
            (self.sampling, pids),
            self.into.clone(),
            view,
        )
        .await?;
        self.pipelines.insert(number, pipeline);
        Ok(())
    }

    /// Looks who is a target. Returns who came.
    async fn scan(&mut self) -> Vec<u32> {
        let Some(mut watch) = self.watch.take() else {
            return Vec::new();
        };
        let looked = tokio::task::spawn_blocking(move || {
            let (came, gone) = watch.scan();
            let processes: Vec<Process> =
                came.iter().filter_map(|pid| watch.process(*pid)).collect();
            (watch, processes, came, gone)
        });
        let Ok((mut watch, processes, came, gone)) = looked.await else {
            return Vec::new();
        };
        let findings = watch.take_findings();
        self.watch = Some(watch);
        self.tell(findings);
        lock(&self.sources).update(processes, &gone);
        came
    }

    fn tell(&self, findings: Vec<Finding>) {
        lock(&self.told).findings.extend(findings);
    }

    /// From armed to the end.
    pub(super) async fn run(
        mut self,
        started: oneshot::Receiver<u64>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Stopped {
        tokio::select! {
            Ok(start_ns) = started => self.start(start_ns, &mut stopped).await,
            _ = &mut stopped => {}
        }
        if self.start_ns != 0 {
            self.watch_over(&mut stopped).await;
        }
        self.finish().await
    }

    async fn start(&mut self, start_ns: u64, stopped: &mut oneshot::Receiver<()>) {
        let start_ns = start_ns.max(self.clock.now_ns());
        let wait = start_ns.saturating_sub(self.clock.now_ns() + EARLY_NS);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(wait)) => {}
            _ = stopped => return,
        }
        self.start_ns = start_ns;
        lock(&self.sources).opens(self.event_time(start_ns));
        self.cpu_at_start_ns = self.children_cpu_ns();
        for pipeline in self.pipelines.values_mut() {
            pipeline.say("enable").await;
        }
        self.meter(false).await;
        lock(&self.told).started_ns = Some(start_ns);
    }

    /// Perf's time of an instant of our clock. Only differences of it are used further on.
    fn event_time(&self, mono_ns: u64) -> u64 {
        mono_ns.saturating_add_signed(-tool::time_offset_ns())
    }

    async fn watch_over(&mut self, stopped: &mut oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING) => {}
                _ = &mut *stopped => return,
            }
            // Who is a target is known before the stacks come that were taken until now.
            let came = self.scan().await;
            tokio::select! {
                () = self.cover(came) => {}
                // The end does not wait for a perf that is just starting: dropped, it is killed.
                _ = &mut *stopped => return,
            }
            for pipeline in self.pipelines.values_mut() {
                pipeline.say("ping").await;
            }
            if self.clock.now_ns().saturating_sub(self.metered_ns) >= SECOND_NS {
                self.meter(false).await;
            }
            let cpu_ns = self.children_cpu_ns();
            lock(&self.told).children_cpu_ns = cpu_ns.saturating_sub(self.cpu_at_start_ns);
            if self.any_failed().await {
                let _ = stopped.await;
                return;
            }
        }
    }

    /// Whether a perf ended by itself although its processes live. The session is told and ends the
    /// capture.
    async fn any_failed(&mut self) -> bool {
        for pipeline in self.pipelines.values_mut() {
            if let Some(mut why) = pipeline.ended().await {
                let worst = why.iter().position(|f| f.code == FindingCode::EngineFailed);
                let first = why.swap_remove(worst.unwrap_or(0));
                self.tell(why);
                lock(&self.told).ended = Some(first);
                return true;
            }
        }
        let over: Vec<usize> = self
            .pipelines
            .iter()
            .filter(|(_, p)| !p.is_alive())
            .map(|(n, _)| *n)
            .collect();
        // perf ends when all its processes have; what they did is on its way to the recorder.
        for number in over {
            if let Some(pipeline) = self.pipelines.remove(&number) {
                self.settle(pipeline).await;
            }
        }
        false
    }

    /// Starts a further perf for new targets that no perf follows.
    async fn cover(&mut self, came: Vec<u32>) {
        let new = lock(&self.sources).unfollowed(&came);
        if new.is_empty() {
            return;
        }
        let said = if self.pipelines.len() >= PIPELINES_MAX {
            format!("{PIPELINES_MAX} perfs run already")
        } else {
            match tokio::time::timeout(LATE, self.open(&new)).await {
                Ok(Ok(())) => {
                    if let Some(pipeline) = self.pipelines.get_mut(&(self.next_number - 1)) {
                        pipeline.say("enable").await;
                    }
                    return;
                }
                // It ended before perf could attach: a short-lived child.
                Ok(Err(why)) if why.iter().any(|f| f.code == FindingCode::TargetNotFound) => return,
                Ok(Err(why)) => why.first().map_or_else(String::new, |f| f.evidence.clone()),
                Err(_) => format!("a further perf was not ready in {} s", LATE.as_secs()),
            }
        };
        let said = format!(
            "{} processes that came during the capture: {said}",
            new.len()
        );
        self.tell(vec![Finding::new(FindingCode::TargetUncovered, said)]);
    }

    /// What the targets used, by the kernel's own account.
    async fn meter(&mut self, all: bool) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        let read = tokio::task::spawn_blocking(move || {
            let used: Vec<TargetUse> = watch.used(all);
            (watch, used)
        });
        let Ok((watch, used)) = read.await else {
            return;
        };
        self.watch = Some(watch);
        let now = self.clock.now_ns();
        let before = std::mem::replace(&mut self.metered_ns, now).max(self.start_ns);
        let middle = before + now.saturating_sub(before) / 2;
        let bin = u32::try_from(middle.saturating_sub(self.start_ns) / SECOND_NS).unwrap_or(0);
        let mut recorder = lock(&self.into.recorder);
        for used in used {
            let series = self.into.taken.series(used.process, used.thread);
            let source = CounterSource::Series(recorder.series(&series));
            recorder.count(source, bin, CounterKind::CpuNs, used.cpu_ns);
            recorder.count(source, bin, CounterKind::RunQueueNs, used.wait_ns);
        }
    }

    fn children_cpu_ns(&mut self) -> u64 {
        let running: u64 = self.pipelines.values_mut().map(Pipeline::cpu_ns).sum();
        self.cpu_ended_ns + running
    }

    /// The end of one pipeline, into the account.
    async fn settle(&mut self, mut pipeline: Pipeline) {
        self.cpu_ended_ns += pipeline.cpu_ns();
        let ended = pipeline.finish().await;
        let (all, one) = (&mut self.ended.account, ended.account);
        all.samples += one.samples;
        all.others += one.others;
        all.lost = all.lost.saturating_add(one.lost);
        all.truncated += one.truncated;
        all.foreign += one.foreign;
        all.examples.extend(one.examples);
        all.other_event = all.other_event.take().or(one.other_event);
        self.ended.findings.extend(ended.findings);
    }

    /// Ends all perfs.
    pub(super) async fn finish_all(&mut self) {
        for (_, pipeline) in std::mem::take(&mut self.pipelines) {
            self.settle(pipeline).await;
        }
    }

    async fn finish(mut self) -> Stopped {
        let stopped_ns = self.clock.now_ns();
        lock(&self.sources).closes(self.event_time(stopped_ns));
        if self.start_ns != 0 {
            self.meter(true).await;
        }
        let cpu_ns = self.children_cpu_ns().saturating_sub(self.cpu_at_start_ns);
        self.finish_all().await;
        let counts = self.watch.as_ref().map_or((0, 0), TargetWatch::counts);
        let account = std::mem::take(&mut self.ended.account);
        let mut stats = CaptureStats {
            lost: account.lost,
            truncated: account.truncated,
            processes: u32::try_from(counts.0).unwrap_or(u32::MAX),
            mode: self.into.taken.mode.clone(),
            own_cpu_ns: cpu_ns,
            started_mono_ns: self.start_ns,
            stopped_mono_ns: stopped_ns,
            ..CaptureStats::default()
        };
        let mut findings = std::mem::take(&mut self.ended.findings);
        if account.lost > 0 && !findings.iter().any(|f| f.code == FindingCode::SamplesLost) {
            let said = format!("perf lost {} records", account.lost);
            findings.push(Finding::new(FindingCode::SamplesLost, said));
        }
        findings.extend(tool::throttled(self.rate_max, tool::rate_max(), &mut stats));
        if let Some(event) = &account.other_event {
            let said = format!("perf took {event}, {} was asked", self.into.taken.event);
            findings.push(Finding::new(FindingCode::PerfRestricted, said));
        }
        if counts.1 > 0 {
            let said = format!(
                "{} of {} target processes ended during the capture",
                counts.1, counts.0
            );
            findings.push(Finding::new(FindingCode::TargetVanished, said));
        }
        if account.foreign > 0 {
            let said = format!(
                "{} lines of perf script: {}",
                account.foreign,
                account.examples.join("; ")
            );
            findings.push(Finding::new(FindingCode::InputSkipped, said));
        }
        Stopped { stats, findings }
    }
}
