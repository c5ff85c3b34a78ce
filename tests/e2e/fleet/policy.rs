//! The host's own policy has the last word.
//!
//! In: policy files that others can write, that allow less than is asked, or that are no files. Out:
//! exit code 5 and a finding that says why. Never: an order trimmed to what is allowed, or a sample.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::Result;
use fleetflame_tests::procfs::open_perf_fds;
use fleetflame_tests::{AgentSetup, Child, LinkConditions, RealFleet};
use model::FindingCode;
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SECOND, turn};

/// Captures, and fails unless the only host refuses for this reason.
fn check_refused(fleet: &RealFleet, code: FindingCode) -> Result<()> {
    let out = fleet.path(&format!("run-{}", code.as_str()));
    let done = fleet.capture("duration: 2s", &out)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(5),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    assert!(run.has(code, "strict"), "{:?}", run.record.all_findings());
    let host = run.host("strict")?;
    assert_eq!((host.outcome, host.captured), (HostOutcome::Refused, false));
    assert_eq!(run.check_sums()?, 0);
    assert_eq!(open_perf_fds(fleet.hosts[0].agent()?.pid()), 0);
    Ok(())
}

#[test]
fn less_is_allowed_than_was_asked() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["strict"], LinkConditions::default())?;
    fleet.start_workload(0)?;
    let policy = "version: 1\nsample_hz_max: 50\ncpu_pct_max: 100\n".to_owned();
    fleet.start_agent(
        0,
        &AgentSetup {
            policy,
            ..AgentSetup::default()
        },
    )?;
    check_refused(&fleet, FindingCode::PolicyRefused)?;
    // What it allows, it does.
    let out = fleet.path("run-allowed");
    let done = fleet
        .capture("duration: 2s\nsample_hz: 50", &out)?
        .finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    Ok(())
}

#[test]
fn a_policy_that_becomes_unsafe_stops_a_running_agent_from_obeying() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&["strict"], LinkConditions::default())?;
    let policy = &fleet.hosts[0].policy;
    fs::set_permissions(policy, fs::Permissions::from_mode(0o666))?;
    check_refused(&fleet, FindingCode::PolicyUnsafe)?;
    let real = policy.with_extension("real");
    fs::rename(policy, &real)?;
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600))?;
    symlink(&real, policy)?;
    check_refused(&fleet, FindingCode::PolicyInvalid)
}

#[test]
fn an_agent_does_not_start_with_an_unsafe_policy() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::prepare(&["strict"], LinkConditions::default())?;
    let command = fleet.agent(0, &AgentSetup::default())?;
    fs::set_permissions(&fleet.hosts[0].policy, fs::Permissions::from_mode(0o620))?;
    let done = Child::spawn(command)?.finish(10 * SECOND)?;
    assert!(!done.status.success());
    assert!(
        done.stderr.contains(FindingCode::PolicyUnsafe.as_str()),
        "{}",
        done.stderr
    );
    Ok(())
}
