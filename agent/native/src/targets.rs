//! Targets for an engine that takes its stacks elsewhere: who they are, and what CPU they use.
//!
//! In: a [`NativeConfig`]'s selectors and pick. Out: who came and went, their identities, counters.
//! Never: a rule about targets that the sampler of this crate does not have: it is the same scanner.

use crate::arming::shared_state;
use crate::config::NativeConfig;
use crate::drain::lock;
use crate::registry::Registry;
use crate::scan::Scanner;
use crate::schedstat::CpuMeter;
use model::finding::Finding;
use model::profile::{Measure, Process, Recorder, RecorderLimits};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// CPU time and run-queue wait of the threads of one name since the reading before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUse {
    /// The process.
    pub process: Process,
    /// The threads' name.
    pub thread: String,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Time waiting for a CPU in nanoseconds.
    pub wait_ns: u64,
}

/// Watches the targets. Its calls read /proc and may take some milliseconds, the first with
/// `busiest` a quarter of a second.
#[derive(Debug)]
pub struct TargetWatch {
    scanner: Scanner,
    registry: Arc<Mutex<Registry>>,
    meter: CpuMeter,
}

impl TargetWatch {
    /// A watch that has not looked yet.
    #[must_use]
    pub fn new(config: NativeConfig) -> Self {
        let registry: Arc<Mutex<Registry>> = Arc::default();
        // The scanner samples nothing here, so it gets the smallest of everything.
        let recorder = Recorder::new(
            &config.host,
            Measure::samples_only(),
            RecorderLimits::default(),
        );
        let shared = Arc::new(shared_state(None, 0, None, None));
        let scanner = Scanner::new(
            Arc::new(config),
            shared,
            Arc::clone(&registry),
            Arc::new(Mutex::new(recorder)),
        );
        Self {
            scanner,
            registry,
            meter: CpuMeter::default(),
        }
    }

    /// From now on new workers may be a reload, which is noticed.
    pub fn arm(&mut self) {
        self.scanner.arm("", None);
    }

    /// Looks at all processes; who became a target, and who no longer is one.
    pub fn scan(&mut self) -> (Vec<u32>, Vec<u32>) {
        let before: BTreeSet<u32> = self.pids().into_iter().collect();
        self.scanner.scan();
        let after: BTreeSet<u32> = self.pids().into_iter().collect();
        (
            after.difference(&before).copied().collect(),
            before.difference(&after).copied().collect(),
        )
    }

    /// Targets that are alive, in order of pid.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.registry).pids()
    }

    /// The process, if it is a target; also one that ended.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Process> {
        lock(&self.registry).process(pid).cloned()
    }

    /// What the targets used since the last reading; the first one is the baseline. `all` reads
    /// every process whatever it costs.
    pub fn used(&mut self, all: bool) -> Vec<TargetUse> {
        let used = self.meter.read(&self.pids(), all);
        let registry = lock(&self.registry);
        let known = |pid| registry.process(pid).cloned();
        used.into_iter()
            .filter_map(|used| {
                Some(TargetUse {
                    process: known(used.pid)?,
                    thread: used.thread,
                    cpu_ns: used.cpu_ns,
                    wait_ns: used.wait_ns,
                })
            })
            .collect()
    }

    /// How many processes were targets, and how many of them ended.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let registry = lock(&self.registry);
        let ended = registry.ended_count();
        (registry.pids().len() as u64 + ended, ended)
    }

    /// What was noticed since the last call, such as reloads.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        lock(&self.registry).take_findings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TargetSelector;

    #[test]
    fn a_target_is_known_by_its_start_and_what_it_uses_is_counted_once() {
        let me = std::process::id();
        let mut watch = TargetWatch::new(NativeConfig {
            targets: vec![TargetSelector::Pid(me)],
            ..NativeConfig::default()
        });
        assert_eq!(watch.scan(), (vec![me], vec![]));
        assert_eq!(watch.scan(), (vec![], vec![]));
        assert!(watch.process(me).expect("self").start_ticks > 0);
        assert_eq!(watch.counts(), (1, 0));
        assert!(watch.used(true).is_empty(), "the first is the baseline");
        let begin = crate::sys::thread_cpu_ns();
        while crate::sys::thread_cpu_ns() - begin < 20_000_000 {
            std::hint::spin_loop();
        }
        let used: u64 = watch.used(true).iter().map(|u| u.cpu_ns).sum();
        assert!((15_000_000..10_000_000_000).contains(&used), "{used}");
    }
}
