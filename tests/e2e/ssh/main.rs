//! Over SSH: real sshd's in networks of their own, with nothing installed on any of them.
//!
//! In: this machine, as root; both programs, built like this test. Out: a failure that quotes the run's
//! record, files or processes. Never: a skip; a login on anything but hosts that the test has made.
#![expect(
    clippy::print_stdout,
    reason = "measured numbers, shown with --nocapture"
)]

mod ends;
mod hostile_hosts;
mod kept;
mod many;
mod odd_hosts;
mod privileges;
mod sent_agent;
mod slow_link;
#[path = "../fleet/written.rs"]
mod written;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Whatever a lease, an abort or a teardown has to end is gone by then.
const SAFE: Duration = Duration::from_secs(5);
/// A capture of some seconds with logins, uploads of a debug build, arming and drawing; only a hang
/// takes it.
const CAPTURE: Duration = Duration::from_secs(120);
/// The capture runs, and its coordinator hears of samples.
const UNDER_WAY: &str = "\"event\":\"progress\"";

/// One story at a time: each samples every CPU of the machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
