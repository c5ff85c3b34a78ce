//! Workers that come and go while they are captured: one is killed, all are replaced by a reload.
//!
//! In: the gateway of the harness under bounded load. Out: who was captured, when, and with which stacks.
//! Never: a process of another gateway (each is known by its master).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::procfs::Pid;
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Child, Gateway, GatewayPlace};
use model::FindingCode;
use model::profile::FrameKind;
use nix::sys::signal::{Signal, kill};

use crate::local::Stage;
use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, UNDER_WAY, turn, within};

/// The kernel spreads connections by chance: so many that each worker has some.
const CONNECTIONS: u32 = 24;
/// A scan a second, and a second in which a worker that was just forked may have no sample.
const NOTICED_S: u32 = 3;

/// What was seen of one process.
#[derive(Debug, Default)]
struct Sampled {
    samples: u64,
    with_lua: u64,
    first_s: u32,
    last_s: u32,
    generation: u32,
    role: String,
}

/// By pid, of the processes in `family`.
fn sampled(run: &Written, family: &BTreeSet<Pid>) -> BTreeMap<Pid, Sampled> {
    let profile = &run.profile;
    let is_lua = |node| {
        let mut frames = profile.tree.stack(node).into_iter();
        frames.any(|frame| {
            let frame = &profile.frames.as_slice()[frame.0 as usize];
            matches!(frame.kind, FrameKind::Lua | FrameKind::Jit) && frame.line > 0
        })
    };
    let mut by_pid = BTreeMap::<Pid, Sampled>::new();
    for ((series, second), cell) in &profile.cells {
        let Some(series) = profile.series.get(*series) else {
            continue;
        };
        let pid = Pid::try_from(series.process.pid).unwrap_or(0);
        if !family.contains(&pid) {
            continue;
        }
        let of = by_pid.entry(pid).or_insert_with(|| Sampled {
            first_s: u32::MAX,
            generation: series.process.generation,
            role: series.process.role.clone(),
            ..Sampled::default()
        });
        for (node, values) in cell.rows() {
            of.samples += values[0];
            of.with_lua += if is_lua(node) { values[0] } else { 0 };
            of.first_s = of.first_s.min(*second);
            of.last_s = of.last_s.max(*second);
        }
    }
    by_pid
}

/// Whether a reload of this family's master is told: other tests have gateways of their own.
fn reloaded(run: &Written, family: &BTreeSet<Pid>) -> bool {
    let of_family = |said: &str| {
        family
            .iter()
            .any(|p| said.contains(&format!("master {p} ")))
    };
    let findings = run.record.all_findings();
    let mut reloads = findings
        .iter()
        .filter(|f| f.code == FindingCode::TargetReloaded);
    reloads.any(|f| of_family(&f.evidence))
}

