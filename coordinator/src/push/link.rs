//! Connections to a store. In: a target, certificates to trust. Out: byte streams, plain or TLS, and whether HTTP/2 is
//! spoken on them. Never: a server whose certificate does not fit its name.

use super::Target;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The client's preface and an empty SETTINGS frame (RFC 9113, 3.4): what a client says first.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A frame's length, kind, flags and stream (RFC 9113, 4.1).
const FRAME_HEAD_BYTES: usize = 9;
/// The kind of a SETTINGS frame (RFC 9113, 6.5), which is the first thing that a server says.
const SETTINGS: u8 = 4;

/// A stream of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

/// The authorities that a server's certificate may be signed by.
///
/// # Errors
/// [`TrustError`] when there is none in it.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|e| TrustError(format!("it is no PEM file: {e}")))?;
        // A system's file may hold old ones that are not readable any more.
        let _ = roots.add(cert);
    }
    if roots.is_empty() {
        return Err(TrustError(
            "it has no certificate in PEM that can be used".into(),
        ));
    }
    Ok(roots)
}

/// Opens streams to one target.
#[derive(Clone)]
pub struct Dialler {
    host: String,
    port: u16,
    tls: Option<(ServerName<'static>, rustls::ClientConfig)>,
}

impl Dialler {
    /// To `target`; `roots` are asked for only when TLS is spoken.
    ///
    /// # Errors
    /// When the host's name cannot stand in a certificate, or there is nothing to trust.
    pub fn new(target: &Target, roots: Option<RootCertStore>) -> Result<Self, TrustError> {
        let tls = if target.tls {
            let name = ServerName::try_from(target.host.clone()).map_err(|e| {
                TrustError(format!(
                    "{} cannot stand in a certificate: {e}",
                    target.host
                ))
            })?;
            let roots = roots.ok_or_else(|| TrustError("no authority to trust".into()))?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|e| TrustError(e.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Some((name, config))
        } else {
            None
        };
        Ok(Self {
            host: target.host.clone(),
            port: target.port,
            tls,
        })
    }

    /// Opens a stream that speaks one of `protocols`, by their names in TLS (RFC 7301); which one was agreed on.
    async fn open(&self, protocols: &[&[u8]]) -> io::Result<(Box<dyn Stream>, Option<Vec<u8>>)> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let _ = tcp.set_nodelay(true);
        let Some((name, config)) = &self.tls else {
            return Ok((Box::new(tcp), None));
        };
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name.clone(), tcp)
            .await?;
        let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok((Box::new(tls), agreed))
    }

    /// Opens a stream for one of the two.
    ///
    /// # Errors
    /// The operating system's, or TLS's.
    pub async fn stream(&self, http: Http) -> io::Result<Box<dyn Stream>> {
        let protocol: &[u8] = match http {
            Http::One => b"http/1.1",
            Http::Two => b"h2",
        };
        Ok(self.open(&[protocol]).await?.0)
    }

    /// Which HTTP the server speaks: asked by TLS, or found out by the first bytes of HTTP/2.
    ///
    /// # Errors
    /// When it cannot be reached, or breaks the connection.
    pub async fn speaks(&self) -> io::Result<Http> {
        let (mut stream, agreed) = self.open(&[b"h2", b"http/1.1"]).await?;
        if self.tls.is_some() {
            let two = agreed.as_deref() == Some(b"h2");
            return Ok(if two { Http::Two } else { Http::One });
        }
        stream.write_all(HELLO).await?;
        let mut head = [0; FRAME_HEAD_BYTES];
        let mut len = 0;
        while len < head.len() {
            let read = stream.read(&mut head[len..]).await?;
            if read == 0 {
                break; // some servers that know HTTP/1 only close without a word
            }
            len += read;
        }
        let settings = len == head.len() && head[3] == SETTINGS && head[5..] == [0; 4];
        Ok(if settings { Http::Two } else { Http::One })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        assert!(roots(b"").is_err());
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(roots(key.as_bytes()).is_err());
    }
}
