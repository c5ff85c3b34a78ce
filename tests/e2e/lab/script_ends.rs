//! The end of a user's script that nobody wanted.
//!
//! In: the fleet of [`stap_scripts`](crate::stap_scripts), with a module that takes longer than its captures. Out: what the script
//! printed before and after. Never: a module or a reader that stays.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::Guest;
use fleetflame_tests::lab::fleet::LabFleet;

use crate::stap_engine::{CAPTURE, SAFE, unloaded};
use crate::stap_scripts::{begun, printed};
use crate::within;

/// Longer than a capture.
pub(crate) const LONG: &str = "time=30";

/// The reader of one host's module is killed: what the script prints from then on comes by another one. The other host's goes on.
pub(crate) fn reader_killed(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let guests = &fleet.lab.guests;
    let (script, name) = ("syscall-rate.sxx", "killed");
    let coordinator = begun(fleet, (script, &[LONG]), workers, name, &[])?;
    within(SAFE, || Ok(!guests[0].pids_of("stapio")?.is_empty()))?;
    // The script prints, and goes on for long enough.
    thread::sleep(Duration::from_secs(4));
    let stapio = guests[0].pids_of("stapio")?;
    ensure!(stapio.len() == 1, "{stapio:?} {}", coordinator.stdout());
    guests[0].signal(stapio[0], "KILL")?;
    let done = coordinator.finish(CAPTURE)?;
    ensure!(
        done.status.code() == Some(3),
        "{}: {}",
        done.status,
        done.stdout
    );
    let out = fleet.path(name);
    for guest in guests {
        within(SAFE, || unloaded(guest)).with_context(|| format!("{}: after it", guest.name))?;
    }
    let record = fs::read_to_string(out.join("run.json"))?;
    let (head, _) = record
        .split_once(" bytes were recovered, and it was unloaded")
        .with_context(|| record.clone())?;
    let bytes = head.rsplit(' ').next().unwrap_or_default();
    let bytes: usize = bytes.parse().context(bytes.to_owned())?;
    let of_host = |guest: &Guest| -> Result<(usize, usize)> {
        let text = printed(&out, guest)?;
        ensure!(
            text.lines().all(|line| line.ends_with(" calls/s")),
            "{text}"
        );
        Ok((text.lines().count(), text.len()))
    };
    let (killed, other) = (of_host(&guests[0])?, of_host(&guests[1])?);
    let seen = format!("{killed:?} lines and bytes, {bytes} recovered; {other:?}");
    eprintln!("{seen}");
    // Each reader had some, and the other host all the time.
    ensure!(
        bytes > 0 && killed.1 > bytes && other.0 > killed.0,
        "{seen}"
    );
    Ok(())
}
