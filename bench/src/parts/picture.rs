//! Tracers' text to a picture: the field report's case, and whole chains beside the Perl scripts.
//!
//! In: 400 MB of each kind. Out: CPU, bytes, frames; whether what is no stack was counted and what is
//! one was kept. Never: a picture compared with one of another width of the narrowest frame.

use crate::args;
use crate::equal::{frame_count, same_frames, same_lines};
use crate::inputs::Kind;
use crate::measure::Job;
use crate::setting::{Setting, cpu_s, peaks_mib};
use crate::table::Goal;
use anyhow::{Context as _, ensure};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;

const PART: &str = "picture";
/// Narrowest frame in percent, on both sides: their defaults differ.
const WIDTH: &str = "0.1";
/// What the chain from the debug output to a picture takes of memory and disk on the other side.
const DBG_PEER_BYTES: u64 = 6 << 30;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    setting.attempt(PART, "stap-dbg", debug_output);
    for (kind, probe) in [(Kind::StapDup, 26.2), (Kind::StapUniq, 24.6)] {
        setting.attempt(PART, kind.word(), |s| chain(s, kind, probe));
    }
    Ok(())
}

/// The picture that no browser opened: nearly all of the input is no stack.
fn debug_output(setting: &mut Setting) -> anyhow::Result<()> {
    let (input, written) = setting.text(Kind::StapDbg)?;
    let what = format!("{} of stap-dbg to SVG", setting.size());
    setting.step(format!("{what}: comparing results"));
    let found = foreign_lines(
        setting,
        &input,
        written.foreign_lines,
        written.foreign_bytes,
    );
    setting
        .report
        .compared(PART, format!("{what}, lines that are no stack"), found);
    let found = clean_stacks(setting, &input, written.foreign_bytes);
    setting.report.compared(
        PART,
        format!("{what}, stacks against those of the clean part"),
        found,
    );

    let ours = setting.fleetflame("dbg.svg", args!["flame", "--quiet", &input])?;
    let costs = setting.rounds(&what, &[&ours])?;
    let goal = Some(Goal::at_most(1.0).aim(0.25).probe(0.124));
    let bytes = std::fs::metadata(ours.output())?.len() as f64;
    let frames = frame_count(ours.output())? as f64;
    let report = &mut setting.report;
    report.row(PART, &what, "CPU s", &cpu_s(&costs[0]), &[], goal);
    let goal = Some(Goal::at_most(32.0).aim(16.0));
    report.row(
        PART,
        format!("{what}, peak"),
        "MiB",
        &peaks_mib(&costs[0]),
        &[],
        goal,
    );
    let goal = Some(Goal::at_most(1e6).aim(400e3).probe(327e3));
    report.row(PART, format!("{what}, size"), "bytes", &[bytes], &[], goal);
    let goal = Some(Goal::at_most(5_000.0));
    report.row(
        PART,
        format!("{what}, frames"),
        "rectangles",
        &[frames],
        &[],
        goal,
    );

    let peer = debug_peer(setting, &input);
    let Some(theirs) = setting.peer(PART, &what, peer) else {
        return Ok(());
    };
    let costs_theirs = setting.rounds_of(1, &what, &[&theirs])?;
    let their_bytes = std::fs::metadata(theirs.output())?.len() as f64;
    let _ = std::fs::remove_file(theirs.output());
    let against = format!("{what}, against stackcollapse-stap.pl and inferno-flamegraph (one run)");
    let report = &mut setting.report;
    let goal = Some(Goal::at_least(2_000.0).aim(6_000.0).probe(6_600.0));
    report.row(
        PART,
        format!("{against}, size"),
        "bytes",
        &[bytes],
        &[their_bytes],
        goal,
    );
    let (a, b) = (cpu_s(&costs[0][..1]), cpu_s(&costs_theirs[0]));
    report.row(PART, &against, "CPU s", &a, &b, None);
    let (a, b) = (peaks_mib(&costs[0][..1]), peaks_mib(&costs_theirs[0]));
    report.row(PART, format!("{against}, peak"), "MiB", &a, &b, None);
    Ok(())
}

