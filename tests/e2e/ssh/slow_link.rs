//! A host at the end of a slow network is waited for while its agent comes nearer, and starts with the
//! rest.
//!
//! In: one host on a perfect wire, one behind 1 Mbit/s and 200 ms. Out: progress of the upload, one common
//! start, both complete; an upload that is interrupted leaves nothing, as soon as any other end. Never: the
//! whole agent in ssh's memory, or memory without a bound on any side.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fleetflame_tests::{Child, LinkConditions, SshFleet, SshSetup, procfs};
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, turn};

/// Both starts lie this close together, as far as the coordinator knows the clocks.
const SPREAD_NS: u64 = 50_000_000;
const COORDINATOR_KIB_MAX: u64 = 300 << 10;
const AGENT_KIB_MAX: u64 = 128 << 10;

#[test]
fn a_slow_host_gets_its_agent_and_starts_with_the_rest() -> Result<()> {
    let _turn = turn();
    let hosts = [("near", SshSetup::default()), ("far", SshSetup::default())];
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    fleet.network(1).link.change_both(|conditions| {
        conditions.delay = SECOND / 10;
        conditions.bytes_per_s = Some(125_000);
    });
    let body = "engine: simulated\nduration: 4s\nsample_hz: 50\n\
                simulated: {seed: 1, processes: 2, stacks: 8, arm_ms: 0}";
    let out = fleet.path("run");
    let began = Instant::now();
    let mut coordinator = fleet.capture(body, &[], &out)?;
    let (mut ours_kib, mut agents_kib) = (0, 0);
    let status = loop {
        ours_kib = ours_kib.max(procfs::peak_memory_kib(coordinator.pid()).unwrap_or(0));
        let agents = (0..2).flat_map(|number| fleet.agents(number));
        agents_kib = agents
            .filter_map(procfs::peak_memory_kib)
            .max()
            .unwrap_or(0)
            .max(agents_kib);
        if let Some(status) = coordinator.ended()? {
            break status;
        }
        assert!(began.elapsed() < 2 * CAPTURE, "{}", coordinator.stdout());
        thread::sleep(Duration::from_millis(100));
    };
    let said = coordinator.stdout();
    println!(
        "{:?}, coordinator {ours_kib} KiB, agents {agents_kib} KiB",
        began.elapsed()
    );
    assert_eq!(status.code(), Some(0), "{said}\n{}", coordinator.stderr());
    assert!(
        ours_kib < COORDINATOR_KIB_MAX,
        "coordinator: {ours_kib} KiB"
    );
    assert!(agents_kib < AGENT_KIB_MAX, "an agent: {agents_kib} KiB");

    let mut shares = Vec::new();
    for line in said
        .lines()
        .filter(|line| line.contains("\"event\":\"sending\""))
    {
        let event: serde_json::Value = serde_json::from_str(line)?;
        if event["host"] == "far" {
            let (sent, total) = (event["sent_bytes"].as_u64(), event["total_bytes"].as_u64());
            shares.push(sent.unwrap_or(0) * 100 / total.unwrap_or(1));
        }
    }
    println!("progress of the upload: {shares:?} %");
    assert!(
        shares.len() >= 5,
        "the upload showed no progress: {shares:?}"
    );
    assert!(shares.is_sorted() && shares.last() == Some(&100));

    let run = Written::read(&out)?;
    run.check_sums()?;
    let mut errors = Vec::new();
    for name in ["near", "far"] {
        let host = run.host(name)?;
        assert_eq!(host.outcome, HostOutcome::Complete, "{name}: {host:?}");
        assert_eq!(run.samples(name), 4 * 50 * 2, "{name}");
        errors.push(host.start_error_ns);
    }
    let spread = errors[0].abs_diff(errors[1]);
    println!("starts differ by {spread} ns");
    assert!(spread <= SPREAD_NS, "{errors:?}");
    fleet.wait_clean(SAFE)?;
    Ok(())
}

/// Begins to send an agent over 1 Mbit/s and 200 ms; gives both when as much is under way as ever is.
fn in_the_middle_of_an_upload() -> Result<(SshFleet, Child)> {
    let hosts = [("far", SshSetup::default())];
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    fleet.network(0).link.change_both(|conditions| {
        conditions.delay = SECOND / 10;
        conditions.bytes_per_s = Some(125_000);
    });
    let body = "engine: simulated\nduration: 4s\nsimulated: {seed: 1, processes: 2, stacks: 8}";
    let mut coordinator = fleet.capture(body, &[], &fleet.path("run"))?;
    coordinator.wait_for_stdout("\"event\":\"sending\"", CAPTURE)?;
    let half = fleet.hosts[0].folder.join("var-tmp/fleetflame-0");
    let began = Instant::now();
    while !half.exists() {
        anyhow::ensure!(began.elapsed() < CAPTURE, "nothing arrives");
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(2 * SECOND);
    anyhow::ensure!(fleet.agents(0).is_empty(), "the agent runs already");
    Ok((fleet, coordinator))
}

#[test]
fn ctrl_c_in_the_middle_of_an_upload_leaves_no_half_agent() -> Result<()> {
    let _turn = turn();
    let (fleet, coordinator) = in_the_middle_of_an_upload()?;
    let group = nix::unistd::Pid::from_raw(coordinator.pid());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT)?;
    let told = Instant::now();
    let done = coordinator.finish(CAPTURE)?;
    println!("ended {:?} after Ctrl-C", told.elapsed());
    assert_eq!(
        done.status.code(),
        Some(130),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    assert!(told.elapsed() < SAFE, "{}", done.stderr);
    let took = fleet.wait_clean(SAFE.saturating_sub(told.elapsed()))?;
    println!("clean after {took:?}");
    Ok(())
}

#[test]
fn a_coordinator_killed_in_the_middle_of_an_upload_leaves_no_half_agent() -> Result<()> {
    let _turn = turn();
    let (fleet, mut coordinator) = in_the_middle_of_an_upload()?;
    coordinator.kill_alone()?;
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    Ok(())
}
