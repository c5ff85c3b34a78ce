//! Adding up what agents send, while they send it.
//!
//! In: numbered batches of many hosts, twice, late or damaged. Out: one profile whose totals are
//! exactly the sum of the batches that were taken, each once. Never: a batch counted twice, a gap
//! that goes unnoticed, a file.

mod live;

pub use live::{AbsorbError, Absorbed, LiveMerge};

#[cfg(test)]
pub(crate) use live::tests as tests_support;
