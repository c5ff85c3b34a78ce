//! How SystemTap behaves when a capture ends in each of the ways that it can: what staprun says, what data
//! comes, what stays loaded. Whoever drives it has to know.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::case::{Case, Recording};
use fleetflame_tests::lab::{LoadedModule, stacks};
use fleetflame_tests::{Guest, GuestSetup, Lab};
use nix::sys::signal::Signal;

/// The module of these cases.
const MODULE: &str = "lab_at_end";
const SOON: Duration = Duration::from_mins(3);

#[test]
fn a_reader_that_is_told_to_stop_prints_what_there_is_and_unloads() -> Result<()> {
    let lab = lab("sigint")?;
    let guest = lab.guest()?;
    for name in ["sigint", "sigterm", "sighup"] {
        let recording = Case::named(name)?.run(guest, lab.kit)?;
        recording.require_code(0)?;
        ensure!(samples(&recording)? > 0, "{name}: no samples");
        ensure!(
            recording.left.is_empty(),
            "{name} leaves {:?}",
            recording.left
        );
    }
    guest.check_kernel()
}

#[test]
fn a_module_outlives_its_reader_and_is_taken_up_or_thrown_away() -> Result<()> {
    let lab = lab("sigkill")?;
    let guest = lab.guest()?;
    // Killed: nothing was printed, and the module samples on.
    let recording = Case::named("sigkill")?.run(guest, lab.kit)?;
    recording.require_code(128 + 9)?;
    ensure!(recording.stdout() == "started\n", "{}", recording.stdout());
    require_orphan(guest)?;
    // The same module cannot be loaded beside itself.
    let path = format!("/mnt/modules/{MODULE}.ko");
    let again = guest.run(&["/usr/bin/staprun", &path], SOON)?;
    ensure!(again.status.code() == Some(1), "{}", again.status);
    ensure!(again.stderr().contains("File exists"), "{}", again.stderr());
    // A new reader takes it up; its end gives all that was sampled since the first one began.
    let mut reader = guest.start(&["/usr/bin/staprun", "-A", MODULE])?;
    // A signal that comes before it reads would end it without the module.
    crate::within(SOON, || {
        Ok(guest.modules()?.iter().any(|module| module.users > 0))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    reader.signal(Signal::SIGINT)?;
    let output = reader.finish(SOON)?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        output.stderr()
    );
    // SystemTap 4.8 can lose the end of what a second reader gives (last_bytes.stp), and ends with 0 all the same.
    ensure!(counted(&output.stdout()) > 0, "no samples");
    ensure!(guest.modules()?.is_empty(), "{:?}", guest.modules()?);
    // Detached: a clean end that leaves the module, too. It can be thrown away once.
    let recording = Case::named("sigquit")?.run(guest, lab.kit)?;
    recording.require_code(0)?;
    require_orphan(guest)?;
    let discard = ["/usr/bin/staprun", "-d", MODULE];
    let discarded = guest.run(&discard, SOON)?;
    ensure!(discarded.status.success(), "{}", discarded.stderr());
    ensure!(
        guest.left_behind()?.is_empty(),
        "{:?}",
        guest.left_behind()?
    );
    ensure!(
        !guest.run(&discard, SOON)?.status.success(),
        "there was nothing to throw away"
    );
    guest.check_kernel()
}

#[test]
fn a_target_that_is_gone_or_idle_stops_nothing() -> Result<()> {
    let lab = lab("target-exits")?;
    let guest = lab.guest()?;
    // What a target did before it ended is there; the module does not notice that it ended.
    let recording = Case::named("target-exits")?.run(guest, lab.kit)?;
    recording.require_code(0)?;
    ensure!(recording.stopping.is_some(), "it ended with its target");
    ensure!(
        samples(&recording)? > 0,
        "nothing of the target's eight seconds"
    );
    ensure!(recording.left.is_empty(), "{:?}", recording.left);
    // SystemTap wakes a target once to learn what it has mapped; one that never runs else has these few
    // samples, and the report comes all the same.
    let recording = Case::named("target-idle")?.run(guest, lab.kit)?;
    recording.require_code(0)?;
    ensure!(samples(&recording)? < 100, "{}", recording.stdout());
    ensure!(recording.left.is_empty(), "{:?}", recording.left);
    guest.check_kernel()
}

fn lab(case: &str) -> Result<Lab> {
    Lab::with_one_guest(Case::named(case)?.prepare(GuestSetup::bare())?)
}

fn require_orphan(guest: &Guest) -> Result<()> {
    let orphan = LoadedModule {
        name: MODULE.to_owned(),
        users: 0,
    };
    let modules = guest.modules()?;
    ensure!(modules == [orphan], "loaded: {modules:?}");
    Ok(())
}

fn samples(recording: &Recording) -> Result<u64> {
    count(&recording.stdout()).with_context(|| format!("it says: {}", recording.stderr()))
}

/// The samples of an output's whole lines.
fn counted(output: &str) -> u64 {
    let whole = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let stacks = whole.lines().filter(|line| line.starts_with("0x"));
    let count = |line: &str| line.rsplit_once('\t')?.1.trim().parse::<u64>().ok();
    stacks.filter_map(count).sum()
}

/// The samples of a whole output.
fn count(output: &str) -> Result<u64> {
    let stacks = stacks::read_addresses(output, "")?;
    Ok(stacks.iter().map(|stack| stack.count).sum())
}
