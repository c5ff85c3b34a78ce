//! A fleet's own certificate authority: one CA, one certificate a host, one for the coordinator.
//!
//! In: names. Out: PEM files, keys 0600. Never: a certificate without an end, or one whose unit
//! would let a host give orders.

use anyhow::Context;
use model::HostName;
use proto::tls::{AGENT_UNIT, COORDINATOR_UNIT, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// A clock that is this far behind still takes a new certificate.
const BEFORE: Duration = Duration::hours(24);

/// A certificate authority whose key lives only in this value.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    /// A new authority that is valid for `days` from `now_unix_ms` on.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(now_unix_ms: u64, days: i64) -> anyhow::Result<Self> {
        let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now_unix_ms / 1_000)?)?;
        let (not_before, not_after) = (now - BEFORE, now + Duration::days(days));
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "fleetflame fleet CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (not_before, not_after);
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            ca_pem,
            not_before,
            not_after,
        })
    }

    /// Makes `FOLDER` (0700) with `ca.pem`, `agent.pem` and `agent.key` for a host.
    ///
    /// # Errors
    /// The operating system's.
    pub fn issue_agent(&self, folder: &Path, host: &HostName) -> anyhow::Result<()> {
        self.issue(folder, "agent", host.as_str(), AGENT_UNIT)
    }

    /// Makes `FOLDER` (0700) with `ca.pem`, `coordinator.pem` and `coordinator.key`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn issue_coordinator(&self, folder: &Path) -> anyhow::Result<()> {
        self.issue(folder, "coordinator", "coordinator", COORDINATOR_UNIT)
    }

    fn issue(&self, folder: &Path, file: &str, name: &str, unit: &str) -> anyhow::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, unit);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (self.not_before, self.not_after);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("making {}", folder.display()))?;
        write_new(&folder.join("ca.pem"), &self.ca_pem, 0o644)?;
        write_new(&folder.join(format!("{file}.pem")), &cert.pem(), 0o644)?;
        write_new(
            &folder.join(format!("{file}.key")),
            &key.serialize_pem(),
            0o600,
        )
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = made.with_context(|| format!("making {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// Reads `ca.pem`, `NAME.pem` and `NAME.key` from a folder.
///
/// # Errors
/// Which file is missing, or that the key can be read by others.
pub fn read_identity(folder: &Path, name: &str) -> anyhow::Result<Identity> {
    let read = |file: &str| {
        let path = folder.join(file);
        std::fs::read(&path).with_context(|| {
            format!(
                "reading {} (make certificates with `fleetflame tls`)",
                path.display()
            )
        })
    };
    let key_pem = read(&format!("{name}.key"))?;
    let key = folder.join(format!("{name}.key"));
    let mode = std::fs::metadata(&key)?.mode() & 0o777;
    anyhow::ensure!(
        mode & 0o077 == 0,
        "{} can be read by others (mode {mode:o}): chmod 600 it",
        key.display()
    );
    Ok(Identity {
        ca_pem: read("ca.pem")?,
        cert_pem: read(&format!("{name}.pem"))?,
        key_pem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_private_and_an_open_key_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(crate::clock::wall_unix_ms(), 1).unwrap();
        let folder = dir.path().join("a");
        authority
            .issue_agent(&folder, &HostName::new("a").unwrap())
            .unwrap();
        read_identity(&folder, "agent").unwrap();
        let key = folder.join("agent.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_identity(&folder, "agent").err().unwrap().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        assert!(
            authority
                .issue_agent(&folder, &HostName::new("a").unwrap())
                .is_err(),
            "overwritten"
        );
    }
}
