//! The harness tested by itself: does it do to processes and networks what the other tests rely on?
//!
//! In: this machine, as root. Out: a failure that names the missing package or the broken promise.
//! Never: a skip.
#![expect(
    clippy::print_stdout,
    reason = "measured numbers, shown with --nocapture"
)]

mod binaries;
mod fabric;
mod gateway;
mod link;
mod namespace;
mod process;
mod time_shift;
mod workload;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// `program` with `arguments`.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Waits up to `deadline` for `condition`; false when it never held.
fn within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

const SECOND: Duration = Duration::from_secs(1);
