//! Which of many large hosts is unlike the others, and the difference of two of them beside the tools
//! that subtract.
//!
//! In: 100 hosts with seconds. Out: CPU and peak memory of a ranking; CPU beside inferno-diff-folded,
//! whose lines must be the same, and google/pprof. Never: a ranking of totals, which knows no noise.

use super::merge::HOSTS;
use crate::args;
use crate::equal::same_lines;
use crate::inputs::Fleet;
use crate::measure::{Cost, Job};
use crate::setting::{Setting, cpu_s, peaks_mib};
use crate::table::Goal;
use anyhow::Context as _;
use model::format::ffz::encode_profile;
use std::path::{Path, PathBuf};

const PART: &str = "rank";
const SHARED_PERCENT: usize = 80;
const SEED: u64 = 23;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    let stacks = if setting.arguments.quick {
        2_000
    } else {
        100_000
    };
    let fleet = Fleet::new(stacks, SHARED_PERCENT, SEED);
    let folder = setting.out("ranked");
    std::fs::create_dir_all(&folder)?;
    let (mut seconds, mut folded) = (Vec::new(), Vec::new());
    for host in 0..HOSTS {
        setting.step(format!(
            "making host {} of {HOSTS} with {stacks} stacks over 60 s",
            host + 1
        ));
        let counted = fleet.host(host);
        let profile = encode_profile(&fleet.with_seconds(host, &counted))?;
        seconds.push(write(&folder, &format!("host{host:03}.ffz"), &profile)?);
        if folded.len() < 2 {
            let text = fleet.folded(&counted);
            folded.push(write(&folder, &format!("host{host:03}.folded"), &text)?);
        }
    }
    let what = format!("{HOSTS} hosts × {stacks} stacks × 8 workers × 60 s: compared and ranked");
    let mut arguments = args!["rank", "--quiet", "-n", "3"].to_vec();
    arguments.extend(seconds.iter().map(|p| p.as_os_str()));
    let rank = setting.fleetflame("ranking.txt", arguments)?;
    let rounds = setting.arguments.pairs.min(3);
    let costs = setting.rounds_of(rounds, &what, &[&rank])?.remove(0);
    let goals = if setting.arguments.quick {
        (None, None)
    } else {
        (
            Some(Goal::at_most(60.0).aim(10.0)),
            Some(Goal::at_most(4_096.0).aim(1_024.0)),
        )
    };
    let report = &mut setting.report;
    report.row(PART, &what, "CPU s", &cpu_s(&costs), &[], goals.0);
    let peak = format!("{what}, peak");
    report.row(PART, peak, "MiB", &peaks_mib(&costs), &[], goals.1);
    setting.attempt(PART, "inferno-diff-folded", |s| {
        subtracted(s, &folded, stacks)
    });
    setting.attempt(PART, "google/pprof", |s| based(s, &seconds, stacks));
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}

/// Two hosts as folded text with both counts.
fn subtracted(setting: &mut Setting, folded: &[PathBuf], stacks: usize) -> anyhow::Result<()> {
    let what = format!("diff --folded of two hosts × {stacks} stacks, against inferno-diff-folded");
    let peer = setting.peers.inferno("inferno-diff-folded");
    let Some(program) = setting.peer(PART, &what, peer) else {
        return Ok(());
    };
    let [a, b] = folded else {
        anyhow::bail!("two hosts are needed");
    };
    let ours = setting.fleetflame("ours.folded", args!["diff", "--quiet", "--folded", a, b])?;
    let theirs = Job::to(setting.out("theirs.folded")).pipe(&program, args![a, b]);
    setting.step(format!("{what}: comparing results"));
    ours.run()?;
    theirs.run()?;
    let found = same_lines(ours.output(), theirs.output());
    setting.report.compared(PART, what.clone(), found);
    let costs = setting.rounds(&what, &[&ours, &theirs])?;
    rows(setting, &what, &costs);
    Ok(())
}

/// Two hosts as a table of functions. Ours takes the seconds and says how sure each difference is.
fn based(setting: &mut Setting, seconds: &[PathBuf], stacks: usize) -> anyhow::Result<()> {
    let what = format!(
        "diff of two hosts × {stacks} stacks with intervals, against google/pprof -diff_base"
    );
    let peer = setting.peers.pprof();
    let Some(program) = setting.peer(PART, &what, peer) else {
        return Ok(());
    };
    let [a, b, ..] = seconds else {
        anyhow::bail!("two hosts are needed");
    };
    let mut packed = Vec::new();
    for ffz in [a, b] {
        let path = ffz.with_extension("pb.gz");
        let arguments = args!["export", "--quiet", ffz, "--format", "pprof", "-o", &path];
        setting.fleetflame("export", arguments)?.run()?;
        packed.push(path);
    }
    let ours = setting.fleetflame("ours.json", args!["diff", "--quiet", "--json", a, b])?;
    let base = format!("-diff_base={}", packed[0].display());
    let theirs =
        Job::to(setting.out("theirs.txt")).pipe(&program, args!["-top", &base, &packed[1]]);
    let costs = setting.rounds(&what, &[&ours, &theirs])?;
    rows(setting, &what, &costs);
    Ok(())
}

fn rows(setting: &mut Setting, what: &str, costs: &[Vec<Cost>]) {
    let (ours, theirs) = (&costs[0], &costs[1]);
    let report = &mut setting.report;
    report.row(PART, what, "CPU s", &cpu_s(ours), &cpu_s(theirs), None);
    let peak = format!("{what}, peak");
    report.row(
        PART,
        peak,
        "MiB",
        &peaks_mib(ours),
        &peaks_mib(theirs),
        None,
    );
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
