//! A silent network in mid-capture loses nothing.
//!
//! In: two hosts, one of which cannot be heard for three seconds, or for longer than its lease. Out:
//! a complete run, to the last sample that the agent counted; after the longer cut by `collect`.
//! Never: a stack twice.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fleetflame_tests::{LinkConditions, RealFleet};
use model::FindingCode;
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SECOND, UNDER_WAY, turn};

/// How long the wire is silent: less than a lease, more than a coordinator puts up with.
const SILENCE: Duration = Duration::from_secs(3);
const DOWN: &str = "\"host\":\"silent\",\"up\":false";
const UP: &str = "\"host\":\"silent\",\"up\":true";

#[test]
fn three_seconds_of_silence_lose_and_double_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&["heard", "silent"], LinkConditions::default())?;
    let out = fleet.path("run");
    let mut coordinator = fleet.capture("duration: 8s\nsample_hz: 199", &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    thread::sleep(SECOND);
    fleet.network(1).link.cut();
    let cut = Instant::now();
    coordinator.wait_for_stdout(DOWN, SILENCE)?;
    let felt = cut.elapsed();
    thread::sleep(SILENCE.saturating_sub(felt));
    fleet.network(1).link.heal();
    coordinator.wait_for_stdout(UP, CAPTURE)?;
    println!("felt after {felt:?}, taken up after {:?}", cut.elapsed());
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );

    let run = Written::read(&out)?;
    run.check_sums()?;
    for name in ["heard", "silent"] {
        let host = run.host(name)?;
        assert_eq!(host.outcome, HostOutcome::Complete, "{name}: {host:?}");
        assert_eq!(run.samples(name), host.stats.samples, "{name}: {host:?}");
        let seconds = run.seconds(name);
        assert!(
            (0..8).all(|s| seconds.contains_key(&s)),
            "{name}: {seconds:?}"
        );
    }
    assert!(run.host("silent")?.reconnects >= 1, "the cut was not felt");
    assert!(run.has(FindingCode::ConnectionResumed, "silent"));
    assert_eq!(run.host("heard")?.reconnects, 0);
    Ok(())
}

#[test]
fn what_a_host_took_before_it_was_lost_is_collected_when_it_is_back() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&["heard", "silent"], LinkConditions::default())?;
    let out = fleet.path("run");
    let mut coordinator = fleet.capture("duration: 8s\nsample_hz: 199", &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    thread::sleep(SECOND);
    fleet.network(1).link.cut();
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    let before = run.samples("silent");
    let heard = run.host("heard")?.clone();
    run.check_sums()?;
    assert!(
        run.has(FindingCode::HostLost, "silent"),
        "{:?}",
        run.record.all_findings()
    );
    assert_eq!(heard.outcome, HostOutcome::Complete);

    fleet.network(1).link.heal();
    let collect = fleet.coordinator("collect", &[&out]);
    let done = fleet.fabric.coordinator.spawn(collect)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    let silent = run.host("silent")?;
    println!(
        "{before} samples before the cut, {} in all",
        run.samples("silent")
    );
    assert!(run.samples("silent") > before, "nothing came: {silent:?}");
    assert_eq!(run.samples("silent"), silent.stats.samples, "{silent:?}");
    assert_eq!(silent.missing_batches, 0, "{silent:?}");
    assert!(
        run.has(FindingCode::LeaseExpired, "silent"),
        "{:?}",
        run.record.all_findings()
    );
    // The other host was complete before, and nothing new is said of it.
    assert_eq!(run.host("heard")?, &heard);
    assert!(
        !run.has(FindingCode::RemainderGone, "heard"),
        "{:?}",
        run.record.all_findings()
    );
    Ok(())
}
