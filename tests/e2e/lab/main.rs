//! Stories in the lab: real SystemTap modules in real kernels, in virtual machines.
//!
//! In: the lab of the harness. Out: what SystemTap does there. Never: a module in this machine's own kernel.

mod by_hand;
mod examples;
mod fleet_in_guests;
mod gateway_worker;
mod guests;
mod reader_ends;
mod sampled;
mod script_ends;
mod stap_distinct;
mod stap_ends;
mod stap_engine;
mod stap_events;
mod stap_limits;
mod stap_lua;
mod stap_scripts;
mod stap_waits;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Samples of a folded file.
fn samples(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let count = |line: &str| -> Result<u64> {
        let (_, count) = line.rsplit_once(' ').context("a line without a count")?;
        Ok(count.parse()?)
    };
    text.lines().map(count).sum()
}

fn within(deadline: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition()? {
        ensure!(Instant::now() < end, "not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
