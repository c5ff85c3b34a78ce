//! What happens at real-time priority, and nothing else. In: a CPU's ring. Out: samples in a
//! queue. Never: an allocation, a lock that a normal thread holds, more than a millisecond for a
//! sample (then it is dropped and counted).

use crate::dither::Dither;
use crate::interpose::InterposedUnwinder;
use crate::live::{StackTops, read_live};
use crate::offcpu::{STACKS_A_SECOND_MAX, SwitchChannel, SwitchSeen};
use crate::record::{self, Header, Record};
use crate::requests::RequestSources;
use crate::ring::Ring;
use crate::sys;
use crossbeam_queue::ArrayQueue;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Longest handling of one sample.
pub const HANDLING_MAX_NS: u64 = 1_000_000;
/// Linux's `PID_MAX_LIMIT` (include/linux/threads.h).
const PIDS_MAX: usize = 1 << 22;

/// The processes whose samples are kept: a bit each, written by the scanner, read at real-time
/// priority.
#[derive(Debug)]
pub struct PidSet(Box<[AtomicU64]>);

impl Default for PidSet {
    fn default() -> Self {
        Self((0..PIDS_MAX / 64).map(|_| AtomicU64::new(0)).collect())
    }
}

impl PidSet {
    /// Whether `pid` is in it.
    #[must_use]
    pub fn contains(&self, pid: u32) -> bool {
        self.0
            .get(pid as usize / 64)
            .is_some_and(|w| w.load(Relaxed) >> (pid % 64) & 1 == 1)
    }

    /// Puts it in or takes it out.
    pub fn set(&self, pid: u32, member: bool) {
        if let Some(word) = self.0.get(pid as usize / 64) {
            let bit = 1 << (pid % 64);
            if member {
                word.fetch_or(bit, Relaxed)
            } else {
                word.fetch_and(!bit, Relaxed)
            };
        }
    }
}

/// One sample on its way to the unwinder.
#[derive(Debug)]
pub struct Slot {
    /// The record's bytes.
    pub record: Box<[u8]>,
    /// How many of them are in use.
    pub length: usize,
    /// Stack above the kernel's copy, if it came back full.
    pub extension: Option<Box<[u8]>>,
    /// Bytes of the extension in use.
    pub extension_length: usize,
    /// Time that the sample stands for, in nanoseconds: the period it was taken with.
    pub period_ns: u64,
    /// The event's time.
    pub time: u64,
    /// From the sample to its handling.
    pub latency_ns: u64,
    /// Duration of the handling.
    pub work_ns: u64,
    /// Room for what an [`InterposedUnwinder`] reads.
    pub interposed: Vec<u64>,
}

/// Words that an interposed unwinder may keep with a sample.
pub const INTERPOSED_WORDS: usize = 512;

/// What the unwinder is told beside samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideEvent {
    /// The address space of a process changed.
    Mapped(u32),
    /// A process runs a new program, at this time.
    Exec(u32, u64),
    /// A thread has a new name.
    Named(u32, u32),
    /// `.0` made the process `.1`.
    Forked(u32, u32),
    /// A process ended, at this time.
    Exited(u32, u64),
}

/// Counters that the sampler threads raise and the unwinder reads.
#[derive(Debug, Default)]
pub struct Losses {
    /// Records that the kernel lost.
    pub lost: AtomicU64,
    /// Times the kernel throttled.
    pub throttled: AtomicU64,
    /// Samples dropped because no buffer was free.
    pub dropped_full: AtomicU64,
    /// Samples dropped because they took too long.
    pub dropped_late: AtomicU64,
    /// Side events that found no room.
    pub side_lost: AtomicU64,
    /// Stacks beyond what a CPU may take in a second; later ones stand for them.
    pub thinned: AtomicU64,
    /// Bytes of rings that made no sense.
    pub damaged: AtomicU64,
}

/// What sampler threads and unwinder share.
#[derive(Debug)]
pub struct Shared {
    /// Whose samples are kept.
    pub targets: PidSet,
    /// Empty buffers.
    pub free: ArrayQueue<Box<Slot>>,
    /// Filled buffers.
    pub full: ArrayQueue<Box<Slot>>,
    /// Empty stack extensions.
    pub extensions: ArrayQueue<Box<[u8]>>,
    /// Side events.
    pub side: ArrayQueue<SideEvent>,
    /// Event time from which samples count; `u64::MAX` until it is known.
    pub start_time: AtomicU64,
    /// Event time from which samples no longer count.
    pub stop_time: AtomicU64,
    /// What must be added to this process's `CLOCK_MONOTONIC` to get event time (wrapping).
    pub clock_offset: u64,
    /// The sampler threads shall end.
    pub stop: AtomicBool,
    /// What was lost.
    pub losses: Losses,
    /// Where targets keep their number of requests.
    pub requests: RequestSources,
    /// Where switches go when waits are measured.
    pub switches: Option<SwitchChannel>,
    /// Asked first at frames without unwind tables.
    pub interposed: Option<Arc<dyn InterposedUnwinder>>,
}

