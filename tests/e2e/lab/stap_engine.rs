//! SystemTap by the agent itself: a module that was built on this machine, loaded in two guests that have no compiler, one
//! capture over both; and what is left of it when an agent is killed, and when its coordinator is gone.
//!
//! In: real agents in guests, the real coordinator here. Out: shares and depths that the program was made for, empty
//! kernels. Never: a module that only the agent's good will unloads: one agent is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, RemoteChild};
use fleetflame_tests::{Binaries, Build, Child, Guest, GuestSetup, Workload};

use crate::{samples, within};

pub(crate) const POLICY: &str =
    "version: 1\nengines: [stap]\ncpu_pct_max: 400\nmemory_mb_max: 512\n";
/// An emulated processor: the agent's own work must not end the capture.
const ENGINE: &str = "engine: stap\nsample_hz: 99\nkernel: false\n";
pub(crate) const CAPTURE: Duration = Duration::from_mins(4);
const BUILD: Duration = Duration::from_mins(4);
/// The capture runs, and its coordinator hears of samples.
const UNDER_WAY: &str = "\"event\":\"progress\"";
/// A lease is 4 s, a teardown 1 s; an emulated processor behind other work is slow.
pub(crate) const SAFE: Duration = Duration::from_secs(30);
/// Calls of `descend` above the two that work.
const DEPTH: usize = 5;
/// Where an agent looks for modules that were built elsewhere.
const MODULES: &str = "/var/lib/fleetflame/modules";

#[test]
fn a_module_built_here_is_loaded_by_the_agents_of_two_guests() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let fleet = LabFleet::start(&GuestSetup::bare().program(&split), 2, POLICY)?;
    let module = build(&fleet, &split, "oncpu-user", &[])?;
    let mut targets = Vec::new();
    for guest in &fleet.lab.guests {
        install(guest, &module)?;
        targets.push(target(guest, &split)?);
    }
    let pids = [targets[0].pid()?, targets[1].pid()?];

    let out = fleet.path("whole");
    let body = format!("{ENGINE}duration: 8s");
    let done = fleet.capture(&body, &pids, &out)?.finish(CAPTURE)?;
    let code = done.status.code();
    ensure!(
        code == Some(0),
        "{code:?}: {}\n{}",
        done.stdout,
        done.stderr
    );
    let mut sum = 0;
    for guest in &fleet.lab.guests {
        let folded = out.join(format!("hosts/{}.folded", guest.name));
        sum += samples(&folded)?;
        as_designed(&folded).with_context(|| format!("{}: {}", guest.name, done.stdout))?;
        ensure!(
            out.join(format!("diff/{}-vs-rest.svg", guest.name))
                .exists(),
            "no difference of {}",
            guest.name
        );
    }
    ensure!(samples(&out.join("merged.folded"))? == sum);
    for guest in &fleet.lab.guests {
        within(SAFE, || unloaded(guest)).with_context(|| format!("{}: after it", guest.name))?;
    }

    ends(&fleet, &pids)?;
    fleet
        .lab
        .guests
        .iter()
        .try_for_each(|guest| guest.check_kernel())
}

