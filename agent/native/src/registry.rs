//! The targets and their windows, shared between the scanner and the unwinder (both normal
//! threads). In: what a scan found. Out: who is captured, since when, until when. Never: a pid
//! taken for the process that had it before.

use crate::config::NativeConfig;
use crate::proc::Seen;
use crate::process::{Role, Target, is_reload, worker_numbers};
use model::finding::{Finding, FindingCode};
use model::profile::{Process, Series};
use std::collections::BTreeMap;

/// Ended processes whose windows are kept; more are only counted.
const ENDED_MAX: usize = 4096;
/// New workers within this time after a reload was noticed belong to it.
const RELOAD_WINDOW_NS: u64 = 5_000_000_000;

/// One process and when it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The process.
    pub process: Process,
    /// When it was first a target, in this process's `CLOCK_MONOTONIC` nanoseconds.
    pub first_mono_ns: u64,
    /// When it was last known to be one.
    pub last_mono_ns: u64,
    /// Whether it ended before the capture did.
    pub ended: bool,
}

#[derive(Debug)]
struct Tracked {
    window: Window,
    master: Option<u32>,
    role: Role,
    is_leaving: bool,
}

/// Who is captured.
#[derive(Debug, Default)]
pub struct Registry {
    alive: BTreeMap<u32, Tracked>,
    ended: Vec<Window>,
    ended_count: u64,
    /// Children of targets that should be looked at soon.
    pub hints: Vec<u32>,
    generations: BTreeMap<Option<u32>, (u32, u64)>,
    findings: Vec<Finding>,
}

/// Most hints that wait.
const HINTS_MAX: usize = 256;

impl Registry {
    /// Takes a scan's result. Returns who came and who went.
    pub fn update(
        &mut self,
        targets: &[Target],
        seen: &BTreeMap<u32, Seen>,
        now_ns: u64,
        armed: bool,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut gone = Vec::new();
        let still = |pid: u32, ticks: u64| {
            targets.iter().any(|t| t.pid == pid)
                && seen.get(&pid).is_some_and(|s| s.start_ticks == ticks)
        };
        let ended: Vec<u32> = self
            .alive
            .iter()
            .filter(|(pid, t)| !still(**pid, t.window.process.start_ticks))
            .map(|(pid, _)| *pid)
            .collect();
        // Before the old ones are taken out: whether the new ones are a reload.
        if armed {
            self.notice_reloads(targets, now_ns);
        }
        for pid in ended {
            self.end(pid, now_ns);
            gone.push(pid);
        }
        let mut came = Vec::new();
        for target in targets {
            let Some(process) = seen.get(&target.pid) else {
                continue;
            };
            if let Some(known) = self.alive.get_mut(&target.pid) {
                known.window.last_mono_ns = now_ns;
                known.is_leaving = target.is_leaving;
                continue;
            }
            let generation = self.generations.get(&target.master).map_or(0, |g| g.0);
            let generation = if target.role == Role::Worker {
                generation
            } else {
                0
            };
            let role = target.role.as_str().unwrap_or(&process.comm).to_owned();
            let process = Process {
                pid: target.pid,
                start_ticks: process.start_ticks,
                generation,
                comm: process.comm.clone(),
                role,
                worker: None,
            };
            let window = Window {
                process,
                first_mono_ns: now_ns,
                last_mono_ns: now_ns,
                ended: false,
            };
            let (master, role, is_leaving) = (target.master, target.role, target.is_leaving);
            self.alive.insert(
                target.pid,
                Tracked {
                    window,
                    master,
                    role,
                    is_leaving,
                },
            );
            came.push(target.pid);
        }
        self.number_workers(&came);
        (came, gone)
    }

    /// New workers get the numbers that follow from all workers of their generation; a number
    /// once given stays.
    fn number_workers(&mut self, came: &[u32]) {
        let workers: Vec<_> = self
            .alive
            .values()
            .filter(|t| t.role == Role::Worker)
            .map(|t| (t.window.process.pid, t.master, t.window.process.generation))
            .collect();
        let numbers = worker_numbers(&workers);
        for pid in came {
            if let (Some(tracked), Some(number)) = (self.alive.get_mut(pid), numbers.get(pid)) {
                tracked.window.process.worker = Some(*number);
            }
        }
    }

    fn notice_reloads(&mut self, targets: &[Target], now_ns: u64) {
        let mut by_master: BTreeMap<Option<u32>, (usize, usize, usize)> = BTreeMap::new();
        for target in targets.iter().filter(|t| t.role == Role::Worker) {
            let counts = by_master.entry(target.master).or_default();
            if self.alive.contains_key(&target.pid) {
                counts.1 += 1;
                counts.2 += usize::from(target.is_leaving);
            } else {
                counts.0 += 1;
            }
        }
        for (master, (new, old, leaving)) in by_master {
            let generation = self.generations.entry(master).or_default();
            let recent =
                generation.1 != 0 && now_ns.saturating_sub(generation.1) < RELOAD_WINDOW_NS;
            if is_reload(new, old, leaving) && !recent {
                *generation = (generation.0 + 1, now_ns);
                let master = master.unwrap_or(0);
                self.findings.push(Finding::new(
                    FindingCode::TargetReloaded,
                    format!(
                        "{new} new workers of the master {master}, {leaving} old ones are leaving"
                    ),
                ));
            }
        }
    }

