//! `gateway-cost [ROUNDS]`: what a capture with Lua stacks costs a busy gateway, in rounds of three windows of
//! load: alone, captured at 99 Hz, alone again; each round begins with another of them.
//!
//! In: root, nginx with Lua, wrk, both programs (of a release build: `FLEETFLAME_BIN_DIR`). Out: a table with ratios,
//! and exit code 1 when a limit is missed. Never: a share of the machine, a clock's word on CPU time, or a figure
//! without the noise of windows that had no capture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetflame_tests::process::Child;
use fleetflame_tests::procfs::{self, Pid};
use fleetflame_tests::{Binaries, Gateway, GatewayPlace};

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// Load and capture begin before a window and end after it.
const MARGIN: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(60);
/// Most of a core that the agent may take while it captures two busy workers at 99 Hz, in percent.
const AGENT_PCT_MAX: f64 = 2.0;
/// Most CPU before and after sampling, in milliseconds.
const START_MS_MAX: f64 = 100.0;

/// What a capture said of itself, and what the kernel said of its agent.
struct Capture {
    agent_pct: f64,
    outside_ms: f64,
    pause_us: [f64; 2],
    samples: f64,
    failed_pct: f64,
}

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gateway-cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn measure() -> Result<bool> {
    let rounds = match std::env::args().nth(1) {
        Some(word) => word.parse().context("the argument is a number of rounds")?,
        None => ROUNDS,
    };
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let out = tempfile::tempdir()?;
    let (mut costs, mut captures) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
    for round in 0..rounds {
        for place in 0..3 {
            // 0 and 2 are alone, 1 is captured.
            let which = (round + place) % 3;
            eprintln!("round {} of {rounds}, window {} of 3", round + 1, place + 1);
            let (cost, capture) =
                window(&gateway, which == 1, &out.path().join(format!("{round}")))?;
            costs[which].push(cost);
            captures.extend(capture);
        }
    }
    let ratios =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a / b).collect() };
    let [alone, captured, again] = &costs;
    let noise = ratios(again, alone);
    let both: Vec<f64> = alone
        .iter()
        .zip(again)
        .map(|(a, b)| f64::midpoint(*a, *b))
        .collect();
    let ratio = ratios(captured, &both);
    let band = noise.iter().map(|n| (n - 1.0).abs()).fold(0.0, f64::max);
    let of = |pick: fn(&Capture) -> f64| captures.iter().map(pick).collect::<Vec<f64>>();
    let (agent, outside) = (of(|c| c.agent_pct), of(|c| c.outside_ms));
    let kept = [
        (median(&ratio) - 1.0).abs() <= band,
        median(&agent) <= AGENT_PCT_MAX,
        median(&outside) <= START_MS_MAX,
    ];
    let word = |kept: bool| if kept { "kept" } else { "MISSED" };
    let mut table =
        String::from("| what | median (min–max) | limit | verdict |\n|---|---|---|---|\n");
    let mut row = |what: &str, values: &[f64], digits: usize, limit: &str, verdict: &str| {
        let ends = values
            .iter()
            .fold((f64::MAX, f64::MIN), |e, v| (e.0.min(*v), e.1.max(*v)));
        let _ = writeln!(
            table,
            "| {what} | {:.digits$} ({:.digits$}–{:.digits$}) | {limit} | {verdict} |",
            median(values),
            ends.0,
            ends.1
        );
    };
    row(
        "nginx without a capture, CPU-ms per 1,000 requests",
        &both,
        1,
        "–",
        "–",
    );
    row(
        "nginx while it is captured at 99 Hz, CPU-ms per 1,000 requests",
        captured,
        1,
        "–",
        "–",
    );
    row("without again ÷ without: the noise", &noise, 4, "–", "–");
    let limit = format!("within 1 ± {band:.4}, the widest noise");
    row("captured ÷ without", &ratio, 4, &limit, word(kept[0]));
    row(
        "agent while it samples two busy workers, % of a core",
        &agent,
        2,
        "≤ 2",
        word(kept[1]),
    );
    row(
        "agent before and after it samples, CPU-ms",
        &outside,
        0,
        "≤ 100",
        word(kept[2]),
    );
    row(
        "pause of a worker for a sample, median, µs",
        &of(|c| c.pause_us[0]),
        1,
        "–",
        "–",
    );
    row(
        "the same, 99th percentile, µs",
        &of(|c| c.pause_us[1]),
        1,
        "–",
        "–",
    );
    row("samples of a capture", &of(|c| c.samples), 0, "–", "–");
    row(
        "Lua segments that could not be followed, %",
        &of(|c| c.failed_pct),
        2,
        "–",
        "–",
    );
    println!(
        "{rounds} rounds, windows of {} s, two workers, wrk with four connections\n\n{table}",
        WINDOW.as_secs()
    );
    Ok(kept.iter().all(|k| *k))
}

