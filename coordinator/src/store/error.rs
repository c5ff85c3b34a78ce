//! What can go wrong with a store. In: what the operating system said. Out: sentences that fit
//! after "failed to", and the finding for them. Never: an error without the path it is about.

use model::format::ffz::FfzError;
use model::{Finding, FindingCode};
use std::io;
use std::path::{Path, PathBuf};

/// Why a run could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("{what} {path}")]
    Io {
        /// What was tried, such as `write`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The place for a new run is taken.
    #[error(
        "use {path} for a new run: it exists and is not an empty directory; give another --out"
    )]
    Taken {
        /// The place.
        path: PathBuf,
    },
    /// There is no run where one was expected.
    #[error("open {path} as a run: {why}")]
    NotARun {
        /// The place.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// No run of this name.
    #[error("find a run named {name:?}: {why}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was looked at.
        why: String,
    },
    /// The record is of another schema.
    #[error(
        "read {path}: it has schema {found}, and this fleetflame reads schema {expected}: use the version of fleetflame that wrote it"
    )]
    Schema {
        /// The record's file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The one that can be read.
        expected: u32,
    },
    /// The record is damaged.
    #[error("read {path} as a run's record")]
    Record {
        /// The record's file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A profile is damaged or could not be encoded.
    #[error("read or write {path} as a profile")]
    Profile {
        /// The profile's file.
        path: PathBuf,
        /// Where and how.
        source: FfzError,
    },
    /// A name that would leave the run directory.
    #[error("use {0:?} as a file of a run: it is not a plain relative path")]
    Name(PathBuf),
    /// What was written is not what was merged. A bug or damaged memory; the spool is kept.
    #[error("check {path}: its totals are {found}, but {expected} were merged; the spool is kept")]
    Unequal {
        /// The profile's file.
        path: PathBuf,
        /// Totals by its measures.
        found: String,
        /// Totals that were merged.
        expected: String,
    },
}

impl StoreError {
    /// An [`StoreError::Io`] for `map_err`.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the disk is full, a quota is reached or a file may not grow.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG];
        matches!(self, Self::Io { source, .. } if source.raw_os_error().is_some_and(|e| full.contains(&e)))
    }

    /// The finding that stands for this error: [`FindingCode::DiskFull`] for everything that could
    /// not be written, [`FindingCode::FormatDamaged`] for what could not be read.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let code = match self {
            Self::Record { .. }
            | Self::Profile { .. }
            | Self::Schema { .. }
            | Self::Unequal { .. } => FindingCode::FormatDamaged,
            _ => FindingCode::DiskFull,
        };
        let mut said = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            said.push_str(": ");
            said.push_str(&error.to_string());
            cause = error.source();
        }
        let finding = Finding::new(code, said);
        if code == FindingCode::DiskFull && !self.is_disk_full() {
            return finding
                .with_remedy("Check that the run directory can be written, and capture again.");
        }
        finding
    }
}
