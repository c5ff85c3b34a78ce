//! The job spec: YAML in, a checked [`model::JobSpec`] out.
//!
//! In: text from a person. Out: a value, or an error with line, column and what would be accepted.
//! Never: a key that is silently ignored, or memory and time without a bound.

mod example;
mod raw;
mod yaml;

pub use example::{CAPTURE, FLEET, POLICY};
pub use raw::LabelledHost;
pub use yaml::{JOB_BYTES_MAX, SpecError, read_fleet, read_job, read_tree};
