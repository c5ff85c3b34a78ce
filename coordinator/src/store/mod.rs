//! Where runs are kept: run directories, their records and the spools that batches go to first.
//!
//! In: batches, profiles, records. Out: files that only their owner can read, each of them whole
//! or absent. Never: a write through a symbolic link, a spool removed before the profile that
//! replaces it is safely on disk.

mod compact;
mod dir;
mod error;
mod intake;
mod record;
mod root;
mod spool;

pub use compact::{Compacted, compact, rebuild_from_spool};
pub use dir::{PROFILE_FILE, RunDir};
pub use error::StoreError;
pub use intake::{Intake, IntakeError};
pub use record::{HostPlan, RunRecord, RunState, SCHEMA, Versions, utc_text};
pub use root::{DEFAULT_ROOT, DirStore, Listed};
pub use spool::{HostSpool, RECORD_BYTES_MAX, SpoolReader, SpoolRecord, Tail};

use model::RunId;

/// A place that keeps many runs.
pub trait RunStore {
    /// One run as this store hands it out.
    type Run;

    /// Makes room for a new run.
    ///
    /// # Errors
    /// [`StoreError`] when the place is taken or cannot be written.
    fn create(&self, run: RunId) -> Result<Self::Run, StoreError>;

    /// Opens the run that a person named: by its id, the beginning of it, or a path.
    ///
    /// # Errors
    /// [`StoreError`] when there is none, or more than one.
    fn open(&self, name: &str) -> Result<Self::Run, StoreError>;

    /// Every run, the latest first. Runs that cannot be read are listed with the reason.
    ///
    /// # Errors
    /// [`StoreError`] when the place itself cannot be read.
    fn list(&self) -> Result<Vec<Listed>, StoreError>;
}

#[cfg(test)]
pub(crate) use record::tests as tests_support;
