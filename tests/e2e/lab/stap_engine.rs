//! SystemTap by the agent itself: a module that was built on this machine, loaded in two guests that have no compiler, one
//! capture over both; and then every way in which one can end (stap_ends.rs).
//!
//! In: real agents in guests, the real coordinator here. Out: shares and depths that the program was made for, empty
//! kernels. Never: a module that only the agent's good will unloads: one agent is killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{RemoteChild, build_module, install_module};
use fleetflame_tests::{Build, Guest, GuestSetup, Workload};

use crate::{samples, stap_distinct, stap_ends, within};

pub(crate) const POLICY: &str =
    "version: 1\nengines: [stap]\ncpu_pct_max: 400\nmemory_mb_max: 512\n";
/// An emulated processor: the agent's own work must not end the capture.
pub(crate) const ENGINE: &str = "engine: stap\nsample_hz: 99\nkernel: false\n";
pub(crate) const CAPTURE: Duration = Duration::from_mins(4);
/// A lease is 4 s, a teardown 1 s; an emulated processor behind other work is slow.
pub(crate) const SAFE: Duration = Duration::from_secs(30);
/// Calls of `descend` above the two that work.
const DEPTH: usize = 5;

#[test]
fn a_module_built_here_is_loaded_by_the_agents_of_two_guests() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let mut fleet = LabFleet::start(&GuestSetup::bare().program(&split), 2, POLICY)?;
    let module = build_module(fleet.lab.kit, Some(&split), "oncpu-user", &[])?;
    for guest in &fleet.lab.guests {
        install_module(guest, &module)?;
    }
    stap_distinct::ways(&fleet, &split)?;
    let mut targets = Vec::new();
    for guest in &fleet.lab.guests {
        targets.push(target(guest, &split)?);
    }
    let pids = [targets[0].pid()?, targets[1].pid()?];

    let out = fleet.path("whole");
    let body = format!("{ENGINE}duration: 8s");
    let done = fleet.capture(&body, &pids, &out)?.finish(CAPTURE)?;
    let code = done.status.code();
    ensure!(
        code == Some(0),
        "{code:?}: {}\n{}",
        done.stdout,
        done.stderr
    );
    let mut sum = 0;
    for guest in &fleet.lab.guests {
        let folded = out.join(format!("hosts/{}.folded", guest.name));
        sum += samples(&folded)?;
        as_designed(&folded).with_context(|| format!("{}: {}", guest.name, done.stdout))?;
        ensure!(
            out.join(format!("diff/{}-vs-rest.svg", guest.name))
                .exists(),
            "no difference of {}",
            guest.name
        );
    }
    ensure!(samples(&out.join("merged.folded"))? == sum);
    for guest in &fleet.lab.guests {
        within(SAFE, || unloaded(guest)).with_context(|| format!("{}: after it", guest.name))?;
    }

    stap_ends::all(&mut fleet, &split, &mut targets)?;
    fleet
        .lab
        .guests
        .iter()
        .try_for_each(|guest| guest.check_kernel())
}

pub(crate) fn target(guest: &Guest, program: &Path) -> Result<RemoteChild> {
    let path = program.to_string_lossy().into_owned();
    let workload = guest.start(&[&path, "900", &DEPTH.to_string()])?;
    workload.wait_for_line("ready", SAFE)?;
    Ok(workload)
}

pub(crate) fn loaded(guest: &Guest) -> Result<bool> {
    let modules = guest.modules()?;
    Ok(modules.iter().any(|m| m.name.starts_with("ff_")))
}

/// Whether neither a module nor its reader is there.
pub(crate) fn unloaded(guest: &Guest) -> Result<bool> {
    let readers = [guest.pids_of("staprun")?, guest.pids_of("stapio")?].concat();
    Ok(!loaded(guest)? && readers.is_empty())
}

/// 70 to 30, and nearly every stack as deep as the program.
fn as_designed(folded: &Path) -> Result<()> {
    let text = fs::read_to_string(folded)?;
    let (mut seventy, mut thirty, mut exact, mut all) = (0_u64, 0_u64, 0_u64, 0_u64);
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let count: u64 = count.parse()?;
        all += count;
        let frames: Vec<&str> = stack.split(';').collect();
        match frames.last() {
            Some(&"seventy") => seventy += count,
            Some(&"thirty") => thirty += count,
            _ => continue,
        }
        if frames.iter().filter(|f| **f == "descend").count() == DEPTH + 1 {
            exact += count;
        }
    }
    let working = seventy + thirty;
    ensure!(working > 80, "{working} of {all} samples work: {text}");
    ensure!(
        working * 100 >= all * 85,
        "{working} of {all} samples work: {text}"
    );
    let share = seventy as f64 / working as f64;
    // 3 points, and what chance does to so few.
    let chance = 4.0 * (0.21 / working as f64).sqrt();
    ensure!(
        (share - 0.7).abs() < 0.03 + chance,
        "seventy has {share:.3} of {working}: {text}"
    );
    ensure!(
        exact * 100 >= working * 80,
        "{exact} of {working} stacks have the program's depth: {text}"
    );
    Ok(())
}
