//! What people run into who use SystemTap with the limits that it has by itself, and what becomes of the same program when
//! our engine captures it.
//!
//! In: one guest, one module of a script as people write it, one of the engine's. Out: the five failures, each for real and with
//! its finding; captures that end well, by the ladder where they have to. Never: a limit that was made smaller for this story.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame::store::{RunDir, RunRecord};
use fleetflame_agent::engine::stap_meaning;
use fleetflame_tests::lab::agent_module::libc;
use fleetflame_tests::lab::case::Case;
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, build_module, install_module};
use fleetflame_tests::{Build, Guest, GuestSetup, Workload};
use model::FindingCode as Code;
use model::format::ffz::Want;
use model::profile::Profile;

use crate::stap_engine::{CAPTURE, POLICY, SAFE, unloaded};
use crate::{by_hand, within};

/// Cases of `tests/lab/cases`, how staprun ends, and what that means.
const STOCK: [(&str, i32, Code); 6] = [
    ("stock-map-full", 1, Code::StapMapFull),
    ("stock-max-action", 1, Code::StapMaxAction),
    ("stock-skipped", 1, Code::StapSkippedTooMany),
    ("stock-overload", 1, Code::StapOverload),
    // Success, as it says itself.
    ("stock-transport", 0, Code::StapOutputLost),
    (MISFRAMED, 0, Code::StapOutputLost),
];
/// Little output, lost all the same.
const MISFRAMED: &str = "transport-misframed";
/// Rows of an array where nobody asks for more.
const STOCK_ROWS: usize = 2_048;
/// Samples a second of which an emulated processor has time for those of a few frames, and of which it has none for deep ones,
/// not even half of it where others hold it up.
const SAMPLE_HZ: u64 = 499;
const TOO_MANY_HZ: u64 = 999;

#[test]
fn what_fails_with_stock_limits_is_captured_by_the_engine() -> Result<()> {
    let program = Workload::Stacks.compile(Build::default())?;
    let setup = GuestSetup::bare().program(&program);
    let policy = format!("{POLICY}probes: [on-cpu, vfs]\n");
    let kit = Kit::find()?;
    // While the guest boots.
    let building = {
        let program = program.clone();
        let build = move |hz: u64| {
            build_module(
                kit,
                Some(&program),
                "oncpu-user",
                &["--hz", &hz.to_string()],
            )
        };
        thread::spawn(move || anyhow::Ok((build(SAMPLE_HZ)?, build(TOO_MANY_HZ)?)))
    };
    let fleet = LabFleet::start(&setup, 1, &policy)?;
    let (module, too_many) = building.join().expect("the thread does not panic")?;
    let guest = &fleet.lab.guests[0];
    for (name, code, meant) in STOCK {
        let recording = Case::named(name)?.run(guest, fleet.lab.kit)?;
        let said = recording.stderr();
        let findings = stap_meaning(&said);
        ensure!(findings.iter().any(|f| f.code == meant), "{name}: {said}");
        recording.require_code(code).context(name)?;
        ensure!(recording.left.is_empty(), "{name}: {:?}", recording.left);
        if name == MISFRAMED {
            let output = recording.stdout();
            ensure!(
                output.contains("first") && !output.contains("second"),
                "{output:?}"
            );
        }
    }

    // The stack of a call begins in libc.
    let libc = libc()?;
    let image = ["--image", &libc.to_string_lossy()];
    let events = build_module(kit, Some(&program), "vfs", &image)?;
    install_module(guest, &module)?;
    install_module(guest, &too_many)?;
    let program = program.to_string_lossy();
    the_last_report_comes_before_the_end(guest, &module, &program)?;
    // More stacks than such an array has rows, and none of them lost.
    let whole = Captured::of(&fleet, &[&program, "900", "6"], &sampled(SAMPLE_HZ, 16), 0)?;
    let stacks = whole.profile.select(|_| true).len();
    ensure!(stacks > STOCK_ROWS, "{stacks} stacks: {whole}");
    ensure!(!whole.has(Code::StapRetried), "{whole}");
    ensure!(whole.periods_ns() == [period_ns(SAMPLE_HZ)], "{whole}");
    // So many calls deep that SystemTap ends the first try; what comes next has half the rate, and no other module.
    let body = sampled(TOO_MANY_HZ, 12);
    let retried = Captured::of(&fleet, &[&program, "900", "100"], &body, 3)?;
    ensure!(retried.has(Code::StapOverload), "{retried}");
    let tries = retried.evidence(Code::StapRetried);
    let first = "try 2: 499 Hz instead of 999; half as many samples, because of stap-overload";
    ensure!(tries.first().is_some_and(|t| t == first), "{retried}");
    // What was taken then counts twice the time.
    let twice = 2 * period_ns(TOO_MANY_HZ);
    ensure!(retried.periods_ns().contains(&twice), "{retried}");
    events_are_thinned(&fleet, &program, &events)?;
    guest.check_kernel()
}

