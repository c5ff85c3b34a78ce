//! Waits to rows of the recorder. In: stacks that were unwound, switches as they come. Out: events,
//! blocked and run-queue time by stack and second. Never: a wait that counts beyond the capture's
//! own window, a weight that is not stated.

use super::channel::{SwitchChannel, SwitchKind};
use super::pair::{Pairing, Seen, Switch, Wait, WaitKind, WaitTotals};
use model::profile::{Frame, FrameId, Recorder, SeriesId, Values};

/// Switches that may wait for the clock of the slowest CPU before order is given up.
const WAITING_MAX: usize = 1 << 18;
const SECOND_NS: u64 = 1_000_000_000;

/// A stack that waits for its thread to go on.
#[derive(Debug)]
pub struct Waiting {
    /// Whose it is.
    pub series: SeriesId,
    /// Its frames, root first.
    pub frames: Box<[FrameId]>,
}

/// What was written down of waits whose beginning was seen, by weights; nanoseconds. The account of
/// switches has the others neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Switches that the stacks stand for.
    pub events: u64,
    /// Time that they stand for, blocked.
    pub blocked_ns: u64,
    /// And waiting for a CPU.
    pub runqueue_ns: u64,
}

/// The window of a capture, in event time.
#[derive(Clone, Copy, Debug)]
pub struct WaitWindow {
    /// Second 0 begins here.
    pub start: u64,
    /// And the capture ends here; far away as long as it runs.
    pub end: u64,
}

/// Pairs and writes down. See the module.
#[derive(Debug)]
pub struct Waits {
    pairing: Pairing<Waiting>,
    min_ns: u64,
    recorded: Recorded,
}

impl Waits {
    /// Waits shorter than `min_ns` are added up under one frame.
    #[must_use]
    pub fn new(min_ns: u64) -> Self {
        Self {
            pairing: Pairing::default(),
            min_ns,
            recorded: Recorded::default(),
        }
    }

    /// Takes what the sampler threads passed on. Returns whether there was anything. What is later
    /// than the window's end is no part of the capture.
    pub fn take(&mut self, channel: &SwitchChannel, window: WaitWindow) -> bool {
        let mut any = false;
        while let Some(seen) = channel.pop() {
            any = true;
            if seen.time >= window.end {
                continue;
            }
            let what = match seen.kind {
                SwitchKind::Out(preempted) => Switch::Out { preempted },
                SwitchKind::In => Switch::In,
                SwitchKind::Began => Switch::Began,
                SwitchKind::Ended => Switch::Ended,
            };
            self.pairing.push(seen.time, seen.pid, seen.tid, what);
        }
        if let Some(time) = channel.take_lost() {
            self.pairing.push(time, 0, 0, Switch::Lost);
        }
        any
    }

    /// Takes the stack with which a thread is about to leave its CPU.
    pub fn stack(&mut self, time: u64, pid: u32, tid: u32, waiting: Waiting) {
        self.pairing.push(time, pid, tid, Switch::Stack(waiting));
    }

