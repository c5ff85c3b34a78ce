//! What a capture costs: the built-in sampler beside `perf record --call-graph dwarf` and
//! `perf script`, on the same two busy processes, in turn.
//!
//! In: binaries beside this program, perf, cc. Out: CPU seconds of whole commands. Never: a target
//! that is idle.

use crate::measure::children_cpu_s;
use crate::peers::{ours, said};
use crate::setting::Setting;
use crate::table::Goal;
use anyhow::{Context, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PART: &str = "sampler";

const HZ: &str = "99";

/// A busy loop under some frames; it ends by itself.
const BUSY: &str = r#"
#include <time.h>
static volatile unsigned long sink;
__attribute__((noinline)) static void spin(unsigned long n) {
    unsigned long x = 1;
    while (n--) x = x * 6364136223846793005UL + 1442695040888963407UL;
    sink = x;
}
__attribute__((noinline)) static int descend(int depth, unsigned long n) {
    volatile char pad[128];
    pad[0] = (char)depth;
    if (depth == 0) { spin(n); return pad[0]; }
    int below = descend(depth - 1, n);
    return below + pad[0];
}
int main(void) {
    time_t end = time(0) + 3600;
    while (time(0) < end) descend(20, 2000000);
    return 0;
}
"#;

struct Stage {
    folder: tempfile::TempDir,
    busy: Vec<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.busy {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    let seconds = setting.arguments.seconds;
    let what = format!("capture, unwind and draw: two busy processes, {HZ} Hz, {seconds} s");
    let perf_there = setting.peers.on_path("perf", "linux-perf");
    let compiler = setting.peers.on_path("cc", "gcc");
    let both = perf_there.and(compiler);
    if setting.peer(PART, &what, both).is_none() {
        return Ok(());
    }
    let stage = Stage::build()?;
    let pids: Vec<String> = stage.busy.iter().map(|c| c.id().to_string()).collect();
    let (mut whole, mut record_only, mut perf_both, mut perf_record) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut our_samples, mut their_samples) = (Vec::new(), Vec::new());
    for pair in 0..setting.arguments.pairs {
        setting.step(format!(
            "{what}: pair {} of {}",
            pair + 1,
            setting.arguments.pairs
        ));
        let out = stage.folder.path().join(format!("run-{pair}"));
        let (cpu, sampler_cpu, taken) = capture(&stage, &pids, &out, seconds)?;
        whole.push(cpu);
        record_only.push(sampler_cpu);
        our_samples.push(taken as f64);
        let (record, script, taken) = perf(&stage, &pids, seconds)?;
        perf_record.push(record);
        perf_both.push(record + script);
        their_samples.push(taken as f64);
    }
    let report = &mut setting.report;
    let against = format!("{what}, against `perf record --call-graph dwarf` and `perf script`");
    let goal = Some(Goal::at_most(1.0).aim(0.5));
    report.row(PART, against, "CPU s", &whole, &perf_both, goal);
    let what = "agent while it captures, against `perf record --call-graph dwarf` alone";
    report.row(PART, what, "CPU s", &record_only, &perf_record, None);
    report.row(
        PART,
        "samples taken",
        "samples",
        &our_samples,
        &their_samples,
        None,
    );
    Ok(())
}

impl Stage {
    fn build() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (source, program) = (folder.path().join("busy.c"), folder.path().join("busy"));
        std::fs::write(&source, BUSY)?;
        said(
            Command::new("cc")
                .args(["-O2", "-fomit-frame-pointer", "-o"])
                .args([&program, &source]),
        )?;
        let start = || {
            Command::new(&program)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        };
        let busy = vec![start()?, start()?];
        Ok(Self { folder, busy })
    }
}

/// CPU of the whole command with its agent, CPU of the agent while it captured, and samples.
fn capture(
    stage: &Stage,
    pids: &[String],
    out: &Path,
    seconds: u32,
) -> anyhow::Result<(f64, f64, u64)> {
    let before = children_cpu_s();
    let mut command = Command::new(ours("fleetflame")?);
    command.args(["capture", "--local", "--quiet", "--hz", HZ, "--duration"]);
    command.arg(format!("{seconds}s"));
    command.args(
        pids.iter()
            .flat_map(|p| ["--target".to_owned(), format!("pid:{p}")]),
    );
    said(
        command
            .arg("--out")
            .arg(out)
            .current_dir(stage.folder.path()),
    )?;
    let cpu = children_cpu_s() - before;
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("run.json"))?)?;
    let stats = &record["coverage"]["hosts"]["local"]["stats"];
    let own = stats["own_cpu_ns"]
        .as_u64()
        .context("no own_cpu_ns in run.json")?;
    let samples = stats["samples"].as_u64().unwrap_or(0);
    ensure!(samples > 0, "fleetflame took no samples");
    Ok((cpu, own as f64 / 1e9, samples))
}

/// CPU of `perf record` and of `perf script`, and samples.
fn perf(stage: &Stage, pids: &[String], seconds: u32) -> anyhow::Result<(f64, f64, u64)> {
    let data = stage.folder.path().join("perf.data");
    let before = children_cpu_s();
    said(
        Command::new("perf")
            .args([
                "record",
                "-q",
                "-e",
                "cpu-clock",
                "-F",
                HZ,
                "--call-graph",
                "dwarf",
                "-o",
            ])
            .arg(&data)
            .args(["-p", &pids.join(","), "--", "sleep", &seconds.to_string()]),
    )?;
    let between = children_cpu_s();
    let script = said(Command::new("perf").args(["script", "-i"]).arg(&data))?;
    let after = children_cpu_s();
    let samples = script.lines().filter(|l| l.contains("cpu-clock")).count();
    ensure!(samples > 0, "perf took no samples");
    Ok((between - before, after - between, samples as u64))
}
