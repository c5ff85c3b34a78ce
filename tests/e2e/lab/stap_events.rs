//! SystemTap's probes that fire on every event: bytes through the file system, and waits for a lock, of a program that
//! moves and waits by plan.
//!
//! In: a fleet of one guest, modules that were built here. Out: shares as the program has them, by user stack. Never: a
//! byte or a wait of another process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fleetflame_tests::Guest;
use fleetflame_tests::lab::agent_module::libc;
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, RemoteChild, build_module, install_module};
use model::format::ffz;
use model::profile::Profile;

use crate::stap_engine::{CAPTURE, SAFE, unloaded};
use crate::within;

const DURATION_S: u64 = 8;
/// What the program's parts have of a measure, by function.
type Shares = BTreeMap<String, f64>;

/// Their modules, of this program.
pub(crate) fn build(kit: &Kit, program: &Path) -> Result<Vec<PathBuf>> {
    let each = ["vfs", "lock"].into_iter();
    each.map(|probe| build_module(kit, Some(program), probe, &[]))
        .collect()
}

/// The probe `alloc` in glibc, which has no symbols but those of its dynamic linking.
pub(crate) fn build_alloc(kit: &Kit, program: &Path) -> Result<PathBuf> {
    let libc = libc()?;
    let libc = libc.to_string_lossy();
    build_module(kit, Some(program), "alloc", &["--image", &libc])
}

pub(crate) fn memory_stays_where_the_program_keeps_it(
    fleet: &LabFleet,
    program: &Path,
    module: &Path,
) -> Result<()> {
    let guest = &fleet.lab.guests[0];
    install_module(guest, module)?;
    let target = started(guest, program)?;
    let profile = capture(fleet, "alloc", target.pid()?)?;
    let kept = by_function(&profile, 1)?;
    let leaked = kept["leak_most"] + kept["leak_less"];
    let seen = format!("{kept:?}");
    ensure!(leaked > 100_000.0, "{seen}");
    ensure!(
        (0.74..0.76).contains(&(kept["leak_most"] / leaked)),
        "{seen}"
    );
    // What one round has not given back yet.
    ensure!(kept["free_all"] <= 10_000.0, "{seen}");
    within(SAFE, || unloaded(guest)).context("after it")
}

/// A program that works by plan until it is dropped.
fn started(guest: &Guest, program: &Path) -> Result<RemoteChild> {
    let target = guest.start(&[&program.to_string_lossy(), "900"])?;
    target.wait_for_line("ready", SAFE)?;
    Ok(target)
}

pub(crate) fn bytes_and_waits_are_where_the_program_has_them(
    fleet: &LabFleet,
    program: &Path,
    modules: &[PathBuf],
) -> Result<()> {
    let guest = &fleet.lab.guests[0];
    for module in modules {
        install_module(guest, module)?;
    }
    let target = started(guest, program)?;
    let profile = capture(fleet, "vfs", target.pid()?)?;
    let moved = by_function(&profile, 1)?;
    let written = moved["write_most"] + moved["write_less"];
    let seen = format!("{moved:?}");
    // Whole calls, whose bytes are known: what is left to chance are the first and the last.
    ensure!(
        (0.74..0.76).contains(&(moved["write_most"] / written)),
        "{seen}"
    );
    ensure!(
        (0.48..0.52).contains(&(moved["read_back"] / written)),
        "{seen}"
    );
    let called = by_leaf(&profile);
    ensure!(
        called["vfs_write"] > 20.0 && called["vfs_read"] > 20.0 && called.len() == 2,
        "{called:?}"
    );
    let latency = by_function(&profile, 2)?;
    let heard = latency["hear"] / (DURATION_S as f64 * 1e9);
    // 40 of 140 ms; an emulated machine wakes late, the one that sleeps as well as the one that hears.
    ensure!(
        (0.1..0.5).contains(&heard),
        "{heard} of the time: {latency:?}"
    );

    let profile = capture(fleet, "lock", target.pid()?)?;
    let waited = by_function(&profile, 1)?;
    let whole = waited["wait70"] + waited["wait30"];
    let share = waited["wait70"] / whole;
    ensure!((0.62..0.72).contains(&share), "{share}: {waited:?}");
    let part = whole / (DURATION_S as f64 * 1e9);
    ensure!((0.4..0.9).contains(&part), "{part} of the time: {waited:?}");
    within(SAFE, || unloaded(guest)).context("after it")
}

/// Captures, and gives what came of it; the picture says the unit.
fn capture(fleet: &LabFleet, probe: &str, target: i32) -> Result<Profile> {
    let out = fleet.path(probe);
    let body = format!("engine: stap\nprobe: {probe}\nduration: {DURATION_S}s");
    let done = fleet.capture(&body, &[target], &out)?.finish(CAPTURE)?;
    let said = format!("{}\n{}", done.stdout, done.stderr);
    ensure!(done.status.code() == Some(0), "{probe}: {said}");
    for code in [
        "stap-output",
        "stap-retried",
        "stap-warning",
        "input-skipped",
    ] {
        ensure!(!said.contains(code), "{probe}: {said}");
    }
    let unit = match probe {
        "vfs" => "bytes moved",
        "alloc" => "bytes allocated",
        _ => "ns waited",
    };
    let picture = fs::read_to_string(out.join("merged.svg"))?;
    ensure!(picture.contains(unit), "the picture does not say {unit}");
    let bytes = fs::read(out.join("profile.ffz"))?;
    Ok(ffz::decode_profile(
        &bytes,
        ffz::Limits::FILE,
        ffz::Want::Totals,
    )?)
}

/// What each function of the program has of a measure, with what it calls.
fn by_function(profile: &Profile, measure: usize) -> Result<Shares> {
    let mut sums = Shares::new();
    for (node, values) in profile.select(|_| true) {
        let frames = profile.tree.stack(node);
        let frames = frames.iter().filter_map(|f| profile.frames.get(*f));
        for frame in frames {
            *sums.entry(frame.name.clone()).or_default() += values[measure] as f64;
        }
    }
    ensure!(sums.contains_key("main") || sums.len() > 2, "{sums:?}");
    for name in [
        "write_most",
        "write_less",
        "read_back",
        "hear",
        "wait70",
        "wait30",
        "leak_most",
        "leak_less",
        "free_all",
    ] {
        sums.entry(name.to_owned()).or_default();
    }
    Ok(sums)
}

/// Calls by the kernel's function that they went to.
fn by_leaf(profile: &Profile) -> Shares {
    let mut sums = Shares::new();
    for (node, values) in profile.select(|_| true) {
        let leaf = profile.tree.stack(node).pop();
        let frame = leaf.and_then(|f| profile.frames.get(f));
        let name = frame.map_or(String::new(), |f| f.name.clone());
        *sums.entry(name).or_default() += values[0] as f64;
    }
    sums
}