    /// Whether more waits for its turn than should.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.pairing.waiting() > WAITING_MAX
    }

    /// The waits that ended by `horizon`.
    pub fn settle(&mut self, horizon: u64) -> Vec<Wait<Waiting>> {
        let mut ended = Vec::new();
        self.pairing.settle(horizon, &mut ended);
        ended
    }

    /// All waits that are left; what is open ends at `end`.
    pub fn finish(&mut self, end: u64) -> Vec<Wait<Waiting>> {
        let mut ended = Vec::new();
        self.pairing.finish(end, &mut ended);
        ended
    }

    /// The account, and what was written down.
    #[must_use]
    pub fn totals(&self) -> (WaitTotals, Recorded) {
        (self.pairing.totals(), self.recorded)
    }

    /// Whether this thread was seen.
    #[must_use]
    pub fn knows(&self, tid: u32) -> bool {
        self.pairing.knows(tid)
    }

    /// Writes a wait down. `series` and `since` are needed for a wait that had begun before: whose
    /// it is, and since when its thread was watched.
    pub fn record(
        &mut self,
        recorder: &mut Recorder,
        wait: Wait<Waiting>,
        since: u64,
        series: Option<SeriesId>,
        window: WaitWindow,
    ) {
        let from = wait.from.max(since).max(window.start);
        let until = wait.until.min(window.end);
        if until <= from || wait.weight == 0 {
            return;
        }
        let (series, frames) = match (wait.stack, series) {
            (Some(waiting), _) if until - from < self.min_ns => {
                let short = recorder.frame(&Frame::marker("[short waits]"));
                (waiting.series, Box::from([short]))
            }
            (Some(waiting), _) => (waiting.series, waiting.frames),
            (None, Some(series)) if wait.seen == Seen::EndOnly => {
                let already = recorder.frame(&Frame::marker("[already waiting]"));
                (series, Box::from([already]))
            }
            (None, _) => return,
        };
        let mut events = wait.weight;
        // The time before the first look is in no other sum.
        let counts = wait.seen != Seen::EndOnly;
        if counts {
            self.recorded.events = self.recorded.events.saturating_add(events);
        }
        // What lies outside of the window is cut off evenly.
        let within = u128::from(until - from);
        let length = u128::from((wait.until - wait.from).max(1));
        let stands = match wait.seen {
            Seen::EndOnly => within,
            _ => u128::from(wait.stands_ns) * within / length,
        };
        let mut begin = 0;
        for (bin, part_ns) in seconds(from - window.start, until - window.start) {
            let end = begin + u128::from(part_ns);
            let time = stands * end / within - stands * begin / within;
            let time = u64::try_from(time).unwrap_or(u64::MAX);
            begin = end;
            let (values, sum): (Values, _) = match wait.kind {
                WaitKind::Blocked => ([events, time, 0], &mut self.recorded.blocked_ns),
                WaitKind::RunQueue => ([events, 0, time], &mut self.recorded.runqueue_ns),
            };
            if counts {
                *sum = sum.saturating_add(time);
            }
            recorder.add_stack(series, bin, &frames, &values);
            events = 0;
        }
    }
}

