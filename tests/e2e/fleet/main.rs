//! Real programs over real (bad) networks: one file a story.
//!
//! In: this machine, as root; both programs, built like this test. Out: a failure that quotes the
//! run's record, the profile or /proc. Never: a skip, or a judgement of prose or of speed; the only
//! times that are judged are the ones that keep a gateway safe.
#![expect(
    clippy::print_stdout,
    reason = "measured numbers, shown with --nocapture"
)]

mod agent_killed;
mod capabilities;
mod capture_local;
mod clock;
mod coordinator_killed;
mod cut;
mod demo;
mod disk_full;
mod hostile_agent;
mod hostile_words;
mod identity;
mod interrupt;
mod local;
mod perf_engine;
mod plugins;
mod policy;
mod requests;
mod uneven_load;
mod waits_of_lua;
mod workers;
mod written;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Whatever a lease, an abort or a teardown has to end is gone by then.
const SAFE: Duration = Duration::from_secs(5);
/// A capture of some seconds with arming, merging and drawing by a debug build; only a hang takes it.
const CAPTURE: Duration = Duration::from_secs(90);
/// The capture runs, and its coordinator hears of samples.
const UNDER_WAY: &str = "\"event\":\"progress\"";

/// One story at a time: each samples every CPU of the machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits up to `deadline` for `condition`; none when it never held, else how long it took.
fn within(deadline: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some(began.elapsed())
}