    /// A process ended.
    pub fn end(&mut self, pid: u32, now_ns: u64) {
        let Some(tracked) = self.alive.remove(&pid) else {
            return;
        };
        let mut window = tracked.window;
        window.last_mono_ns = now_ns.max(window.first_mono_ns);
        window.ended = true;
        self.ended_count += 1;
        if self.ended.len() < ENDED_MAX {
            self.ended.push(window);
        }
    }

    /// A child of a target may be a target too.
    pub fn hint(&mut self, pid: u32) {
        if self.hints.len() < HINTS_MAX {
            self.hints.push(pid);
        }
    }

    /// The process, if it is a target; also one that ended a moment ago.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        let ended = || self.ended.iter().rev().find(|w| w.process.pid == pid);
        self.alive
            .get(&pid)
            .map(|t| &t.window)
            .or_else(ended)
            .map(|w| &w.process)
    }

    /// When the process was first a target, in `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub fn first_seen(&self, pid: u32) -> Option<u64> {
        let ended = || self.ended.iter().rev().find(|w| w.process.pid == pid);
        let window = self.alive.get(&pid).map(|t| &t.window).or_else(ended);
        window.map(|w| w.first_mono_ns)
    }

    /// Targets that are alive.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.alive.keys().copied().collect()
    }

    /// All windows, those of ended processes too.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        self.ended
            .iter()
            .chain(self.alive.values().map(|t| &t.window))
            .cloned()
            .collect()
    }

    /// How many ended.
    #[must_use]
    pub fn ended_count(&self) -> u64 {
        self.ended_count
    }

    /// Whether a gateway's process is, or was, a target.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        let ended = self.ended.iter().map(|w| w.process.role.as_str());
        let alive = self.alive.values().map(|t| t.window.process.role.as_str());
        ended.chain(alive).any(|role| role.starts_with("nginx: "))
    }

    /// Notes what somebody else found about the targets.
    pub fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Takes what was found since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }
}

/// The series of one thread name of one process.
#[must_use]
pub fn series(config: &NativeConfig, mode: &str, process: &Process, thread: &str) -> Series {
    Series {
        host: config.host.clone(),
        process: process.clone(),
        thread: thread.to_owned(),
        engine: "native".to_owned(),
        mode: mode.to_owned(),
        event: if config.is_off_cpu() {
            "context-switches".to_owned()
        } else {
            "cpu-clock".to_owned()
        },
        period_ns: if config.is_off_cpu() {
            0
        } else {
            config.period_ns()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pid: u32, is_leaving: bool) -> Target {
        Target {
            pid,
            role: Role::Worker,
            master: Some(1),
            is_leaving,
        }
    }

    fn seen(pids: &[u32]) -> BTreeMap<u32, Seen> {
        pids.iter()
            .map(|&pid| {
                (
                    pid,
                    Seen {
                        pid,
                        start_ticks: u64::from(pid),
                        ..Seen::default()
                    },
                )
            })
            .collect()
    }

    #[test]
    fn a_reload_begins_a_generation_once() {
        let mut r = Registry::default();
        r.update(
            &[worker(10, false), worker(11, false)],
            &seen(&[10, 11]),
            1,
            false,
        );
        let both = [worker(10, true), worker(11, true), worker(20, false)];
        let (came, gone) = r.update(&both, &seen(&[10, 11, 20]), 2_000_000_000, true);
        assert_eq!((came, gone), (vec![20], vec![]));
        let late = [worker(11, true), worker(20, false), worker(21, false)];
        r.update(&late, &seen(&[11, 20, 21]), 3_000_000_000, true);
        let generation = |pid| r.process(pid).map(|p| (p.generation, p.worker));
        assert_eq!(generation(11), Some((0, Some(1))));
        assert_eq!(generation(20), Some((1, Some(0))));
        assert_eq!(generation(21), Some((1, Some(1))));
        assert_eq!(generation(10), Some((0, Some(0))), "ended, still known");
        assert_eq!(r.take_findings().len(), 1);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut r = Registry::default();
        r.update(&[worker(10, false)], &seen(&[10]), 1, false);
        let mut other = seen(&[10]);
        other.get_mut(&10).expect("there").start_ticks = 99;
        let (came, gone) = r.update(&[worker(10, false)], &other, 5, true);
        assert_eq!((came, gone), (vec![10], vec![10]));
        assert_eq!(r.windows().len(), 2);
        assert!(r.windows()[0].ended && r.ended_count() == 1);
    }
}
