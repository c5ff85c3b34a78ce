//! Files that we write, opened by the programs that people open them with, and their files read by
//! us: Google's pprof, speedscope, a browser.
//!
//! In: the real programs, as Debian and npm have them. Out: equal totals, names on the screen.
//! Never: a reader of our own in their place, or traffic to anything but loopback.
#![expect(
    clippy::print_stdout,
    reason = "where pictures are, shown with --nocapture"
)]

mod flame_in_browser;
mod google_pprof;
mod pushed_profiles;
mod sampled_fleet;
mod speedscope_app;
#[path = "../../../coordinator/tests/push/store.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the coordinator's own tests use the rest of it; a test may panic"
)]
mod store;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleetflame_tests::target_dir::TargetDir;
use fleetflame_tests::{Binaries, Child, Finished};

/// Only a hang takes this long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs a program to its end; an error that quotes it unless it succeeds.
fn run(command: Command) -> Result<Finished> {
    let shown = format!("{command:?}");
    let done = Child::spawn(command)?.finish(DEADLINE)?;
    ensure!(
        done.status.success(),
        "{shown}: {}\n{}\n{}",
        done.status,
        done.stdout,
        done.stderr
    );
    Ok(done)
}

/// Runs `fleetflame` in a folder.
fn fleetflame(folder: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = Binaries::find()?.coordinator();
    command.current_dir(folder).args(arguments);
    run(command)
}

/// A folder in the build's own, kept between runs.
fn kept(name: &str) -> Result<PathBuf> {
    let folder = TargetDir::current()?.root.join("peers").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
