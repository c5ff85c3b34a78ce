//! DTrace aggregations keyed by stacks. (Reader follows.)

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;

/// Reads what DTrace prints of an aggregation keyed by stacks.
#[derive(Debug)]
pub struct DtraceReader {}

impl DtraceReader {
    /// A reader.
    #[must_use]
    pub fn new(_: &ImportOptions) -> Self {
        Self {}
    }
}

impl LineReader for DtraceReader {
    fn line(&mut self, _: Line<'_>, _: &mut Intake) {}
    fn end(&mut self, _: &mut Intake) {}
}
