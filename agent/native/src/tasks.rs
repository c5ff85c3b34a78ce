//! Events of single threads, where a CPU-wide event is not permitted. In: processes. Out: their
//! events, sent into the rings of the sampler threads. Never: more descriptors than its bound.

use crate::attr::{self, EventPlan, Scope, Trigger};
use crate::{proc, sys};
use foldhash::HashMap;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// The events of all targets.
#[derive(Debug)]
pub struct TaskEvents {
    plan: EventPlan,
    /// For each CPU the event that holds its ring.
    rings: Vec<(usize, Arc<OwnedFd>)>,
    by_pid: HashMap<u32, Vec<OwnedFd>>,
    open: usize,
    open_max: usize,
    enabled: bool,
    /// Every how manyth switch of a process is sampled, where switches are.
    strides: BTreeMap<u32, u64>,
    /// Threads that could not be attached to, and why the last of them.
    pub failed: Option<(u64, String)>,
}

impl TaskEvents {
    /// No events yet; at most `open_max` descriptors.
    #[must_use]
    pub fn new(plan: EventPlan, rings: Vec<(usize, Arc<OwnedFd>)>, open_max: usize) -> Self {
        Self {
            plan,
            rings,
            by_pid: HashMap::default(),
            open: 0,
            open_max,
            enabled: false,
            strides: BTreeMap::new(),
            failed: None,
        }
    }

    /// Whether switches are sampled.
    #[must_use]
    pub fn are_switches(&self) -> bool {
        matches!(self.plan.trigger, Trigger::Switches(_))
    }

    /// CPUs that have a ring.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.rings.len()
    }

    /// Every how manyth switch of each process is sampled from now on. A process that is not named
    /// keeps its stride; one that comes later begins with the longest. Sampling a stride anew
    /// begins anywhere in what a program repeats.
    ///
    /// The kernel changes the period of the event itself and of what inherits from it later, but not of
    /// the copies that threads have inherited before (`_perf_event_period` in kernel/events/core.c goes
    /// to no child, unlike enabling). Such a thread keeps the stride with which it began until it ends.
    /// That costs time but no truth: each stack stands for the switches that were counted since the one
    /// before, and what is beyond a CPU's rate is left out by the sampler thread.
    pub fn stride(&mut self, strides: BTreeMap<u32, u64>) {
        for (pid, stride) in strides {
            let before = self.strides.insert(pid, stride);
            let fds = self.by_pid.get(&pid).map_or(&[][..], Vec::as_slice);
            if before != Some(stride) {
                for fd in fds {
                    // A thread that just ended cannot be changed, and need not.
                    let _ = sys::perf_period(fd, stride);
                }
            }
        }
    }

    fn plan_of(&self, pid: u32) -> EventPlan {
        let trigger = match self.plan.trigger {
            Trigger::Switches(_) => {
                let longest = || self.strides.values().copied().max();
                let own = self.strides.get(&pid).copied();
                Trigger::Switches(own.or_else(longest).unwrap_or(1))
            }
            clock @ Trigger::CpuClock(_) => clock,
        };
        EventPlan {
            trigger,
            ..self.plan
        }
    }

    /// Opens the events of a process; threads that it starts later inherit them. A child of
    /// `parent` has its parent's events already where a kernel cannot keep them to threads.
    pub fn attach(&mut self, pid: u32, parent: u32) {
        if self.enabled && !self.plan.features.inherit_thread && self.by_pid.contains_key(&parent) {
            self.by_pid.insert(pid, Vec::new());
            return;
        }
        let plan = self.plan_of(pid);
        let mut fds = Vec::new();
        let mut failures: Vec<String> = Vec::new();
        for tid in proc::threads(pid) {
            for (cpu, ring) in &self.rings {
                if self.open + fds.len() >= self.open_max {
                    failures.push("the limit of open files is reached".to_owned());
                    break;
                }
                let opened = attr::open_sampling(&plan, Scope::Task(tid, *cpu))
                    .and_then(|fd| sys::perf_set_output(&fd, ring.as_raw_fd()).map(|()| fd));
                match opened {
                    Ok(fd) => {
                        if self.enabled {
                            let _ = sys::perf_enable(&fd);
                        }
                        fds.push(fd);
                    }
                    Err(error) => failures.push(error.to_string()),
                }
            }
        }
        self.open += fds.len();
        self.by_pid.insert(pid, fds);
        if let Some(why) = failures.pop() {
            let count = self.failed.take().map_or(0, |f| f.0) + failures.len() as u64 + 1;
            self.failed = Some((count, why));
        }
    }

    /// Whether there is not a single event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Closes the events of a process.
    pub fn detach(&mut self, pid: u32) {
        self.strides.remove(&pid);
        self.open -= self
            .by_pid
            .remove(&pid)
            .map_or(0, |fds| fds.len())
            .min(self.open);
    }

    /// Starts all of them, and those that come later at once.
    pub fn enable(&mut self) {
        self.enabled = true;
        for fd in self.by_pid.values().flatten() {
            // A thread that just ended cannot be enabled, and need not.
            let _ = sys::perf_enable(fd);
        }
    }
}
