//! The agent that was sent over SSH: it listens on a socket in its private folder, and leaves nothing.
//!
//! ```text
//! coordinator ══ ssh ══ attach ── FOLDER/socket ── agent (session of its own) ── keeper
//! ```
//! In: a 0700 folder with this program in it. Out: links of the folder's owner. Never: a life longer
//! than the lease after the last word of a coordinator, or a file that stays behind.

use crate::process::{self, folder};
use crate::service::Agent;
use anyhow::Context;
use proto::link::agent_link;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Without a word for this long, and without a capture, the agent ends: as long as a capture's lease.
const LEASE: Duration = Duration::from_secs(4);
/// How often it looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(50);
/// A joined channel that has not opened its call by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Channels at the same time: one is used, others are being opened or have not noticed their end.
const CHANNELS_MAX: usize = 32;

/// Starts the agent of `folder` and returns when it listens. `blake3` is what this program must hash
/// to, if that is known.
///
/// # Errors
/// What is wrong with the folder or the program, or the agent's own words.
pub fn start(folder: &Path, blake3: Option<&str>) -> anyhow::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    folder::require_private(folder, own)?;
    if let Some(expected) = blake3 {
        let bytes = std::fs::read("/proc/self/exe").context("reading this program")?;
        let found = blake3::hash(&bytes).to_hex();
        anyhow::ensure!(
            found.as_str() == expected,
            "this program is not the one that was sent: its BLAKE3 hash is {found}, not {expected}"
        );
    }
    let arguments: [OsString; 2] = ["detached".into(), folder.into()];
    process::start_detached(&arguments).context("starting the agent")
}

/// Serves coordinators on the folder's socket until nobody needs this agent; then nothing of it is
/// left there.
///
/// # Errors
/// When the socket or the keeper cannot be made. The folder is removed then, too.
pub async fn serve(agent: Arc<Agent>, folder: &Path) -> anyhow::Result<()> {
    let mut channels = JoinSet::new();
    let served = serve_until_unneeded(&agent, folder, &mut channels).await;
    // Channels end after that, so whoever waits for their end finds nothing left.
    folder::remove(folder);
    drop(channels);
    served
}

async fn serve_until_unneeded(
    agent: &Arc<Agent>,
    folder: &Path,
    channels: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    let owner = folder::require_private(folder, own)?;
    agent.guard_folder(folder).await.context("the keeper")?;
    // Relative: the path of a socket has at most 107 bytes.
    std::env::set_current_dir(folder).context("entering the folder")?;
    let listener = UnixListener::bind(folder::SOCKET).context("making the socket")?;
    std::fs::set_permissions(folder::SOCKET, std::fs::Permissions::from_mode(0o600))?;
    if owner != own {
        // Started by sudo: channels are joined by the user who owns the folder.
        std::os::unix::fs::chown(folder::SOCKET, Some(owner), None).context("giving the socket")?;
    }
    std::env::set_current_dir("/")?;
    let mut term = signal(SignalKind::terminate())?;
    process::detached().context("letting go of the starter")?;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted
                    && stream.peer_cred().is_ok_and(|peer| [0, own, owner].contains(&peer.uid()))
                    && channels.len() < CHANNELS_MAX
                {
                    // The folder is this run's alone: who joins has logged in for it.
                    agent.coordinator_joins().await;
                    channels.spawn(converse(Arc::clone(agent), stream));
                }
            }
            Some(_) = channels.join_next(), if !channels.is_empty() => {}
            _ = term.recv() => {
                let _ = tokio::time::timeout(LEASE, agent.shut_down()).await;
                return Ok(());
            }
            _ = look.tick() => {
                let unneeded = agent.was_told_to_leave() || agent.silent_for() >= LEASE;
                if unneeded && agent.is_idle() {
                    return Ok(());
                }
            }
        }
    }
}

async fn converse(agent: Arc<Agent>, stream: UnixStream) {
    let link = tokio::time::timeout(HANDSHAKE, agent_link(stream)).await;
    match link {
        Ok(Ok(link)) => agent.serve(link).await,
        Ok(Err(e)) => tracing::warn!(error = %e, "a channel was given up"),
        Err(_) => tracing::warn!("a channel opened no call"),
    }
}
