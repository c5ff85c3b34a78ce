//! The scanning thread: who is a target now, and what CPU they used. In: /proc.
//! Out: the registry, the pid filter, counters. Never: more than a bounded share of a second, so
//! that 10,000 processes or 2,000 short-lived children do not matter.

use crate::capture::Shared;
use crate::cgroup::Groups;
use crate::config::{NativeConfig, Pick, TargetSelector};
use crate::drain::lock;
use crate::offcpu::{RateLook, STACKS_A_SECOND_MAX, strides, switches};
use crate::proc::{self, Seen};
use crate::process::{self, Target};
use crate::registry::{self, Registry};
use crate::requests::RequestMeter;
use crate::schedstat::CpuMeter;
use crate::sys;
use crate::tasks::TaskEvents;
use model::finding::{Finding, FindingCode};
use model::profile::{CounterKind, CounterSource, Recorder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Scans that a process is looked at whole after it was first seen: it may not have run its own
/// program yet.
const FRESH_SCANS: u8 = 3;
/// Every so many scans all processes are looked at whole.
const FULL_EVERY: u64 = 10;
/// Children that are looked at in one step between two scans.
const HINTS_A_STEP: usize = 32;
/// Time between two looks at the hints.
const STEP: Duration = Duration::from_millis(50);
const SECOND_NS: u64 = 1_000_000_000;
/// How long switches are counted before the first is sampled.
const LOOK: Duration = Duration::from_millis(200);

/// The thread's state.
#[derive(Debug)]
pub struct Scanner {
    config: Arc<NativeConfig>,
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    recorder: Arc<Mutex<Recorder>>,
    mode: String,
    seen: BTreeMap<u32, Seen>,
    scans: BTreeMap<u32, u8>,
    rounds: u64,
    chosen: BTreeSet<u32>,
    meter: CpuMeter,
    metered_ns: u64,
    requests: RequestMeter,
    armed: bool,
    tasks: Option<TaskEvents>,
    look: RateLook,
}

impl Scanner {
    /// A scanner that has not looked yet.
    #[must_use]
    pub fn new(
        config: Arc<NativeConfig>,
        shared: Arc<Shared>,
        registry: Arc<Mutex<Registry>>,
        recorder: Arc<Mutex<Recorder>>,
    ) -> Self {
        Self {
            config,
            shared,
            registry,
            recorder,
            mode: String::new(),
            seen: BTreeMap::new(),
            scans: BTreeMap::new(),
            rounds: 0,
            chosen: BTreeSet::new(),
            meter: CpuMeter::default(),
            metered_ns: 0,
            requests: RequestMeter::default(),
            armed: false,
            tasks: None,
            look: RateLook::default(),
        }
    }

    /// The mode that stands in the series, and the events of single tasks where there are such.
    pub fn arm(&mut self, mode: &str, tasks: Option<TaskEvents>) {
        mode.clone_into(&mut self.mode);
        self.tasks = tasks;
        self.armed = true;
        let pids = lock(&self.registry).pids();
        if self.tasks.as_ref().is_some_and(TaskEvents::are_switches) {
            // A look before the first event: how often the targets are switched.
            self.look.look(counts(&pids), sys::mono_ns());
            std::thread::park_timeout(LOOK);
            self.stride(&pids);
        }
        if let Some(tasks) = &mut self.tasks {
            for pid in pids {
                tasks.attach(pid, self.seen.get(&pid).map_or(0, |s| s.parent));
            }
        }
    }

    /// Brings the strides of switch events up to date with how often each process is switched.
    fn stride(&mut self, pids: &[u32]) {
        if let Some(tasks) = self.tasks.as_mut().filter(|t| t.are_switches()) {
            let rates = self.look.look(counts(pids), sys::mono_ns());
            tasks.stride(strides(
                &rates,
                tasks.cpus(),
                STACKS_A_SECOND_MAX,
                self.rounds,
            ));
        }
    }

    /// Threads that could not be attached to, and why; and whether none could.
    #[must_use]
    pub fn task_failures(&self) -> Option<(u64, String, bool)> {
        let tasks = self.tasks.as_ref()?;
        let (count, why) = tasks.failed.clone()?;
        Some((count, why, tasks.is_empty()))
    }

    /// Looks at all processes and brings registry and filter up to date.
    pub fn scan(&mut self) {
        let only_pids = self
            .config
            .targets
            .iter()
            .all(|t| matches!(t, TargetSelector::Pid(_)));
        let pids: Vec<u32> = if only_pids {
            let pid = |t: &TargetSelector| {
                if let TargetSelector::Pid(p) = t {
                    Some(*p)
                } else {
                    None
                }
            };
            self.config.targets.iter().filter_map(pid).collect()
        } else {
            proc::pids()
        };
        let full = self.rounds.is_multiple_of(FULL_EVERY);
        self.rounds += 1;
        let present: BTreeSet<u32> = pids.iter().copied().collect();
        self.seen.retain(|pid, _| present.contains(pid));
        self.scans.retain(|pid, _| present.contains(pid));
        let targets: BTreeSet<u32> = lock(&self.registry).pids().into_iter().collect();
        for pid in pids {
            let scans = self.scans.entry(pid).or_insert(0);
            let fresh = *scans < FRESH_SCANS;
            *scans = scans.saturating_add(1);
            // A pid may be used again, so a known target is looked at each time.
            if full || fresh || targets.contains(&pid) {
                self.look(pid);
            }
        }
        if only_pids {
            self.look_at_parents();
        }
        self.settle();
    }

    /// Where targets are named by pid alone, also at the parents of gateways: a worker is one by whose child it is.
    fn look_at_parents(&mut self) {
        let gateways = self.seen.values().filter(|seen| process::is_gateway(seen));
        let parents: BTreeSet<u32> = gateways.map(|gateway| gateway.parent).collect();
        for pid in parents {
            if !self.seen.contains_key(&pid) {
                self.look(pid);
            }
        }
    }

    fn look(&mut self, pid: u32) {
        match proc::look(pid) {
            Some(mut seen) => {
                let by_group = |t: &TargetSelector| matches!(t, TargetSelector::Group(_));
                if self.config.targets.iter().any(by_group) {
                    seen.groups = Some(Groups::read(pid));
                }
                self.seen.insert(pid, seen)
            }
            None => self.seen.remove(&pid),
        };
    }

    /// Looks at children of targets that were just made. Returns whether there were any.
    fn follow_hints(&mut self) -> bool {
        let hints: Vec<u32> = {
            let mut registry = lock(&self.registry);
            let n = registry.hints.len().min(HINTS_A_STEP);
            registry.hints.drain(..n).collect()
        };
        for &pid in &hints {
            self.look(pid);
        }
        let is_gateway = |pid: &u32| self.seen.get(pid).is_some_and(process::is_gateway);
        if hints.iter().any(is_gateway) {
            // Whose place a new worker takes is only known when who is gone is.
            let targets: Vec<u32> = self.chosen.iter().copied().collect();
            for pid in targets.into_iter().filter(|pid| !hints.contains(pid)) {
                self.look(pid);
            }
        }
        if !hints.is_empty() {
            self.settle();
        }
        !hints.is_empty()
    }

    fn settle(&mut self) {
        let targets = process::find(&self.config.targets, &self.seen);
        let targets = self.picked(targets);
        self.chosen = targets.iter().map(|t| t.pid).collect();
        // Where newcomers run; it hardly ever changes, and is in no other file that is read anyway.
        let known: BTreeSet<u32> = lock(&self.registry).pids().into_iter().collect();
        for pid in self.chosen.difference(&known) {
            if let Some(seen) = self.seen.get_mut(pid) {
                seen.groups.get_or_insert_with(|| Groups::read(*pid));
            }
        }
        let now = sys::mono_ns();
        let (came, gone) = {
            let mut registry = lock(&self.registry);
            registry.boot_ahead_ns = sys::boot_ns().saturating_sub(now);
            registry.update(&targets, &self.seen, now, self.armed)
        };
        for pid in gone {
            self.shared.targets.set(pid, false);
            if let Some(tasks) = &mut self.tasks {
                tasks.detach(pid);
            }
        }
        for pid in came {
            self.shared.targets.set(pid, true);
            if let Some(tasks) = &mut self.tasks {
                tasks.attach(pid, self.seen.get(&pid).map_or(0, |s| s.parent));
            }
        }
    }

    fn picked(&self, targets: Vec<Target>) -> Vec<Target> {
        let Pick::Busiest(n) = self.config.pick else {
            return process::pick(self.config.pick, targets, &self.chosen, &|_| 0);
        };
        // By CPU over a quarter of a second; only when there is something to decide.
        let kept = targets
            .iter()
            .filter(|t| !t.is_leaving && self.chosen.contains(&t.pid));
        let undecided = kept.count() < n && targets.len() > n;
        let mut cpu: BTreeMap<u32, u64> = BTreeMap::new();
        if undecided {
            let before: Vec<(u32, u64)> = targets
                .iter()
                .map(|t| (t.pid, proc::cpu_ns(t.pid)))
                .collect();
            std::thread::park_timeout(Duration::from_millis(250));
            for (pid, before) in before {
                cpu.insert(pid, proc::cpu_ns(pid).saturating_sub(before));
            }
        }
        let ranked = |pid: u32| cpu.get(&pid).copied().unwrap_or(0);
        process::pick(self.config.pick, targets, &self.chosen, &ranked)
    }

    /// CPUs that the targets' threads may run on; all that are online when there is no target yet
    /// or others may come.
    #[must_use]
    pub fn cpus(&self) -> Vec<usize> {
        let online = proc::online_cpus();
        let fixed = self
            .config
            .targets
            .iter()
            .all(|t| matches!(t, TargetSelector::Pid(_)));
        if !fixed {
            return online;
        }
        let mut allowed = BTreeSet::new();
        for pid in lock(&self.registry).pids() {
            for tid in proc::threads(pid) {
                allowed.extend(sys::affinity(tid));
            }
        }
        let cpus: Vec<usize> = online
            .iter()
            .copied()
            .filter(|c| allowed.contains(c))
            .collect();
        if cpus.is_empty() { online } else { cpus }
    }

    /// Scans and counts each second until told to stop.
    pub fn run(&mut self) {
        let stopped = |shared: &Shared| shared.stop.load(Relaxed);
        let start = loop {
            let start = self.shared.start_time.load(Relaxed);
            if stopped(&self.shared) {
                return;
            }
            let now = self.shared.event_now();
            if start != u64::MAX && now >= start.saturating_sub(2_000_000) {
                break start;
            }
            let wait = start
                .saturating_sub(now)
                .saturating_sub(1_000_000)
                .min(20_000_000);
            std::thread::park_timeout(Duration::from_nanos(wait));
        };
        if let Some(tasks) = &mut self.tasks {
            tasks.enable();
        }
        let mono_start = start.wrapping_sub(self.shared.clock_offset);
        self.meter(mono_start, mono_start, true);
        let mut next = mono_start + SECOND_NS;
        while !stopped(&self.shared) {
            let now = sys::mono_ns();
            if now >= next {
                self.meter(mono_start, now, false);
                self.scan();
                let pids = lock(&self.registry).pids();
                self.stride(&pids);
                // A newcomer's first reading is its baseline.
                next = (next + SECOND_NS).max(sys::mono_ns());
            } else {
                self.follow_hints();
                std::thread::park_timeout(STEP.min(Duration::from_nanos(next - now)));
            }
        }
        self.meter(mono_start, sys::mono_ns(), true);
        self.say_unless_counted();
    }

    /// A gateway without a counter has no denominator, which nobody should have to find out later.
    fn say_unless_counted(&self) {
        let mut registry = lock(&self.registry);
        if let Some(why) = self.requests.why_uncounted()
            && self.config.count_requests
            && registry.has_gateway()
        {
            registry.note(Finding::new(FindingCode::RequestsUnknown, why));
        }
    }

    fn meter(&mut self, start: u64, now: u64, all: bool) {
        let pids = lock(&self.registry).pids();
        let used = self.meter.read(&pids, all);
        let before = std::mem::replace(&mut self.metered_ns, now).max(start);
        let middle = before + now.saturating_sub(before) / 2;
        let bin = u32::try_from(middle.saturating_sub(start) / SECOND_NS).unwrap_or(0);
        let requests = if self.config.count_requests {
            let sources = lock(&self.shared.requests).clone();
            self.requests.read(&sources)
        } else {
            0
        };
        if requests > 0 {
            let mut recorder = lock(&self.recorder);
            recorder.count(CounterSource::Host, bin, CounterKind::Requests, requests);
        }
        for used in used {
            let Some(process) = lock(&self.registry).process(used.pid).cloned() else {
                continue;
            };
            let series = registry::series(&self.config, &self.mode, &process, &used.thread);
            let mut recorder = lock(&self.recorder);
            let source = CounterSource::Series(recorder.series(&series));
            recorder.count(source, bin, CounterKind::CpuNs, used.cpu_ns);
            recorder.count(source, bin, CounterKind::RunQueueNs, used.wait_ns);
        }
    }
}

/// Switches and threads of each process, read as they are asked for.
fn counts(pids: &[u32]) -> impl Iterator<Item = (u32, (u64, usize))> + '_ {
    pids.iter().map(|&pid| (pid, switches(pid)))
}
