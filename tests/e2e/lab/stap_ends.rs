//! Every way in which a capture with SystemTap can end, through the real engine: nothing is left loaded or running, and what
//! was captured until then is in the result, with the finding that says why.
//!
//! In: the two guests of [`stap_engine`](crate::stap_engine), with its module, agents and programs that work. Out: the same
//! guests, empty and ready for the next round. Never: a kernel that is looked at before its agent said that it is done.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fleetflame::store::{RunDir, RunRecord};
use fleetflame_tests::lab::RemoteChild;
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::{Child, Guest};
use model::format::ffz::Want;
use model::profile::Profile;
use model::{FindingCode as Code, HostCoverage, HostOutcome};
use nix::sys::signal::Signal;

use crate::stap_engine::{CAPTURE, ENGINE, SAFE, loaded, target, unloaded};
use crate::{samples, within};

/// How often all ends are met, one after the other, in guests that stay.
const ROUNDS: &str = "FLEETFLAME_LAB_ENDS_ROUNDS";

/// All ends, as often as the variable says; once without it.
pub(crate) fn all(fleet: &mut LabFleet, program: &Path, targets: &mut [RemoteChild]) -> Result<()> {
    let rounds: u32 = match std::env::var(ROUNDS) {
        Ok(rounds) => rounds.parse().context(ROUNDS)?,
        Err(_) => 1,
    };
    for round in 1..=rounds {
        once(fleet, program, targets, round).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn once(
    fleet: &mut LabFleet,
    program: &Path,
    targets: &mut [RemoteChild],
    round: u32,
) -> Result<()> {
    let run = |name: &str| format!("{name}-{round}");
    idle_and_gone(fleet, &mut targets[1], &run("idle-and-gone")).context("idle, and gone")?;
    targets[1] = target(&fleet.lab.guests[1], program)?;
    let pids = [targets[0].pid()?, targets[1].pid()?];
    readers_killed(fleet, pids, &run("readers-killed")).context("stapio and staprun killed")?;
    interrupted(fleet, pids, &run("interrupted")).context("Ctrl-C")?;
    agent_and_coordinator_lost(fleet, pids, &run("lost")).context("agent killed, cable pulled")
}

/// To its deadline, of a program that sleeps all the time, and of one that ends in mid-capture.
fn idle_and_gone(fleet: &LabFleet, worker: &mut RemoteChild, run: &str) -> Result<()> {
    let guests = &fleet.lab.guests;
    let sleeper = guests[0].start(&["/bin/sleep", "900"])?;
    let pids = [sleeper.pid()?, worker.pid()?];
    let out = fleet.path(run);
    let mut coordinator = fleet.capture(&format!("{ENGINE}duration: 5s"), &pids, &out)?;
    wait_for_samples(&mut coordinator, &guests[1])?;
    worker.signal(Signal::SIGKILL)?;
    let code = coordinator.finish(CAPTURE)?.status.code();
    let written = Written::read(&out, fleet)?;
    ensure!(code == Some(3), "{code:?}: {written}");
    let idle = written.host(0)?;
    ensure!(idle.stats.samples == 0, "{idle:?}");
    ensure!(idle.outcome == HostOutcome::Partial, "{idle:?}");
    written.require(Code::NothingCaptured, 0)?;
    let gone = written.host(1)?;
    ensure!(
        gone.stats.samples > 0,
        "nothing of before it ended: {gone:?}"
    );
    ensure!(gone.outcome == HostOutcome::Complete, "{gone:?}");
    written.require(Code::TargetVanished, 1)?;
    empty(guests)
}

/// The reader of one module is killed in mid-capture; the loader of the other while it loads.
fn readers_killed(fleet: &LabFleet, pids: [i32; 2], run: &str) -> Result<()> {
    let guests = &fleet.lab.guests;
    // As soon as it is there: it becomes stapio when the module is loaded.
    let kill = "until pid=$(pidof staprun); do :; done; kill -KILL $pid; echo killed";
    let killer = guests[1].start(&["/bin/sh", "-c", kill])?;
    let out = fleet.path(run);
    let mut coordinator = fleet.capture(&format!("{ENGINE}duration: 60s"), &pids, &out)?;
    wait_for_samples(&mut coordinator, &guests[0])?;
    let stapio = guests[0].pids_of("stapio")?;
    ensure!(stapio.len() == 1, "{stapio:?} and {}", coordinator.stdout());
    guests[0].signal(stapio[0], "KILL")?;
    killer.wait_for_line("killed", SAFE)?;
    let code = coordinator.finish(CAPTURE)?.status.code();
    let written = Written::read(&out, fleet)?;
    ensure!(code == Some(3), "{code:?}: {written}");
    let read = written.host(0)?;
    ensure!(read.stats.samples > 0, "{written}");
    ensure!(read.outcome == HostOutcome::Partial, "{read:?}");
    written.require(Code::EngineFailed, 0)?;
    // What it had not read yet was got by another reader: every second but the last has its own report.
    let left = written.require(Code::StapModuleLeft, 0)?;
    ensure!(
        !left.contains(" 0 rows were recovered") && left.ends_with("it was unloaded"),
        "{left}"
    );
    let loading = written.host(1)?;
    ensure!(loading.outcome == HostOutcome::Refused, "{loading:?}");
    written.require(Code::StapRunFailed, 1)?;
    empty(guests)
}

/// The coordinator is told to stop by its terminal.
fn interrupted(fleet: &LabFleet, pids: [i32; 2], run: &str) -> Result<()> {
    let out = fleet.path(run);
    let mut coordinator = fleet.capture(&format!("{ENGINE}duration: 120s"), &pids, &out)?;
    for guest in &fleet.lab.guests {
        wait_for_samples(&mut coordinator, guest)?;
    }
    coordinator.signal(Signal::SIGINT)?;
    let code = coordinator.finish(CAPTURE)?.status.code();
    let written = Written::read(&out, fleet)?;
    ensure!(code == Some(130), "{code:?}: {written}");
    for number in 0..2 {
        ensure!(written.host(number)?.stats.samples > 0, "{written}");
    }
    ensure!(
        written
            .record
            .all_findings()
            .iter()
            .any(|f| f.code == Code::Interrupted),
        "{written}"
    );
    empty(&fleet.lab.guests)
}

/// One guest's cable is pulled, the other's agent is killed, both in mid-capture.
fn agent_and_coordinator_lost(fleet: &mut LabFleet, pids: [i32; 2], run: &str) -> Result<()> {
    let (first, second) = (&fleet.lab.guests[0], &fleet.lab.guests[1]);
    let out = fleet.path(run);
    let mut coordinator = fleet.capture(&format!("{ENGINE}duration: 120s"), &pids, &out)?;
    for guest in [first, second] {
        wait_for_samples(&mut coordinator, guest)?;
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
    coordinator.signal(Signal::SIGINT)?;
    let code = coordinator.finish(CAPTURE)?.status.code();
    let written = Written::read(&out, fleet)?;
    ensure!(code == Some(130), "{code:?}: {written}");
    for number in 0..2 {
        ensure!(written.host(number)?.stats.samples > 0, "{written}");
        written.require(Code::HostLost, number)?;
    }
    first.set_link(true)?;
    let agent = fleet.start_agent(1)?;
    fleet.agents[1] = agent;
    fleet.wait_until_heard(1)
}

/// Until the coordinator has samples of a guest.
fn wait_for_samples(coordinator: &mut Child, guest: &Guest) -> Result<()> {
    let told = format!("\"event\":\"progress\",\"host\":\"{}\"", guest.name);
    within(CAPTURE, || {
        let ended = coordinator.ended()?;
        let said = coordinator.stdout();
        ensure!(ended.is_none(), "{said}\n{}", coordinator.stderr());
        let mut lines = said.lines().filter(|line| line.contains(&told));
        Ok(lines.any(|line| !line.contains("\"samples\":0")))
    })
    .with_context(|| format!("samples of {}", guest.name))
}

fn empty(guests: &[Guest]) -> Result<()> {
    for guest in guests {
        within(SAFE, || unloaded(guest))
            .with_context(|| format!("{} has {:?}", guest.name, guest.left_behind()))?;
    }
    Ok(())
}

/// What a run has written.
struct Written {
    record: RunRecord,
    names: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.record.state)?;
        for (name, host) in &self.record.coverage.hosts {
            writeln!(
                f,
                "{name}: {:?}, {} samples",
                host.outcome, host.stats.samples
            )?;
        }
        let findings = self.record.all_findings();
        findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

impl Written {
    /// Reads it; all of its sums are the same.
    fn read(out: &Path, fleet: &LabFleet) -> Result<Self> {
        let dir = RunDir::open(out)?;
        let names = fleet
            .lab
            .guests
            .iter()
            .map(|guest| guest.name.clone())
            .collect();
        let written = Self {
            record: dir.record()?,
            names,
        };
        let profile: Profile = dir.profile(Want::Cells)?;
        let mut sum = 0;
        for (name, host) in &written.record.coverage.hosts {
            let of_host = profile.select(|series| series.host == *name);
            let stacks: u64 = of_host.values().map(|values| values[0]).sum();
            ensure!(
                stacks == host.stats.samples,
                "{name}: {stacks} in {written}"
            );
            sum += stacks;
        }
        if sum > 0 {
            let merged = samples(&out.join("merged.folded"))?;
            ensure!(merged == sum, "{merged} of {sum}");
        }
        Ok(written)
    }

    fn host(&self, number: usize) -> Result<&HostCoverage> {
        let host = self.record.coverage.hosts.get(self.names[number].as_str());
        host.context("a guest that run.json has not")
    }

    /// What a finding of a guest says.
    fn require(&self, code: Code, number: usize) -> Result<String> {
        let name = Some(self.names[number].as_str());
        let findings = self.record.all_findings();
        let found = findings
            .iter()
            .find(|f| f.code == code && f.host.as_deref() == name);
        let found = found.with_context(|| format!("no {code} of {name:?}: {self}"))?;
        Ok(found.evidence.clone())
    }
}
