//! A program whose stacks are nearly all different: each of them is in the result.
//!
//! In: a guest of [`stap_engine`](crate::stap_engine) and its module. Out: as many stacks as samples, and what was lost is
//! said. Never: a table of SystemTap's that is larger than what a slice of time fills.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fleetflame::store::RunDir;
use fleetflame_tests::lab::fleet::LabFleet;
use nix::sys::signal::Signal;

use crate::samples;
use crate::stap_engine::{CAPTURE, ENGINE, SAFE};

/// So many seconds are captured instead of a few: at 99 Hz, 140 of them have ten thousand stacks.
const LONGER: &str = "FLEETFLAME_LAB_DISTINCT_S";
const CAPTURED_S: u32 = 4;
/// Turns to the left or to the right: a million ways.
const TURNS: usize = 20;

/// Captures a program of the first guest on such ways; ends it.
pub(crate) fn ways(fleet: &LabFleet, program: &Path) -> Result<()> {
    let seconds = match std::env::var(LONGER) {
        Ok(seconds) => seconds.parse().context(LONGER)?,
        Err(_) => CAPTURED_S,
    };
    let guest = &fleet.lab.guests[0];
    let mut walker = guest.start(&[
        &program.to_string_lossy(),
        "900",
        &TURNS.to_string(),
        "ways",
    ])?;
    walker.wait_for_line("ready", SAFE)?;
    let out = fleet.path("ways");
    let body = format!("{ENGINE}duration: {seconds}s");
    let pids = [walker.pid()?];
    let done = fleet.capture(&body, &pids, &out)?.finish(CAPTURE)?;
    walker.signal(Signal::SIGKILL)?;
    let said = format!("{}\n{}", done.stdout, done.stderr);
    ensure!(done.status.code() == Some(0), "{said}");
    let coverage = RunDir::open(&out)?.record()?.coverage;
    let host = coverage.hosts.get(&guest.name).context("no such host")?;
    let stats = &host.stats;
    let lost = stats.lost + stats.throttled + stats.dropped + stats.truncated + stats.pruned;
    let folded = out.join("merged.folded");
    let text = fs::read_to_string(&folded)?;
    let (mut at_work, mut on_a_way, mut distinct) = (0, 0, BTreeSet::new());
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let count: u64 = count.parse()?;
        if !stack.ends_with(";thirty") {
            continue;
        }
        at_work += count;
        let turns = stack.split(';').filter(|f| ["left", "right"].contains(f));
        // One more than turns: the first call begins them.
        if turns.count() == TURNS + 1 {
            on_a_way += count;
            distinct.insert(stack);
        }
    }
    let (all, distinct) = (samples(&folded)?, distinct.len() as u64);
    let seen = format!(
        "{distinct} stacks in {on_a_way} samples on a whole way, of {at_work} at work and {all} in {seconds} s; {lost} lost"
    );
    eprintln!("{seen}");
    // In a second a CPU takes 99 samples; emulated and behind other work fewer. Between two ways the program looks at the
    // clock, which in a guest may take as long as a way.
    ensure!(at_work > 10 * u64::from(seconds), "{seen}\n{said}");
    ensure!(on_a_way * 100 >= at_work * 99, "{seen}\n{said}");
    ensure!(distinct * 100 >= on_a_way * 98, "{seen}\n{said}");
    // An emulated CPU that is late makes SystemTap skip a few; what is lost is said.
    let is_said = lost == 0 || said.contains("samples-lost");
    ensure!(lost * 50 <= all && is_said, "{seen}\n{said}");
    Ok(())
}
