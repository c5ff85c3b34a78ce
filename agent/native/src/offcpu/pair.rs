//! Switch records to waits: which thread waited, from when to when, for what. Pure.
//!
//! In: stacks at switch-out and the switches themselves, from all CPUs and in any order. Out: waits
//! with a weight, and an account of what did not pair. Never: a wait made up where records were
//! lost, an order of arrival taken for an order of events.
//!
//! ```text
//!            Out + stack                In
//!   on CPU ───────────────▶ waiting ─────────▶ on CPU        a wait, whole
//!   (not seen yet) ─────────────────── In ───▶               waited since before the start
//!                           waiting ─────────▶ the end       waits still
//! ```
//! A switch-out that was preempted waits for a CPU; every other one for something else, and after
//! that something for a CPU as well (no record tells where the one ends and the other begins).

use foldhash::HashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happened to a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch<S> {
    /// It is about to leave its CPU with this stack.
    Stack(S),
    /// It left its CPU.
    Out {
        /// It could have gone on.
        preempted: bool,
    },
    /// It got a CPU.
    In,
    /// It began; so nothing of it was missed.
    Began,
    /// It ended.
    Ended,
    /// Records were lost until now, of any thread.
    Lost,
}

/// What a thread waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// For something: sleep, a lock, a disk, the network.
    Blocked,
    /// For a CPU.
    RunQueue,
}

/// How much of a wait was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Beginning and end.
    Whole,
    /// The thread waited already when the capture began.
    EndOnly,
    /// It waited still when the capture ended.
    BeginOnly,
}

/// One wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait<S> {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Event time at which it began; 0 when that was not seen.
    pub from: u64,
    /// Event time at which it ended.
    pub until: u64,
    /// What for.
    pub kind: WaitKind,
    /// Switches that it stands for: itself, and those of the same thread and kind since the last
    /// one with a stack. 0 when it has no stack and a later one stands for it.
    pub weight: u64,
    /// Time that it stands for, in nanoseconds: its length by its weight, brought in line with the
    /// exact time of all waits of its thread and kind so far. Taking a stack takes time, and a
    /// short wait with a stack is longer than one without.
    pub stands_ns: u64,
    /// Its stack, if it was sampled.
    pub stack: Option<S>,
    /// How much of it was seen.
    pub seen: Seen,
}

/// The account of a capture. Counts of threads' switches; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitTotals {
    /// Switch-outs.
    pub outs: u64,
    /// Switch-ins.
    pub ins: u64,
    /// Switch-outs with a stack.
    pub sampled: u64,
    /// Outs with their ins.
    pub paired: u64,
    /// Waits that went on at the end.
    pub open: u64,
    /// Threads that waited already at the start.
    pub since_before: u64,
    /// Outs or ins without their counterpart, because records were lost.
    pub unpaired: u64,
    /// Those of them that are outs: `outs` = `paired` + `open` + these.
    pub unpaired_outs: u64,
    /// Switch-outs for which no stack stands.
    pub without_stack: u64,
    /// Blocked, over all waits whose beginning was seen, sampled or not.
    pub blocked_ns: u64,
    /// Waiting for a CPU, likewise.
    pub runqueue_ns: u64,
}

impl WaitTotals {
    /// Counts a wait whose end is missing: nothing is written down of it, so its stack stands for
    /// nothing.
    fn give_up<S>(&mut self, place: &Place<S>) {
        if let Place::Off(off) = place {
            self.unpaired += 1;
            self.unpaired_outs += 1;
            self.without_stack += off.weight;
        }
    }
}

#[derive(Debug)]
enum Place<S> {
    /// Nothing is known of it yet.
    New,
    /// It began, or its records were lost: an In says nothing about a wait.
    Unknown,
    On,
    Off(Off<S>),
}

/// A wait that goes on.
#[derive(Debug)]
struct Off<S> {
    from: u64,
    kind: WaitKind,
    stack: Option<S>,
    /// See [`Wait::weight`].
    weight: u64,
}