/// One guest's cable is pulled, the other's agent is killed, both in mid-capture.
fn ends(fleet: &LabFleet, pids: &[i32]) -> Result<()> {
    let (first, second) = (&fleet.lab.guests[0], &fleet.lab.guests[1]);
    let out = fleet.path("ends");
    let body = format!("{ENGINE}duration: 120s");
    let mut coordinator = fleet.capture(&body, pids, &out)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    for guest in [first, second] {
        within(SAFE, || loaded(guest)).with_context(|| format!("no module in {}", guest.name))?;
    }
    first.set_link(false)?;
    second.signal(fleet.agents[1].pid()?, "KILL")?;
    second
        .wait_until_clean(SAFE)
        .context("the agent was killed")?;
    within(SAFE, || unloaded(first)).context("it samples on without a coordinator")?;
    ensure!(
        fleet.agents[0].ended().is_none(),
        "{}",
        fleet.agents[0].stderr()
    );
    coordinator.signal(nix::sys::signal::Signal::SIGINT)?;
    let done = coordinator.finish(CAPTURE)?;
    ensure!(
        out.join("run.json").exists(),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    Ok(())
}

/// Builds the module with the agent's own verb, for the guests' kernel.
pub(crate) fn build(
    fleet: &LabFleet,
    program: &Path,
    probe: &str,
    options: &[&str],
) -> Result<PathBuf> {
    build_with(fleet.lab.kit, Some(program), probe, options)
}

/// As [`build`], also before there is a fleet, and of no program.
pub(crate) fn build_with(
    kit: &Kit,
    program: Option<&Path>,
    probe: &str,
    options: &[&str],
) -> Result<PathBuf> {
    let out = kit.folder("agent-modules")?;
    let mut command = Binaries::find()?.agent();
    command.args(["build-module", "--probe", probe, "--cpus", "2"]);
    command.args(options);
    command.arg("--kernel").arg(kit.kernel.headers());
    command.arg("--runtime").arg(&kit.runtime);
    if let Some(program) = program {
        command.arg("--image").arg(program);
    }
    command.arg("--out").arg(out);
    let done = Child::spawn(command)?.finish(BUILD)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(PathBuf::from(done.stdout.trim()))
}

pub(crate) fn install(guest: &Guest, module: &Path) -> Result<()> {
    for file in [module.to_owned(), module.with_extension("json")] {
        let name = file.file_name().context("a module has a name")?;
        guest.put_file(&file, &format!("{MODULES}/{}", name.to_string_lossy()))?;
    }
    let close = "chown -R 0:0 /var/lib/fleetflame && chmod -R go= /var/lib/fleetflame";
    guest.sh(close, SAFE).map(drop)
}

fn target(guest: &Guest, program: &Path) -> Result<RemoteChild> {
    let path = program.to_string_lossy().into_owned();
    let workload = guest.start(&[&path, "900", &DEPTH.to_string()])?;
    workload.wait_for_line("ready", SAFE)?;
    Ok(workload)
}

fn loaded(guest: &Guest) -> Result<bool> {
    let modules = guest.modules()?;
    Ok(modules.iter().any(|m| m.name.starts_with("ff_")))
}

/// Whether neither a module nor its reader is there.
pub(crate) fn unloaded(guest: &Guest) -> Result<bool> {
    let readers = [guest.pids_of("staprun")?, guest.pids_of("stapio")?].concat();
    Ok(!loaded(guest)? && readers.is_empty())
}

/// 70 to 30, and nearly every stack as deep as the program.
fn as_designed(folded: &Path) -> Result<()> {
    let text = fs::read_to_string(folded)?;
    let (mut seventy, mut thirty, mut exact, mut all) = (0_u64, 0_u64, 0_u64, 0_u64);
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let count: u64 = count.parse()?;
        all += count;
        let frames: Vec<&str> = stack.split(';').collect();
        match frames.last() {
            Some(&"seventy") => seventy += count,
            Some(&"thirty") => thirty += count,
            _ => continue,
        }
        if frames.iter().filter(|f| **f == "descend").count() == DEPTH + 1 {
            exact += count;
        }
    }
    let working = seventy + thirty;
    ensure!(working > 80, "{working} of {all} samples work: {text}");
    ensure!(
        working * 100 >= all * 85,
        "{working} of {all} samples work: {text}"
    );
    let share = seventy as f64 / working as f64;
    // 3 points, and what chance does to so few.
    let chance = 4.0 * (0.21 / working as f64).sqrt();
    ensure!(
        (share - 0.7).abs() < 0.03 + chance,
        "seventy has {share:.3} of {working}: {text}"
    );
    ensure!(
        exact * 100 >= working * 80,
        "{exact} of {working} stacks have the program's depth: {text}"
    );
    Ok(())
}
