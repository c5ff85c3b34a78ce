//! The sum of a fleet as one picture, from each form that hosts' profiles come in, beside
//! `cat *.folded` piped to inferno-flamegraph.
//!
//! In: 100 hosts. Out: CPU, peak memory, equal frames. Never: pictures of different widths of the
//! narrowest frame.

use crate::args;
use crate::equal::same_frames;
use crate::inputs::Fleet;
use crate::measure::{Cost, Job};
use crate::peers::ours;
use crate::setting::{Setting, cpu_s, peaks_mib};
use crate::table::Goal;
use anyhow::Context as _;
use model::format::ffz::encode_profile;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const PART: &str = "merge";
/// Hosts of a fleet.
pub const HOSTS: u64 = 100;
const SHARED_PERCENT: usize = 80;
/// Narrowest frame in percent, on both sides.
const WIDTH: &str = "0.1";
/// The process group of the hosts in ffz, a frame that folded text has not.
const GROUP: &str = "nginx: worker";
/// What inferno needs for 100 × 100,000 stacks, with something to spare.
const LARGE_BYTES: u64 = 7 << 30;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    let stacks = if setting.arguments.quick {
        1_000
    } else {
        10_000
    };
    setting.attempt(PART, "100 hosts", |s| small(s, stacks));
    let room = setting.room_for(LARGE_BYTES);
    let what = format!("{HOSTS} hosts × 100,000 stacks");
    if setting.peer(PART, &what, room).is_some() {
        setting.attempt(PART, &what, |s| large(s, 100_000));
        let _ = std::fs::remove_dir_all(setting.out("fleet-100000"));
    }
    Ok(())
}

/// The files of a fleet, one of each form for each host.
struct Files {
    folded: Vec<PathBuf>,
    totals: Vec<PathBuf>,
    seconds: Vec<PathBuf>,
}

impl Files {
    fn make(setting: &Setting, stacks: usize, seed: u64, seconds: bool) -> anyhow::Result<Self> {
        let fleet = Fleet::new(stacks, SHARED_PERCENT, seed);
        let folder = setting.out(&format!("fleet-{stacks}"));
        for form in ["folded", "totals", "seconds", "pprof"] {
            std::fs::create_dir_all(folder.join(form))?;
        }
        let mut files = Self {
            folded: Vec::new(),
            totals: Vec::new(),
            seconds: Vec::new(),
        };
        for host in 0..HOSTS {
            setting.step(format!(
                "making host {} of {HOSTS} with {stacks} stacks",
                host + 1
            ));
            let counted = fleet.host(host);
            let write = |form: &str, ending: &str, bytes: &[u8]| {
                let path = folder.join(form).join(format!("host{host:03}.{ending}"));
                std::fs::write(&path, bytes)
                    .with_context(|| format!("writing {}", path.display()))?;
                anyhow::Ok(path)
            };
            files
                .folded
                .push(write("folded", "folded", &fleet.folded(&counted))?);
            let totals = encode_profile(&fleet.totals(host, &counted))?;
            files.totals.push(write("totals", "ffz", &totals)?);
            if seconds {
                let whole = encode_profile(&fleet.with_seconds(host, &counted))?;
                files.seconds.push(write("seconds", "ffz", &whole)?);
            }
        }
        Ok(files)
    }
}

fn small(setting: &mut Setting, stacks: usize) -> anyhow::Result<()> {
    let files = Files::make(setting, stacks, 11, true)?;
    let what = format!("merge and draw {HOSTS} hosts × {stacks} stacks");
    let goal = |must, aim, probe| Goal::at_least(must).aim(aim).probe(probe);
    let forms = [
        (
            "ffz totals",
            "totals.svg",
            &files.totals,
            goal(18.0, 25.0, 27.5),
        ),
        (
            "ffz with 8 workers × 60 s",
            "seconds.svg",
            &files.seconds,
            // There is as much again to decode and to pass over.
            goal(8.0, 12.0, 27.5),
        ),
        (
            "folded text",
            "text.svg",
            &files.folded,
            goal(3.0, 4.0, 3.4),
        ),
    ];
    let mut jobs = Vec::new();
    for (_, out, paths, _) in &forms {
        jobs.push(drawing(setting, out, paths)?);
    }
    let peer = setting.peers.inferno("inferno-flamegraph");
    if let Some(inferno) = setting.peer(PART, &what, peer) {
        let theirs = joined(setting, &files.folded, &inferno)?;
        setting.step(format!("{what}: comparing results"));
        theirs.run()?;
        for ((form, ..), job) in forms.iter().zip(&jobs) {
            let group = (*form != "folded text").then_some(GROUP);
            let found = job
                .run()
                .and_then(|_| same_frames(job.output(), theirs.output(), group));
            let how = format!("{what} from {form}, frames from {WIDTH} % against inferno's");
            setting.report.compared(PART, how, found);
        }
        jobs.push(theirs);
    }
    let all: Vec<&Job> = jobs.iter().collect();
    let costs = setting.rounds(&what, &all)?;
    let theirs = costs.get(forms.len()).map_or(&[][..], Vec::as_slice);
    for ((form, _, _, goal), ours) in forms.iter().zip(&costs) {
        let what = format!("{what}, from {form}, against cat piped to inferno-flamegraph");
        let goal = (!theirs.is_empty()).then_some(*goal);
        rows(setting, &what, ours, theirs, goal, None);
    }
    setting.attempt(PART, "google/pprof", |s| pprof(s, &files, &what));
    Ok(())
}

