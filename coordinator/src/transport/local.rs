//! To this machine: the agent runs as a child, on its stdin and stdout.
//!
//! In: the agent's binary. Out: a link. Never: a shell, or a child that outlives its lease.

use super::{BoxFuture, Connect, unreachable};
use model::{Finding, FindingCode};
use proto::link::{CoordinatorLink, coordinator_link};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// The child's first word may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A child that was told to end gets the lease and its teardown.
const PATIENCE: Duration = Duration::from_secs(6);
/// Bytes of the child's stderr that are kept for an error.
const STDERR_BYTES_MAX: u64 = 16 << 10;

/// See the module.
#[derive(Debug)]
pub struct Local {
    program: PathBuf,
    policy: Option<PathBuf>,
    child: Mutex<Option<Child>>,
}

impl Local {
    /// The agent at `program`, with a policy of its own if one is named.
    #[must_use]
    pub fn new(program: PathBuf, policy: Option<PathBuf>) -> Self {
        Self {
            program,
            policy,
            child: Mutex::new(None),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one door to a local agent")]
    async fn open(&self) -> Result<CoordinatorLink, Finding> {
        let mut command = Command::new(&self.program);
        if let Some(policy) = &self.policy {
            command.arg("--policy").arg(policy);
        }
        // A group of its own: Ctrl-C is for the coordinator, which then ends the capture in order.
        let spawned = command
            .arg("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = spawned
            .map_err(|e| unreachable(format!("starting {}: {e}", self.program.display())))?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(unreachable("the agent has no pipes"));
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        tokio::spawn(async move {
            let mut errors = errors.take(STDERR_BYTES_MAX);
            let mut bytes = Vec::new();
            while errors.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                heard.lock().await.clone_from(&bytes);
            }
            // Past the bound the child still needs somebody who reads.
            let _ = tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await;
        });
        *self.child.lock().await = Some(child);
        let link = coordinator_link(tokio::io::join(output, input));
        match tokio::time::timeout(HANDSHAKE, link).await {
            Ok(Ok(link)) => Ok(link),
            other => {
                let why = match other {
                    Ok(Err(e)) => e.to_string(),
                    _ => format!("no word in {} s", HANDSHAKE.as_secs()),
                };
                let said = String::from_utf8_lossy(&said.lock().await).into_owned();
                Err(Finding::new(
                    FindingCode::HostProtocol,
                    format!("{why}. It said: {said}"),
                ))
            }
        }
    }
}

impl Connect for Local {
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>> {
        Box::pin(self.open())
    }

    fn can_reconnect(&self) -> bool {
        false
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(mut child) = self.child.lock().await.take() else {
                return;
            };
            if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        })
    }
}

/// The agent's binary: the one that was named, or the one beside this program.
///
/// # Errors
/// Where it was looked for.
pub fn agent_program(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.clone());
    }
    let mine = std::env::current_exe()?;
    let beside = mine.with_file_name("fleetflame-agent");
    anyhow::ensure!(
        beside.is_file(),
        "no agent at {}: install fleetflame-agent beside fleetflame, or name it with --agent-binary",
        beside.display()
    );
    Ok(beside)
}