#[derive(Debug)]
struct Thread<S> {
    pid: u32,
    place: Place<S>,
    /// Came last, for the out that follows it.
    stack: Option<S>,
    /// Outs of each kind since the last one with a stack.
    skipped: [u64; 2],
    /// Time of all waits of each kind.
    exact_ns: [u64; 2],
    /// The same as the weighted ones say.
    weighted_ns: [u64; 2],
}

/// A switch that waits for its turn. Ordered by time; of one instant, as they came.
#[derive(Debug)]
struct Queued<S> {
    at: (u64, u64),
    pid: u32,
    tid: u32,
    what: Switch<S>,
}

impl<S> PartialEq for Queued<S> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<S> Eq for Queued<S> {}

impl<S> PartialOrd for Queued<S> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Queued<S> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Threads that are followed; switches of others count as unpaired.
const THREADS_MAX: usize = 65_536;

/// Pairs. See the module.
#[derive(Debug)]
pub struct Pairing<S> {
    queue: BinaryHeap<Reverse<Queued<S>>>,
    arrived: u64,
    threads: HashMap<u32, Thread<S>>,
    totals: WaitTotals,
}

impl<S> Default for Pairing<S> {
    fn default() -> Self {
        Self {
            queue: BinaryHeap::new(),
            arrived: 0,
            threads: HashMap::default(),
            totals: WaitTotals::default(),
        }
    }
}

impl<S> Pairing<S> {
    /// Takes what happened, in any order.
    pub fn push(&mut self, time: u64, pid: u32, tid: u32, what: Switch<S>) {
        self.arrived += 1;
        self.queue.push(Reverse(Queued {
            at: (time, self.arrived),
            pid,
            tid,
            what,
        }));
    }

    /// What waits for its turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The account so far.
    #[must_use]
    pub fn totals(&self) -> WaitTotals {
        self.totals
    }

    /// Whether anything was seen of this thread.
    #[must_use]
    pub fn knows(&self, tid: u32) -> bool {
        self.threads.contains_key(&tid)
    }

    /// Goes on to `horizon`: nothing older is still to come. Appends the waits that ended.
    pub fn settle(&mut self, horizon: u64, ended: &mut Vec<Wait<S>>) {
        while self
            .queue
            .peek()
            .is_some_and(|Reverse(next)| next.at.0 <= horizon)
        {
            if let Some(Reverse(next)) = self.queue.pop() {
                self.step(next, ended);
            }
        }
    }

    /// The capture ends at `end`: what was pushed is settled, and open waits end there.
    pub fn finish(&mut self, end: u64, ended: &mut Vec<Wait<S>>) {
        self.settle(end, ended);
        self.queue.clear();
        for (tid, mut thread) in std::mem::take(&mut self.threads) {
            if let Place::Off(off) = std::mem::replace(&mut thread.place, Place::Unknown) {
                self.totals.open += 1;
                ended.push(self.wait(tid, &mut thread, off, end, Seen::BeginOnly));
            }
            self.totals.without_stack += thread.skipped.iter().sum::<u64>();
        }
    }

