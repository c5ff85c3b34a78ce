//! Hosts whose clocks and ways differ start together and count the same seconds.
//!
//! In: two hosts, the second booted an hour earlier by its clocks, behind a way that is slow in one
//! direction only. Out: start instants on the one true clock, offsets with honest uncertainty.
//! Never: the wall clock.

use std::time::Duration;

use anyhow::Result;
use fleetflame_tests::{AgentSetup, LinkConditions, RealFleet, TimeShift};

use crate::written::Written;
use crate::{CAPTURE, turn};

const SHIFT_S: i64 = 3_600;
const SECONDS: u32 = 5;
/// How far apart two hosts may start.
const APART_NS: u64 = 50_000_000;

#[test]
fn a_shifted_clock_behind_an_uneven_way_starts_with_the_others() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["even", "shifted"], LinkConditions::default())?;
    let slow = Duration::from_millis(30);
    let uneven = LinkConditions::delays(slow, Duration::ZERO);
    fleet
        .network(1)
        .link
        .change(fleetflame_tests::Direction::AToB, |c| *c = uneven.a_to_b);
    let shift = Some(TimeShift {
        monotonic_s: SHIFT_S,
    });
    for (number, shift) in [(0, None), (1, shift)] {
        fleet.start_workload(number)?;
        fleet.start_agent(
            number,
            &AgentSetup {
                shift,
                ..AgentSetup::default()
            },
        )?;
    }
    let out = fleet.path("run");
    let body = format!("duration: {SECONDS}s\nsample_hz: 199");
    let done = fleet.capture(&body, &out)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );

    let run = Written::read(&out)?;
    run.check_sums()?;
    let mut starts = Vec::new();
    for (name, true_offset_ns) in [("even", 0), ("shifted", SHIFT_S * 1_000_000_000)] {
        let host = run.host(name)?;
        let off = host.clock_offset_ns.abs_diff(true_offset_ns);
        println!(
            "{name}: offset {} ns off the true one, ± {} ns; started {} ns from the plan",
            off, host.clock_uncertainty_ns, host.start_error_ns
        );
        assert!(
            off <= host.clock_uncertainty_ns,
            "{name}: {off} ns off, and says {host:?}"
        );
        starts.push(
            host.stats
                .started_mono_ns
                .saturating_add_signed(-true_offset_ns),
        );
        let seconds = run.seconds(name);
        assert_eq!(host.stats.samples, seconds.values().sum::<u64>(), "{name}");
        for second in 0..SECONDS {
            assert!(
                seconds.contains_key(&second),
                "{name} has no second {second}: {seconds:?}"
            );
        }
        assert!(
            seconds.keys().all(|s| *s <= SECONDS),
            "{name} has too many: {seconds:?}"
        );
    }
    let apart = starts[0].abs_diff(starts[1]);
    println!("started {apart} ns apart");
    assert!(apart <= APART_NS, "{apart} ns apart");
    Ok(())
}
