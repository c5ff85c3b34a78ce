//! What people run into who use SystemTap with the limits that it has by itself, and what becomes of the same program when
//! our engine captures it.
//!
//! In: one guest, one module of a script as people write it, one of the engine's. Out: the five failures, each for real and with
//! its finding; captures that end well, by the ladder where they have to. Never: a limit that was made smaller for this story.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fleetflame::store::{RunDir, RunRecord};
use fleetflame_agent::engine::stap_meaning;
use fleetflame_tests::lab::agent_module::libc;
use fleetflame_tests::lab::case::Case;
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{build_module, install_module};
use fleetflame_tests::{Build, GuestSetup, Workload};
use model::FindingCode as Code;
use model::format::ffz::Want;
use model::profile::Profile;

use crate::stap_engine::{CAPTURE, POLICY, SAFE, unloaded};
use crate::within;

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
/// Samples a second: an emulated processor has no time for as many deep stacks.
const SAMPLE_HZ: &str = "499";
const PERIOD_NS: u64 = 1_000_000_000 / 499;

#[test]
fn what_fails_with_stock_limits_is_captured_by_the_engine() -> Result<()> {
    let program = Workload::Stacks.compile(Build::default())?;
    let setup = GuestSetup::bare().program(&program);
    let policy = format!("{POLICY}probes: [on-cpu, vfs]\n");
    let fleet = LabFleet::start(&setup, 1, &policy)?;
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

    let module = build_module(
        fleet.lab.kit,
        Some(&program),
        "oncpu-user",
        &["--hz", SAMPLE_HZ],
    )?;
    // The stack of a call begins in libc.
    let libc = libc()?;
    let image = ["--image", &libc.to_string_lossy()];
    let events = build_module(fleet.lab.kit, Some(&program), "vfs", &image)?;
    install_module(guest, &module)?;
    let program = program.to_string_lossy();
    // More stacks than such an array has rows, and none of them lost.
    let whole = Captured::of(&fleet, &[&program, "900", "6"], &sampled(16), 0)?;
    let stacks = whole.profile.select(|_| true).len();
    ensure!(stacks > STOCK_ROWS, "{stacks} stacks: {whole}");
    ensure!(!whole.has(Code::StapRetried), "{whole}");
    ensure!(whole.periods_ns() == [PERIOD_NS], "{whole}");
    // So many calls deep that SystemTap ends the first try; what comes next has half the rate, and no other module.
    let retried = Captured::of(&fleet, &[&program, "900", "100"], &sampled(10), 3)?;
    ensure!(retried.has(Code::StapOverload), "{retried}");
    let tries = retried.evidence(Code::StapRetried);
    let first = "try 2: 249 Hz instead of 499; half as many samples, because of stap-overload";
    ensure!(tries.first().is_some_and(|t| t == first), "{retried}");
    // What was taken then counts twice the time.
    ensure!(retried.periods_ns().contains(&(2 * PERIOD_NS)), "{retried}");
    events_are_thinned(&fleet, &program, &events)?;
    guest.check_kernel()
}

fn sampled(seconds: u32) -> String {
    format!("engine: stap\nsample_hz: {SAMPLE_HZ}\nkernel: false\nduration: {seconds}s")
}

/// The stack of a call takes one and a half times as long as what the program does between two, however fast the processor is:
/// of each it is 60 % of a CPU, of one in four 28.
fn events_are_thinned(fleet: &LabFleet, program: &str, module: &Path) -> Result<()> {
    install_module(&fleet.lab.guests[0], module)?;
    let body = "engine: stap\nprobe: vfs\nduration: 10s";
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
        for lost in [
            Code::StapOutputLost,
            Code::StapOutputCut,
            Code::InputSkipped,
        ] {
            ensure!(!captured.has(lost), "{captured}");
        }
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
