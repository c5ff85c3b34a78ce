//! What a capture is told and what it tells: the words between connections and sessions.
//!
//! In: nothing. Out: types. Never: the wire's own messages (those are the service's).

use model::coverage::CaptureStats;
use model::{Finding, RunId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// What a connection tells a capture.
#[derive(Debug)]
pub enum Command {
    /// From now on events go here.
    Attach {
        /// The connection's number.
        connection: u64,
        /// Its queue.
        events: mpsc::Sender<(RunId, Event)>,
        /// What the coordinator has already; none on the first attachment.
        resume: Option<ResumeAt>,
    },
    /// The connection with this number has gone.
    Detach(u64),
    /// The coordinator was heard.
    Heard,
    /// Begin at this instant of our clock.
    Start(u64),
    /// End now.
    Stop(String),
    /// Safe up to (epoch, seq).
    Ack(u32, u64),
    /// The coordinator has everything.
    Forget,
    /// The agent itself is being stopped: hold what is there, and end.
    Shutdown,
}

/// Where a coordinator takes a capture up again.
#[derive(Clone, Copy, Debug)]
pub struct ResumeAt {
    /// It has everything up to this epoch
    pub epoch: u32,
    /// and this number.
    pub seq: u64,
    /// It has lost its dictionaries.
    pub new_epoch: bool,
    /// It only wants what is held.
    pub collect: bool,
}

/// What a capture tells its coordinator.
#[derive(Clone, Debug)]
pub enum Event {
    /// Ready.
    Armed(Vec<Finding>),
    /// Not possible, and why.
    Refused(Vec<Finding>),
    /// Sampling began at this instant of our clock.
    Started(u64),
    /// Stacks.
    Batch {
        /// Epoch of the dictionary.
        epoch: u32,
        /// Number within the epoch.
        seq: u64,
        /// The ffz document.
        ffz: Vec<u8>,
    },
    /// Where it stands.
    Progress {
        /// Stacks so far.
        samples: u64,
        /// New findings.
        findings: Vec<Finding>,
    },
    /// Ended; every batch was sent.
    Finished {
        /// What was seen.
        stats: Box<CaptureStats>,
        /// What weakens it.
        findings: Vec<Finding>,
        /// The last batch.
        last: (u32, u64),
        /// For the whole ordered time.
        complete: bool,
    },
}

/// A capture's address.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) capturing: Arc<AtomicBool>,
}

impl SessionHandle {
    /// Sends a command. Whether the capture takes it up; false when it has ended.
    pub async fn say(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Whether it still captures (and is not only waiting for acknowledgements).
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }
}
