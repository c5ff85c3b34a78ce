//! However a run over SSH ends, nothing of it is left after five seconds: no process, no file, no ssh
//! master.
//!
//! In: two hosts with the simulated engine, which starts a child as real engines do; five ways to end.
//! Out: two empty hosts. Never: the agents' own good will taken for granted: one is killed as well.

use std::thread;

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{self, Pid};
use fleetflame_tests::{Child, LinkConditions, SshFleet, SshSetup};
use model::FindingCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as NixPid;

use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, UNDER_WAY, turn};

fn fleet() -> Result<SshFleet> {
    let hosts = [("one", SshSetup::default()), ("two", SshSetup::default())];
    SshFleet::start(&hosts, LinkConditions::default())
}

fn begin(fleet: &SshFleet, seconds: u64) -> Result<Child> {
    let body = format!(
        "engine: simulated\nduration: {seconds}s\nsample_hz: 50\n\
         simulated: {{seed: 1, processes: 2, stacks: 8, child: true, arm_ms: 0}}"
    );
    let mut coordinator = fleet.capture(&body, &[], &fleet.path("run"))?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    // Samples of both have been kept before anything ends.
    for name in ["one", "two"] {
        let spool = fleet.path("run").join(format!("spool/{name}.spool"));
        for _ in 0..500 {
            if spool.metadata().is_ok_and(|file| file.len() > 0) {
                break;
            }
            thread::sleep(SECOND / 50);
        }
        assert!(spool.metadata()?.len() > 0, "nothing of {name} arrived");
    }
    // The first batch of a capture may hold names only.
    thread::sleep(SECOND);
    for number in 0..2 {
        assert!(
            fleet.agents(number).len() >= 3,
            "an agent, its keeper and its child run: {:?}",
            fleet.left()
        );
    }
    Ok(coordinator)
}

fn kill_pid(pid: Pid) -> Result<()> {
    kill(NixPid::from_raw(pid), Signal::SIGKILL).context("kill")
}

/// The agent itself, and not its keeper or child.
fn agent(fleet: &SshFleet, number: usize) -> Result<Pid> {
    let has_word = |pid: &Pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == b"detached"))
    };
    let agents = fleet.agents(number);
    agents.into_iter().find(has_word).context("no agent runs")
}

#[test]
fn the_normal_end_leaves_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let done = begin(&fleet, 3)?.finish(CAPTURE)?;
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    assert_eq!(done.status.code(), Some(0), "{}", done.stdout);
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    assert_eq!(run.samples("one"), 3 * 50 * 2);
    assert_eq!(run.mode("")?, 0o700);
    Ok(())
}

#[test]
fn ctrl_c_leaves_nothing_and_keeps_what_there_was() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let coordinator = begin(&fleet, 60)?;
    // As a terminal does: the whole process group hears it, every ssh in it as well.
    let group = NixPid::from_raw(coordinator.pid());
    nix::sys::signal::killpg(group, Signal::SIGINT)?;
    let done = coordinator.finish(CAPTURE)?;
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    assert_eq!(done.status.code(), Some(130), "{}", done.stdout);
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    for name in ["one", "two"] {
        assert_eq!(run.samples(name), run.host(name)?.stats.samples, "{name}");
        assert!(run.samples(name) > 0);
        assert_eq!(run.host(name)?.reconnects, 0, "Ctrl-C broke the channel");
    }
    Ok(())
}

#[test]
fn a_killed_coordinator_leaves_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let mut coordinator = begin(&fleet, 60)?;
    coordinator.kill_alone()?;
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    Ok(())
}

#[test]
fn a_killed_agent_leaves_nothing_and_costs_its_own_host_only() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let coordinator = begin(&fleet, 6)?;
    kill_pid(agent(&fleet, 0)?)?;
    let gone = fleet.wait_clean_on(0, SAFE)?;
    println!("the killed agent's host is clean after {gone:?}");
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(done.status.code(), Some(3), "{}", done.stdout);
    fleet.wait_clean(SAFE)?;
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    assert!(
        run.has(FindingCode::AgentGone, "one"),
        "{:?}",
        run.record.all_findings()
    );
    assert!(run.samples("one") > 0);
    assert_eq!(run.samples("two"), 6 * 50 * 2);
    Ok(())
}

#[test]
fn a_killed_sshd_leaves_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let coordinator = begin(&fleet, 20)?;
    for pid in fleet.network(0).namespace.pids() {
        if procfs::comm(pid).is_some_and(|comm| comm.starts_with("sshd")) {
            kill_pid(pid)?;
        }
    }
    let gone = fleet.wait_clean_on(0, SAFE)?;
    println!("the host is clean after {gone:?}");
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(done.status.code(), Some(3), "{}", done.stdout);
    fleet.wait_clean(SAFE)?;
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    assert!(run.has(FindingCode::HostLost, "one"));
    Ok(())
}

#[test]
fn a_link_that_is_cut_for_good_leaves_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let coordinator = begin(&fleet, 20)?;
    fleet.network(0).link.cut();
    let gone = fleet.wait_clean_on(0, SAFE)?;
    println!("the host behind the cut is clean after {gone:?}");
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(done.status.code(), Some(3), "{}", done.stdout);
    let took = fleet.wait_clean(SAFE)?;
    println!("the operator's side is clean after {took:?}");
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    assert!(run.has(FindingCode::HostLost, "one"));
    assert_eq!(run.samples("two"), 20 * 50 * 2);
    Ok(())
}

#[test]
fn three_seconds_of_silence_lose_and_double_nothing() -> Result<()> {
    let _turn = turn();
    let fleet = fleet()?;
    let coordinator = begin(&fleet, 8)?;
    fleet.network(0).link.cut();
    thread::sleep(3 * SECOND);
    fleet.network(0).link.heal();
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    let run = Written::read(&fleet.path("run"))?;
    run.check_sums()?;
    for name in ["one", "two"] {
        assert_eq!(run.samples(name), 8 * 50 * 2, "{name}");
        assert_eq!(run.host(name)?.missing_batches, 0);
        let seconds = run.seconds(name);
        assert!((0..8).all(|s| seconds.get(&s) == Some(&100)), "{seconds:?}");
    }
    assert!(run.host("one")?.reconnects > 0, "the silence was not felt");
    Ok(())
}