fn sampled(sample_hz: u64, seconds: u32) -> String {
    format!("engine: stap\nsample_hz: {sample_hz}\nkernel: false\nduration: {seconds}s")
}

fn period_ns(sample_hz: u64) -> u64 {
    1_000_000_000 / sample_hz
}

/// What a module has counted it prints when it is asked to, and no more at its end.
fn the_last_report_comes_before_the_end(guest: &Guest, module: &Path, program: &str) -> Result<()> {
    let target = guest.start(&[program, "900", "6"])?;
    target.wait_for_line("ready", SAFE)?;
    let two_seconds = Duration::from_secs(2);
    let printed = by_hand::count(guest, (module, &[]), target.pid()?, two_seconds)?;
    let arrived = (
        printed.rows.len() as u64,
        printed.rows.iter().map(|row| row.count).sum(),
    );
    ensure!(
        printed.last == arrived && arrived.0 > 100,
        "{:?} printed, {arrived:?} arrived",
        printed.last
    );
    Ok(())
}

/// The stack of a call takes one and a half times as long as what the program does between two, however fast the processor is:
/// of each it is 60 % of a CPU, of one in four 28.
fn events_are_thinned(fleet: &LabFleet, program: &str, module: &Path) -> Result<()> {
    install_module(&fleet.lab.guests[0], module)?;
    // Time for all rungs: an emulated processor that others hold up takes longer for a stack, and is slow to load.
    let body = "engine: stap\nprobe: vfs\nduration: 20s";
    let thinned = Captured::of(fleet, &[program, "900", "120", "330000"], body, 3)?;
    ensure!(thinned.has(Code::StapOverload), "{thinned}");
    let tries = thinned.evidence(Code::StapRetried);
    let first = "try 2: one in 4 counts, by chance, and stands for all";
    ensure!(
        tries.first().is_some_and(|t| t.starts_with(first)),
        "{thinned}"
    );
    // And the last one lasted.
    let ended = thinned.evidence(Code::StapOverload);
    ensure!(ended.len() == tries.len(), "{thinned}");
    // Each call moves one byte.
    let total = thinned.profile.grand_total();
    ensure!(total[0] == total[1] && total[2] > 0, "{total:?}: {thinned}");
    Ok(())
}

/// A capture that is over.
struct Captured {
    record: RunRecord,
    profile: Profile,
}

impl Captured {
    /// Captures a program to an end with this exit code.
    fn of(fleet: &LabFleet, program: &[&str], body: &str, code: i32) -> Result<Self> {
        let guest = &fleet.lab.guests[0];
        let target = guest.start(program)?;
        target.wait_for_line("ready", SAFE)?;
        let out = fleet.path(&program[1..].join("-"));
        let coordinator = fleet.capture(body, &[target.pid()?], &out)?;
        let done = coordinator.finish(CAPTURE)?;
        let dir = RunDir::open(&out)?;
        let captured = Self {
            record: dir.record()?,
            profile: dir.profile(Want::Cells)?,
        };
        ensure!(
            done.status.code() == Some(code),
            "{}: {captured}",
            done.status
        );
        for lost in [Code::StapOutputLost, Code::InputSkipped] {
            ensure!(!captured.has(lost), "{captured}");
        }
        // What SystemTap prints when it ends a run by itself, it may lose itself.
        let by_itself = captured.has(Code::StapOverload);
        ensure!(
            by_itself || !captured.has(Code::StapOutputCut),
            "{captured}"
        );
        ensure!(captured.profile.grand_total()[0] > 100, "{captured}");
        within(SAFE, || unloaded(guest))?;
        Ok(captured)
    }

    fn has(&self, code: Code) -> bool {
        !self.evidence(code).is_empty()
    }

    fn evidence(&self, code: Code) -> Vec<String> {
        let findings = self.record.all_findings().into_iter();
        let of_code = findings.filter(|f| f.code == code);
        of_code.map(|f| f.evidence).collect()
    }

    /// Nanoseconds that samples stand for, each once.
    fn periods_ns(&self) -> Vec<u64> {
        let periods = self
            .profile
            .series
            .as_slice()
            .iter()
            .map(|series| series.period_ns);
        periods.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {:?}", self.record.state, self.periods_ns())?;
        let findings = self.record.all_findings();
        findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}