fn large(setting: &mut Setting, stacks: usize) -> anyhow::Result<()> {
    let what = format!("merge and draw {HOSTS} hosts × {stacks} stacks");
    let peer = setting.peers.inferno("inferno-flamegraph");
    let Some(inferno) = setting.peer(PART, &what, peer) else {
        return Ok(());
    };
    let files = Files::make(setting, stacks, 17, false)?;
    let ours = drawing(setting, "totals.svg", &files.totals)?;
    let theirs = joined(setting, &files.folded, &inferno)?;
    let costs = setting.rounds_of(1, &what, &[&ours, &theirs])?;
    let found = same_frames(ours.output(), theirs.output(), Some(GROUP));
    let how = format!("{what} from ffz totals, frames from {WIDTH} % against inferno's");
    setting.report.compared(PART, how, found);
    let against =
        format!("{what}, from ffz totals, against cat piped to inferno-flamegraph (one run)");
    let cpu = Goal::at_least(8.0).aim(11.0).probe(12.0);
    let peak = Goal::at_least(40.0).aim(60.0).probe(64.0);
    rows(
        setting,
        &against,
        &costs[0],
        &costs[1],
        Some(cpu),
        Some(peak),
    );
    Ok(())
}

/// The same hosts as pprof, added up by google/pprof.
fn pprof(setting: &mut Setting, files: &Files, what: &str) -> anyhow::Result<()> {
    let what = format!("{what}, from ffz totals, against google/pprof -proto of .pb.gz");
    let peer = setting.peers.pprof();
    let Some(program) = setting.peer(PART, &what, peer) else {
        return Ok(());
    };
    let mut paths = Vec::new();
    for ffz in &files.totals {
        let path = ffz.with_extension("pb.gz");
        setting.step(format!("{what}: making {}", path.display()));
        let arguments = args!["export", "--quiet", ffz, "--format", "pprof", "-o", &path];
        setting.fleetflame("export", arguments)?.run()?;
        paths.push(path);
    }
    let sum = setting.out("theirs.pb.gz");
    let mut arguments = args!["-proto", "-output", &sum].to_vec();
    arguments.extend(paths.iter().map(|p| p.as_os_str()));
    let theirs = Job::to(setting.out("pprof.log")).pipe(&program, arguments);
    let ours = drawing(setting, "totals.svg", &files.totals)?;
    let costs = setting.rounds(&what, &[&ours, &theirs])?;
    let goal = Goal::at_least(40.0).aim(60.0).probe(74.0);
    rows(setting, &what, &costs[0], &costs[1], Some(goal), None);
    Ok(())
}

fn rows(
    setting: &mut Setting,
    what: &str,
    ours: &[Cost],
    theirs: &[Cost],
    cpu: Option<Goal>,
    peak: Option<Goal>,
) {
    let report = &mut setting.report;
    report.row(PART, what, "CPU s", &cpu_s(ours), &cpu_s(theirs), cpu);
    let peaks = (peaks_mib(ours), peaks_mib(theirs));
    report.row(
        PART,
        format!("{what}, peak"),
        "MiB",
        &peaks.0,
        &peaks.1,
        peak,
    );
}

/// One command from files to a picture.
fn drawing(setting: &Setting, out: &str, paths: &[PathBuf]) -> anyhow::Result<Job> {
    let mut arguments = args!["flame", "--quiet", "--min-width", WIDTH].to_vec();
    arguments.extend(paths.iter().map(|p| p.as_os_str()));
    Ok(Job::to(setting.out(out)).pipe(&ours("fleetflame")?, arguments))
}

fn joined(setting: &Setting, paths: &[PathBuf], inferno: &Path) -> anyhow::Result<Job> {
    let cat = setting.peers.on_path("cat", "coreutils")?;
    let paths: Vec<&OsStr> = paths.iter().map(|p| p.as_os_str()).collect();
    Ok(Job::to(setting.out("theirs.svg"))
        .pipe(&cat, paths)
        .pipe(inferno, args!["--minwidth", WIDTH, "--quiet"]))
}
