//! Events of single threads, where a CPU-wide event is not permitted. In: processes. Out: their
//! events, sent into the rings of the sampler threads. Never: more descriptors than its bound.

use crate::attr::{self, EventPlan, Scope};
use crate::{proc, sys};
use foldhash::HashMap;
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
            failed: None,
        }
    }

    /// Opens the events of a process; threads that it starts later inherit them.
    pub fn attach(&mut self, pid: u32) {
        let mut fds = Vec::new();
        let mut failures: Vec<String> = Vec::new();
        for tid in proc::threads(pid) {
            for (cpu, ring) in &self.rings {
                if self.open + fds.len() >= self.open_max {
                    failures.push("the limit of open files is reached".to_owned());
                    break;
                }
                let opened = attr::open_sampling(&self.plan, Scope::Task(tid, *cpu))
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
