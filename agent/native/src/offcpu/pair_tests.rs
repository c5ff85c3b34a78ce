//! Pairing held against examples, and against a plain simulation of threads on CPUs.

use super::*;
use proptest::prelude::*;

const OUT: Switch<&str> = Switch::Out { preempted: false };
const PREEMPTED: Switch<&str> = Switch::Out { preempted: true };

fn pair(
    events: &[(u64, u32, Switch<&'static str>)],
    end: u64,
) -> (Vec<Wait<&'static str>>, WaitTotals) {
    let mut pairing = Pairing::default();
    for (time, tid, what) in events {
        pairing.push(*time, 1, *tid, what.clone());
    }
    let mut waits = Vec::new();
    pairing.finish(end, &mut waits);
    (waits, pairing.totals())
}

#[test]
fn a_wait_has_the_stack_that_came_before_it_and_its_kind() {
    let (waits, totals) = pair(
        &[
            (10, 7, Switch::In),
            (20, 7, Switch::Stack("read")),
            (21, 7, OUT),
            (50, 7, Switch::In),
            (60, 7, Switch::Stack("loop")),
            (61, 7, PREEMPTED),
            (65, 7, Switch::In),
        ],
        100,
    );
    let brief: Vec<_> = waits
        .iter()
        .map(|w| (w.stack, w.from, w.until, w.kind, w.weight, w.seen))
        .collect();
    assert_eq!(
        brief,
        [
            (None, 0, 10, WaitKind::Blocked, 1, Seen::EndOnly),
            (Some("read"), 21, 50, WaitKind::Blocked, 1, Seen::Whole),
            (Some("loop"), 61, 65, WaitKind::RunQueue, 1, Seen::Whole),
        ]
    );
    assert_eq!((totals.outs, totals.ins, totals.paired), (2, 3, 2));
    assert_eq!((totals.blocked_ns, totals.runqueue_ns), (29, 4));
    assert_eq!(
        (totals.unpaired, totals.since_before, totals.open),
        (0, 1, 0)
    );
}

#[test]
fn a_wait_that_goes_on_ends_with_the_capture() {
    let (waits, totals) = pair(&[(5, 7, Switch::Stack("poll")), (6, 7, OUT)], 106);
    assert_eq!(
        (waits[0].from, waits[0].until, waits[0].seen),
        (6, 106, Seen::BeginOnly)
    );
    assert_eq!((totals.open, totals.paired, totals.unpaired), (1, 0, 0));
}

#[test]
fn switches_without_a_stack_count_with_the_next_one_of_their_kind() {
    let mut events = vec![(1, 7, Switch::Began)];
    for i in 0..6_u64 {
        if i == 2 || i == 5 {
            events.push((i * 10 + 1, 7, Switch::Stack("s")));
        }
        events.push((i * 10 + 2, 7, if i == 3 { PREEMPTED } else { OUT }));
        events.push((i * 10 + 5, 7, Switch::In));
    }
    let (waits, totals) = pair(&events, 100);
    let weights: Vec<u64> = waits.iter().map(|w| w.weight).collect();
    assert_eq!(weights, [0, 0, 3, 0, 0, 2]);
    // The preempted one found no other of its kind.
    assert_eq!(
        (totals.sampled, totals.without_stack, totals.outs),
        (2, 1, 6)
    );
}

#[test]
fn an_old_stack_is_not_taken_for_a_later_wait() {
    let events = [
        (1, 7, Switch::Stack("old")),
        (2, 7, OUT),
        (3, 7, Switch::In),
        (4, 7, OUT),
        (9, 7, Switch::In),
    ];
    let (waits, _) = pair(&events, 10);
    assert_eq!(waits[1].stack, None);
}

#[test]
fn after_a_loss_nothing_is_measured_that_was_open() {
    let events = [
        (1, 7, Switch::Stack("a")),
        (2, 7, OUT),
        (3, 8, Switch::Stack("b")),
        (4, 8, OUT),
        (5, 8, Switch::In),
        (9, 0, Switch::Lost),
        // Of 7 an in and an out are lost: from 2 to 90 would be wrong.
        (90, 7, Switch::In),
        (91, 7, Switch::Stack("c")),
        (92, 7, OUT),
        (95, 7, Switch::In),
    ];
    let (waits, totals) = pair(&events, 100);
    let spans: Vec<_> = waits.iter().map(|w| (w.tid, w.from, w.until)).collect();
    assert_eq!(spans, [(8, 4, 5), (7, 92, 95)]);
    assert_eq!(totals.unpaired, 1);
}

#[test]
fn a_missing_record_costs_one_wait_and_is_counted() {
    let outs = [
        (1, 7, OUT),
        (2, 7, Switch::In),
        (3, 7, OUT),
        (9, 7, OUT),
        (10, 7, Switch::In),
    ];
    let (waits, totals) = pair(&outs, 20);
    assert_eq!((waits.len(), totals.unpaired), (2, 1));
    let ins = [(1, 7, OUT), (2, 7, Switch::In), (5, 7, Switch::In)];
    let (waits, totals) = pair(&ins, 20);
    assert_eq!((waits.len(), totals.unpaired), (1, 1));
}

#[test]
fn a_stack_is_not_taken_for_the_wait_after_its_own() {
    let events = [
        (1, 7, Switch::Stack("a")),
        (2, 7, OUT),
        // An in and a stack are lost.
        (8, 7, OUT),
        (9, 7, Switch::In),
    ];
    let (waits, totals) = pair(&events, 20);
    let brief: Vec<_> = waits.iter().map(|w| (w.stack, w.from, w.weight)).collect();
    assert_eq!(brief, [(None, 8, 0)]);
    assert_eq!(
        (totals.sampled, totals.unpaired, totals.without_stack),
        (1, 1, 2)
    );
}

#[test]
fn a_thread_that_ends_while_it_waits_lost_its_in() {
    let events = [
        (1, 7, Switch::Stack("a")),
        (2, 7, OUT),
        (5, 7, Switch::Ended),
    ];
    let (waits, totals) = pair(&events, 20);
    assert_eq!(waits, []);
    assert_eq!((totals.unpaired, totals.without_stack), (1, 1));
}

#[test]
fn a_thread_id_used_again_is_another_thread() {
    let events = [
        (1, 7, OUT),
        (2, 7, Switch::In),
        (3, 7, Switch::Ended),
        (500, 7, Switch::Began),
        (510, 7, Switch::In),
    ];
    let (waits, totals) = pair(&events, 600);
    assert_eq!(
        (waits.len(), totals.unpaired, totals.since_before),
        (1, 0, 0)
    );
}

/// What threads do, one after the other: how long each runs and waits, whether it was preempted,
/// whether its stack was sampled.
type Life = Vec<(u64, u64, bool, bool)>;

fn events_of(lives: &[Life]) -> Vec<(u64, u32, Switch<u64>)> {
    let mut events = Vec::new();
    for (i, life) in lives.iter().enumerate() {
        let tid = u32::try_from(i).expect("few") + 1;
        let mut now = 10 + u64::from(tid);
        events.push((now, tid, Switch::Began));
        for (runs, waits, preempted, sampled) in life {
            now += runs;
            if *sampled {
                events.push((now, tid, Switch::Stack(*waits)));
            }
            events.push((
                now + 1,
                tid,
                Switch::Out {
                    preempted: *preempted,
                },
            ));
            now += 1 + waits;
            events.push((now, tid, Switch::In));
        }
    }
    events
}

proptest! {
    #[test]
    fn every_wait_is_found_with_its_own_stack_whatever_the_order_of_arrival(
        lives in prop::collection::vec(
            prop::collection::vec((1_u64..50, 1_u64..500, any::<bool>(), any::<bool>()), 0..12),
            0..6,
        ),
        order in any::<u64>(),
        lag in 0_u64..200,
    ) {
        let truth: u64 = lives.iter().flatten().map(|w| w.1).sum();
        let all: usize = lives.iter().map(Vec::len).sum();
        let mut events = events_of(&lives);
        // Rings are read one after the other: what is younger may come first, within a lag.
        events.sort_by_key(|e| e.0 + (e.0.wrapping_mul(order | 1) >> 7) % (lag + 1));
        let mut pairing = Pairing::default();
        let mut waits = Vec::new();
        let mut newest = 0;
        for (time, tid, what) in events {
            newest = newest.max(time);
            pairing.push(time, 1, tid, what);
            pairing.settle(newest.saturating_sub(lag + 1), &mut waits);
        }
        pairing.finish(newest + 1, &mut waits);
        let totals = pairing.totals();
        prop_assert_eq!((totals.outs, totals.ins, totals.paired), (all as u64, all as u64, all as u64));
        prop_assert_eq!((totals.unpaired, totals.open, totals.since_before), (0, 0, 0));
        prop_assert_eq!(totals.blocked_ns + totals.runqueue_ns, truth);
        prop_assert_eq!(waits.iter().map(|w| w.until - w.from).sum::<u64>(), truth);
        for wait in &waits {
            prop_assert!(wait.stack.is_none_or(|length| length == wait.until - wait.from));
        }
        // With all stacks, each stands for its own length; else for no more than there is.
        let whole = lives.iter().flatten().all(|w| w.3);
        for wait in &waits {
            prop_assert!(!whole || wait.stands_ns == wait.until - wait.from);
        }
        // Weights and what nobody stands for are all the outs.
        let weights: u64 = waits.iter().map(|w| w.weight).sum();
        prop_assert_eq!(weights + totals.without_stack, totals.outs);
    }

    #[test]
    fn whatever_is_lost_no_thread_waits_longer_than_it_can(
        kinds in prop::collection::vec((0_u8..6, 1_u32..4, any::<bool>()), 0..200),
    ) {
        let mut pairing = Pairing::default();
        for (time, (kind, tid, flag)) in (1_u64..).zip(&kinds) {
            let what = match kind {
                0 => Switch::Stack(time),
                1 => Switch::Out { preempted: *flag },
                2 => Switch::In,
                3 => Switch::Began,
                4 => Switch::Ended,
                _ => Switch::Lost,
            };
            pairing.push(time, 1, *tid, what);
        }
        let end = kinds.len() as u64 + 1;
        let mut waits = Vec::new();
        pairing.finish(end, &mut waits);
        for tid in 1..4 {
            let mut spans: Vec<_> = waits
                .iter()
                .filter(|w| w.tid == tid && w.seen != Seen::EndOnly)
                .map(|w| (w.from, w.until))
                .collect();
            spans.sort_unstable();
            prop_assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "{:?}", spans);
            prop_assert!(spans.iter().all(|s| s.1 <= end));
        }
        let totals = pairing.totals();
        // What goes off comes on, is off still, or is said to be lost.
        prop_assert_eq!(totals.paired + totals.open + totals.unpaired_outs, totals.outs);
        prop_assert!(totals.unpaired_outs <= totals.unpaired);
        let weights: u64 = waits.iter().filter(|w| w.seen != Seen::EndOnly).map(|w| w.weight).sum();
        prop_assert_eq!(weights + totals.without_stack, totals.outs);
    }
}

#[test]
fn a_stack_that_makes_its_wait_longer_does_not_make_the_sum_longer() {
    let mut events = vec![(1, 7, Switch::Began)];
    let mut now = 10;
    let mut truth = 0;
    for i in 0..1_000_u64 {
        // Taking the stack doubles the wait.
        let length = if i % 10 == 9 { 200 } else { 100 };
        if i % 10 == 9 {
            events.push((now, 7, Switch::Stack("s")));
        }
        events.push((now + 1, 7, OUT));
        events.push((now + 1 + length, 7, Switch::In));
        truth += length;
        now += 300;
    }
    let (waits, totals) = pair(&events, now);
    assert_eq!(totals.blocked_ns, truth);
    let stands: u64 = waits.iter().map(|w| w.stands_ns).sum();
    assert!(stands.abs_diff(truth) * 100 < truth, "{stands} of {truth}");
    let weighted: u64 = waits.iter().map(|w| (w.until - w.from) * w.weight).sum();
    assert!(weighted > truth * 3 / 2, "without it: {weighted}");
}
