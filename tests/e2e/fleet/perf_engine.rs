//! The engine `perf`: the machine's own perf on programs whose profile is known beforehand.
//!
//! In: `split`, on this machine or on a fleet, with policies and a perf that is there or not. Out:
//! its shares, whole sums, the engine by name; a clear refusal. Never: a perf left running.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use fleetflame_tests::procfs::{self, Pid};
use fleetflame_tests::{AgentSetup, Build, Child, LinkConditions, RealFleet, Workload};
use model::FindingCode;
use model::coverage::HostOutcome;
use model::profile::{CounterKind, CounterSource};
use nix::sys::signal::Signal;

use crate::local::Stage;
use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, UNDER_WAY, turn, within};

/// Calls of `descend` above the two functions; `split` makes one more than it is told.
const DEPTH: usize = 17;
const POLICY: &str = "version: 1\nengines: [native, perf]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";
const ONLY_PERF: &str = "version: 1\nengines: [perf]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";

/// A program that spends 70 % in one function and 30 % in another.
fn split() -> Result<Child> {
    let mut command = Workload::Split.command(Build::default())?;
    command.args(["120", &DEPTH.to_string()]);
    started(command)
}

fn started(command: Command) -> Result<Child> {
    let mut split = Child::spawn(command)?;
    split.wait_for_stdout("ready", 5 * SECOND)?;
    Ok(split)
}

/// Running perfs that were told to record this process.
fn perfs_of(pid: Pid) -> Vec<Pid> {
    let records = |perf: &Pid| {
        let line = fs::read(format!("/proc/{perf}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let pids = words.windows(2).find(|w| w[0] == b"-p").map(|w| w[1]);
        words.get(1).is_some_and(|w| *w == b"record")
            && pids.is_some_and(|list| {
                list.split(|b| *b == b',')
                    .any(|p| p == pid.to_string().as_bytes())
            })
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(records).collect()
}

/// Samples of a stack that ends in one of the two functions, kernel frames apart.
fn shares(run: &Written) -> Result<(u64, u64)> {
    let (mut seventy, mut thirty) = (0, 0);
    for (stack, count) in run.folded("merged.folded")? {
        match stack.split(';').rfind(|frame| !frame.ends_with("_[k]")) {
            Some("seventy") => seventy += count,
            Some("thirty") => thirty += count,
            _ => {}
        }
    }
    Ok((seventy, thirty))
}

/// Within 5 points, or three standard errors if that is more.
fn check_shares(run: &Written, n: u64) -> Result<()> {
    let (seventy, thirty) = shares(run)?;
    let two = (seventy + thirty) as f64;
    ensure!(
        two >= 0.9 * n as f64,
        "only {two} of {n} are in the two functions"
    );
    let share = seventy as f64 / two;
    let tolerance = (3.0 * (0.21 / two).sqrt()).max(0.05);
    ensure!(
        (share - 0.7).abs() <= tolerance,
        "{share:.3} of {two} is not 0.7"
    );
    Ok(())
}

/// CPU time of a process: by its samples, and by the kernel's account.
fn cpu_ns(run: &Written, pid: Pid) -> (u64, u64) {
    let of = |process: u32| process == pid.cast_unsigned();
    let sampled = run.profile.select(|s| of(s.process.pid));
    let counted = run
        .profile
        .counters
        .iter()
        .filter(|((_, source, _, kind), _)| {
            let CounterSource::Series(series) = source else {
                return false;
            };
            let series = run.profile.series.get(*series);
            *kind == CounterKind::CpuNs && series.is_some_and(|s| of(s.process.pid))
        });
    (
        sampled.values().map(|v| v[1]).sum(),
        counted.map(|(_, value)| *value).sum(),
    )
}

#[test]
fn perf_takes_the_same_shares_and_leaves_nothing_behind() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(POLICY)?;
    let split = split()?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&[
        "--target",
        &target,
        "--engine",
        "perf",
        "--hz",
        "199",
        "--duration",
        "5s",
    ])?;
    let run = stage.captured(command, 0)?;
    assert!(perfs_of(split.pid()).is_empty(), "a perf is left");
    let n = run.check_sums()?;
    let host = run.host("local")?;
    println!("{n} samples, {:?}, {:?}", shares(&run)?, host.stats);
    assert_eq!(
        (host.engine.as_str(), host.stats.mode.as_str()),
        ("perf", "dwarf")
    );
    assert_eq!(host.outcome, HostOutcome::Complete);
    assert_eq!(host.stats.samples, n);
    assert!(n > 50, "only {n} samples of a program that never waits");
    check_shares(&run, n)?;
    assert!(run.record.coverage.line().ends_with("by perf dwarf"));
    // Whole stacks, from the kernel's first instruction of the program on.
    let whole = |stack: &str| {
        let frames: Vec<&str> = stack.split(';').collect();
        frames.get(1) == Some(&"_start")
            && frames.iter().filter(|f| **f == "descend").count() == DEPTH + 1
    };
    let stacks = run.folded("merged.folded")?;
    let exact: u64 = stacks.iter().filter(|s| whole(s.0)).map(|s| s.1).sum();
    assert!(
        exact * 100 >= n * 90,
        "only {exact} of {n} stacks are whole"
    );
    // Seconds are those since the start, and the kernel's account agrees with the samples.
    let seconds = run.seconds("local");
    assert!(
        seconds.keys().all(|s| *s < 6) && seconds.len() >= 4,
        "{seconds:?}"
    );
    // What was lost, on a machine too busy to read in time, is known to the sample.
    let (sampled, counted) = cpu_ns(&run, split.pid());
    let sampled = sampled + host.stats.lost * (1_000_000_000 / 199);
    assert!(
        sampled * 5 > counted * 4 && sampled * 4 < counted * 5,
        "{sampled} of {counted} ns"
    );
    assert!(host.stats.own_cpu_ns > 0 && host.stats.processes == 1);
    let alike = |s: &model::profile::Series| s.engine == "perf" && s.process.role == s.process.comm;
    assert!(run.profile.series.as_slice().iter().all(alike));
    Ok(())
}

#[test]
fn an_interrupted_capture_by_perf_keeps_its_part() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(POLICY)?;
    let split = split()?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&["--target", &target, "--engine", "perf", "--duration", "60s"])?;
    let mut coordinator = Child::spawn(command)?;
    // Stacks reach the coordinator while the capture runs.
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    let spool = stage.path("run/spool/local.spool");
    let arrived = within(CAPTURE, || {
        spool.metadata().is_ok_and(|file| file.len() > 0)
    });
    ensure!(arrived.is_some(), "nothing arrived while it ran");
    assert_eq!(perfs_of(split.pid()).len(), 1);
    coordinator.signal(Signal::SIGINT)?;
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(130),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    assert!(perfs_of(split.pid()).is_empty(), "a perf is left");
    let run = Written::read(&stage.path("run"))?;
    let n = run.check_sums()?;
    assert!(n > 0, "nothing was kept");
    assert_eq!(n, run.host("local")?.stats.samples);
    Ok(())
}