impl Shared {
    /// Event time now.
    #[must_use]
    pub fn event_now(&self) -> u64 {
        sys::mono_ns().wrapping_add(self.clock_offset)
    }

    /// Gives a buffer back.
    pub fn recycle(&self, mut slot: Box<Slot>) {
        if let Some(extension) = slot.extension.take() {
            let _ = self.extensions.push(extension);
        }
        slot.extension_length = 0;
        slot.interposed.clear();
        let _ = self.free.push(slot);
    }
}

/// One CPU's sampler.
#[derive(Debug)]
pub struct CpuSampler {
    /// Keeps the event open.
    pub fd: Arc<OwnedFd>,
    /// Its number among the samplers.
    pub index: usize,
    /// Its ring.
    pub ring: Ring,
    /// The thread runs before everything else on its CPU, so that the target stands still.
    pub exclusive: bool,
    /// Whether `fd` itself samples; else it only holds the ring of other events.
    pub samples_itself: bool,
    /// Periods to come.
    pub dither: Dither,
    /// Period in force.
    pub period_ns: u64,
    /// Event time at which the timer was last restarted; 0 when it was not.
    pub restarted: u64,
    /// Batches until the period changes when not exclusive: restarting the timer late would
    /// lose what ran in between.
    pub countdown: u32,
    /// Bytes of stack that the kernel copies with a sample.
    pub stack_copy_bytes: usize,
    /// Second of event time and the stacks taken in it, where switches are sampled.
    pub taken: (u64, u64),
    /// Where stacks were seen to end.
    pub tops: StackTops,
}

/// Batches of samples between two changes of the period where the thread may be late.
const BATCHES_PER_PERIOD: u32 = 16;

