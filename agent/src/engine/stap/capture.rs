//! A capture's life: find, build or take a module, load, go, watch over it, end.
//!
//! In: an order. Out: stacks, counters, findings. Never: a second capture with SystemTap on the machine, or a module
//! that stays loaded.

use super::build::{self, Builder};
use super::diagnose::conclude;
use super::heap;
use super::module::{self, Module, Wanted};
use super::remedy::Settings;
use super::run::{Ear, Run};
use super::sizes::Sizes;
use super::stacks::{Stacks, Taken};
use super::tool::{self, Turn};
use super::vms;
use crate::clock::Clock;
use crate::engine::task::{Told, lock};
use crate::engine::{SharedRecorder, Stopped};
use crate::process::Processes;
use model::coverage::CaptureStats;
use model::profile::{CounterKind, CounterSource, Process};
use model::{Finding, FindingCode};
use native::{AddressNames, TargetUse, TargetWatch, VmPlace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

const SECOND_NS: u64 = 1_000_000_000;
/// How often it is looked after.
const LOOK: Duration = Duration::from_millis(500);

/// What an order comes to here.
pub(super) struct Plan {
    pub staprun: PathBuf,
    /// stap, its version, and its runtime where the policy names another; or why modules can only be loaded.
    pub translator: Result<(PathBuf, String, Option<PathBuf>), String>,
    pub wanted: Wanted,
    pub taken: Taken,
    /// What the next module is built with.
    pub settings: Settings,
    /// Of the whole capture.
    pub duration_ms: u64,
    /// The host's leave.
    pub may_be_unguarded: bool,
}

/// The task's state.
pub(super) struct Capture {
    pub(super) plan: Plan,
    pub(super) processes: Arc<Processes>,
    pub(super) clock: Clock,
    pub(super) recorder: SharedRecorder,
    pub(super) told: Arc<Mutex<Told>>,
    /// None while it looks, on a thread that may block.
    pub(super) watch: Option<TargetWatch>,
    /// Who is captured.
    pub(super) pids: BTreeMap<u32, Process>,
    pub(super) stacks: Option<Arc<Mutex<Stacks>>>,
    /// The module that is loaded, or being loaded: whoever ends the capture ends it.
    pub(super) run: Option<Run>,
    /// VMs of LuaJIT that the module knows.
    pub(super) told_vms: BTreeSet<VmPlace>,
    /// Sizes of the module that was loaded last.
    pub(super) used: Option<Sizes>,
    turn: Option<Turn>,
    pub(super) start_ns: u64,
    pub(super) metered_ns: u64,
    pub(super) cpu_at_start_ns: u64,
    /// Runs that SystemTap ended by itself.
    pub(super) earlier: Earlier,
    /// How long it took from the order to a loaded module, and of that to load it, in milliseconds.
    pub(super) armed_in_ms: u64,
    pub(super) loaded_in_ms: u64,
    /// Processes that came after the module was told who is captured.
    pub(super) late: u64,
}

/// What runs came to that are over.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) runs: u32,
    pub(super) findings: Vec<Finding>,
    pub(super) lost: u64,
    pub(super) cpu_ns: u64,
}

impl Capture {
    /// A capture that has loaded nothing; its turn has come.
    pub(super) fn new(
        plan: Plan,
        (processes, clock): (Arc<Processes>, Clock),
        recorder: SharedRecorder,
        watch: TargetWatch,
        turn: Turn,
    ) -> Self {
        Self {
            plan,
            processes,
            clock,
            recorder,
            told: Arc::default(),
            watch: Some(watch),
            pids: BTreeMap::new(),
            stacks: None,
            run: None,
            told_vms: BTreeSet::new(),
            used: None,
            turn: Some(turn),
            start_ns: 0,
            metered_ns: 0,
            cpu_at_start_ns: 0,
            earlier: Earlier::default(),
            armed_in_ms: 0,
            loaded_in_ms: 0,
            late: 0,
        }
    }

