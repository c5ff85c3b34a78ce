//! Ctrl-C keeps what was captured and leaves the hosts clean.
//!
//! In: SIGINT in mid-capture. Out: exit code 130, a whole run directory, agents that sample nothing.
//! Never: an agent that has to wait for its lease.

use std::thread;

use anyhow::Result;
use fleetflame::store::RunState;
use fleetflame_tests::procfs::open_perf_fds;
use fleetflame_tests::{LinkConditions, RealFleet};
use model::FindingCode;
use nix::sys::signal::Signal;

use crate::written::Written;
use crate::{CAPTURE, SECOND, UNDER_WAY, turn};

#[test]
fn an_interrupted_run_is_kept_and_its_hosts_are_clean() -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&["one", "two"], LinkConditions::default())?;
    let out = fleet.path("run");
    let mut coordinator = fleet.capture("duration: 60s\nsample_hz: 199", &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    thread::sleep(2 * SECOND);
    coordinator.signal(Signal::SIGINT)?;
    let done = coordinator.finish(10 * SECOND)?;
    assert_eq!(
        done.status.code(),
        Some(130),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    for host in &fleet.hosts {
        let agent = host.agent()?;
        assert_eq!(open_perf_fds(agent.pid()), 0, "{} still samples", host.name);
        assert!(agent.family().is_empty(), "{} has children", host.name);
        assert_eq!(
            host.held.read_dir()?.count(),
            0,
            "{} holds what was delivered",
            host.name
        );
    }
    let run = Written::read(&out)?;
    run.check_sums()?;
    assert_eq!(run.record.state, RunState::Interrupted);
    assert!(
        run.record
            .findings
            .iter()
            .any(|f| f.code == FindingCode::Interrupted)
    );
    for name in ["one", "two"] {
        assert!(run.samples(name) > 0, "{name} has nothing");
        assert_eq!(run.samples(name), run.host(name)?.stats.samples, "{name}");
        assert_eq!(run.mode(&format!("hosts/{name}.svg"))?, 0o600);
    }
    Ok(())
}