    fn step(&mut self, next: Queued<S>, ended: &mut Vec<Wait<S>>) {
        let (time, tid) = (next.at.0, next.tid);
        match next.what {
            Switch::Lost => return self.forget(),
            Switch::Ended => {
                if let Some(thread) = self.threads.remove(&tid) {
                    self.totals.give_up(&thread.place);
                    self.totals.without_stack += thread.skipped.iter().sum::<u64>();
                }
                return;
            }
            Switch::Out { .. } => self.totals.outs += 1,
            Switch::In => self.totals.ins += 1,
            Switch::Stack(_) | Switch::Began => {}
        }
        if self.threads.len() >= THREADS_MAX && !self.threads.contains_key(&tid) {
            let is_out = matches!(next.what, Switch::Out { .. });
            self.totals.unpaired += u64::from(is_out || matches!(next.what, Switch::In));
            self.totals.unpaired_outs += u64::from(is_out);
            self.totals.without_stack += u64::from(is_out);
            return;
        }
        let mut thread = self.threads.remove(&tid).unwrap_or(Thread {
            pid: next.pid,
            place: Place::New,
            stack: None,
            skipped: [0; 2],
            exact_ns: [0; 2],
            weighted_ns: [0; 2],
        });
        match next.what {
            Switch::Stack(stack) => thread.stack = Some(stack),
            Switch::Out { preempted } => self.out(&mut thread, time, preempted),
            Switch::In => ended.extend(self.got_cpu(tid, &mut thread, time)),
            Switch::Began => {
                self.totals.give_up(&thread.place);
                thread.place = Place::Unknown;
                thread.stack = None;
            }
            Switch::Ended | Switch::Lost => {}
        }
        self.threads.insert(tid, thread);
    }

    fn out(&mut self, thread: &mut Thread<S>, time: u64, preempted: bool) {
        // Two outs in a row: an in is missing, and with it the length of the first wait.
        self.totals.give_up(&thread.place);
        let kind = if preempted {
            WaitKind::RunQueue
        } else {
            WaitKind::Blocked
        };
        let skipped = &mut thread.skipped[usize::from(preempted)];
        *skipped += 1;
        let stack = thread.stack.take();
        let weight = if stack.is_some() {
            self.totals.sampled += 1;
            std::mem::take(skipped)
        } else {
            0
        };
        thread.place = Place::Off(Off {
            from: time,
            kind,
            stack,
            weight,
        });
    }

    fn got_cpu(&mut self, tid: u32, thread: &mut Thread<S>, time: u64) -> Option<Wait<S>> {
        let before = std::mem::replace(&mut thread.place, Place::On);
        let wait = match before {
            Place::Off(off) => {
                self.totals.paired += 1;
                Some(self.wait(tid, thread, off, time, Seen::Whole))
            }
            Place::New => {
                self.totals.since_before += 1;
                Some(Wait {
                    pid: thread.pid,
                    tid,
                    from: 0,
                    until: time,
                    kind: WaitKind::Blocked,
                    weight: 1,
                    stands_ns: 0,
                    stack: None,
                    seen: Seen::EndOnly,
                })
            }
            Place::On => {
                self.totals.unpaired += 1;
                None
            }
            Place::Unknown => None,
        };
        // A stack belongs to the out that follows it, never to one after the next in.
        thread.stack = None;
        wait
    }

    fn wait(
        &mut self,
        tid: u32,
        thread: &mut Thread<S>,
        off: Off<S>,
        until: u64,
        seen: Seen,
    ) -> Wait<S> {
        let Off {
            from,
            kind,
            stack,
            weight,
        } = off;
        let until = until.max(from);
        let sum = match kind {
            WaitKind::Blocked => &mut self.totals.blocked_ns,
            WaitKind::RunQueue => &mut self.totals.runqueue_ns,
        };
        let length = until - from;
        *sum = sum.saturating_add(length);
        let at = usize::from(kind == WaitKind::RunQueue);
        let (exact, weighted) = (&mut thread.exact_ns[at], &mut thread.weighted_ns[at]);
        *exact = exact.saturating_add(length);
        let own = length.saturating_mul(weight);
        *weighted = weighted.saturating_add(own);
        let scaled = u128::from(own) * u128::from(*exact) / u128::from((*weighted).max(1));
        Wait {
            pid: thread.pid,
            tid,
            from,
            until,
            kind,
            weight,
            stands_ns: u64::try_from(scaled).unwrap_or(u64::MAX),
            stack,
            seen,
        }
    }

    /// Records were lost: whose, nobody knows. What is open may have ended, so it is no wait that
    /// could be measured.
    fn forget(&mut self) {
        for thread in self.threads.values_mut() {
            self.totals.give_up(&thread.place);
            thread.place = Place::Unknown;
            thread.stack = None;
        }
    }
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
