//! An agent that is not root: file capabilities, one after the other, and what each one gives.
//!
//! In: a copy of the agent with `setcap`, run by `nobody`; a program of another user. Out: what is
//! captured, what is said to be missing. Never: a setting of the kernel that is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Binaries, Build, Child, Finished, Workload, requirements};
use serde_json::Value;

use crate::written::Written;
use crate::{CAPTURE, SECOND, turn};

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;
/// Nobody's user.
const SOMEBODY: u32 = 4_343;

/// Everything in one folder that all users may enter.
struct Stage {
    dir: tempfile::TempDir,
    target: Child,
}

impl Stage {
    /// The programs, the agent with `capabilities` (`cap_perfmon,cap_sys_ptrace`; none for none), and a
    /// program that `owner` runs.
    fn new(capabilities: &str, owner: u32) -> Result<Self> {
        requirements::root()?;
        let programs = Binaries::find()?;
        let dir = tempfile::Builder::new()
            .prefix("fleetflame-caps-")
            .tempdir()?;
        let enter = Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), enter.clone())?;
        let split = Workload::Split.compile(Build::default())?;
        let copies = [
            (&programs.agent, "agent"),
            (&programs.coordinator, "coordinator"),
            (&split, "split"),
        ];
        for (from, name) in copies {
            let to = dir.path().join(name);
            fs::copy(from, &to)?;
            fs::set_permissions(&to, enter.clone())?;
        }
        fs::write(dir.path().join("policy.yaml"), POLICY)?;
        let own = dir.path().join("own");
        fs::create_dir(&own)?;
        chown(&own, Some(NOBODY), Some(NOBODY))?;
        if !capabilities.is_empty() {
            let mut setcap = Command::new(requirements::command("setcap")?);
            setcap
                .arg(format!("{capabilities}+ep"))
                .arg(dir.path().join("agent"));
            let done = Child::spawn(setcap)?.finish(10 * SECOND)?;
            ensure!(done.status.success(), "setcap: {}", done.stderr);
        }
        let mut split = as_user(owner, &dir.path().join("split"))?;
        split.arg("60");
        let mut target = Child::spawn(split)?;
        target.wait_for_stdout("ready", 20 * SECOND)?;
        Ok(Self { dir, target })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `nobody` captures the program.
    fn capture(&self) -> Result<(Finished, PathBuf)> {
        let (out, job) = (self.path("own/run"), self.path("job.yaml"));
        fs::write(
            &job,
            format!(
                "version: 1\nlocal: true\ntargets: ['pid:{}']\nbudgets: {{cpu_pct_max: 100}}\n",
                self.target.pid()
            ),
        )?;
        let mut command = as_user(NOBODY, &self.path("coordinator"))?;
        command.arg("capture").arg(&job);
        command.args([
            "--json",
            "--engine",
            "native",
            "--hz",
            "199",
            "--duration",
            "3s",
        ]);
        command.args(["--arm-timeout", "40s", "--out"]).arg(&out);
        command.arg("--agent-binary").arg(self.path("agent"));
        command.arg("--agent-policy").arg(self.path("policy.yaml"));
        command.current_dir(self.path("own"));
        Ok((Child::spawn(command)?.finish(CAPTURE)?, out))
    }

    /// What `nobody`'s agent says of the native engine.
    fn check(&self) -> Result<Value> {
        let mut command = as_user(NOBODY, &self.path("agent"))?;
        command.args(["check", "--json"]);
        let done = Child::spawn(command)?.finish(CAPTURE)?;
        let report: Value = serde_json::from_str(&done.stdout).context(done.stderr)?;
        let engines = report["engines"].as_array().context("engines")?;
        let native = engines.iter().find(|e| e["engine"] == "native");
        native.cloned().context("no native engine")
    }
}

fn as_user(user: u32, program: &Path) -> Result<Command> {
    let mut command = Command::new(requirements::command("setpriv")?);
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"));
    command.args(["--clear-groups", "--"]).arg(program);
    Ok(command)
}

/// The remedy or evidence of a finding in a report of `check`.
fn of<'a>(engine: &'a Value, code: &str, what: &str) -> Option<&'a str> {
    let findings = engine["findings"].as_array()?;
    findings.iter().find(|f| f["code"] == code)?[what].as_str()
}

/// Samples, those of them from `_start` to the work, and those with a name of the kernel's.
fn quality(run: &Written) -> Result<(u64, u64, u64)> {
    let (mut all, mut whole, mut kernel) = (0, 0, 0);
    for (stack, count) in run.folded("merged.folded")? {
        all += count;
        let works = stack.contains("seventy") || stack.contains("thirty");
        if works
            && ["_start", "main", "descend"]
                .iter()
                .all(|f| stack.contains(f))
        {
            whole += count;
        }
        kernel += if stack.contains("_[k]") { count } else { 0 };
    }
    Ok((all, whole, kernel))
}

