//! The targets and their windows, shared between the scanner and the unwinder (both normal
//! threads). In: what a scan found. Out: who is captured, since when, until when. Never: a pid
//! taken for the process that had it before.

use crate::cgroup::Groups;
use crate::config::NativeConfig;
use crate::cycle::Cycle;
use crate::proc::Seen;
use crate::process::{Role, Target, worker_numbers};
use model::finding::{Finding, FindingCode};
use model::profile::{Process, Series};
use std::collections::BTreeMap;

/// Ended processes whose windows are kept; more are only counted.
const ENDED_MAX: usize = 4096;
/// Ended processes that are remembered as such; the next scan no longer finds them.
const EXITED_MAX: usize = 4096;
/// A clock tick in /proc: `USER_HZ` is 100 on every architecture.
const TICK_NS: u64 = 10_000_000;

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
    /// Its control groups when it was first a target.
    pub groups: Groups,
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
    cycles: BTreeMap<Option<u32>, Cycle>,
    /// Processes that the kernel said have ended, with their start.
    exited: BTreeMap<u32, u64>,
    /// `CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`.
    pub boot_ahead_ns: u64,
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
        let new_workers: Vec<&Target> = targets
            .iter()
            .filter(|t| t.role == Role::Worker && !self.is_over(t.pid, seen))
            .filter(|t| !self.alive.contains_key(&t.pid) || ended.contains(&t.pid))
            .collect();
        if armed {
            self.notice_replaced(&ended, &new_workers, now_ns);
        }
        for pid in ended {
            // When it was seen last; that it is gone was noticed only now.
            let last_ns = self
                .alive
                .get(&pid)
                .map_or(now_ns, |t| t.window.last_mono_ns);
            self.remove(pid, last_ns, now_ns);
            gone.push(pid);
        }
        if armed {
            self.notice_reloads(&new_workers, seen, now_ns);
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
            let generation = self.cycles.get(&target.master).map_or(0, |c| c.generation);
            let generation = if target.role == Role::Worker {
                generation
            } else {
                0
            };
            if self.is_over(target.pid, seen) {
                continue;
            }
            let groups = &process.groups;
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
                groups: groups.clone().unwrap_or_default(),
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

    /// Workers that came, each in the place of one that ended or as part of a reload.
    fn notice_reloads(&mut self, came: &[&Target], seen: &BTreeMap<u32, Seen>, now_ns: u64) {
        for target in came {
            let Some(process) = seen.get(&target.pid) else {
                continue;
            };
            let start_ns = process.start_ticks.saturating_mul(TICK_NS);
            let start_ns = start_ns.saturating_sub(self.boot_ahead_ns);
            let of_master = |t: &&Tracked| t.master == target.master && t.role == Role::Worker;
            let old = self.alive.values().filter(of_master).count();
            let begun = || match old {
                0 => Cycle::begun(now_ns),
                _ => Cycle::default(),
            };
            let cycle = self.cycles.entry(target.master).or_insert_with(begun);
            if cycle.came(start_ns, now_ns) {
                let new = came.iter().filter(|t| t.master == target.master).count();
                self.tell_reload(format!(
                    "{new} of the new workers of the master {} came while {old} old ones were there",
                    target.master.unwrap_or(0)
                ));
            }
        }
    }

    /// Workers that were all replaced between two looks: which of them ended first is not known.
    fn notice_replaced(&mut self, ended: &[u32], came: &[&Target], now_ns: u64) {
        let mut masters: BTreeMap<Option<u32>, (usize, usize)> = BTreeMap::new();
        for (pid, tracked) in &self.alive {
            let cycle = self.cycles.get(&tracked.master).map_or(0, |c| c.generation);
            if tracked.role == Role::Worker && tracked.window.process.generation == cycle {
                let counts = masters.entry(tracked.master).or_default();
                counts.0 += 1;
                counts.1 += usize::from(ended.contains(pid));
            }
        }
        for (master, (all, gone)) in masters {
            let new = came.iter().filter(|t| t.master == master).count();
            if all >= 2 && gone == all && new >= all {
                self.cycles.entry(master).or_default().reloaded(now_ns);
                self.tell_reload(format!(
                    "all {all} workers of the master {} were replaced by {new} between two looks (a reload, or all ended at once)",
                    master.unwrap_or(0)
                ));
            }
        }
    }

    fn tell_reload(&mut self, evidence: String) {
        self.findings
            .push(Finding::new(FindingCode::TargetReloaded, evidence));
    }

    /// A process ended.
    pub fn end(&mut self, pid: u32, now_ns: u64) {
        if let Some(tracked) = self.alive.get(&pid) {
            if self.exited.len() >= EXITED_MAX {
                self.exited.clear();
            }
            self.exited.insert(pid, tracked.window.process.start_ticks);
        }
        self.remove(pid, now_ns, now_ns);
    }

    /// Whether the process is over, whatever /proc may still show of it.
    fn is_over(&self, pid: u32, seen: &BTreeMap<u32, Seen>) -> bool {
        let ticks = seen.get(&pid).map(|s| s.start_ticks);
        self.exited
            .get(&pid)
            .copied()
            .is_some_and(|t| Some(t) == ticks)
    }

    /// A process ended by `now_ns`, and not before `last_ns`.
    fn remove(&mut self, pid: u32, last_ns: u64, now_ns: u64) {
        let Some(tracked) = self.alive.remove(&pid) else {
            return;
        };
        if tracked.role == Role::Worker && !tracked.is_leaving {
            let cycle = self.cycles.entry(tracked.master).or_default();
            cycle.ended(tracked.window.process.generation, last_ns);
        }
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
    fn a_worker_that_was_killed_is_replaced_and_that_is_no_reload() {
        let mut r = Registry::default();
        let all = [worker(10, false), worker(11, false)];
        r.update(&all, &seen(&[10, 11]), 1, false);
        r.end(10, 150_000_000);
        let now = [worker(11, false), worker(20, false)];
        r.update(&now, &seen(&[11, 20]), 250_000_000, true);
        let process = r.process(20).unwrap();
        assert_eq!((process.generation, process.worker), (0, Some(1)));
        assert_eq!(r.take_findings(), []);
        // Its parent has not asked for its status yet: it is no newcomer.
        let zombie = [worker(10, false), worker(11, false), worker(20, false)];
        let (came, gone) = r.update(&zombie, &seen(&[10, 11, 20]), 300_000_000, true);
        assert_eq!((came, gone), (vec![], vec![]));
        assert_eq!((r.ended_count(), r.take_findings().len()), (1, 0));
    }

    #[test]
    fn a_gateway_that_starts_during_a_capture_is_no_reload() {
        let mut r = Registry::default();
        r.update(&[worker(10, false)], &seen(&[10]), 1_000_000_000, true);
        let both = [worker(10, false), worker(11, false)];
        r.update(&both, &seen(&[10, 11]), 1_050_000_000, true);
        assert_eq!(r.take_findings(), []);
        // It starts at 8.5 s.
        let more = [worker(10, false), worker(11, false), worker(850, false)];
        r.update(&more, &seen(&[10, 11, 850]), 9_000_000_000, true);
        assert_eq!(r.take_findings().len(), 1);
    }

    #[test]
    fn two_workers_in_the_place_of_all_two_between_two_looks_are_a_reload() {
        let mut r = Registry::default();
        let old = [worker(10, false), worker(11, false)];
        r.update(&old, &seen(&[10, 11]), 1, false);
        let new = [worker(90, false), worker(91, false)];
        r.update(&new, &seen(&[90, 91]), 1_000_000_000, true);
        assert!(
            [90, 91]
                .iter()
                .all(|pid| r.process(*pid).unwrap().generation == 1)
        );
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
