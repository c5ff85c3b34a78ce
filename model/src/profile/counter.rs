//! What happened beside the stacks in each second. In: counts. Out: rows.
//! Never: a counter that is mistaken for a measure of stacks.

use super::SeriesId;
use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum CounterKind {
    /// Requests completed.
    Requests = 0,
    /// CPU time in nanoseconds (`/proc/PID/schedstat`, first field).
    CpuNs = 1,
    /// Time waiting for a CPU in nanoseconds (`/proc/PID/schedstat`, second field).
    RunQueueNs = 2,
    /// Records that the kernel could not deliver (`PERF_RECORD_LOST`).
    Lost = 3,
    /// Times the kernel throttled sampling (`PERF_RECORD_THROTTLE`).
    Throttled = 4,
    /// Probe hits that the engine skipped.
    Skipped = 5,
    /// Stacks that were cut short.
    Truncated = 6,
    /// Samples that the agent dropped to keep within its own bounds.
    Dropped = 7,
}

impl CounterKind {
    /// All kinds, in the order of their stored numbers.
    pub const ALL: [CounterKind; 8] = [
        Self::Requests,
        Self::CpuNs,
        Self::RunQueueNs,
        Self::Lost,
        Self::Throttled,
        Self::Skipped,
        Self::Truncated,
        Self::Dropped,
    ];

    /// The kind with this number, as stored.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Whose counter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CounterSource {
    /// The host as a whole.
    Host,
    /// One series.
    Series(SeriesId),
}

/// One counter in one second.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterRow {
    /// The host's name.
    pub host: String,
    /// Whose.
    pub source: CounterSource,
    /// Whole seconds since the common start.
    pub bin: u32,
    /// What.
    pub kind: CounterKind,
    /// How many or how much.
    pub value: u64,
}
