//! Google's `profile.proto`. (Reader and writer follow.)

use super::import::{ImportError, Intake, WholeReader};
use crate::profile::Profile;

/// Reads `profile.proto`.
#[derive(Debug)]
pub struct PprofReader;

impl WholeReader for PprofReader {
    const WORD: &'static str = "pprof";

    fn read(&self, _: &[u8], _: &mut Intake) -> Result<Option<Profile>, ImportError> {
        Ok(None)
    }
}

/// Writes a profile.
#[must_use]
pub fn write(_: &Profile) -> Vec<u8> {
    Vec::new()
}