/// What is no stack was counted, line by line and byte by byte.
fn foreign_lines(
    setting: &Setting,
    input: &Path,
    lines: u64,
    bytes: u64,
) -> anyhow::Result<String> {
    let svg = setting.out("dbg.svg");
    let arguments = args!["flame", "--quiet", "--json", input, "-o", &svg];
    let job = setting.fleetflame("dbg.json", arguments)?;
    job.run()?;
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(job.output())?)?;
    let kinds = document["inputs"]["stats"]["foreign"]
        .as_object()
        .context("no inputs.stats.foreign in --json")?;
    let sum = |field: &str| {
        kinds
            .values()
            .filter_map(|k| k[field].as_u64())
            .sum::<u64>()
    };
    let found = (sum("lines"), sum("bytes"));
    ensure!(
        found == (lines, bytes),
        "{} lines with {} bytes were counted, there are {lines} with {bytes}",
        found.0,
        found.1
    );
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, of)| format!("{} of {kind}", of["lines"]))
        .collect();
    Ok(format!(
        "all {lines} lines with {bytes} bytes were counted ({})",
        kinds.join(", ")
    ))
}

/// The stacks are those of the file without the debug output.
fn clean_stacks(setting: &Setting, input: &Path, foreign_bytes: u64) -> anyhow::Result<String> {
    let clean = setting.out("dbg-clean");
    let mut from = File::open(input)?;
    from.seek(SeekFrom::Start(foreign_bytes))?;
    io::copy(&mut from, &mut File::create(&clean)?)?;
    let whole = setting.fleetflame("dbg.folded", args!["fold", "--quiet", input])?;
    let part = setting.fleetflame("dbg-clean.folded", args!["fold", "--quiet", &clean])?;
    whole.run()?;
    part.run()?;
    same_lines(whole.output(), part.output())
}

fn debug_peer(setting: &Setting, input: &Path) -> anyhow::Result<Job> {
    let script = setting.peers.flamegraph("stackcollapse-stap.pl")?;
    let inferno = setting.peers.inferno("inferno-flamegraph")?;
    setting.room_for(DBG_PEER_BYTES)?;
    Ok(Job::to(setting.out("dbg-theirs.svg"))
        .pipe(&setting.peers.perl()?, args![&script, input])
        .pipe(&inferno, args!["--quiet"]))
}

/// Text to picture in one command, beside both Perl scripts.
fn chain(setting: &mut Setting, kind: Kind, probe: f64) -> anyhow::Result<()> {
    let (input, _) = setting.text(kind)?;
    let what = format!(
        "{} of {} to SVG, frames from {WIDTH} %",
        setting.size(),
        kind.word()
    );
    let arguments = args!["flame", "--quiet", "--min-width", WIDTH, &input];
    let ours = setting.fleetflame("ours.svg", arguments)?;
    let scripts = setting.peers.flamegraph("stackcollapse-stap.pl");
    let scripts = scripts.and_then(|s| Ok((s, setting.peers.flamegraph("flamegraph.pl")?)));
    let Some((collapse, flamegraph)) = setting.peer(PART, &what, scripts) else {
        let costs = setting.rounds(&what, &[&ours])?;
        setting
            .report
            .row(PART, &what, "CPU s", &cpu_s(&costs[0]), &[], None);
        return Ok(());
    };
    let perl = setting.peers.perl()?;
    let width = format!("{WIDTH}%");
    let theirs = Job::to(setting.out("theirs.svg"))
        .pipe(&perl, args![&collapse, &input])
        .pipe(&perl, args![&flamegraph, "--minwidth", &width]);
    if kind == Kind::StapDup {
        // Of the other kind the Perl script keeps run-time addresses, so its frames are others.
        setting.step(format!("{what}: comparing results"));
        ours.run()?;
        theirs.run()?;
        let found = same_frames(ours.output(), theirs.output(), None);
        setting
            .report
            .compared(PART, format!("{what}, frames against flamegraph.pl"), found);
    }
    let costs = setting.rounds(&what, &[&ours, &theirs])?;
    let against = format!("{what}, against both Perl scripts");
    let goal = Some(Goal::at_least(15.0).aim(22.0).probe(probe));
    let (ours, theirs) = (&costs[0], &costs[1]);
    let report = &mut setting.report;
    report.row(PART, &against, "CPU s", &cpu_s(ours), &cpu_s(theirs), goal);
    let peaks = (peaks_mib(ours), peaks_mib(theirs));
    report.row(
        PART,
        format!("{against}, peak"),
        "MiB",
        &peaks.0,
        &peaks.1,
        None,
    );
    Ok(())
}
