//! Transports: ways to open a link to an agent.
//!
//! In: where a host is reached. Out: links. Never: a word of the conversation itself.

pub mod direct;
pub mod local;
pub mod pki;

pub use direct::Direct;
pub use local::Local;

use model::{Finding, FindingCode};
use proto::link::CoordinatorLink;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A future that a trait object can give.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to open a link. Tests put doubles behind it.
pub trait Connect: Send + Sync {
    /// Opens a link, once.
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>>;

    /// Whether a broken link can be replaced by a new one.
    fn can_reconnect(&self) -> bool;

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
