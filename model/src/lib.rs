//! The values of fleetflame: what was asked (`job`), what one host shall do (`order`), what a
//! host is (`host`), what went wrong (`finding`), how far a result can be trusted (`coverage`) and
//! the stacks themselves (`profile`), with the byte formats they are kept in (`format`).
//!
//! In: values and bytes. Out: values and bytes.
//! Never: a clock, a file, a socket, an async runtime. Time and randomness arrive as arguments.

pub mod coverage;
pub mod demangle;
pub mod destination;
pub mod finding;
pub mod format;
pub mod host;
pub mod ids;
pub mod job;
pub mod order;
pub mod profile;
pub mod script;

pub use coverage::{Coverage, HostCoverage, HostOutcome};
pub use finding::{Finding, FindingCode, Severity};
pub use host::HostReport;
pub use ids::{HostName, RunId};
pub use job::JobSpec;
pub use order::CaptureOrder;
