//! Dispatch: gets orders to agents, starts them together, takes their batches in, and knows at
//! every moment where each host stands.
//!
//! ```text
//!  host task ──┐ HostEvent                      ┌── HostCommand ──► host task
//!  host task ──┼──────────────►  one loop  ─────┤
//!  host task ──┘                 (run.rs)       └── RunEvent ──► whoever watches
//! ```
//! In: a surveyed fleet, a plan. Out: coverage, and batches in the intake. Never: two owners of a
//! run's state: host tasks talk to one agent each and decide nothing.

mod account;
mod barrier;
mod canary;
mod clock_sync;
mod host;
mod ready;
mod relink;
mod run;
mod watch;

pub use clock_sync::{ClockEstimate, ClockSync};
pub use host::{HostCommand, HostEvent, HostTask, Said};
pub use run::{Captured, Dispatch, collect, dispatch};
pub use watch::{RunEvent, Watch};
