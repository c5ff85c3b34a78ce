//! Tracers' text to folded stacks: SystemTap's beside the Perl script, perf's beside inferno.
//!
//! In: 400 MB of each kind. Out: CPU, peak memory, and whether memory grows with the input. Never: a
//! time of results that were not found equal first.

use crate::args;
use crate::equal::{same_lines, same_stacks};
use crate::inputs::Kind;
use crate::measure::Job;
use crate::setting::{Setting, cpu_s, peaks_mib};
use crate::table::Goal;
use std::fs::File;
use std::io;
use std::path::Path;

const PART: &str = "fold";
const STAP_SCRIPT: &str = "stackcollapse-stap.pl";
const PERF_SCRIPT: &str = "stackcollapse-perf.pl";
/// The period in the header of each made-up sample; inferno counts periods, fleetflame samples.
const PERF_PERIOD: u64 = 10_101_010;
/// Copies of the input for the memory check.
const COPIES: usize = 10;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    setting.attempt(PART, "stap-dup", |s| {
        let goals = StapGoals {
            cpu: Goal::at_least(15.0).aim(22.0).probe(24.7),
            peak_mib: Goal::at_most(32.0).aim(16.0).probe(11.5),
        };
        stap(s, Kind::StapDup, goals)
    });
    setting.attempt(PART, "stap-uniq", |s| {
        let goals = StapGoals {
            cpu: Goal::at_least(8.0).aim(12.0).probe(13.1),
            peak_mib: Goal::at_most(64.0).aim(40.0).probe(34.8),
        };
        stap(s, Kind::StapUniq, goals)
    });
    setting.attempt(PART, "perf-dup", |s| perf(s, Kind::PerfDup, 4.5));
    setting.attempt(PART, "perf-uniq", |s| perf(s, Kind::PerfUniq, 4.6));
    setting.attempt(PART, "ten copies", copies);
    Ok(())
}

struct StapGoals {
    cpu: Goal,
    peak_mib: Goal,
}

fn stap(setting: &mut Setting, kind: Kind, goals: StapGoals) -> anyhow::Result<()> {
    let word = kind.word();
    let (input, _) = setting.text(kind)?;
    let ours = setting.fleetflame("ours.folded", args!["fold", "--quiet", &input])?;
    let peer = setting.peers.flamegraph(STAP_SCRIPT);
    let what = format!("{} of {word}", setting.size());
    let Some(script) = setting.peer(PART, &what, peer) else {
        let costs = setting.rounds(&what, &[&ours])?;
        let peak = peaks_mib(&costs[0]);
        setting
            .report
            .row(PART, &what, "CPU s", &cpu_s(&costs[0]), &[], None);
        setting.report.row(
            PART,
            format!("{what}, peak"),
            "MiB",
            &peak,
            &[],
            Some(goals.peak_mib),
        );
        return Ok(());
    };
    let perl = setting.peers.perl()?;
    let theirs = Job::to(setting.out("theirs.folded")).pipe(&perl, args![&script, &input]);
    setting.step(format!("{what}: comparing results"));
    theirs.run()?;
    compatible(
        setting,
        "stap",
        &input,
        &theirs,
        &format!("{what}, {STAP_SCRIPT}"),
    );
    ours.run()?;
    let found = same_stacks((ours.output(), own_frame), (theirs.output(), stap_frame), 1);
    let how = "default output, frames without a symbol taken as [module] or [unknown], kernel marks left out";
    setting
        .report
        .compared(PART, format!("{what}, {how}"), found);

    let costs = setting.rounds(&what, &[&ours, &theirs])?;
    let against = format!("{what}, against {STAP_SCRIPT}");
    let (ours, theirs) = (&costs[0], &costs[1]);
    let report = &mut setting.report;
    report.row(
        PART,
        &against,
        "CPU s",
        &cpu_s(ours),
        &cpu_s(theirs),
        Some(goals.cpu),
    );
    let peaks = (peaks_mib(ours), peaks_mib(theirs));
    let goal = Some(Goal::at_least(20.0).aim(40.0));
    report.row(
        PART,
        format!("{against}, peak"),
        "MiB",
        &peaks.0,
        &peaks.1,
        goal,
    );
    report.row(
        PART,
        format!("{what}, peak"),
        "MiB",
        &peaks.0,
        &[],
        Some(goals.peak_mib),
    );
    Ok(())
}

