//! Workloads: they do what they say, at the cost they say, and end with their parent.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{self, Identity, Pid};
use fleetflame_tests::{Build, Child, Workload, requirements};

use crate::{SECOND, command, within};

fn start(workload: Workload, arguments: &[&str]) -> Result<Child> {
    let mut command = workload.command(Build::default())?;
    command.args(arguments);
    let mut child = Child::spawn(command)?;
    child.wait_for_stdout("ready", 10 * SECOND)?;
    Ok(child)
}

/// The workers that a fleet worker's first line names.
fn workers(ready: &str) -> Vec<Pid> {
    ready
        .split_ascii_whitespace()
        .skip(2)
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[test]
fn workers_die_with_a_killed_master() -> Result<()> {
    let mut child = start(Workload::FleetWorker, &["--workers", "3", "--duty", "5"])?;
    let family: Vec<Identity> = workers(&child.stdout())
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    assert_eq!(family.len(), 3);
    assert!(family.iter().all(Identity::alive));
    child.kill_alone()?;
    assert!(
        within(SECOND, || !family.iter().any(Identity::alive)),
        "{family:?}"
    );
    Ok(())
}

#[test]
fn a_master_ends_when_the_process_that_started_it_is_killed() -> Result<()> {
    let program = Workload::FleetWorker.compile(Build::default())?;
    let script = format!("{} --duty 5 & wait", program.display());
    let mut shell = Child::spawn(command("sh", &["-c", &script]))?;
    shell.wait_for_stdout("ready", 10 * SECOND)?;
    let family: Vec<Identity> = procfs::descendants(shell.pid())
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    assert_eq!(family.len(), 3, "a master and two workers");
    shell.kill_alone()?;
    assert!(
        within(SECOND, || !family.iter().any(Identity::alive)),
        "{family:?}"
    );
    Ok(())
}

#[test]
fn a_hot_spot_costs_its_share_and_the_duty_holds() -> Result<()> {
    let hot = ["--hot", "rate_limit", "--hot-share", "50"];
    let plain = ["--duty", "10", "--duration-s", "3", "--title", "nginx"];
    let run = |arguments: &[&str]| -> Result<serde_json::Value> {
        let child = start(Workload::FleetWorker, arguments)?;
        let title = fs::read_to_string(format!("/proc/{}/cmdline", child.pid()))?;
        assert!(title.starts_with("nginx: master process"), "{title:?}");
        let done = child.finish(10 * SECOND)?;
        let last = done.stdout.lines().last().context("a report")?;
        Ok(serde_json::from_str(last)?)
    };
    let (ordinary, hot) = (run(&plain)?, run(&[&plain[..], &hot[..]].concat())?);
    let total = |report: &serde_json::Value, field: &str| -> f64 {
        let workers = report["workers"].as_array().into_iter().flatten();
        workers.filter_map(|worker| worker[field].as_f64()).sum()
    };
    let duty = |report| total(report, "cpu_ns") / 1e9 / 3.0 / 2.0;
    let per_request = |report| total(report, "cpu_ns") / total(report, "requests") / 1e6;
    println!(
        "duty {:.3} and {:.3}; ms a request {:.2} and {:.2}; shares {}",
        duty(&ordinary),
        duty(&hot),
        per_request(&ordinary),
        per_request(&hot),
        hot["shares"]
    );
    assert!((0.05..0.115).contains(&duty(&ordinary)), "{ordinary}");
    assert!((0.10..0.23).contains(&duty(&hot)), "{hot}");
    assert!((1.5..2.6).contains(&(per_request(&hot) / per_request(&ordinary))));
    assert!((hot["shares"]["tls_handshake"].as_f64().context("a share")? - 0.5).abs() < 0.01);
    Ok(())
}

#[test]
fn perf_finds_seventy_and_thirty_under_the_recursion() -> Result<()> {
    let perf = requirements::command("perf")?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("perf.data");
    let mut record = Command::new(&perf);
    record.args(["record", "-q", "-e", "cpu-clock:u", "-F", "997"]);
    record
        .args(["--call-graph", "dwarf,16384", "-o"])
        .arg(&data)
        .arg("--");
    record
        .arg(Workload::Split.compile(Build::default())?)
        .args(["3", "12"]);
    let done = Child::spawn(record)?.finish(30 * SECOND)?;
    assert!(done.status.success(), "{}", done.stderr);
    let mut script = Command::new(&perf);
    script.args(["script", "-F", "ip,sym", "-i"]).arg(&data);
    let text = Child::spawn(script)?.finish(30 * SECOND)?.stdout;
    let stacks: Vec<Vec<&str>> = text
        .split("\n\n")
        .map(|stack| {
            stack
                .lines()
                .filter_map(|line| line.split_ascii_whitespace().nth(1))
                .collect()
        })
        .collect();
    let leaves = |name| {
        stacks
            .iter()
            .filter(|stack| stack.first() == Some(&name))
            .count() as f64
    };
    let (seventy, thirty) = (leaves("seventy"), leaves("thirty"));
    let share = seventy / (seventy + thirty);
    let depth = |stack: &&Vec<&str>| stack.iter().filter(|frame| **frame == "descend").count();
    let deepest = stacks
        .iter()
        .map(|stack| depth(&stack))
        .max()
        .unwrap_or_default();
    println!(
        "{share:.3} of {} samples; {deepest} frames of descend",
        seventy + thirty
    );
    assert!(
        seventy + thirty > 300.0,
        "only {} samples",
        seventy + thirty
    );
    // Samples of one CPU at even distances are not independent: wider than their number alone would allow.
    assert!((0.64..0.76).contains(&share), "{share}");
    assert_eq!(deepest, 13, "depth 12 makes 13 calls");
    Ok(())
}

#[test]
fn threads_bear_their_names() -> Result<()> {
    let child = start(Workload::Threads, &["3", "5"])?;
    let tasks = fs::read_dir(format!("/proc/{}/task", child.pid()))?;
    let mut names: Vec<String> = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect();
    names.sort();
    assert_eq!(names[..3], ["pool-0", "pool-1", "pool-2"]);
    Ok(())
}

#[test]
fn ten_thousand_mappings_and_two_thousand_children() -> Result<()> {
    let child = start(Workload::ManyMappings, &["10000", "5"])?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.pid()))?
        .lines()
        .count();
    assert!(maps >= 10_000, "{maps} mappings");
    drop(child);

    let started = Instant::now();
    let done = start(Workload::Spawner, &["2000", "4"])?.finish(40 * SECOND)?;
    println!("2,000 children in {:?}", started.elapsed());
    assert!(
        done.status.success() && done.stdout.contains("children 2000"),
        "{}",
        done.stdout
    );
    Ok(())
}

#[test]
fn a_build_is_kept_and_flags_make_another() -> Result<()> {
    let first = Workload::Split.compile(Build::default())?;
    let modified = fs::metadata(&first)?.modified()?;
    assert_eq!(Workload::Split.compile(Build::default())?, first);
    assert_eq!(fs::metadata(&first)?.modified()?, modified);
    let bare = Build {
        stripped: true,
        statically_linked: true,
        ..Build::default()
    };
    let stripped = Workload::Split.compile(bare)?;
    assert_ne!(stripped, first);
    let mut run = Command::new(stripped);
    run.arg("0.2");
    let started = Instant::now();
    assert!(Child::spawn(run)?.finish(5 * SECOND)?.status.success());
    assert!(started.elapsed() >= Duration::from_millis(200));
    Ok(())
}