#[test]
fn the_keeper_ends_perf_when_the_agent_is_killed() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(POLICY)?;
    let split = split()?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&["--target", &target, "--engine", "perf", "--duration", "60s"])?;
    let mut coordinator = Child::spawn(command)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    let perf = *perfs_of(split.pid()).first().context("no perf")?;
    // perf, and the other one that reads from it, are children of the agent.
    let agent = parent(perf).context("perf has no parent")?;
    ensure!(
        procfs::descendants(coordinator.pid()).contains(&agent),
        "{agent} is no agent"
    );
    let children: Vec<Pid> = procfs::descendants(agent)
        .into_iter()
        .filter(|pid| procfs::comm(*pid).as_deref() == Some("perf"))
        .collect();
    assert_eq!(children.len(), 2, "{children:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), Signal::SIGKILL)?;
    let is_perf = |pid: &Pid| procfs::comm(*pid).as_deref() == Some("perf");
    let gone = within(SAFE, || !children.iter().any(is_perf));
    println!("both ended after {gone:?}");
    assert!(gone.is_some(), "perf outlives its agent: {children:?}");
    let done = coordinator.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&stage.path("run"))?;
    assert!(run.has(FindingCode::HostLost, "local") && run.check_sums()? > 0);
    Ok(())
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[test]
fn auto_takes_perf_where_only_that_is_allowed_and_says_so() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(ONLY_PERF)?;
    let split = split()?;
    let command = stage.capture(&[
        "--target",
        &format!("pid:{}", split.pid()),
        "--duration",
        "2s",
    ])?;
    let run = stage.captured(command, 0)?;
    let host = run.host("local")?;
    assert_eq!(host.engine, "perf");
    for word in ["perf", "not native", "policy does not list it"] {
        assert!(host.engine_reason.contains(word), "{}", host.engine_reason);
    }
    assert!(run.check_sums()? > 0);
    Ok(())
}

#[test]
fn without_perf_on_the_machine_the_refusal_says_where_it_was_looked_for() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(ONLY_PERF)?;
    let split = split()?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&["--target", &target, "--engine", "perf", "--duration", "2s"])?;
    let run = stage.captured(without_perf(&command)?, 5)?;
    let host = run.host("local")?;
    assert_eq!((host.outcome, host.captured), (HostOutcome::Refused, false));
    let findings = run.record.all_findings();
    let said = findings
        .iter()
        .find(|f| f.code == FindingCode::EngineUnavailable)
        .context("no finding")?;
    assert!(
        said.evidence.contains("there is no perf in /usr/bin"),
        "{said}"
    );
    Ok(())
}

/// The same command where an empty file lies over every perf, in a mount namespace of its own.
fn without_perf(command: &Command) -> Result<Command> {
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "--propagation", "private", "sh", "-c"]);
    hidden.arg(
        "for perf in /usr/bin/perf /usr/sbin/perf /bin/perf /usr/local/bin/perf; do \
         if [ -e \"$perf\" ]; then mount --bind /dev/null \"$perf\" || exit 99; fi; done; \
         exec \"$@\"",
    );
    hidden
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    Ok(hidden)
}

