//! Captures of this machine: a folder with a policy and a job in it, and the command that begins.
//!
//! In: a policy, what the job says beside the usual. Out: `fleetflame capture`, its run when it has ended. Never: a
//! capture that nobody waits for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use fleetflame_tests::{Binaries, Child};

use crate::CAPTURE;
use crate::written::Written;

/// See the module. The run directory lies in it.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// With a job for any nginx.
    pub(crate) fn new(policy: &str) -> Result<Self> {
        Self::with_job(policy, "targets: [nginx]")
    }

    /// `more` are the job's other lines.
    pub(crate) fn with_job(policy: &str, more: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("policy.yaml"), policy)?;
        // Budgets have no flags: a debug build needs wider ones than the default.
        let job = format!("version: 1\nlocal: true\nbudgets: {{cpu_pct_max: 100}}\n{more}\n");
        fs::write(folder.path().join("job.yaml"), job)?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `fleetflame capture JOB` into the folder `run`.
    pub(crate) fn capture(&self, more: &[&str]) -> Result<Command> {
        let mut command = Binaries::find()?.coordinator();
        command.arg("capture").arg(self.path("job.yaml"));
        command.args(["--local", "--json", "--arm-timeout", "40s"]);
        command.args(more);
        command.arg("--agent-policy").arg(self.path("policy.yaml"));
        command.arg("--out").arg(self.path("run"));
        Ok(command)
    }

    /// The run of a command, which must end with this code.
    pub(crate) fn captured(&self, command: Command, code: i32) -> Result<Written> {
        self.ended(Child::spawn(command)?, code)
    }

    /// The run of a capture, which must end with this code.
    pub(crate) fn ended(&self, capture: Child, code: i32) -> Result<Written> {
        let done = capture.finish(CAPTURE)?;
        ensure!(
            done.status.code() == Some(code),
            "{:?}\n{}\n{}",
            done.status,
            done.stdout,
            done.stderr
        );
        Written::read(&self.path("run"))
    }
}