fn said(done: &Finished) -> String {
    format!("{:?}\n{}\n{}", done.status, done.stdout, done.stderr)
}

#[test]
fn two_capabilities_give_whole_stacks_of_other_users_programs() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new("cap_perfmon,cap_sys_ptrace", SOMEBODY)?;
    let (done, out) = stage.capture()?;
    ensure!(done.status.success(), "{}", said(&done));
    let run = Written::read(&out)?;
    let (all, whole, _) = quality(&run)?;
    println!("{}: {whole} of {all} whole", run.host("local")?.stats.mode);
    ensure!(all > 50 && whole * 100 >= all * 95, "{whole} of {all}");
    let codes: Vec<_> = run
        .record
        .all_findings()
        .iter()
        .map(|f| f.code.as_str().to_owned())
        .collect();
    ensure!(!codes.iter().any(|c| c == "perf-restricted"), "{codes:?}");
    // What it still lacks is said, each with the command that gives it and keeps the rest.
    let native = stage.check()?;
    let remedy = of(&native, "no-realtime", "remedy").context("no-realtime")?;
    ensure!(
        remedy.contains("setcap cap_perfmon,cap_sys_ptrace,cap_sys_nice+ep "),
        "{remedy}"
    );
    Ok(())
}

#[test]
fn with_two_more_there_are_kernel_names_and_real_time() -> Result<()> {
    let _turn = turn();
    let all = "cap_perfmon,cap_sys_ptrace,cap_syslog,cap_sys_nice";
    let stage = Stage::new(all, SOMEBODY)?;
    let native = stage.check()?;
    ensure!(
        of(&native, "kernel-names-hidden", "code").is_none(),
        "{native:#}"
    );
    ensure!(of(&native, "no-realtime", "code").is_none(), "{native:#}");
    let (done, out) = stage.capture()?;
    ensure!(done.status.success(), "{}", said(&done));
    let run = Written::read(&out)?;
    let stats = &run.host("local")?.stats;
    ensure!(stats.mode == "cpu-wide/fifo", "{stats:?}");
    let (all, whole, _) = quality(&run)?;
    ensure!(all > 50 && whole * 100 >= all * 95, "{whole} of {all}");
    Ok(())
}

#[test]
fn sampling_alone_gives_no_names_of_other_users_programs_and_says_so() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new("cap_perfmon", SOMEBODY)?;
    let (done, out) = stage.capture()?;
    ensure!(done.status.success(), "{}", said(&done));
    let run = Written::read(&out)?;
    let (all, whole, _) = quality(&run)?;
    ensure!(all > 50 && whole == 0, "{whole} of {all}");
    let findings = run.record.all_findings();
    let restricted = findings
        .iter()
        .find(|f| f.code.as_str() == "perf-restricted");
    let restricted = restricted.context("perf-restricted")?;
    let command = format!(
        "setcap cap_perfmon,cap_sys_ptrace+ep {}",
        stage.path("agent").display()
    );
    ensure!(restricted.remedy.contains(&command), "{restricted:?}");
    Ok(())
}

#[test]
fn without_capabilities_only_one_s_own_programs_are_sampled() -> Result<()> {
    let _turn = turn();
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    ensure!(
        paranoid.trim().parse::<i32>()? >= 1,
        "kernel.perf_event_paranoid is {paranoid}: this machine lets everybody sample"
    );
    let foreign = Stage::new("", SOMEBODY)?;
    let (done, _) = foreign.capture()?;
    ensure!(!done.status.success(), "{}", said(&done));
    let told = said(&done);
    let command = format!(
        "setcap cap_perfmon,cap_sys_ptrace+ep {}",
        foreign.path("agent").display()
    );
    for word in [
        "perf-not-permitted",
        "Permission denied",
        "CAP_PERFMON",
        &command,
    ] {
        ensure!(told.contains(word), "{word} is not in {told}");
    }
    let own = Stage::new("", NOBODY)?;
    let (done, out) = own.capture()?;
    ensure!(done.status.success(), "{}", said(&done));
    let run = Written::read(&out)?;
    let (all, whole, kernel) = quality(&run)?;
    println!("{}: {whole} of {all} whole", run.host("local")?.stats.mode);
    ensure!(
        all > 50 && whole * 100 >= all * 95 && kernel == 0,
        "{whole} of {all}, {kernel}"
    );
    Ok(())
}
