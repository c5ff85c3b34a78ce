//! bpftrace maps keyed by stacks. (Reader follows.)

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;

/// Reads what bpftrace prints of a map keyed by stacks.
#[derive(Debug)]
pub struct BpftraceReader {}

impl BpftraceReader {
    /// A reader.
    #[must_use]
    pub fn new(_: &ImportOptions) -> Self {
        Self {}
    }
}

impl LineReader for BpftraceReader {
    fn line(&mut self, _: Line<'_>, _: &mut Intake) {}
    fn end(&mut self, _: &mut Intake) {}
}
