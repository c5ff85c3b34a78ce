//! SystemTap backtrace text. (Reader follows.)

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;

/// Reads backtraces as SystemTap scripts print them.
#[derive(Debug)]
pub struct StapReader {}

impl StapReader {
    /// A reader.
    #[must_use]
    pub fn new(_: &ImportOptions) -> Self {
        Self {}
    }
}

impl LineReader for StapReader {
    fn line(&mut self, _: Line<'_>, _: &mut Intake) {}
    fn end(&mut self, _: &mut Intake) {}
}
