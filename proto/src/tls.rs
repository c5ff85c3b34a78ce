//! Mutual TLS: both sides prove who they are with certificates of the fleet's own CA.
//!
//! In: PEM files' contents. Out: rustls configurations and the name in a peer's certificate.
//! Never: a connection without a peer certificate, or a CA from the system's store.

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// Organisational unit in a coordinator's certificate. An agent takes orders from no other.
pub const COORDINATOR_UNIT: &str = "fleetflame-coordinator";
/// Organisational unit in an agent's certificate.
pub const AGENT_UNIT: &str = "fleetflame-agent";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no certificate or key.
    #[error("{0} holds no usable PEM: {1}")]
    Pem(&'static str, String),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate and key cannot be used: {0}")]
    Config(String),
    /// The peer's certificate is not what it must be.
    #[error("{0}")]
    Peer(String),
}

/// Contents of three PEM files: the fleet's CA, this side's certificate and key.
pub struct Identity {
    /// `ca.pem`
    pub ca_pem: Vec<u8>,
    /// `NAME.pem`
    pub cert_pem: Vec<u8>,
    /// `NAME.key`
    pub key_pem: Vec<u8>,
}

impl Identity {
    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&self.ca_pem) {
            let cert = cert.map_err(|e| TlsError::Pem("the CA file", e.to_string()))?;
            roots
                .add(cert)
                .map_err(|e| TlsError::Pem("the CA file", e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Pem("the CA file", "no certificate in it".into()));
        }
        Ok(roots)
    }

    fn chain(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert_pem).collect();
        let certs = certs.map_err(|e| TlsError::Pem("the certificate file", e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|e| TlsError::Pem("the key file", e.to_string()))?;
        Ok((certs, key))
    }

    /// For the side that dials: verifies the other's certificate against the CA and `server_name`.
    ///
    /// # Errors
    /// [`TlsError`] when the files are unusable.
    pub fn dialling(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let (certs, key) = self.chain()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::Config(e.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(certs, key)
            .map_err(|e| TlsError::Config(e.to_string()))?;
        Ok(Arc::new(config))
    }

    /// For the side that listens: refuses everybody without a certificate of the CA.
    ///
    /// # Errors
    /// [`TlsError`] when the files are unusable.
    pub fn listening(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let (certs, key) = self.chain()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone())
                .build()
                .map_err(|e| TlsError::Config(e.to_string()))?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::Config(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certs, key)
            .map_err(|e| TlsError::Config(e.to_string()))?;
        Ok(Arc::new(config))
    }
}

/// Checks that a verified peer has the `unit` it must have: a host's certificate must not be able
/// to give orders to other hosts.
///
/// # Errors
/// [`TlsError::Peer`] with what the certificate says instead.
pub fn require_unit(certs: Option<&[CertificateDer<'_>]>, unit: &str) -> Result<(), TlsError> {
    let cert = certs
        .and_then(|c| c.first())
        .ok_or_else(|| TlsError::Peer("the peer has no certificate".into()))?;
    let (_, cert) = x509_parser::parse_x509_certificate(cert)
        .map_err(|e| TlsError::Peer(format!("the peer's certificate cannot be read: {e}")))?;
    let units: Vec<&str> = cert
        .subject()
        .iter_organizational_unit()
        .filter_map(|u| u.as_str().ok())
        .collect();
    if units.contains(&unit) {
        Ok(())
    } else {
        Err(TlsError::Peer(format!(
            "the peer's certificate is for {:?}, not for {unit:?}",
            units.join(", ")
        )))
    }
}
