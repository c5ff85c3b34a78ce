//! Who is captured, and by which pipeline.
//!
//! In: what scans found. Out: answers to the readers. Never: a process counted by two pipelines: it
//! belongs to the first that had a sample of it.

use super::script::Targets;
use crate::engine::task::lock;
use model::profile::Process;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Processes that ended and are still known, since their last stacks may be on their way.
const ENDED_MAX: usize = 4_096;

/// What scans and readers share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    version: u64,
    targets: BTreeMap<u32, Process>,
    ended: VecDeque<(u32, u64)>,
    /// By pid and start.
    owners: HashMap<(u32, u64), usize>,
    window: (u64, u64),
}

impl Sources {
    /// Takes a scan's result.
    pub(super) fn update(&mut self, came: Vec<Process>, gone: &[u32]) {
        if came.is_empty() && gone.is_empty() {
            return;
        }
        self.version += 1;
        for pid in gone {
            if let Some(process) = self.targets.get(pid) {
                self.ended.push_back((*pid, process.start_ticks));
            }
        }
        // A pid that is used again is another process, and takes the place of the old one.
        self.targets.extend(came.into_iter().map(|p| (p.pid, p)));
        while self.ended.len() > ENDED_MAX {
            let Some((pid, ticks)) = self.ended.pop_front() else {
                break;
            };
            self.owners.remove(&(pid, ticks));
            if self
                .targets
                .get(&pid)
                .is_some_and(|p| p.start_ticks == ticks)
            {
                self.targets.remove(&pid);
            }
        }
    }

    /// Samples count from this instant of perf's time.
    pub(super) fn opens(&mut self, from_ns: u64) {
        self.window = (from_ns, u64::MAX);
    }

    /// And no longer from this one on.
    pub(super) fn closes(&mut self, until_ns: u64) {
        self.window.1 = until_ns;
    }

    /// Those of `came` that no perf follows: neither was there a sample of one, nor is its parent a
    /// target, with which perf follows it.
    pub(super) fn unfollowed(&self, came: &[u32]) -> Vec<u32> {
        let followed = |pid: u32| {
            let owned = self
                .targets
                .get(&pid)
                .is_some_and(|p| self.owners.contains_key(&(pid, p.start_ticks)));
            owned || parent(pid).is_some_and(|parent| self.targets.contains_key(&parent))
        };
        came.iter().copied().filter(|pid| !followed(*pid)).collect()
    }

    fn take(&mut self, pid: u32, pipeline: usize) -> Option<Process> {
        let process = self.targets.get(&pid)?;
        let key = (pid, process.start_ticks);
        let owner = self.owners.entry(key).or_insert(pipeline);
        (*owner == pipeline).then(|| process.clone())
    }
}

/// The parent of a process, from /proc/PID/stat.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// One pipeline's view.
pub(super) struct View(pub Arc<Mutex<Sources>>, pub usize);

impl Targets for View {
    fn of(&mut self, pid: u32, tid: u32) -> Option<(Process, String)> {
        let process = lock(&self.0).take(pid, self.1)?;
        // A thread that has ended has no name any more; its process has one.
        let name = native::thread_name(pid, tid).unwrap_or_else(|| process.comm.clone());
        Some((process, name))
    }

    fn window(&self) -> (u64, u64) {
        lock(&self.0).window
    }

    fn version(&self) -> u64 {
        lock(&self.0).version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, start_ticks: u64) -> Process {
        Process {
            pid,
            start_ticks,
            ..Process::default()
        }
    }

    #[test]
    fn a_process_belongs_to_the_pipeline_that_had_it_first() {
        let sources = Arc::new(Mutex::new(Sources::default()));
        lock(&sources).update(vec![process(7, 1)], &[]);
        let (mut first, mut second) = (View(Arc::clone(&sources), 0), View(sources.clone(), 1));
        assert!(second.of(7, 7).is_some());
        assert!(first.of(7, 7).is_none() && first.of(8, 8).is_none());
        // The same pid again is another process, and free.
        let version = first.version();
        lock(&sources).update(vec![process(7, 2)], &[7]);
        assert!(first.version() > version);
        assert_eq!(first.of(7, 7).unwrap().0.start_ticks, 2);
        assert!(second.of(7, 7).is_none());
    }

    #[test]
    fn the_ended_are_known_for_a_while_and_not_for_ever() {
        let mut sources = Sources::default();
        for pid in 1..10_000 {
            sources.update(vec![process(pid, 1)], &[]);
            sources.take(pid, 0);
            sources.update(vec![], &[pid]);
        }
        assert!(sources.take(9_999, 0).is_some() && sources.take(1, 0).is_none());
        assert!(sources.owners.len() <= ENDED_MAX + 1 && sources.targets.len() <= ENDED_MAX + 1);
    }

    #[test]
    fn a_child_of_a_target_is_followed_already() {
        let me = std::process::id();
        let mut sources = Sources::default();
        assert_eq!(sources.unfollowed(&[me]), [me]);
        sources.update(vec![process(std::os::unix::process::parent_id(), 1)], &[]);
        assert!(sources.unfollowed(&[me]).is_empty());
    }
}
