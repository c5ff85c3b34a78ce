//! The agent as a daemon: coordinators dial it over mutual TLS.
//!
//! In: a port and three PEM files. Out: links. Never: a word to a peer without a coordinator's
//! certificate, or more peers at once than it can bear.

use crate::service::Agent;
use anyhow::Context;
use proto::link::agent_link;
use proto::tls::{COORDINATOR_UNIT, Identity, require_unit};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A peer that has not proved itself by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Peers at the same time.
const PEERS_MAX: usize = 32;

/// Reads `ca.pem`, `agent.pem` and `agent.key` from a folder.
///
/// # Errors
/// Which file is missing, or that the key can be read by others.
pub fn identity(folder: &Path) -> anyhow::Result<Identity> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let key = folder.join("agent.key");
    let meta = std::fs::metadata(&key).with_context(|| format!("reading {}", key.display()))?;
    let mode = std::os::unix::fs::MetadataExt::mode(&meta);
    anyhow::ensure!(
        mode & 0o077 == 0,
        "{} can be read by others (mode {:o}): chmod 600 it",
        key.display(),
        mode & 0o777
    );
    Ok(Identity {
        ca_pem: read("ca.pem")?,
        cert_pem: read("agent.pem")?,
        key_pem: read("agent.key")?,
    })
}

/// Answers coordinators on `address` until `stop`. Calls `ready` with the address it listens on.
///
/// # Errors
/// The operating system's when the port cannot be had, or TLS's when the files are unusable.
pub async fn listen(
    agent: Arc<Agent>,
    address: SocketAddr,
    identity: &Identity,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(identity.listening()?);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    ready(listener.local_addr()?);
    let places = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: waiting is the only thing that can help.
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, "refused: too many connections");
            continue;
        };
        let (agent, acceptor) = (Arc::clone(&agent), acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = converse(&agent, &acceptor, stream).await {
                tracing::warn!(%peer, error = format!("{e:#}"), "a peer was refused");
            }
        });
    }
}

async fn converse(
    agent: &Arc<Agent>,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let handshake = async {
        let tls = acceptor.accept(stream).await.context("TLS")?;
        require_unit(tls.get_ref().1.peer_certificates(), COORDINATOR_UNIT)?;
        Ok::<_, anyhow::Error>(agent_link(tls).await?)
    };
    let link = tokio::time::timeout(HANDSHAKE, handshake)
        .await
        .context("no handshake in 5 s")??;
    agent.serve(link).await;
    Ok(())
}
