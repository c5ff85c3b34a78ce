//! Transports: ways to open a link to an agent.
//!
//! In: where a host is reached. Out: links. Never: a word of the conversation itself.

pub mod bootstrap;
pub mod direct;
pub mod local;
pub mod pki;
pub mod ssh;

pub use direct::Direct;
pub use local::Local;
pub use ssh::Ssh;

use model::{Finding, FindingCode};
use proto::link::CoordinatorLink;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A future that a trait object can give.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What happens while a link is being opened, where that takes longer than a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What is being done.
    Step(&'static str),
    /// The agent is on its way.
    Sending {
        /// Bytes that have gone.
        sent_bytes: u64,
        /// Of so many.
        total_bytes: u64,
    },
    /// Something that weakens the result without preventing it.
    Noted(Finding),
}

/// A way to open a link. Tests put doubles behind it.
pub trait Connect: Send + Sync {
    /// Opens a link, once.
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>>;

    /// Whether a broken link can be replaced by a new one.
    fn can_reconnect(&self) -> bool;

    /// How long one try to open a new link after a broken one may take.
    fn patience(&self) -> Duration {
        Duration::from_millis(1_500)
    }

    /// Whether a silent link is kept while a new one is opened, and taken up again if it answers first.
    fn old_link_may_live(&self) -> bool {
        false
    }

    /// Whether the agent was only sent for this run: it cleans up when it is told to leave, and closes.
    fn agent_leaves(&self) -> bool {
        false
    }

    /// The news of this way, for whoever asks first.
    fn take_news(&self) -> Option<mpsc::Receiver<News>> {
        None
    }

    /// Waits for what this side has started (a child) to be gone, and ends it if it stays.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A way to open a link that is shared between tasks.
pub type Connector = Arc<dyn Connect>;

/// A finding about reaching a host.
fn unreachable(said: impl Into<String>) -> Finding {
    Finding::new(FindingCode::HostUnreachable, said)
}
