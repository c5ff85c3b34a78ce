//! A coordinator that is killed without warning: its agents stop by themselves, and nothing that
//! they took until then is lost or counted twice.
//!
//! In: a coordinator and `kill -9`. Out: agents that sample nothing any more and hold the rest, for
//! their owner's eyes only; `collect` fetches it. Never: a run that is spoilt by collecting it again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{Identity, open_perf_fds};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Binaries, Build, Child, LinkConditions, RealFleet, Workload};
use model::FindingCode;
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, UNDER_WAY, turn, within};

const NAMES: [&str; 2] = ["first", "second"];

#[test]
fn agents_stop_by_themselves_and_collect_fetches_the_rest() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&NAMES, LinkConditions::default())?;
    let out = fleet.path("run");
    let mut coordinator = fleet.capture("duration: 60s\nsample_hz: 199", &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    std::thread::sleep(2 * SECOND);
    coordinator.kill_alone()?;
    for host in &fleet.hosts {
        let agent = host.agent()?;
        assert!(
            open_perf_fds(agent.pid()) > 0,
            "{} did not sample",
            host.name
        );
    }
    for host in &fleet.hosts {
        let agent = host.agent()?;
        let idle = within(SAFE, || {
            open_perf_fds(agent.pid()) == 0 && agent.family().is_empty()
        });
        println!("{} stopped after {idle:?}", host.name);
        assert!(
            idle.is_some(),
            "{} samples without a coordinator",
            host.name
        );
        let alive = Identity::of(agent.pid()).is_some_and(|agent| agent.alive());
        assert!(alive, "the agent of {} is gone", host.name);
        let held = within(SAFE, || {
            held(&host.held).is_ok_and(|files| files.len() == 1)
        });
        assert!(held.is_some(), "{} holds nothing", host.name);
        check_private(&host.held)?;
    }

    collect(&fleet, &out)?;
    let run = Written::read(&out)?;
    let total = run.check_sums()?;
    for name in NAMES {
        let host = run.host(name)?;
        println!(
            "{name}: {} samples, {:?}",
            run.samples(name),
            run.seconds(name)
        );
        assert!(run.samples(name) > 0);
        assert_eq!(run.samples(name), host.stats.samples, "{name}: {host:?}");
        assert_eq!(host.missing_batches, 0, "{name}");
        assert_eq!(host.engine, "native", "{name}: {host:?}");
        assert!(!host.agent_version.is_empty(), "{name}: {host:?}");
        assert_eq!(host.outcome, HostOutcome::Partial, "{name}");
        assert!(
            run.has(FindingCode::LeaseExpired, name),
            "{:?}",
            run.record.all_findings()
        );
    }
    for host in &fleet.hosts {
        let empty = within(SAFE, || {
            held(&host.held).is_ok_and(|files| files.is_empty())
        });
        assert!(
            empty.is_some(),
            "{} still holds {:?}",
            host.name,
            held(&host.held)
        );
    }

    // Once more: nothing new comes, and nothing that is there goes.
    collect(&fleet, &out)?;
    let again = Written::read(&out)?;
    assert_eq!(
        again.check_sums()?,
        total,
        "collecting twice changed the run"
    );
    assert_eq!(again.record.coverage.hosts, run.record.coverage.hosts);
    Ok(())
}

/// Runs `collect` to its end: a run that was cut short is partial.
fn collect(fleet: &RealFleet, out: &Path) -> Result<()> {
    let command = fleet.coordinator("collect", &[out]);
    let done = fleet.fabric.coordinator.spawn(command)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    Ok(())
}

/// Files in the folder of held runs that are whole.
fn held(folder: &Path) -> Result<Vec<String>> {
    let names =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>> = names.collect();
    Ok(names?
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .collect())
}

fn check_private(folder: &Path) -> Result<()> {
    let mode =
        |path: &Path| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o777) };
    assert_eq!(mode(folder)?, 0o700);
    for name in held(folder)? {
        assert_eq!(mode(&folder.join(&name))?, 0o600, "{name}");
    }
    Ok(())
}

#[test]
fn a_local_agent_ends_with_its_coordinator() -> Result<()> {
    let _turn = turn();
    let programs = Binaries::find()?;
    let stage = tempfile::tempdir()?;
    let mut split = Workload::Split.command(Build::default())?;
    split.arg("120");
    let mut split = Child::spawn(split)?;
    split.wait_for_stdout("ready", 5 * SECOND)?;
    let policy = stage.path().join("policy.yaml");
    fs::write(&policy, POLICY)?;
    let mut command = programs.coordinator();
    command.args([
        "capture",
        "--local",
        "--json",
        "--duration",
        "60s",
        "--arm-timeout",
        "40s",
    ]);
    command
        .args([
            "--target",
            &format!("pid:{}", split.pid()),
            "--agent-policy",
        ])
        .arg(&policy);
    command.arg("--out").arg(stage.path().join("run"));
    let mut coordinator = Child::spawn(command)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    let agent = coordinator
        .family()
        .first()
        .copied()
        .context("no agent was started")?;
    let agent = Identity::of(agent).context("the agent is gone")?;
    assert!(open_perf_fds(agent.pid) > 0, "the agent did not sample");
    coordinator.kill_alone()?;
    let gone = within(SAFE, || !agent.alive());
    println!("the agent ended after {gone:?}");
    assert!(gone.is_some(), "the agent outlives its coordinator");
    assert!(
        coordinator.family().is_empty(),
        "left: {:?}",
        coordinator.family()
    );
    Ok(())
}
