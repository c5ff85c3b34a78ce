//! SystemTap measures waits: a program that sleeps by plan, in a guest. And in the same guest what fires on every event:
//! `stap_events`.
//!
//! In: the agent in a guest, a module that was built here. Out: time asleep as the program was made to sleep, with the
//! kernel's frames and the program's own. Never: more time than the capture had.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, build_module, install_module};
use fleetflame_tests::{Build, Guest, GuestSetup, Workload};

use crate::stap_engine::{CAPTURE, POLICY, SAFE, unloaded};
use crate::{by_hand, stap_events, within};

const DURATION: Duration = Duration::from_secs(8);
/// Shorter waits are those of the emulated machine, not of the program.
const MIN_WAIT_US: &str = "1000";

#[test]
fn time_asleep_is_where_the_program_sleeps() -> Result<()> {
    // All in one file: of others' the module would need unwind data, too.
    let program = Workload::Waits.compile(Build {
        statically_linked: true,
        ..Build::default()
    })?;
    let traffic = Workload::Traffic.compile(Build {
        statically_linked: true,
        ..Build::default()
    })?;
    let leaks = Workload::Leaks.compile(Build::default())?;
    let kit = Kit::find()?;
    // One after the other, while the guest boots: a compiler may take three minutes on a busy machine, not more.
    let building = {
        let (program, traffic, leaks) = (program.clone(), traffic.clone(), leaks.clone());
        thread::spawn(move || -> Result<_> {
            let options = ["--min-wait-us", MIN_WAIT_US];
            let waits = build_module(kit, Some(&program), "offcpu-mixed", &options)?;
            let events = stap_events::build(kit, &traffic)?;
            Ok((waits, events, stap_events::build_alloc(kit, &leaks)?))
        })
    };
    let setup = GuestSetup::bare()
        .program(&program)
        .program(&traffic)
        .program(&leaks);
    let fleet = LabFleet::start(&setup, 1, &policy())?;
    let guest = &fleet.lab.guests[0];
    let (module, modules, alloc) = building
        .join()
        .expect("the thread that builds does not panic")?;
    install_module(guest, &module)?;
    let path = program.to_string_lossy().into_owned();
    let target = guest.start(&[&path, "900"])?;
    target.wait_for_line("ready", SAFE)?;

    let out = fleet.path("waits");
    let body = format!(
        "engine: stap\nprobe: off-cpu\nkernel: true\nmin_wait: {MIN_WAIT_US}us\nduration: {}s",
        DURATION.as_secs()
    );
    let done = fleet.capture(&body, &[target.pid()?], &out)?;
    let done = done.finish(CAPTURE)?;
    ensure!(
        done.status.code() == Some(0),
        "{:?}: {}\n{}",
        done.status,
        done.stdout,
        done.stderr
    );
    let text = fs::read_to_string(out.join("merged.folded"))?;
    let (mut seventy, mut thirty, mut kernel) = (0_u64, 0_u64, 0_u64);
    for line in text.lines() {
        let (stack, ns) = line.rsplit_once(' ').context("a line without a time")?;
        let ns: u64 = ns.parse()?;
        let has = |frame: &str| stack.split(';').any(|f| f == frame);
        if has("sleep70") {
            seventy += ns;
        } else if has("sleep30") {
            thirty += ns;
        } else {
            continue;
        }
        if stack.contains("schedule_[k]") {
            kernel += ns;
        }
    }
    let asleep = seventy + thirty;
    let share = seventy as f64 / asleep as f64;
    // An emulated machine wakes late, by as much after a short sleep as after a long one.
    ensure!(
        (0.62..0.72).contains(&share),
        "sleep70 has {share:.3} of {asleep} ns: {text}"
    );
    let whole = DURATION.as_nanos() as f64;
    ensure!(
        (0.75..1.05).contains(&(asleep as f64 / whole)),
        "{asleep} ns asleep: {text}"
    );
    ensure!(
        kernel * 10 >= asleep * 9,
        "{kernel} of {asleep} ns have the kernel's frames: {text}"
    );
    within(SAFE, || unloaded(guest)).context("after it")?;
    one_in_four_stands_for_all(guest, &module, target.pid()?)?;
    drop(target);
    stap_events::bytes_and_waits_are_where_the_program_has_them(&fleet, &traffic, &modules)?;
    stap_events::memory_stays_where_the_program_keeps_it(&fleet, &leaks, &alloc)?;
    let (asked, came) = fleet.last_reports(0);
    eprintln!("{came} of {asked} last reports came before the end");
    ensure!(asked == 4 && came > 0, "{came} of {asked}");
    guest.check_kernel()
}

/// What fires on every event, a host's owner lists.
fn policy() -> String {
    format!("{POLICY}probes: [off-cpu, vfs, lock, alloc]\n")
}

/// What the ladder does when there are too many waits: of twenty in a second five count, by chance, and four times their time is
/// all of it.
fn one_in_four_stands_for_all(guest: &Guest, module: &Path, pid: i32) -> Result<()> {
    let module = (module, &["ff_one_in=4"][..]);
    let printed = by_hand::count(guest, module, pid, DURATION)?;
    let rows = || printed.rows.iter();
    let counted: u64 = rows().filter(|row| !row.again).map(|row| row.count).sum();
    let slept_ns: u64 = rows().map(|row| row.sum).sum();
    let seen = format!("{counted} waits of {slept_ns} ns");
    eprintln!("{seen}");
    // 40 of 160, which chance makes 18 to 62; late wakes make fewer of them.
    ensure!((12..=66).contains(&counted), "{seen}");
    // Short and long sleeps alternate: every fourth wait would be always the same one.
    let is_long = |row: &&by_hand::Row| row.sum / row.count.max(1) > 50_000_000;
    let counted_rows = rows().filter(|row| !row.again);
    let long: u64 = counted_rows.filter(is_long).map(|row| row.count).sum();
    ensure!(
        long * 6 > counted && (counted - long) * 6 > counted,
        "{long} long ones of {seen}"
    );
    let share = 4.0 * slept_ns as f64 / DURATION.as_nanos() as f64;
    ensure!((0.4..1.6).contains(&share), "{seen}");
    let arrived: u64 = rows().map(|row| row.count).sum();
    ensure!(printed.last.1 == arrived, "{seen}: {:?}", printed.last);
    Ok(())
}
