//! To a running agent: TCP with mutual TLS.
//!
//! In: address, host name, this side's certificate. Out: a link to an agent that has proved to be
//! that host. Never: a link to somebody else who happens to answer.

use super::{BoxFuture, Connect, unreachable};
use model::{Finding, FindingCode, HostName};
use proto::link::{CoordinatorLink, coordinator_link};
use proto::tls::{AGENT_UNIT, Identity, TlsError, require_unit};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Opening a connection may take this long.
const CONNECT: Duration = Duration::from_secs(3);
/// TLS and the first word may take this long.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Direct {
    name: HostName,
    address: String,
    connector: TlsConnector,
}

impl Direct {
    /// The agent of host `name` at `address` (`ADDR:PORT`).
    ///
    /// # Errors
    /// When this side's certificate files are unusable.
    pub fn new(name: HostName, address: String, identity: &Identity) -> Result<Self, TlsError> {
        let connector = TlsConnector::from(identity.dialling()?);
        Ok(Self {
            name,
            address,
            connector,
        })
    }

    async fn open(&self) -> Result<CoordinatorLink, Finding> {
        let at = &self.address;
        let connecting = TcpStream::connect(at);
        let stream = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(unreachable(format!("{at}: {e}"))),
            Err(_) => {
                return Err(unreachable(format!(
                    "{at}: no answer in {} s",
                    CONNECT.as_secs()
                )));
            }
        };
        let _ = stream.set_nodelay(true);
        let handshake = async {
            let server = ServerName::try_from(self.name.to_string())
                .map_err(|e| unreachable(format!("{}: {e}", self.name)))?;
            let tls = self
                .connector
                .connect(server, stream)
                .await
                .map_err(|e| refused(at, &e))?;
            require_unit(tls.get_ref().1.peer_certificates(), AGENT_UNIT)
                .map_err(|e| Finding::new(FindingCode::HostIdentity, format!("{at}: {e}")))?;
            coordinator_link(tls).await.map_err(|e| {
                Finding::new(FindingCode::HostProtocol, format!("{at}: {e}")).with_remedy(
                    "Check that the agent accepts this coordinator's certificate (its log says so if not).",
                )
            })
        };
        tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .unwrap_or_else(|_| {
                Err(unreachable(format!(
                    "{at}: no handshake in {} s",
                    HANDSHAKE.as_secs()
                )))
            })
    }
}

/// A certificate that does not fit is another finding than a connection that breaks.
fn refused(at: &str, error: &std::io::Error) -> Finding {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => {
            Finding::new(FindingCode::HostIdentity, format!("{at}: {error}"))
        }
        Some(_) => Finding::new(FindingCode::HostProtocol, format!("{at}: {error}")),
        None => unreachable(format!("{at}: TLS: {error}")),
    }
}

impl Connect for Direct {
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>> {
        Box::pin(self.open())
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

/// Reads `ca.pem`, `coordinator.pem` and `coordinator.key` from a folder.
///
/// # Errors
/// Which file is missing, or that the key can be read by others.
pub fn identity(folder: &std::path::Path) -> anyhow::Result<Identity> {
    super::pki::read_identity(folder, "coordinator")
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// A shared [`Direct`].
///
/// # Errors
/// As [`Direct::new`].
pub fn connector(
    name: HostName,
    address: String,
    identity: &Identity,
) -> Result<super::Connector, TlsError> {
    Ok(Arc::new(Direct::new(name, address, identity)?))
}
