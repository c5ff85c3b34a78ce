//! One capture's life on this host.
//!
//! ```text
//!   Arming ──► Armed ──► Running ──► Draining ──► Ended
//!      │         │          │            ▲
//!      └─────────┴── stop, lease, deadline, engine's end ──► (what is there is kept)
//! ```
//! In: commands of whichever connection is attached. Out: messages to it; and, when nobody comes
//! back within the lease, a file for `collect`. Never: waits for a connection while capturing.

mod budget;
mod command;
#[cfg(test)]
mod done_tests;
mod held;
#[cfg(test)]
mod last_moment_tests;
mod outbox;
mod run;
mod state;

pub use command::{Command, Event, ResumeAt, SessionHandle};
pub use held::HeldStore;
pub use run::Session;
