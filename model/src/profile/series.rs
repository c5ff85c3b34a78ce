//! Where a value came from: host, process, thread, and how it was taken.
//!
//! In: what the sampler knows of a thread. Out: ids. Never: command-line arguments (they hold
//! secrets; only the executable's name and comm are kept).

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

/// One process of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat` field 22); tells a reused pid apart.
    pub start_ticks: u64,
    /// Counts the gateway's reloads seen during the capture; 0 before the first.
    pub generation: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
    /// What it is for, such as `nginx: worker`; the comm when nothing more is known.
    pub role: String,
    /// A worker's number, counted from 0 in order of pid.
    pub worker: Option<u32>,
}

/// One source of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Series {
    /// The host's name.
    pub host: String,
    /// The process.
    pub process: Process,
    /// The thread's name (not its id: short-lived threads would have no end of series).
    pub thread: String,
    /// The engine that took the stacks.
    pub engine: String,
    /// How it took them (the sampler's mode).
    pub mode: String,
    /// What made it take one, such as `cpu-clock`.
    pub event: String,
    /// Nominal period in nanoseconds; 0 when the event has none.
    pub period_ns: u64,
}

/// Number of a series in one profile's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

/// Series by number; each once. Append-only.
#[derive(Clone, Debug, Default)]
pub struct SeriesTable {
    series: Vec<Series>,
    by_value: HashMap<Series, SeriesId>,
}

impl SeriesTable {
    /// The id of `series`, which is added when it is new.
    pub fn intern(&mut self, series: &Series) -> SeriesId {
        if let Some(&id) = self.by_value.get(series) {
            return id;
        }
        let id = SeriesId(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        self.series.push(series.clone());
        self.by_value.insert(series.clone(), id);
        id
    }

    /// The id of `series`, if it is there.
    #[must_use]
    pub fn find(&self, series: &Series) -> Option<SeriesId> {
        self.by_value.get(series).copied()
    }

    /// The series with this number.
    #[must_use]
    pub fn get(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(id.0 as usize)
    }

    /// All series by number.
    #[must_use]
    pub fn as_slice(&self) -> &[Series] {
        &self.series
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}
