//! A link: one conversation between a coordinator and an agent, over any byte stream.
//!
//! ```text
//! agent      FromAgent        ──►  ┌────────────┐ ──►  FromAgent        coordinator
//! (client)   FromCoordinator  ◄──  │ byte stream │ ◄──  FromCoordinator  (server)
//! ```
//! In: a byte stream that somebody opened (TLS, a child's pipes), or nothing for the in-process
//! double. Out: two queues of messages. Never: a retry or a deadline of its own; whoever holds the
//! link decides how long silence may last. Dropping a link closes the stream underneath at once.

mod agent;
mod coordinator;
mod severable;

pub use agent::agent_link;
pub use coordinator::coordinator_link;

use crate::v1::{FromAgent, FromCoordinator};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Messages that may wait in one direction before the sender has to.
pub const QUEUE_LENGTH: usize = 64;

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer does not speak the rpc.
    #[error("the peer does not speak fleetflame's protocol: {0}")]
    Protocol(String),
    /// The stream ended before the first word.
    #[error("the connection was closed before the first message")]
    Closed,
}

/// One end of a link: `S` goes out, `R` comes in.
#[derive(Debug)]
pub struct Link<S, R> {
    /// Where to say something.
    pub tx: mpsc::Sender<S>,
    /// What the peer says; none when the link has ended.
    pub rx: mpsc::Receiver<R>,
    /// Tasks that carry the bytes; they end with the link.
    #[expect(dead_code, reason = "held so that dropping the link ends them")]
    tasks: JoinSet<()>,
    /// Cuts the stream underneath when the link is dropped.
    #[expect(dead_code, reason = "acts when it is dropped")]
    cut: DropGuard,
}

/// The agent's end.
pub type AgentLink = Link<FromAgent, FromCoordinator>;
/// The coordinator's end.
pub type CoordinatorLink = Link<FromCoordinator, FromAgent>;

impl<S, R> Link<S, R> {
    /// A link from queues, for doubles that put something between the two ends.
    #[must_use]
    pub fn from_queues(tx: mpsc::Sender<S>, rx: mpsc::Receiver<R>) -> Self {
        Self {
            tx,
            rx,
            tasks: JoinSet::new(),
            cut: CancellationToken::new().drop_guard(),
        }
    }
}

/// Both ends of a link without any stream: the deterministic double of the real thing.
#[must_use]
pub fn in_process_pair() -> (AgentLink, CoordinatorLink) {
    let (up_tx, up_rx) = mpsc::channel(QUEUE_LENGTH);
    let (down_tx, down_rx) = mpsc::channel(QUEUE_LENGTH);
    (
        Link::from_queues(up_tx, down_rx),
        Link::from_queues(down_tx, up_rx),
    )
}

#[cfg(test)]
mod tests;
