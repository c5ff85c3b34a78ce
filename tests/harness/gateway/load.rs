//! Bounded load on a gateway: as much as it takes, from wrk; or so many requests a second, no more.
//!
//! In: an address, a path, connections or a rate, a duration. Out: how many requests were answered, how fast.
//! Never: load without an end: wrk stops by itself, and dropping a [`Load`] kills it.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::Child;
use crate::requirements;

/// Above this a test is a benchmark, and does not belong here.
const DURATION_MAX: Duration = Duration::from_mins(2);

/// Running load.
#[derive(Debug)]
pub struct Load {
    wrk: Child,
    duration: Duration,
}

/// What the load came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadReport {
    /// Requests that were answered.
    pub requests: u64,
    /// Of these, answers other than 2xx and 3xx.
    pub bad_answers: u64,
    /// Requests a second.
    pub requests_per_s: f64,
}

pub(super) fn command(
    address: SocketAddr,
    path: &str,
    connections: u32,
    duration: Duration,
) -> Result<Command> {
    ensure!(
        duration <= DURATION_MAX,
        "load for {duration:?}: at most {DURATION_MAX:?}"
    );
    let mut wrk = Command::new(requirements::command("wrk")?);
    wrk.args(["-t", "1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", duration.as_secs().max(1))])
        .arg(format!("http://{address}{path}"));
    Ok(wrk)
}

/// Calls `ask` so many times a second as long as `wanted` holds, and counts.
pub(super) fn pace(
    per_s: u32,
    wanted: impl Fn() -> bool,
    ask: impl Fn() -> Result<String>,
) -> Result<u64> {
    let (began, gap) = (Instant::now(), Duration::from_secs(1) / per_s.max(1));
    let mut answers = 0;
    while wanted() {
        ensure!(
            began.elapsed() < DURATION_MAX,
            "load for more than {DURATION_MAX:?}"
        );
        thread::sleep((gap * answers).saturating_sub(began.elapsed()));
        ask()?;
        answers += 1;
    }
    Ok(answers.into())
}

impl Load {
    pub(super) fn new(wrk: Child, duration: Duration) -> Self {
        Self { wrk, duration }
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<LoadReport> {
        let done = self.wrk.finish(self.duration + Duration::from_secs(10))?;
        ensure!(
            done.status.success(),
            "wrk failed: {}{}",
            done.stdout,
            done.stderr
        );
        LoadReport::read(&done.stdout).with_context(|| format!("wrk said: {}", done.stdout))
    }
}

impl LoadReport {
    fn read(output: &str) -> Option<Self> {
        let number_after = |label: &str| output.split_once(label)?.1.split_whitespace().next();
        let requests = output
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))?
            .0;
        Some(Self {
            requests: requests.parse().ok()?,
            bad_answers: match number_after("Non-2xx or 3xx responses:") {
                Some(number) => number.parse().ok()?,
                None => 0,
            },
            requests_per_s: number_after("Requests/sec:")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_summary_is_read() {
        let output = "Running 1s test @ http://127.0.0.1:8080/\n  1 threads and 4 connections\n  \
                      5120 requests in 1.10s, 1.00MB read\n  Non-2xx or 3xx responses: 7\n\
                      Requests/sec:   4654.5\nTransfer/sec:      0.91MB\n";
        let report = LoadReport {
            requests: 5120,
            bad_answers: 7,
            requests_per_s: 4654.5,
        };
        assert_eq!(LoadReport::read(output), Some(report));
        assert_eq!(LoadReport::read("unable to connect"), None);
    }
}
