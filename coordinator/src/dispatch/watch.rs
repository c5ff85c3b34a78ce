//! What a run tells whoever watches: progress bars, JSON lines, later a web page.
//!
//! In: changes of the run's state. Out: events. Never: something that the record does not hold.

use model::Finding;
use serde::Serialize;

/// One change.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEvent {
    /// What is done to reach a host.
    Reaching {
        /// Which.
        host: String,
        /// In a few words.
        step: String,
    },
    /// The agent is being sent to a host.
    Sending {
        /// Which.
        host: String,
        /// Bytes that have gone.
        sent_bytes: u64,
        /// Of so many.
        total_bytes: u64,
    },
    /// A host answered.
    Reported {
        /// Which.
        host: String,
        /// Kernel release.
        kernel: String,
    },
    /// The others wait until this host has borne what is put on every event.
    Alone {
        /// Which.
        host: String,
        /// What is put on events.
        probe: String,
    },
    /// It is ready.
    Armed {
        /// Which.
        host: String,
    },
    /// All that are ready start together.
    Starting {
        /// How many.
        hosts: usize,
        /// For how long.
        duration_ms: u64,
    },
    /// Stacks so far.
    Progress {
        /// Which.
        host: String,
        /// Stacks.
        samples: u64,
    },
    /// The link broke and is being opened again, or is open again.
    Link {
        /// Which.
        host: String,
        /// Whether it is up.
        up: bool,
    },
    /// The host is done.
    Done {
        /// Which.
        host: String,
        /// How it came out, in one word.
        outcome: String,
        /// Stacks.
        samples: u64,
    },
    /// Something was found.
    Found {
        /// What.
        finding: Finding,
    },
}

/// Who watches.
pub trait Watch: Send + Sync {
    /// Hears of one change.
    fn on(&self, event: RunEvent);
}

/// Nobody.
impl Watch for () {
    fn on(&self, _: RunEvent) {}
}