/// Captures the gateway for 10 s, and does `deed` when samples come. Returns the run and all pids that
/// the gateway had.
fn captured(deed: impl FnOnce(&Gateway<'_>) -> Result<()>) -> Result<(Written, BTreeSet<Pid>)> {
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let mut family = BTreeSet::from([gateway.master()]);
    family.extend(gateway.worker_pids());
    let stage = Stage::new(POLICY)?;
    let load = gateway.load("/plugins", CONNECTIONS, Duration::from_secs(40))?;
    let command = stage.capture(&["--engine", "native", "--hz", "199", "--duration", "10s"])?;
    let mut capture = Child::spawn(command)?;
    capture.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    deed(&gateway)?;
    family.extend(gateway.worker_pids());
    let run = stage.ended(capture, 0)?;
    family.extend(gateway.worker_pids());
    drop(load);
    // The kernel's report of the killed one is in nginx's log; the gateway served on.
    gateway.get("/plain")?;
    let samples = run.check_sums()?;
    for finding in run.record.all_findings() {
        println!("{finding}");
    }
    let stats = &run.host("local")?.stats;
    ensure!(
        stats.samples == samples,
        "{stats:?}, {samples} in the profile"
    );
    Ok((run, family))
}

#[test]
fn a_worker_that_is_killed_is_followed_by_its_successor() -> Result<()> {
    let _turn = turn();
    let mut killed = 0;
    let (run, family) = captured(|gateway| {
        let before = gateway.worker_pids();
        killed = *before.first().context("no worker")?;
        std::thread::sleep(2 * SECOND);
        kill(nix::unistd::Pid::from_raw(killed), Signal::SIGKILL)?;
        let replaced = || {
            let now = gateway.worker_pids();
            now.len() == before.len() && !now.contains(&killed)
        };
        within(SAFE, replaced).context("nginx forked no other worker")?;
        Ok(())
    })?;
    let by_pid = sampled(&run, &family);
    println!("{by_pid:#?}");
    let workers: Vec<_> = by_pid
        .iter()
        .filter(|(_, s)| s.role == "nginx: worker")
        .collect();
    ensure!(workers.len() == 3, "{workers:#?}");
    let of_killed = by_pid.get(&killed).context("nothing of the killed one")?;
    let (pid, successor) = workers
        .iter()
        .max_by_key(|(_, s)| s.first_s)
        .context("none")?;
    ensure!(**pid != killed && successor.first_s > 0, "{workers:#?}");
    ensure!(
        of_killed.last_s < 9 && successor.last_s >= 8,
        "{workers:#?}"
    );
    ensure!(
        successor.first_s <= of_killed.last_s + NOTICED_S,
        "{workers:#?}"
    );
    for (pid, worker) in &workers {
        ensure!(
            worker.generation == 0,
            "a respawn is no reload: {workers:#?}"
        );
        ensure!(worker.samples > 0, "{pid}: {worker:?}");
    }
    ensure!(
        successor.with_lua * 10 > successor.samples * 6,
        "{successor:?}"
    );
    ensure!(run.has(FindingCode::TargetVanished, "local"));
    ensure!(!reloaded(&run, &family));
    let stats = &run.host("local")?.stats;
    // The master, two workers, and the one that came.
    ensure!(stats.processes >= 4, "{stats:?}");
    ensure!(stats.lua_failed * 50 <= stats.lua_segments, "{stats:?}");
    Ok(())
}

#[test]
fn a_reload_brings_new_workers_of_another_generation() -> Result<()> {
    let _turn = turn();
    let mut old = BTreeSet::new();
    let (run, family) = captured(|gateway| {
        old.extend(gateway.worker_pids());
        std::thread::sleep(2 * SECOND);
        gateway.reload()
    })?;
    let by_pid = sampled(&run, &family);
    println!("{by_pid:#?}");
    let (before, after): (Vec<_>, Vec<_>) = by_pid
        .iter()
        .filter(|(_, s)| s.role == "nginx: worker")
        .partition(|(pid, _)| old.contains(pid));
    ensure!(before.len() == 2 && after.len() == 2, "{by_pid:#?}");
    ensure!(before.iter().all(|(_, s)| s.generation == 0), "{before:#?}");
    ensure!(after.iter().all(|(_, s)| s.generation == 1), "{after:#?}");
    let last = before.iter().map(|(_, s)| s.last_s).max();
    for (pid, worker) in &after {
        ensure!(
            worker.last_s >= 8 && worker.samples > 0,
            "{pid}: {worker:?}"
        );
        ensure!(
            Some(worker.first_s) <= last.map(|s| s + NOTICED_S),
            "{pid}: {by_pid:#?}"
        );
        ensure!(
            worker.with_lua * 10 > worker.samples * 6,
            "{pid}: {worker:?}"
        );
    }
    ensure!(reloaded(&run, &family));
    let stats = &run.host("local")?.stats;
    ensure!(stats.processes >= 5, "{stats:?}");
    ensure!(stats.lua_failed * 50 <= stats.lua_segments, "{stats:?}");
    Ok(())
}
