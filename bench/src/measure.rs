//! What a command costs: CPU seconds of all its processes and the peak memory of the largest.
//!
//! In: commands, joined by pipes. Out: rusage. Never: a figure from `/proc/stat` (10 ms steps), or
//! memory of this process counted as the command's: a child is this program until it calls exec, so
//! each command is started by a small launcher, this same program in another role.

use anyhow::{Context as _, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Instant;

/// First argument of the launcher.
pub const LAUNCHER: &str = "launch-and-measure";

/// Commands joined by pipes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    stages: Vec<Vec<String>>,
    stdout: PathBuf,
    fed: bool,
}

/// What a job cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time of all processes, seconds.
    pub cpu_s: f64,
    /// From start to end, seconds.
    pub wall_s: f64,
    /// Largest resident size that any of the processes had, bytes.
    pub peak_bytes: u64,
    codes: Vec<Option<i32>>,
}

impl Cost {
    /// Peak in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.peak_bytes as f64 / (1 << 20) as f64
    }
}

impl Job {
    /// A job whose output goes to `stdout`.
    pub fn to(stdout: impl Into<PathBuf>) -> Self {
        Self {
            stdout: stdout.into(),
            ..Self::default()
        }
    }

    /// The same with another command, which reads from the one before it.
    pub fn pipe(
        mut self,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let text = |s: &OsStr| s.to_string_lossy().into_owned();
        let mut stage = vec![text(program.as_os_str())];
        stage.extend(arguments.into_iter().map(|a| text(a.as_ref())));
        self.stages.push(stage);
        self
    }

    /// Where the output is.
    pub fn output(&self) -> &Path {
        &self.stdout
    }

    /// Runs it.
    pub fn run(&self) -> anyhow::Result<Cost> {
        let (child, errors) = self.launch(false)?;
        self.wait(child, errors)
    }

    /// Runs it with what `feed` writes on its stdin.
    pub fn run_fed(
        &self,
        feed: impl FnOnce(&mut ChildStdin) -> io::Result<()>,
    ) -> anyhow::Result<Cost> {
        let (mut child, errors) = self.launch(true)?;
        let fed = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| feed(&mut stdin));
        let cost = self.wait(child, errors)?;
        fed.context("feeding its stdin")?;
        Ok(cost)
    }

    fn launch(&self, fed: bool) -> anyhow::Result<(Child, File)> {
        let job = serde_json::to_string(&Self {
            fed,
            ..self.clone()
        })?;
        let errors = tempfile::tempfile()?;
        let child = Command::new(std::env::current_exe()?)
            .args([LAUNCHER, &job])
            .stdin(if fed { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .spawn()
            .context("starting the launcher")?;
        Ok((child, errors))
    }

    fn wait(&self, child: Child, mut errors: File) -> anyhow::Result<Cost> {
        let output = child.wait_with_output()?;
        let mut said = String::new();
        errors.seek(SeekFrom::Start(0))?;
        // A tool's own words may be of any encoding and length.
        let mut bytes = Vec::new();
        errors.take(64 << 10).read_to_end(&mut bytes)?;
        said.push_str(String::from_utf8_lossy(&bytes).trim());
        let tail = said.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
        ensure!(output.status.success(), "the launcher failed: {said}");
        let cost: Cost = serde_json::from_slice(&output.stdout)?;
        for (stage, code) in self.stages.iter().zip(&cost.codes) {
            if *code != Some(0) {
                let code = code.map_or("a signal".to_owned(), |c| format!("code {c}"));
                bail!(
                    "{} ended with {code}: {}",
                    stage[..2.min(stage.len())].join(" "),
                    &said[tail..]
                );
            }
        }
        Ok(cost)
    }
}

/// The launcher: runs one job, waits for all of it, and prints what it cost.
pub fn launcher(job: &str) -> ExitCode {
    match launch_all(job) {
        Ok(cost) => match serde_json::to_writer(io::stdout().lock(), &cost) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(e) => {
            let _ = writeln!(io::stderr().lock(), "{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn launch_all(job: &str) -> anyhow::Result<Cost> {
    let job: Job = serde_json::from_str(job)?;
    let began = Instant::now();
    let mut input = if job.fed {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let mut children: Vec<Child> = Vec::new();
    for (number, stage) in job.stages.iter().enumerate() {
        let [program, arguments @ ..] = stage.as_slice() else {
            bail!("a command without a name");
        };
        let last = number + 1 == job.stages.len();
        let output = if last {
            let name = job.stdout.display();
            let file = File::create(&job.stdout).with_context(|| format!("creating {name}"))?;
            Stdio::from(file)
        } else {
            Stdio::piped()
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(input).stdout(output);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
        children.push(child);
    }
    drop(input);
    let mut codes = Vec::new();
    for mut child in children {
        codes.push(child.wait()?.code());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1_000_000.0;
    Ok(Cost {
        cpu_s: seconds(usage.user_time()) + seconds(usage.system_time()),
        wall_s: began.elapsed().as_secs_f64(),
        peak_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) << 10, // Linux counts KiB
        codes,
    })
}

/// CPU seconds (user and system) of all children of this process that were waited for so far.
pub fn children_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_CHILDREN)
}

/// CPU seconds (user and system) of this process.
pub fn own_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_SELF)
}

fn cpu_s(of: UsageWho) -> f64 {
    getrusage(of).map_or(0.0, |u| seconds(u.user_time()) + seconds(u.system_time()))
}

fn seconds(time: nix::sys::time::TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0
}
