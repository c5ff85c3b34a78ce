//! One login on a host: a master connection of the operator's own ssh, and commands over it.
//!
//! ```text
//! ssh -M -N -f …  DEST        the master: logs in, once, and stays for as long as it is used
//! ssh -S SOCKET … COMMAND     a channel of it, as often as one is needed
//! ```
//! In: a destination. Out: children whose pipes are channels. Never: a question to the operator, a login
//! without a deadline, or a master that stays when this program has ended, however it ended.

use super::diagnose::diagnose;
use model::destination::Destination;
use model::{Finding, FindingCode};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The whole login, with jump hosts and slow directory services.
const LOGIN: Duration = Duration::from_secs(20);
/// A short command.
const COMMAND: Duration = Duration::from_secs(15);
/// What a short command may say.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// Telling a master to end is a word over a local socket.
const EXIT: Duration = Duration::from_secs(2);

/// How a master is made. The rest is as the operator's ssh_config says it: keys, certificates, known
/// hosts, jump hosts, compression.
const MASTER: &[&str] = &[
    "-M",
    "-N",
    "-f",
    "-oBatchMode=yes",
    // A master that nobody uses ends by itself, so that none is left by a program that was killed.
    "-oControlPersist=2",
    "-oConnectTimeout=10",
    "-oConnectionAttempts=1",
    // A dead network ends it too; while it lives, we notice silence ourselves and much earlier.
    "-oServerAliveInterval=2",
    "-oServerAliveCountMax=3",
    // What ssh_config may ask for on a login by hand, and what this login is not for.
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oPermitLocalCommand=no",
    "-oRemoteCommand=none",
    "-oRequestTTY=no",
    "-oLogLevel=INFO",
];

/// How a channel is opened: from no configuration, since all that matters was said to the master. When
/// the master refuses or is gone, ssh would open a connection of its own to the host `none`; it gets none.
const CHANNEL: &[&str] = &[
    "-F",
    "none",
    "-oBatchMode=yes",
    "-oLogLevel=INFO",
    "-oProxyCommand=false",
    "-T",
    "none",
];

/// See the module. Dropping it ends the master and all channels on it.
#[derive(Debug)]
pub struct Session {
    socket: PathBuf,
}

/// What a short command gave.
#[derive(Debug)]
pub struct Said {
    /// Its output, cut at 64 KiB.
    pub stdout: String,
    /// What it and ssh complained about, likewise.
    pub stderr: String,
}

impl Session {
    /// Logs in. `config` replaces the operator's ssh_config.
    ///
    /// # Errors
    /// A finding with ssh's own words.
    pub async fn open(
        socket: PathBuf,
        destination: &Destination,
        config: Option<&Path>,
    ) -> Result<Self, Finding> {
        let log = socket.with_extension("log");
        let mut command = ssh();
        command.arg("-E").arg(&log).arg("-S").arg(&socket);
        command.args(MASTER);
        if let Some(config) = config {
            command.arg("-F").arg(config);
        }
        if let Some(user) = destination.user() {
            command.arg("-l").arg(user);
        }
        if let Some(port) = destination.port() {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("--").arg(destination.host());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut master = command.stderr(Stdio::piped()).spawn().map_err(missing)?;
        let session = Self { socket };
        let status = timeout(LOGIN, master.wait()).await.ok();
        if matches!(&status, Some(Ok(status)) if status.success()) {
            return Ok(session);
        }
        let mut said = tokio::fs::read_to_string(&log).await.unwrap_or_default();
        if let Some(errors) = master.stderr.take() {
            // It says something on stderr only when the log was not open yet.
            let mut errors = errors.take(OUTPUT_BYTES_MAX);
            let _ = timeout(EXIT, errors.read_to_string(&mut said)).await;
        }
        if status.is_none() {
            said.push_str(&format!("\nno login in {} s", LOGIN.as_secs()));
        }
        Err(diagnose(&said, FindingCode::SshClosed))
    }

    /// Runs a short command with no input.
    ///
    /// # Errors
    /// A finding with ssh's own words when the command did not end well.
    pub async fn run(&self, line: &str) -> Result<Said, Finding> {
        let mut child = self.channel(line)?;
        drop(child.stdin.take());
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Finding::new(FindingCode::SshNoAnswer, "ssh has no pipes"));
        };
        let mut said = Said {
            stdout: String::new(),
            stderr: String::new(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = timeout(COMMAND, async {
            let mut output = output.take(OUTPUT_BYTES_MAX);
            let mut errors = errors.take(OUTPUT_BYTES_MAX);
            let _ = tokio::join!(output.read_to_end(&mut out), errors.read_to_end(&mut err));
            // Past the bound nobody reads: a child that floods is not waited for.
            drop((output, errors));
            child.wait().await
        })
        .await;
        said.stdout = String::from_utf8_lossy(&out).into_owned();
        said.stderr = String::from_utf8_lossy(&err).into_owned();
        match ended {
            Ok(Ok(status)) if status.success() => Ok(said),
            Ok(_) => Err(diagnose(
                &format!("{}\n{}", said.stderr, tail(&said.stdout)),
                FindingCode::SshNoAnswer,
            )),
            Err(_) => {
                let heard = tail(&said.stdout);
                let words = format!("no end in {} s. It said: {heard}", COMMAND.as_secs());
                Err(Finding::new(FindingCode::SshNoAnswer, words))
            }
        }
    }

    /// Opens a channel on which `line` runs. The child's pipes are the far side's.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn channel(&self, line: &str) -> Result<Child, Finding> {
        let mut command = ssh();
        command.arg("-S").arg(&self.socket).args(CHANNEL);
        command.arg("--").arg(line);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(missing)
    }

    /// Ends the master, and with it every channel, and waits until it is gone.
    pub async fn close(self) {
        if let Ok(mut child) = self.exit().spawn() {
            let _ = timeout(EXIT, child.wait()).await;
        }
        for _ in 0..50 {
            if !self.socket.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn exit(&self) -> Command {
        let mut command = ssh();
        command.arg("-S").arg(&self.socket);
        command.args(["-F", "none", "-O", "exit", "none"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.socket.exists() && tokio::runtime::Handle::try_current().is_ok() {
            // Nobody waits: the runtime reaps it, and if it fails the master ends when it is idle.
            let _ = self.exit().kill_on_drop(false).spawn();
        }
    }
}

/// An ssh in a process group of its own: Ctrl-C is for the coordinator, which then ends the capture in
/// order. Nothing can ask a question, a jump host's ssh neither: that one knows nothing of BatchMode.
#[expect(clippy::disallowed_methods, reason = "the one door to ssh")]
fn ssh() -> Command {
    let mut command = Command::new("ssh");
    command
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn missing(error: std::io::Error) -> Finding {
    Finding::new(FindingCode::SshProgramMissing, format!("ssh: {error}"))
}

/// The end of a long text.
fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(400);
    text.chars().skip(skip).collect()
}
