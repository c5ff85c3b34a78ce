//! `--keep-agent`: the next run sends nothing, and does not trust what it finds.
//!
//! In: one host, looked at three times. Out: one upload; then none; then one more, because somebody has
//! spoilt the kept file. Never: a kept agent that is run without being checked.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fleetflame_tests::{Direction, LinkConditions, SshFleet, SshSetup};

use crate::{CAPTURE, turn};

fn look(fleet: &SshFleet, more: &[&str]) -> Result<u64> {
    let bytes = || {
        fleet
            .network(0)
            .link
            .counters(Direction::AToB)
            .delivered_bytes
    };
    let before = bytes();
    let mut command = fleet.coordinator("doctor")?;
    command.args(["--ssh", "one"]).args(more);
    let done = fleet.fabric.coordinator.spawn(command)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    Ok(bytes() - before)
}

fn kept(fleet: &SshFleet) -> Result<PathBuf> {
    let folder = fleet.hosts[0].folder.join("var-tmp/fleetflame-0");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().context("nothing is kept")
}

#[test]
fn an_agent_is_sent_once_and_checked_each_time() -> Result<()> {
    let _turn = turn();
    let hosts = [("one", SshSetup::default())];
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    let first = look(&fleet, &["--keep-agent"])?;
    let path = kept(&fleet)?;
    assert_eq!(fs::read(&path)?, fs::read(&fleet.agent)?);
    let second = look(&fleet, &["--keep-agent"])?;
    println!("{first} bytes for the first run, {second} for the second");
    assert!(
        second * 4 < first,
        "sent again: {first}, then {second} bytes"
    );

    let mut spoilt = fs::read(&path)?;
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    fs::write(&path, &spoilt)?;
    let third = look(&fleet, &["--keep-agent"])?;
    assert!(
        third * 4 > first,
        "a spoilt agent was not replaced: {third}"
    );
    assert_eq!(fs::read(kept(&fleet)?)?, fs::read(&fleet.agent)?);

    // Without the wish nothing more is kept, and what others have kept stays theirs.
    look(&fleet, &[])?;
    kept(&fleet)?;
    assert!(fleet.agents(0).is_empty(), "{:?}", fleet.left());
    Ok(())
}
