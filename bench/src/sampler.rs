//! What a capture costs: the built-in sampler beside `perf record --call-graph dwarf` and
//! `perf script`, on the same two busy processes, in turn.
//!
//! In: binaries beside this program, perf, cc. Out: CPU seconds of whole commands. Never: a target
//! that is idle.

use crate::Arguments;
use crate::figures::{Report, children_cpu_s};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let version =
        run(Command::new("perf").arg("--version")).context("perf (Debian: linux-perf)")?;
    let stage = Stage::build()?;
    let pids: Vec<String> = stage.busy.iter().map(|c| c.id().to_string()).collect();
    let (mut whole, mut record_only, mut perf_both, mut perf_record) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut samples = (0, 0);
    for pair in 0..arguments.pairs {
        let out = stage.folder.path().join(format!("run-{pair}"));
        let (cpu, sampler_cpu, taken) = ours(&stage, &pids, &out, arguments.seconds)?;
        whole.push(cpu);
        record_only.push(sampler_cpu);
        samples.0 += taken;
        let (record, script, taken) = perf(&stage, &pids, arguments.seconds)?;
        perf_record.push(record);
        perf_both.push(record + script);
        samples.1 += taken;
    }
    let what = format!(
        "capture, unwind and draw: two busy processes, {HZ} Hz, {} s ({})",
        arguments.seconds,
        version.trim()
    );
    report.pair(&what, "CPU s", &whole, &perf_both, "≤ 1");
    let what = "agent while it captures, against `perf record --call-graph dwarf` alone";
    report.pair(what, "CPU s", &record_only, &perf_record, "printed");
    report.single(
        "samples taken in all pairs, ours and perf's",
        format!("{} and {}", samples.0, samples.1),
        "alike",
    );
    Ok(())
}

impl Stage {
    fn build() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (source, program) = (folder.path().join("busy.c"), folder.path().join("busy"));
        std::fs::write(&source, BUSY)?;
        run(Command::new("cc")
            .args(["-O2", "-fomit-frame-pointer", "-o"])
            .args([&program, &source]))?;
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
fn ours(
    stage: &Stage,
    pids: &[String],
    out: &Path,
    seconds: u32,
) -> anyhow::Result<(f64, f64, u64)> {
    let before = children_cpu_s();
    let mut command = Command::new(beside("fleetflame")?);
    command.args(["capture", "--local", "--quiet", "--hz", HZ, "--duration"]);
    command.arg(format!("{seconds}s"));
    command.args(
        pids.iter()
            .flat_map(|p| ["--target".to_owned(), format!("pid:{p}")]),
    );
    run(command
        .arg("--out")
        .arg(out)
        .current_dir(stage.folder.path()))?;
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
    run(Command::new("perf")
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
        .args(["-p", &pids.join(","), "--", "sleep", &seconds.to_string()]))?;
    let between = children_cpu_s();
    let script = run(Command::new("perf").args(["script", "-i"]).arg(&data))?;
    let after = children_cpu_s();
    let samples = script.lines().filter(|l| l.contains("cpu-clock")).count();
    ensure!(samples > 0, "perf took no samples");
    Ok((between - before, after - between, samples as u64))
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
