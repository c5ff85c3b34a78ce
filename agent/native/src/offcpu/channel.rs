//! From the sampler threads to the unwinder: switches, and how far each CPU's ring was read. In: at
//! real-time priority. Out: to a normal thread. Never: a lock, an allocation after the start, a
//! switch lost without a mark.

use crate::record::Record;
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a switch record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchKind {
    /// Left its CPU; whether it could have gone on.
    Out(bool),
    /// Got a CPU.
    In,
    /// The thread began.
    Began,
    /// It ended.
    Ended,
}

/// A switch and its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchSeen {
    /// Event time.
    pub time: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What happened.
    pub kind: SwitchKind,
}

impl SwitchSeen {
    /// What a record says of a thread's way; none for records about other things.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Option<Self> {
        let (time, pid, tid, kind) = match *record {
            Record::Switched {
                pid,
                tid,
                out,
                time,
            } => (time, pid, tid, out.map_or(SwitchKind::In, SwitchKind::Out)),
            Record::Forked { pid, tid, time, .. } => (time, pid, tid, SwitchKind::Began),
            Record::Exited { pid, tid, time } => (time, pid, tid, SwitchKind::Ended),
            _ => return None,
        };
        Some(Self {
            time,
            pid,
            tid,
            kind,
        })
    }
}

/// Switches that may wait: a fifth of a second at 300,000 a second.
const SWITCHES_MAX: usize = 65_536;
/// A CPU that was not read for longer than this is not waited for.
const LATE_MAX_NS: u64 = 1_000_000_000;

/// The channel.
#[derive(Debug)]
pub struct SwitchChannel {
    queue: ArrayQueue<SwitchSeen>,
    /// Event time up to which each CPU's ring was read.
    read: Box<[AtomicU64]>,
    /// Event time of the last loss; 0 when there was none since it was asked.
    lost: AtomicU64,
}

impl SwitchChannel {
    /// A channel for this many CPUs.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self {
            queue: ArrayQueue::new(SWITCHES_MAX),
            read: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// Passes a switch on. Runs at real-time priority.
    pub fn push(&self, switch: SwitchSeen) {
        if self.queue.push(switch).is_err() {
            self.mark_lost(switch.time);
        }
    }

    /// Records were lost up to this event time. Runs at real-time priority.
    pub fn mark_lost(&self, time: u64) {
        self.lost.fetch_max(time, Relaxed);
    }

    /// The ring number `index` was read until it was empty, begun at this event time: all that
    /// its CPU wrote before is passed on. Runs at real-time priority.
    pub fn mark_read(&self, index: usize, time: u64) {
        if let Some(read) = self.read.get(index) {
            read.store(time, Relaxed);
        }
    }

    /// The next switch.
    #[must_use]
    pub fn pop(&self) -> Option<SwitchSeen> {
        self.queue.pop()
    }

    /// When records were lost since the last call.
    #[must_use]
    pub fn take_lost(&self) -> Option<u64> {
        Some(self.lost.swap(0, Relaxed)).filter(|&time| time > 0)
    }

    /// Event time up to which everything has been passed on. To be asked before what was passed on is
    /// taken.
    #[must_use]
    pub fn horizon(&self, now: u64) -> u64 {
        let read = self.read.iter().map(|read| read.load(Relaxed)).min();
        read.unwrap_or(now).max(now.saturating_sub(LATE_MAX_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_that_of_the_slowest_cpu_within_a_second() {
        let channel = SwitchChannel::new(2);
        let second = 1_000_000_000;
        channel.mark_read(0, 5 * second);
        assert_eq!(channel.horizon(5 * second + 7), 4 * second + 7);
        channel.mark_read(1, 5 * second - 9);
        assert_eq!(channel.horizon(5 * second + 7), 5 * second - 9);
        channel.mark_read(7, 1);
    }

    #[test]
    fn a_switch_that_finds_no_room_leaves_a_mark() {
        let channel = SwitchChannel::new(1);
        let switch = |time| SwitchSeen {
            time,
            pid: 1,
            tid: 1,
            kind: SwitchKind::In,
        };
        (0..SWITCHES_MAX as u64).for_each(|t| channel.push(switch(t)));
        assert_eq!(channel.take_lost(), None);
        channel.push(switch(99_999));
        assert_eq!(channel.take_lost(), Some(99_999));
        assert_eq!(channel.take_lost(), None);
        assert_eq!(channel.pop(), Some(switch(0)));
    }
}