    /// Finds the targets and loads a module that captures nothing yet.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn arm(&mut self) -> Result<Vec<Finding>, Vec<Finding>> {
        let began_ns = self.clock.now_ns();
        self.scan().await;
        let mut findings = std::mem::take(&mut lock(&self.told).findings);
        if self.pids.is_empty() {
            // A module holds the unwind data of the files that its targets have mapped.
            let said = "no process matches the target, and a module is of the files of one";
            return Err(vec![Finding::new(FindingCode::TargetNotFound, said)]);
        }
        self.few_enough()?;
        let pids: Vec<u32> = self.pids.keys().copied().collect();
        let threads: usize = pids.iter().map(|pid| native::threads(*pid).len()).sum();
        let cpus = self.plan.wanted.demand.cpus;
        self.plan.wanted.demand.running = cpus.min(threads.max(1) as u64);
        let probe = self.plan.wanted.probe;
        let now_ns = self.clock.now_ns();
        let learned = tokio::task::spawn_blocking(move || {
            let mut names = AddressNames::new(probe.kernel);
            let mut images = BTreeMap::new();
            for pid in &pids {
                names.learn(*pid, now_ns);
            }
            if probe.copies && !pids.iter().any(|pid| names.has_luajit(*pid)) {
                return Err(vms::no_luajit(&pids));
            }
            // What is copied is unwound here, and its module is of no files.
            for pid in pids.into_iter().filter(|_| !probe.copies) {
                images.extend(names.images(pid).into_iter().map(|i| (i.path.clone(), i)));
            }
            let images: Vec<_> = images.into_values().collect();
            let heap = probe.heap.then(|| heap::of(&images).ok_or_else(heap::none));
            Ok((names, images, heap.transpose()?))
        });
        let (names, images, heap) = learned.await.map_err(|e| failed(&e.to_string()))??;
        self.plan.wanted.images = images;
        self.plan.wanted.heap = heap;
        let (module, more) = self.module().await?;
        findings.extend(more);
        findings.extend(module::told_of(&module));
        self.take(&module);
        let mut stacks = Stacks::new(Arc::clone(&self.recorder), self.plan.taken.clone(), names);
        for process in self.pids.values() {
            stacks.add(process.clone());
        }
        let stacks = Arc::new(Mutex::new(stacks));
        self.stacks = Some(Arc::clone(&stacks));
        let loading_ns = self.clock.now_ns();
        self.load(&module, stacks).await?;
        self.loaded_in_ms = self.clock.now_ns().saturating_sub(loading_ns) / 1_000_000;
        self.look().await;
        self.look_at_rate().await?;
        self.armed_in_ms = self.clock.now_ns().saturating_sub(began_ns) / 1_000_000;
        if let Some(watch) = &mut self.watch {
            watch.arm();
        }
        Ok(findings)
    }

    /// From now on stacks are as `module` takes them.
    pub(super) fn take(&mut self, module: &Module) {
        self.used = Some(module.sizes);
        let taken = &mut self.plan.taken;
        taken.slice_ms = module.sizes.slice_ms;
        taken.depth = usize::try_from(module.sizes.depth).unwrap_or(usize::MAX);
        taken.period_ns = self.plan.settings.period_ns;
        taken.one_in = self.plan.settings.one_in;
        taken.mode = format!("{} ({})", self.plan.wanted.probe.name, module.from);
    }

    /// A module: one that lies here, or else one that is built now.
    pub(super) async fn module(&self) -> Result<(Module, Vec<Finding>), Vec<Finding>> {
        let wanted = &self.plan.wanted;
        let folders = tool::folders(&wanted.kernel.0);
        let ready = module::find(&folders, wanted);
        let (stap, version, runtime) = match &self.plan.translator {
            Ok(translator) => translator,
            Err(none) => {
                return ready.map(|m| (m, Vec::new())).map_err(|why| {
                    let said = format!("{none}, and no module will do: {why}");
                    vec![Finding::new(FindingCode::StapKernelFiles, said)]
                });
            }
        };
        let ready = match ready {
            Ok(module) => match build::as_good_as_any(module, &wanted.images).await {
                Ok(module) => return Ok((module, Vec::new())),
                Err(module) => Ok(module),
            },
            Err(why) => Err(why),
        };
        let Some(sizes) = Sizes::of(wanted.demand, &wanted.bounds) else {
            let said = format!(
                "{} MiB are too little for SystemTap's arrays on {} CPUs",
                wanted.demand.memory_mb, wanted.demand.cpus
            );
            return Err(vec![Finding::new(FindingCode::ResourceLimit, said)]);
        };
        let builder = Builder {
            stap: stap.clone(),
            version: version.clone(),
            kernel: wanted.kernel.0.clone().into(),
            runtime: runtime.clone(),
            folder: PathBuf::from(module::FOLDER),
        };
        match build::build(&self.processes, &builder, wanted, &sizes).await {
            Ok(built) => Ok(built),
            Err(findings) => match ready {
                Ok(module) => Ok((module, findings)),
                Err(_) => Err(findings),
            },
        }
    }

    pub(super) async fn load(&mut self, module: &Module, ear: Ear) -> Result<(), Vec<Finding>> {
        let probe = self.plan.wanted.probe;
        let told = self.told_module();
        let loading = Run::load(&self.processes, &self.plan.staprun, module, &told, ear).await;
        let run = loading.map_err(|e| failed(&format!("staprun could not be started: {e}")))?;
        // From here on it is ended with the capture, even if nobody waits for what follows.
        let is_loaded = self.run.insert(run).is_loaded().await;
        if self.plan.wanted.unguarded {
            // It was for this capture alone.
            let _ = std::fs::remove_file(&module.file);
        }
        if !is_loaded && let Some(run) = self.run.take() {
            let ended = run.finish(&self.processes).await;
            let (_, mut findings) = conclude(&ended.ending, ended.diagnosis);
            findings.retain(|f| f.code != FindingCode::StapOutputCut);
            if findings.is_empty() {
                findings = failed("the module did not load, without a word");
            }
            return Err(findings);
        }
        let tell = |pid: &u32| {
            self.run
                .iter()
                .try_for_each(|run| run.tell(&format!("+{pid}")))
        };
        self.pids
            .keys()
            .filter(|_| !probe.events)
            .try_for_each(tell)
            .map_err(|e| failed(&format!("the module's control file: {e}")))?;
        self.told_vms.clear();
        self.tell_vms();
        Ok(())
    }

    /// Looks who is a target.
    async fn scan(&mut self) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        let looked = tokio::task::spawn_blocking(move || {
            let (came, gone) = watch.scan();
            let came: Vec<Process> = came.iter().filter_map(|pid| watch.process(*pid)).collect();
            (watch, came, gone)
        });
        let Ok((mut watch, came, gone)) = looked.await else {
            return;
        };
        lock(&self.told).findings.extend(watch.take_findings());
        self.watch = Some(watch);
        for pid in gone {
            self.pids.remove(&pid);
            if let Some(run) = &self.run {
                // The module may be gone; that is noticed elsewhere.
                let _ = run.tell(&format!("-{pid}"));
            }
        }
        for process in came {
            if let Some(stacks) = &self.stacks {
                lock(stacks).add(process.clone());
            }
            if let Some(run) = &self.run {
                let _ = run.tell(&format!("+{}", process.pid));
                self.late += u64::from(self.plan.wanted.probe.events);
            }
            self.pids.insert(process.pid, process);
        }
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
        let wait = start_ns.saturating_sub(self.clock.now_ns());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(wait)) => {}
            _ = stopped => return,
        }
        if let Some(run) = &mut self.run {
            self.cpu_at_start_ns = run.cpu_ns();
            if let Err(e) = run.tell("go") {
                let said = format!("the module's control file: {e}");
                lock(&self.told).ended = failed(&said).pop();
            }
        }
        self.start_ns = self.clock.now_ns();
        self.meter(false).await;
        lock(&self.told).started_ns = Some(self.start_ns);
    }

    async fn watch_over(&mut self, stopped: &mut oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = &mut *stopped => return,
            }
            self.scan().await;
            self.tell_vms();
            if self.clock.now_ns().saturating_sub(self.metered_ns) >= SECOND_NS {
                self.meter(false).await;
            }
            if let Some(stacks) = &self.stacks {
                let mut stacks = lock(stacks);
                stacks.at(self.clock.now_ns());
                if let Some(samples) = stacks.only_leaves() {
                    let said = format!("{samples} stacks in user space, each of one frame");
                    lock(&self.told).ended = Some(Finding::new(FindingCode::StapOneFrame, said));
                }
            }
            let has_ended = match &mut self.run {
                Some(run) => {
                    let cpu_ns = self.earlier.cpu_ns + run.cpu_ns();
                    lock(&self.told).children_cpu_ns = cpu_ns.saturating_sub(self.cpu_at_start_ns);
                    run.has_ended().await
                }
                None => true,
            };
            if has_ended {
                let goes_on = match self.next().await {
                    Some(next) => tokio::select! {
                        goes_on = self.climb(next) => goes_on,
                        _ = &mut *stopped => return,
                    },
                    None => false,
                };
                if !goes_on {
                    let said = "SystemTap ended before its time";
                    let ended = Finding::new(FindingCode::EngineFailed, said);
                    lock(&self.told).ended.get_or_insert(ended);
                    let _ = stopped.await;
                    return;
                }
            }
        }
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
        let mut recorder = lock(&self.recorder);
        for used in used {
            let series = self.plan.taken.series(&used.process, &used.thread);
            let source = CounterSource::Series(recorder.series(&series));
            recorder.count(source, bin, CounterKind::CpuNs, used.cpu_ns);
            recorder.count(source, bin, CounterKind::RunQueueNs, used.wait_ns);
        }
    }

    /// Ends what was loaded, where nothing was captured, and the turn. What could not be unloaded is told.
    pub(super) async fn abandon(&mut self) -> Vec<Finding> {
        let turn = self.turn.take();
        let (run, staprun) = (self.run.take(), self.plan.staprun.clone());
        let findings = abandon(run, staprun, &self.processes).await;
        drop(turn);
        findings
    }

    async fn finish(mut self) -> Stopped {
        let stopped_ns = self.clock.now_ns();
        if self.start_ns != 0 {
            self.meter(true).await;
        }
        let mut stats = CaptureStats {
            mode: self.plan.taken.mode.clone(),
            started_mono_ns: self.start_ns,
            stopped_mono_ns: stopped_ns,
            ..CaptureStats::default()
        };
        let counts = self.watch.as_ref().map_or((0, 0), TargetWatch::counts);
        stats.processes = u32::try_from(counts.0).unwrap_or(u32::MAX);
        match self.run.take() {
            Some(run) => {
                self.settle(run).await;
            }
            // A further try may have been cut off while it loaded a module.
            None => {
                let left = self.abandon().await;
                self.earlier.findings.extend(left);
            }
        }
        self.turn = None;
        stats.own_cpu_ns = self.earlier.cpu_ns.saturating_sub(self.cpu_at_start_ns);
        stats.lost = self.earlier.lost;
        let mut findings = std::mem::take(&mut self.earlier.findings);
        if let Some(stacks) = &self.stacks {
            let stacks = lock(stacks);
            stats.truncated = stacks.truncated;
            stats.lost = stats.lost.saturating_add(stacks.others);
            findings.extend(stacks.findings().iter().cloned());
            let (segments, said) = stacks.lua_segments();
            [stats.lua_segments, stats.lua_racy, stats.lua_failed] = segments;
            findings.extend(said);
        }
        findings.extend(self.told_of_events());
        if counts.1 > 0 {
            let said = format!(
                "{} of {} target processes ended during the capture",
                counts.1, counts.0
            );
            findings.push(Finding::new(FindingCode::TargetVanished, said));
        }
        Stopped { stats, findings }
    }
}

impl Drop for Capture {
    /// What is loaded is ended even where nobody waits for it any more, with the turn held until then.
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let (run, staprun) = (self.run.take(), self.plan.staprun.clone());
        let processes = Arc::clone(&self.processes);
        // Without a runtime the agent is at its end, and its keeper unloads.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                abandon(run, staprun, &processes).await;
                drop(turn);
            });
        }
    }
}

/// Ends a run; where there is none, staprun may have been killed while it loaded a module: with the turn held, whatever is
/// there is ours.
async fn abandon(run: Option<Run>, staprun: PathBuf, processes: &Processes) -> Vec<Finding> {
    if let Some(run) = run {
        return run.finish(processes).await.findings;
    }
    let left = tokio::task::spawn_blocking(move || tool::unload_left(&staprun)).await;
    left.unwrap_or_default()
}

pub(super) fn failed(why: &str) -> Vec<Finding> {
    vec![Finding::new(FindingCode::EngineFailed, why)]
}