#[test]
fn a_target_that_comes_later_gets_a_perf_of_its_own_and_counts_once() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(POLICY)?;
    // A copy, so that no other test's program is a target.
    let program = stage.path("late-split");
    fs::copy(Workload::Split.compile(Build::default())?, &program)?;
    let start = || {
        let mut command = Command::new(&program);
        command.arg("60");
        started(command)
    };
    let first = start()?;
    let target = format!("exe:{}", program.display());
    let command = stage.capture(&[
        "--target",
        &target,
        "--engine",
        "perf",
        "--duration",
        "15s",
        "--hz",
        "199",
    ])?;
    let mut coordinator = Child::spawn(command)?;
    coordinator.wait_for_stdout("\"event\":\"starting\"", CAPTURE)?;
    thread::sleep(SECOND);
    let second = start()?;
    let covered = within(Duration::from_secs(10), || {
        !perfs_of(second.pid()).is_empty()
    });
    ensure!(covered.is_some(), "nobody records the second process");
    let done = coordinator.finish(CAPTURE)?;
    ensure!(
        done.status.code() == Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&stage.path("run"))?;
    run.check_sums()?;
    for child in [&first, &second] {
        let (sampled, counted) = cpu_ns(&run, child.pid());
        println!(
            "{}: {sampled} ns sampled, {counted} ns counted",
            child.pid()
        );
        assert!(sampled > 0, "{} has no stack", child.pid());
        assert!(
            sampled * 4 < counted * 5,
            "counted twice: {sampled} of {counted} ns"
        );
    }
    assert_eq!(run.host("local")?.stats.processes, 2);
    assert_eq!(
        (perfs_of(first.pid()), perfs_of(second.pid())),
        (vec![], vec![])
    );
    Ok(())
}

#[test]
fn a_target_with_lines_in_its_name_forges_nothing() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(POLICY)?;
    // Its comm and its module: a line that looks like the head of a sample of process 1.
    let program = stage.path("w\n1 1.0: [;]");
    fs::copy(Workload::Split.compile(Build::default())?, &program)?;
    let mut command = Command::new(&program);
    command.arg("60");
    let split = started(command)?;
    let target = format!("pid:{}", split.pid());
    let command = stage.capture(&[
        "--target",
        &target,
        "--engine",
        "perf",
        "--duration",
        "3s",
        "--hz",
        "199",
    ])?;
    let run = stage.captured(command, 0)?;
    let n = run.check_sums()?;
    assert!(n > 20, "only {n} samples");
    for series in run.profile.series.as_slice() {
        assert_eq!(
            series.process.pid,
            split.pid().cast_unsigned(),
            "{series:?}"
        );
    }
    for stack in run.folded("merged.folded")?.keys() {
        assert!(!stack.contains('\n'), "{stack:?}");
    }
    let (sampled, counted) = cpu_ns(&run, split.pid());
    assert!(sampled * 4 < counted * 5, "{sampled} of {counted} ns");
    Ok(())
}

#[test]
fn hosts_by_different_engines_are_counted_and_the_ranking_warns() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["both", "only-perf"], LinkConditions::default())?;
    for (number, policy) in [(0, POLICY), (1, ONLY_PERF)] {
        fleet.start_workload(number)?;
        let policy = policy.to_owned();
        let setup = AgentSetup {
            policy,
            ..AgentSetup::default()
        };
        fleet.start_agent(number, &setup)?;
    }
    let out = fleet.path("run");
    let done = fleet
        .capture("duration: 3s\nsample_hz: 199", &out)?
        .finish(CAPTURE)?;
    ensure!(
        done.status.code() == Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    let engine = |name| run.host(name).map(|h| h.engine.clone());
    assert_eq!(
        (engine("both")?, engine("only-perf")?),
        ("native".into(), "perf".into())
    );
    let line = run.record.coverage.line();
    assert!(
        line.contains("1 host by native") && line.contains("1 host by perf dwarf"),
        "{line}"
    );
    check_report(&out)?;
    let findings = run.record.all_findings();
    let unlike = findings
        .iter()
        .find(|f| f.code == FindingCode::ComparedUnlike);
    let said = unlike.context("the ranking does not warn")?;
    assert!(said.evidence.contains("only-perf: perf dwarf"), "{said}");
    for host in &fleet.hosts {
        let workload = host.workload.as_ref().context("no workload")?;
        assert!(
            perfs_of(workload.pid()).is_empty(),
            "a perf is left on {}",
            host.name
        );
    }
    Ok(())
}

/// What a person pastes into the ticket says it too.
fn check_report(out: &Path) -> Result<()> {
    let report = fs::read_to_string(out.join("report.md"))?;
    ensure!(report.contains("1 host by perf dwarf"), "{report}");
    Ok(())
}
