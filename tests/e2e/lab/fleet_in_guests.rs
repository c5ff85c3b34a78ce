//! Real agents in guests, the real coordinator on this machine: one capture over two kernels, and what is left
//! of an agent whose coordinator is out of reach, or that is killed.
//!
//! With the engine that costs an emulated processor nothing and starts a child as real ones do: what is held
//! here is the way there and back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::{Guest, GuestSetup};
use nix::sys::signal::Signal;

use crate::{samples, within};

const POLICY: &str = "version: 1\nengines: [simulated]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";
const ENGINE: &str = "engine: simulated\nsample_hz: 50\n\
    simulated: {seed: 1, processes: 2, stacks: 8, child: true, arm_ms: 0}";
const CAPTURE: Duration = Duration::from_mins(3);
/// The capture runs, and its coordinator hears of samples.
const UNDER_WAY: &str = "\"event\":\"progress\"";
/// A lease is 4 s, a teardown 1 s; an emulated processor behind other work is slow.
const SAFE: Duration = Duration::from_secs(20);

#[test]
fn one_capture_goes_over_two_kernels() -> Result<()> {
    let fleet = LabFleet::start(&GuestSetup::bare(), 2, POLICY)?;
    let (first, second) = (&fleet.lab.guests[0], &fleet.lab.guests[1]);
    let out = fleet.path("whole");
    let body = format!("{ENGINE}\nduration: 4s");
    let done = fleet.capture(&body, &[1, 1], &out)?.finish(CAPTURE)?;
    let code = done.status.code();
    ensure!(
        code == Some(0),
        "{code:?}: {}\n{}",
        done.stdout,
        done.stderr
    );
    let of_host = |guest: &Guest| samples(&out.join(format!("hosts/{}.folded", guest.name)));
    let (one, other) = (of_host(first)?, of_host(second)?);
    ensure!(one > 0 && other > 0, "{one} and {other} samples");
    ensure!(samples(&out.join("merged.folded"))? == one + other);

    let out = fleet.path("ends");
    let body = format!("{ENGINE}\nduration: 120s");
    let mut coordinator = fleet.capture(&body, &[1, 1], &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    for guest in [first, second] {
        within(SAFE, || captures(guest)).with_context(|| format!("no child in {}", guest.name))?;
    }
    // A cable is pulled: the agent ends its capture by itself, and lives on.
    first.set_link(false)?;
    within(SAFE, || Ok(!captures(first)?)).context("it captures on without a coordinator")?;
    ensure!(
        fleet.agents[0].ended().is_none(),
        "{}",
        fleet.agents[0].stderr()
    );
    // An agent is killed: nothing of it is left.
    second.signal(fleet.agents[1].pid()?, "KILL")?;
    within(SAFE, || {
        Ok(!captures(second)? && second.left_behind()?.is_empty())
    })
    .context("a killed agent leaves something behind")?;
    // The coordinator keeps what it has of both.
    coordinator.signal(Signal::SIGINT)?;
    let done = coordinator.finish(CAPTURE)?;
    ensure!(samples(&out.join("merged.folded"))? > 0, "{}", done.stdout);
    first.check_kernel()?;
    second.check_kernel()
}

/// Whether the engine's child is there.
fn captures(guest: &Guest) -> Result<bool> {
    Ok(!guest.pids_of("sleep")?.is_empty())
}