fn perf(setting: &mut Setting, kind: Kind, probe: f64) -> anyhow::Result<()> {
    let word = kind.word();
    let (input, _) = setting.text(kind)?;
    let ours = setting.fleetflame("ours.folded", args!["fold", "--quiet", &input])?;
    let what = format!("{} of {word}", setting.size());
    let script = setting.peers.flamegraph(PERF_SCRIPT);
    let whose = format!("{what}, {PERF_SCRIPT}");
    if let Some(script) = setting.peer(PART, &whose, script) {
        let perl = setting.peers.perl()?;
        let theirs = Job::to(setting.out("theirs.folded")).pipe(&perl, args![&script, &input]);
        setting.step(format!("{whose}: comparing results"));
        theirs.run()?;
        compatible(setting, "perf", &input, &theirs, &whose);
    }
    let peer = setting.peers.inferno("inferno-collapse-perf");
    let Some(collapse) = setting.peer(PART, &what, peer) else {
        let costs = setting.rounds(&what, &[&ours])?;
        setting
            .report
            .row(PART, &what, "CPU s", &cpu_s(&costs[0]), &[], None);
        return Ok(());
    };
    let theirs = |threads: &str| {
        Job::to(setting.out("theirs.folded")).pipe(&collapse, args!["-n", threads, &input])
    };
    let (one, two) = (theirs("1"), theirs("2"));
    setting.step(format!("{what}: comparing results"));
    ours.run()?;
    one.run()?;
    let found = same_stacks(
        (ours.output(), own_frame),
        (one.output(), inferno_frame),
        PERF_PERIOD,
    );
    let how = "default output against inferno's, its period divided out, arguments and versions of symbols left out, [perf-PID.map] taken as [jit]";
    setting
        .report
        .compared(PART, format!("{what}, {how}"), found);

    let costs = setting.rounds(&what, &[&ours, &one, &two])?;
    let sum = |n: usize| cpu_s(&costs[n]).iter().sum::<f64>();
    let better = if sum(1) <= sum(2) { 1 } else { 2 };
    let against =
        format!("{what}, against inferno-collapse-perf -n {better} (the better of 1 and 2)");
    let (ours, theirs) = (&costs[0], &costs[better]);
    let goal = Some(Goal::at_least(3.0).aim(4.0).probe(probe));
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

/// `--compat-flamegraph` gives the Perl script's bytes.
fn compatible(setting: &mut Setting, from: &str, input: &Path, theirs: &Job, what: &str) {
    let arguments = args![
        "fold",
        "--quiet",
        "--compat-flamegraph",
        "--from",
        from,
        input
    ];
    let found = setting
        .fleetflame("compat.folded", arguments)
        .and_then(|ours| {
            ours.run()?;
            same_lines(ours.output(), theirs.output())
        });
    setting
        .report
        .compared(PART, format!("{what}, --compat-flamegraph"), found);
}

/// Ten times the input in one stream: the memory must not grow with it.
fn copies(setting: &mut Setting) -> anyhow::Result<()> {
    let (input, _) = setting.text(Kind::StapUniq)?;
    let job = setting.fleetflame("ours.folded", args!["fold", "--quiet", "-"])?;
    let run = |copies: usize| {
        setting.step(format!("{copies} × {} through a pipe", setting.size()));
        job.run_fed(|stdin| {
            for _ in 0..copies {
                io::copy(&mut File::open(&input)?, stdin)?;
            }
            Ok(())
        })
    };
    let (once, ten) = (run(1)?, run(COPIES)?);
    let what = format!(
        "peak of {COPIES} × {} of stap-uniq in one stream, against once",
        setting.size()
    );
    let (ten_mib, once_mib) = ([ten.peak_mib()], [once.peak_mib()]);
    let goal = Some(Goal::at_most(1.5));
    setting
        .report
        .row(PART, what, "MiB", &ten_mib, &once_mib, goal);
    Ok(())
}

/// Our frame without the mark of its kind, and as inferno tidies it. Code in a JIT compiler's map file
/// is `[jit]` here and bears the file's name there.
fn own_frame(frame: &str) -> String {
    let bare = frame
        .strip_suffix("_[k]")
        .or_else(|| frame.strip_suffix("_[j]"));
    tidy(bare.unwrap_or(frame))
}

/// The Perl script leaves `0xADDR [module` of a frame without a symbol.
fn stap_frame(frame: &str) -> String {
    match frame.strip_prefix("0x").and_then(|f| f.split_once(" [")) {
        Some((_, "kernel")) => "[vmlinux]".to_owned(),
        Some((_, module)) => format!("[{}]", module.rsplit('/').next().unwrap_or(module)),
        None if frame.starts_with("0x") => "[unknown]".to_owned(),
        None => tidy(frame),
    }
}

fn inferno_frame(frame: &str) -> String {
    if frame.starts_with("[perf-") && frame.ends_with(".map]") {
        "[jit]".to_owned()
    } else {
        tidy(frame)
    }
}

/// A symbol without its version and without the arguments of a C++ function.
fn tidy(frame: &str) -> String {
    let frame = frame.split("@@").next().unwrap_or(frame);
    match frame.split('(').next() {
        Some(bare) if !bare.is_empty() => bare.to_owned(),
        _ => frame.to_owned(), // `(anonymous namespace)::f`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_sides_are_named_alike() {
        assert_eq!(own_frame("tcp_sendmsg_[k]"), "tcp_sendmsg");
        assert_eq!(own_frame("[jit]_[j]"), inferno_frame("[perf-17816.map]"));
        assert_eq!(own_frame("f(int)"), inferno_frame("f"));
        assert_eq!(own_frame("memcpy"), stap_frame("memcpy@@GLIBC_2.14"));
        assert_eq!(stap_frame("0x7f00 [/usr/lib/libc.so.6"), "[libc.so.6]");
        assert_eq!(
            stap_frame("0xffffffff81022b9a [kernel"),
            own_frame("[vmlinux]_[k]")
        );
        assert_eq!(stap_frame("0x4000"), "[unknown]");
        assert_eq!(
            own_frame("(anonymous namespace)::f"),
            "(anonymous namespace)::f"
        );
    }
}
