//! A module of ours without the engine: loaded by staprun itself, told what the agent would tell it.
//!
//! In: a guest with the module, a process. Out: what the module printed until its last report. Never: a line that only the end
//! printed.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::Guest;
use fleetflame_tests::lab::MODULES;
use nix::sys::signal::Signal;

use crate::stap_engine::SAFE;
use crate::within;

/// What came.
pub(crate) struct Printed {
    /// Rows, in their order.
    pub rows: Vec<Row>,
    /// Rows and counts of the last line.
    pub last: (u64, u64),
}

/// A stack.
pub(crate) struct Row {
    /// How often it was taken.
    pub count: u64,
    /// Of its weights.
    pub sum: u64,
    /// Another row counts the same: of a wait, the part of it that was for a CPU.
    pub again: bool,
}

/// Has the module count one process for some time, and print what it has while its reader still reads: SystemTap 4.6 to 5.1
/// may drop what is printed at the end.
pub(crate) fn count(
    guest: &Guest,
    (module, parameters): (&Path, &[&str]),
    pid: i32,
    time: Duration,
) -> Result<Printed> {
    let file = module.file_name().context("a module has a name")?;
    let path = format!("{MODULES}/{}", file.to_string_lossy());
    let mut reader = guest.start(&[&["/usr/bin/staprun", &path], parameters].concat())?;
    reader.wait_for_line("ff1", SAFE)?;
    let name = module.file_stem().context("a module has a name")?;
    let words = format!("/proc/systemtap/{}", name.to_string_lossy());
    let tell = |word: &str, to: &str| guest.sh(&format!("echo {word} > {words}/{to}"), SAFE);
    tell(&format!("+{pid}"), "control")?;
    tell("go", "control")?;
    thread::sleep(time);
    // A handler that does not get its locks is skipped.
    within(SAFE, || {
        tell("stop", "control")?;
        tell("last", "last")?;
        Ok(reader.stdout().lines().any(|line| line.starts_with('=')))
    })?;
    ensure!(reader.ended().is_none(), "it was not asked to end");
    // A second time there is nothing to print, and none at the end.
    tell("last", "last")?;
    reader.signal(Signal::SIGINT)?;
    let read = reader.finish(SAFE)?;
    ensure!(read.status.success(), "{}: {}", read.status, read.stderr());
    let output = read.stdout();
    let numbers = |line: &str| -> Result<Vec<u64>> {
        let words = line.split_ascii_whitespace();
        words.map(|w| w.parse().context(line.to_owned())).collect()
    };
    let mut rows = Vec::new();
    for row in output.lines().filter_map(|line| line.strip_prefix('+')) {
        let head: Vec<&str> = row.splitn(4, ' ').collect();
        let [_, count, sum, stack] = head[..] else {
            anyhow::bail!("{row}");
        };
        rows.push(Row {
            count: count.parse()?,
            sum: sum.parse()?,
            again: stack.starts_with('~'),
        });
    }
    let last: Vec<&str> = output.lines().filter_map(|l| l.strip_prefix('=')).collect();
    ensure!(last.len() == 1, "{last:?}");
    let [printed, counted] = numbers(last[0])?[..] else {
        anyhow::bail!("{last:?}");
    };
    Ok(Printed {
        rows,
        last: (printed, counted),
    })
}