impl CpuSampler {
    /// Handles records until told to stop.
    pub fn run(&mut self, shared: &Shared) {
        while !shared.stop.load(Relaxed) {
            if sys::poll_readable(self.fd.as_raw_fd(), 50) {
                // Hung up: an event's task is gone. The ring may still fill from others.
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            self.drain(shared);
        }
    }

    fn drain(&mut self, shared: &Shared) {
        let mut sampled = false;
        // What this CPU wrote before now is in the ring: this thread runs on it.
        let now = shared.event_now();
        loop {
            match self.ring.peek() {
                Ok(Some(header)) => {
                    sampled |= header.kind == record::SAMPLE;
                    self.handle(shared, header);
                    self.ring.advance(header);
                }
                Ok(None) => break,
                Err(bytes) => {
                    shared.losses.damaged.fetch_add(bytes, Relaxed);
                    break;
                }
            }
        }
        if let Some(switches) = &shared.switches {
            switches.mark_read(self.index, now);
        }
        if sampled && self.samples_itself {
            self.countdown = self.countdown.saturating_sub(1);
            if self.exclusive || self.countdown == 0 {
                self.countdown = BATCHES_PER_PERIOD;
                let period = if self.exclusive {
                    self.dither.next_exponential()
                } else {
                    self.dither.next_near()
                };
                if sys::perf_period(&self.fd, period).is_ok() {
                    self.period_ns = period;
                    self.restarted = shared.event_now();
                }
            }
        }
    }

    /// The time that a sample stands for. A sample of a Poisson clock stands for the average
    /// period, whatever its own was. To it come how late the timer fired and the switch to this
    /// thread, which the kernel charges to the interrupted task and in which no timer runs.
    fn covered(&self, time: u64, latency: u64) -> u64 {
        if !self.exclusive || !self.samples_itself {
            return self.period_ns;
        }
        let nominal = self.dither.nominal_ns();
        let bound = nominal / 8;
        let late = time.saturating_sub(self.restarted.saturating_add(self.period_ns));
        // Much later: the CPU was idle in between and the timer went on by itself.
        let late = if self.restarted == 0 || late > bound {
            0
        } else {
            late
        };
        nominal + late + latency.min(bound)
    }

    fn handle(&mut self, shared: &Shared, header: Header) {
        match header.kind {
            record::SAMPLE => self.sample(shared, header),
            record::LOST
            | record::THROTTLE
            | record::COMM
            | record::FORK
            | record::EXIT
            | record::SWITCH
            | record::MMAP
            | record::MMAP2 => {
                // The longest of these is an mmap2 with a path of 4 KiB; only its head is read.
                let mut bytes = [0; 128];
                let cut = Header {
                    size: header.size.min(128),
                    ..header
                };
                if self.ring.copy(cut, &mut bytes) {
                    // The parser checks the stated size against the bytes at hand.
                    bytes[6..8].copy_from_slice(&cut.size.to_ne_bytes());
                    side(
                        shared,
                        &bytes[..usize::from(cut.size)],
                        cut.size == header.size,
                    );
                }
            }
            _ => {}
        }
    }

    /// Whether this stack is within what a CPU takes in a second. Switches come in bursts, and a
    /// stride that was right a second ago may not be now.
    fn within_rate(&mut self, shared: &Shared, time: u64) -> bool {
        if shared.switches.is_none() {
            return true;
        }
        let second = time / 1_000_000_000;
        if self.taken.0 != second {
            self.taken = (second, 0);
        }
        self.taken.1 += 1;
        let within = self.taken.1 <= STACKS_A_SECOND_MAX;
        if !within {
            shared.losses.thinned.fetch_add(1, Relaxed);
        }
        within
    }

    fn sample(&mut self, shared: &Shared, header: Header) {
        let begin = shared.event_now();
        let (pid, time) = (first_half(self.ring.word(2)), self.ring.word(3));
        if usize::from(header.size) < 40
            || !shared.targets.contains(pid)
            || time < shared.start_time.load(Relaxed)
            || time >= shared.stop_time.load(Relaxed)
            || !self.within_rate(shared, time)
        {
            return;
        }
        let Some(mut slot) = shared.free.pop() else {
            shared.losses.dropped_full.fetch_add(1, Relaxed);
            return;
        };
        let (ring, stack_bytes) = (&self.ring, self.stack_copy_bytes);
        if !ring.copy_sample(header, stack_bytes, &mut slot.record) {
            shared
                .losses
                .damaged
                .fetch_add(u64::from(header.size), Relaxed);
            shared.recycle(slot);
            return;
        }
        slot.length = usize::from(header.size);
        slot.time = time;
        slot.latency_ns = begin.saturating_sub(time);
        slot.period_ns = self.covered(time, slot.latency_ns);
        let deadline = begin.saturating_add(HANDLING_MAX_NS);
        read_live(shared, &mut self.tops, &mut slot, deadline, self.exclusive);
        let end = shared.event_now();
        slot.work_ns = end.saturating_sub(begin);
        if end > deadline {
            shared.losses.dropped_late.fetch_add(1, Relaxed);
            shared.recycle(slot);
            return;
        }
        if let Err(slot) = shared.full.push(slot) {
            shared.losses.dropped_full.fetch_add(1, Relaxed);
            shared.recycle(slot);
        }
    }
}

/// Passes a record beside the samples on. `whole` unless its end was cut off.
fn side(shared: &Shared, bytes: &[u8], whole: bool) {
    let known = |pid: u32| shared.targets.contains(pid);
    let parsed = record::parse(bytes);
    if let Some(switches) = &shared.switches {
        match SwitchSeen::of(&parsed) {
            Some(seen) if known(seen.pid) => switches.push(seen),
            None if matches!(parsed, Record::Lost(_)) => switches.mark_lost(shared.event_now()),
            _ => {}
        }
    }
    let event = match parsed {
        Record::Mapped { pid } if known(pid) => SideEvent::Mapped(pid),
        // The time stands at the end of a comm record.
        Record::Named {
            pid,
            exec: true,
            time,
            ..
        } if whole && known(pid) => SideEvent::Exec(pid, time),
        Record::Named {
            pid,
            tid,
            exec: false,
            ..
        } if known(pid) => SideEvent::Named(pid, tid),
        Record::Forked { pid, parent, .. } if pid != parent && known(parent) => {
            SideEvent::Forked(parent, pid)
        }
        Record::Exited { pid, tid, time } if pid == tid && known(pid) => {
            SideEvent::Exited(pid, time)
        }
        Record::Lost(count) => {
            shared.losses.lost.fetch_add(count, Relaxed);
            return;
        }
        Record::Throttled => {
            shared.losses.throttled.fetch_add(1, Relaxed);
            return;
        }
        _ => return,
    };
    if shared.side.push(event).is_err() {
        shared.losses.side_lost.fetch_add(1, Relaxed);
    }
}

/// The word's first four bytes in memory.
fn first_half(word: u64) -> u32 {
    let b = word.to_ne_bytes();
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_in_the_set_until_it_is_taken_out() {
        let set = PidSet::default();
        for pid in [1, 63, 64, 4_194_303] {
            assert!(!set.contains(pid));
            set.set(pid, true);
            assert!(set.contains(pid));
            set.set(pid, false);
            assert!(!set.contains(pid));
        }
        set.set(u32::MAX, true);
        assert!(!set.contains(u32::MAX));
    }
}