/// CPU-milliseconds of the workers per 1,000 requests, over one window; of one with a capture, what that took.
fn window(gateway: &Gateway<'_>, captured: bool, out: &Path) -> Result<(f64, Option<Capture>)> {
    let load = gateway.load("/", 4, WINDOW + 2 * MARGIN)?;
    thread::sleep(Duration::from_secs(1)); // the first second has the connections
    let mut capture = match captured {
        true => Some(Started::begin(gateway, out)?),
        false => None,
    };
    let workers = gateway.worker_pids();
    let (cpu, requests) = (cpu_ns(&workers)?, requests(gateway)?);
    match &mut capture {
        Some(capture) => capture.watch(WINDOW)?,
        None => thread::sleep(WINDOW),
    }
    let (cpu, requests) = (cpu_ns(&workers)? - cpu, self::requests(gateway)? - requests);
    ensure!(
        requests > 100,
        "{requests} requests are too few to divide by"
    );
    let capture = capture.map(|c| c.end(out)).transpose()?;
    ensure!(
        load.finish()?.bad_answers == 0,
        "the gateway gave bad answers"
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok((cpu as f64 / 1e6 / (requests as f64 / 1_000.0), capture))
}

/// A capture that runs.
struct Started {
    coordinator: Child,
    agent: Pid,
    agent_cpu: Duration,
}

impl Started {
    /// Returns when the agent samples.
    fn begin(gateway: &Gateway<'_>, out: &Path) -> Result<Self> {
        let mut command = Binaries::find()?.coordinator();
        command.args([
            "capture", "--local", "--quiet", "--engine", "native", "--hz", "99",
        ]);
        for pid in gateway.worker_pids() {
            command.args(["--target", &format!("pid:{pid}")]);
        }
        let lasts = WINDOW + Duration::from_secs(1);
        command
            .arg("--duration")
            .arg(format!("{}s", lasts.as_secs()));
        command.arg("--out").arg(out);
        let coordinator = Child::spawn(command)?;
        let end = Instant::now() + MARGIN;
        loop {
            let family = procfs::descendants(coordinator.pid());
            let agent = family
                .into_iter()
                .find(|pid| procfs::open_perf_fds(*pid) > 0);
            if let Some(agent) = agent {
                let agent_cpu = Duration::ZERO;
                return Ok(Self {
                    coordinator,
                    agent,
                    agent_cpu,
                });
            }
            ensure!(
                Instant::now() < end,
                "no agent samples: {}",
                coordinator.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Passes the time, and notes what the agent has used so far.
    fn watch(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look();
            thread::sleep(Duration::from_millis(100).min(end - Instant::now().min(end)));
        }
        Ok(())
    }

    fn look(&mut self) {
        self.agent_cpu = procfs::cpu_time(self.agent)
            .unwrap_or_default()
            .max(self.agent_cpu);
    }

    fn end(mut self, out: &Path) -> Result<Capture> {
        let end = Instant::now() + DEADLINE;
        while self.coordinator.ended()?.is_none() {
            ensure!(Instant::now() < end, "the capture does not end");
            self.look();
            thread::sleep(Duration::from_millis(5));
        }
        let said = self.coordinator.stderr();
        let record = fs::read(out.join("run.json"))
            .with_context(|| format!("the capture failed: {said}"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let stats = &record["coverage"]["hosts"]["local"]["stats"];
        let number = |name: &str| {
            stats[name]
                .as_f64()
                .with_context(|| format!("no {name} in run.json"))
        };
        let own_ns = number("own_cpu_ns")?;
        let sampled_ns = number("stopped_mono_ns")? - number("started_mono_ns")?;
        let segments = number("lua_segments")?;
        ensure!(segments > 0.0, "no Lua stacks were taken");
        Ok(Capture {
            agent_pct: 100.0 * own_ns / sampled_ns,
            outside_ms: (self.agent_cpu.as_secs_f64() * 1e3 - own_ns / 1e6).max(0.0),
            pause_us: [number("pause_p50_ns")? / 1e3, number("pause_p99_ns")? / 1e3],
            samples: number("samples")?,
            failed_pct: 100.0 * number("lua_failed")? / segments,
        })
    }
}

/// Nanoseconds on a CPU of all threads of these processes (`/proc/PID/schedstat`, first field).
fn cpu_ns(pids: &[Pid]) -> Result<u64> {
    let of = |pid: &Pid| {
        let path = format!("/proc/{pid}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let first = text.split_ascii_whitespace().next();
        first
            .and_then(|n| n.parse::<u64>().ok())
            .with_context(|| format!("{path} has no number"))
    };
    pids.iter().map(of).sum()
}

/// Requests that the gateway has read so far, this one included (`stub_status`, third number of its third line).
fn requests(gateway: &Gateway<'_>) -> Result<u64> {
    let status = gateway.get("/status")?;
    let line = status.lines().nth(2).unwrap_or_default();
    let number = line
        .split_ascii_whitespace()
        .nth(2)
        .and_then(|n| n.parse().ok());
    number.with_context(|| format!("no requests in {status:?}"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}
