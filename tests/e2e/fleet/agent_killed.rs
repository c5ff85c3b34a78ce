//! An agent that is killed without warning costs its own host only, and leaves nothing there.
//!
//! In: two hosts with the simulated engine, which starts a child as real engines do. Out: a partial
//! run that names the lost host; the keeper has ended the child. Never: a wait for the host's return
//! that holds up the rest.

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{self, Identity, Pid};
use fleetflame_tests::{AgentSetup, LinkConditions, RealFleet};
use model::FindingCode;
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SAFE, UNDER_WAY, turn, within};

const HZ: u64 = 50;
const SECONDS: u64 = 6;
const PROCESSES: u64 = 2;

/// The engine's child.
fn sleeper(agent: Pid) -> Option<Pid> {
    let descendants = procfs::descendants(agent);
    descendants
        .into_iter()
        .find(|pid| procfs::comm(*pid).as_deref() == Some("sleep"))
}

#[test]
fn the_keeper_ends_what_a_killed_agent_started() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["lives", "killed"], LinkConditions::default())?;
    for number in 0..2 {
        fleet.start_agent(number, &AgentSetup::default())?;
    }
    let out = fleet.path("run");
    let body = format!(
        "engine: simulated\nduration: {SECONDS}s\nsample_hz: {HZ}\n\
         simulated: {{seed: 1, processes: {PROCESSES}, stacks: 8, child: true, arm_ms: 0}}"
    );
    let mut coordinator = fleet.capture(&body, &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    // The host that is to die has sent something that is kept: samples were heard of before that,
    // and from the other host too.
    let spool = out.join("spool/killed.spool");
    let longer_than = |len: u64| within(CAPTURE, || spool.metadata().is_ok_and(|f| f.len() > len));
    assert!(longer_than(0).is_some(), "nothing of the host arrived");
    // A first batch may hold no more than names; the second has samples.
    let first = spool.metadata()?.len();
    assert!(longer_than(first).is_some(), "only one batch arrived");
    let killed = fleet.hosts[1].agent()?.pid();
    let child = sleeper(killed).context("the engine has started no child")?;
    let child = Identity::of(child).context("the child is gone")?;
    fleet.hosts[1].agent_mut()?.kill_alone()?;
    let gone = within(SAFE, || !child.alive());
    println!("the child ended after {gone:?}");
    assert!(
        gone.is_some(),
        "the engine's child lives on: {:?}",
        fleet.network(1).namespace.pids()
    );
    let empty = within(SAFE, || fleet.network(1).namespace.pids().is_empty());
    assert!(
        empty.is_some(),
        "left on the host: {:?}",
        fleet.network(1).namespace.pids()
    );

    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    assert!(
        run.has(FindingCode::HostLost, "killed"),
        "{:?}",
        run.record.all_findings()
    );
    assert_eq!(run.host("killed")?.outcome, HostOutcome::Partial);
    assert!(run.samples("killed") > 0, "what it had sent is lost");
    let lives = run.host("lives")?;
    assert_eq!(lives.outcome, HostOutcome::Complete, "{lives:?}");
    assert_eq!(run.samples("lives"), HZ * SECONDS * PROCESSES);
    let agent = fleet.hosts[0].agent()?;
    let child = within(SAFE, || sleeper(agent.pid()).is_none());
    assert!(child.is_some(), "the other agent's child was not ended");
    Ok(())
}
