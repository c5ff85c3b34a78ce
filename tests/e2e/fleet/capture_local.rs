//! `capture --local` of a program whose profile is known beforehand, with and without symbols.
//!
//! In: `split`, which spends 70 % in one function and 30 % in another. Out: those shares, whole
//! stacks, a complete run directory. Never: anything left running or sampling.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::procfs;
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Build, Child, Workload, process::Finished};

use crate::local::Stage;
use crate::written::Written;
use crate::{CAPTURE, SECOND, turn};

/// Calls of `descend` above the two functions; `split` makes one more than it is told.
const DEPTH: usize = 17;

struct Captured {
    run: Written,
    said: Finished,
    #[expect(dead_code, reason = "the run directory lies in it")]
    stage: Stage,
}

/// Captures `split` of this build on this machine.
fn capture(build: Build) -> Result<Captured> {
    let stage = Stage::new(POLICY)?;
    let mut command = Workload::Split.command(build)?;
    command.args(["60", &DEPTH.to_string()]);
    let mut split = Child::spawn(command)?;
    split.wait_for_stdout("ready", 5 * SECOND)?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&["--target", &target, "--hz", "499", "--duration", "5s"])?;
    let coordinator = Child::spawn(command)?;
    let (pid, mark) = (coordinator.pid(), coordinator.mark().to_owned());
    let said = coordinator.finish(CAPTURE)?;
    ensure!(
        said.status.code() == Some(0),
        "{:?}\n{}\n{}",
        said.status,
        said.stdout,
        said.stderr
    );
    let left = procfs::find_ours(&mark);
    ensure!(left.is_empty(), "the capture by {pid} left {left:?}");
    let run = Written::read(&stage.path("run"))?;
    Ok(Captured { run, said, stage })
}

/// The share of each function that ends a stack, the largest first.
fn leaves(run: &Written, of: impl Fn(&str) -> bool) -> Result<Vec<(String, f64)>> {
    let mut leaves = std::collections::BTreeMap::<String, u64>::new();
    for (stack, count) in run.folded("merged.folded")? {
        // Interrupts and page faults stand under whichever function they interrupt.
        let user = stack.split(';').rfind(|frame| !frame.ends_with("_[k]"));
        if let Some(leaf) = user.filter(|leaf| of(leaf)) {
            *leaves.entry(leaf.to_owned()).or_default() += count;
        }
    }
    let total: u64 = leaves.values().sum();
    ensure!(total > 0, "no stack ends in such a function");
    let mut shares: Vec<(String, f64)> = leaves
        .into_iter()
        .map(|(leaf, n)| (leaf, n as f64 / total as f64))
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(shares)
}

/// Within 4 points, or three standard errors of a share of n samples if that is more.
fn check_share(found: f64, expected: f64, n: u64) {
    let error = (expected * (1.0 - expected) / n as f64).sqrt();
    let tolerance = (3.0 * error).max(0.04);
    assert!(
        (found - expected).abs() <= tolerance,
        "{found:.3} of {n} is not {expected}"
    );
}

#[test]
fn shares_roots_and_depth_are_those_of_the_program() -> Result<()> {
    let _turn = turn();
    let captured = capture(Build::default())?;
    let run = &captured.run;
    let n = run.check_sums()?;
    let host = run.host("local")?;
    assert_eq!(host.stats.samples, n, "{host:?}");
    // Second 0 lies between the run's beginning and five seconds before its end; the texts sort by time.
    let record = &run.record;
    let from = record.captured_from.as_ref().context("a common start")?;
    let from_unix_ms = record.second_zero_unix_ms().context("a readable start")?;
    let until = fleetflame::store::utc_text(from_unix_ms + 5_000);
    assert!(
        record.started < *from && Some(&until) <= record.ended.as_ref(),
        "{record:?}"
    );
    // 2,500 where the program has a CPU for itself; on a machine that is busy with other things a part of that.
    assert!(n > 200, "only {n} samples of a program that never waits");
    let shares = leaves(run, |leaf| leaf == "seventy" || leaf == "thirty")?;
    println!("{n} samples, {shares:?}, {:?}", host.stats);
    assert_eq!(shares[0].0, "seventy");
    check_share(shares[0].1, 0.7, n);
    let (mut rooted, mut exact, mut deep) = (0, 0, 0);
    for (stack, count) in run.folded("merged.folded")? {
        let frames: Vec<&str> = stack.split(';').collect();
        // The first frame names the process.
        rooted += if frames.get(1) == Some(&"_start") {
            count
        } else {
            0
        };
        if frames.iter().any(|f| *f == "seventy" || *f == "thirty") {
            deep += count;
            let depth = frames.iter().filter(|f| **f == "descend").count();
            exact += if depth == DEPTH + 1 { count } else { 0 };
        }
    }
    assert!(
        rooted * 100 >= n * 99,
        "only {rooted} of {n} stacks begin at _start"
    );
    assert!(
        deep * 100 >= n * 95,
        "only {deep} of {n} stacks reach the two functions"
    );
    assert!(
        exact * 1_000 >= deep * 999,
        "only {exact} of {deep} stacks have the exact depth"
    );
    Ok(())
}

#[test]
fn a_stripped_static_program_is_unnamed_and_as_exact() -> Result<()> {
    let _turn = turn();
    let build = Build {
        stripped: true,
        statically_linked: true,
        ..Build::default()
    };
    let captured = capture(build)?;
    let run = &captured.run;
    let n = run.check_sums()?;
    let shares = leaves(run, |leaf| {
        leaf.starts_with("[split-") && leaf.contains("]+0x")
    })?;
    println!("{n} samples, {shares:?}");
    let two = shares[0].1 + shares.get(1).context("a second function")?.1;
    assert!(two > 0.95, "two functions take all the time: {shares:?}");
    check_share(shares[0].1 / two, 0.7, n);
    Ok(())
}

#[test]
fn a_run_directory_is_complete_and_private() -> Result<()> {
    let _turn = turn();
    let captured = capture(Build::default())?;
    let run = &captured.run;
    let files = [
        "run.json",
        "merged.svg",
        "merged.folded",
        "report.md",
        "profile.ffz",
    ];
    for name in files
        .into_iter()
        .chain(["hosts/local.svg", "hosts/local.folded"])
    {
        assert_eq!(run.mode(name)?, 0o600, "{name}");
    }
    for name in ["", "hosts"] {
        assert_eq!(run.mode(name)?, 0o700, "{name}");
    }
    assert!(
        !run.path.join("spool").exists(),
        "the spools were not removed"
    );
    let svg = std::fs::read_to_string(run.path.join("merged.svg"))?;
    assert!(svg.len() <= 1 << 20, "merged.svg has {} bytes", svg.len());
    let line = run.record.coverage.line();
    assert!(
        svg.contains(&line),
        "{line:?} does not stand on the picture"
    );
    check_json_lines(&captured.said.stdout, &run.path)
}

/// Progress is a document a line, and the last line is the run with its exit code.
fn check_json_lines(stdout: &str, out: &Path) -> Result<()> {
    let lines: Result<Vec<serde_json::Value>, _> =
        stdout.lines().map(serde_json::from_str).collect();
    let lines = lines.with_context(|| stdout.to_owned())?;
    let last = lines.last().context("no line")?;
    assert_eq!(last["event"], "run");
    assert_eq!(last["exit_code"], 0);
    assert_eq!(last["out"], out.display().to_string());
    for event in ["reported", "armed", "starting", "progress", "done"] {
        assert!(
            lines.iter().any(|line| line["event"] == event),
            "no {event} in {stdout}"
        );
    }
    Ok(())
}