/// The seconds that a span lies in, and how much of it lies in each.
fn seconds(from: u64, until: u64) -> impl Iterator<Item = (u32, u64)> {
    let first = from / SECOND_NS;
    let last = until.saturating_sub(1).max(from) / SECOND_NS;
    (first..=last).map(move |second| {
        let begin = from.max(second * SECOND_NS);
        let end = until.min((second + 1) * SECOND_NS);
        (
            u32::try_from(second).unwrap_or(u32::MAX),
            end.saturating_sub(begin),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::{Measure, RecorderLimits, Series};
    use proptest::prelude::*;

    const WINDOW: WaitWindow = WaitWindow {
        start: 1_000,
        end: 5 * SECOND_NS,
    };

    fn wait(from: u64, until: u64, weight: u64, waiting: Option<Waiting>) -> Wait<Waiting> {
        Wait {
            pid: 1,
            tid: 1,
            from,
            until,
            kind: WaitKind::Blocked,
            weight,
            stands_ns: (until - from) * weight,
            seen: if waiting.is_some() {
                Seen::Whole
            } else {
                Seen::EndOnly
            },
            stack: waiting,
        }
    }

    fn recorder() -> (Recorder, SeriesId, Box<[FrameId]>) {
        let mut recorder = Recorder::new("h", Measure::off_cpu(), RecorderLimits::default());
        let series = recorder.series(&Series::default());
        let frame = recorder.frame(&Frame::marker("read"));
        (recorder, series, Box::from([frame]))
    }

    /// Rows as (frame, second, values).
    fn rows(recorder: &mut Recorder) -> Vec<(String, u32, Values)> {
        let segment = recorder.take(usize::MAX);
        let mut rows = Vec::new();
        for (_, bin, cell) in &segment.cells {
            for (node, values) in cell.rows() {
                let node = segment.nodes[node.0 as usize - segment.base_nodes as usize];
                rows.push((segment.frames[node.frame.0 as usize].label(), *bin, *values));
            }
        }
        rows.sort();
        rows
    }

    #[test]
    fn a_long_wait_is_spread_over_its_seconds_and_counts_once() {
        let (mut recorder, series, frames) = recorder();
        let mut waits = Waits::new(0);
        let start = WINDOW.start;
        let waiting = Waiting { series, frames };
        let long = wait(
            start + SECOND_NS / 2,
            start + 5 * SECOND_NS / 2,
            3,
            Some(waiting),
        );
        waits.record(&mut recorder, long, 0, None, WINDOW);
        let got = rows(&mut recorder);
        let half = 3 * SECOND_NS / 2;
        assert_eq!(
            got,
            [
                ("read".to_owned(), 0, [3, half, 0]),
                ("read".to_owned(), 1, [0, 2 * half, 0]),
                ("read".to_owned(), 2, [0, half, 0]),
            ]
        );
        assert_eq!(waits.totals().1.blocked_ns, 6 * SECOND_NS);
    }

    #[test]
    fn short_waits_are_added_up_and_earlier_ones_begin_with_the_window() {
        let (mut recorder, series, frames) = recorder();
        let mut waits = Waits::new(1_000);
        let waiting = Waiting { series, frames };
        waits.record(
            &mut recorder,
            wait(2_000, 2_500, 1, Some(waiting)),
            0,
            None,
            WINDOW,
        );
        waits.record(
            &mut recorder,
            wait(0, 9_000, 1, None),
            4_000,
            Some(series),
            WINDOW,
        );
        waits.record(
            &mut recorder,
            wait(10, 900, 1, None),
            0,
            Some(series),
            WINDOW,
        );
        assert_eq!(
            rows(&mut recorder),
            [
                ("[already waiting]".to_owned(), 0, [1, 5_000, 0]),
                ("[short waits]".to_owned(), 0, [1, 500, 0]),
            ]
        );
        let recorded = waits.totals().1;
        assert_eq!(
            (recorded.events, recorded.blocked_ns),
            (1, 500),
            "only what the account of switches has too"
        );
    }

    proptest! {
        #[test]
        fn with_a_stack_at_each_switch_what_is_written_down_is_the_account(
            life in prop::collection::vec((1_u64..900_000_000, any::<bool>()), 0..12),
        ) {
            let (mut recorder, series, frames) = recorder();
            let mut waits = Waits::new(0);
            let window = WaitWindow { start: 1_000, end: 60 * SECOND_NS };
            let mut now = window.start;
            waits.pairing.push(now, 1, 1, Switch::Began);
            for &(length, preempted) in &life {
                let frames = frames.clone();
                waits.stack(now + 1, 1, 1, Waiting { series, frames });
                waits.pairing.push(now + 2, 1, 1, Switch::Out { preempted });
                now += 2 + length;
                waits.pairing.push(now, 1, 1, Switch::In);
            }
            for wait in waits.finish(window.end) {
                waits.record(&mut recorder, wait, 0, None, window);
            }
            let (totals, recorded) = waits.totals();
            prop_assert_eq!(recorded.events, totals.outs);
            prop_assert_eq!(recorded.blocked_ns, totals.blocked_ns);
            prop_assert_eq!(recorded.runqueue_ns, totals.runqueue_ns);
            let mut sums = [0; 3];
            for (_, _, values) in rows(&mut recorder) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += value;
                }
            }
            prop_assert_eq!(sums, [recorded.events, recorded.blocked_ns, recorded.runqueue_ns]);
        }

        #[test]
        fn the_seconds_of_a_span_add_up_to_it(from in 0_u64..20_000_000_000, length in 1_u64..9_000_000_000) {
            let parts: Vec<_> = seconds(from, from + length).collect();
            prop_assert_eq!(parts.iter().map(|p| p.1).sum::<u64>(), length);
            prop_assert!(parts.iter().all(|p| (1..=SECOND_NS).contains(&p.1)));
            prop_assert!(parts.windows(2).all(|w| w[0].0 + 1 == w[1].0));
        }
    }
}
