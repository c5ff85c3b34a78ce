//! The agent: obeys one coordinator at a time, within its own host's policy, and stops by itself
//! when it is left alone.
//!
//! > main → [`service`] hands an order to a [`session`] → an [`engine`] captures → the recorder
//! > folds → batches stream back.
//!
//! Never: trusts a coordinator beyond [`policy`]; builds a shell line; leaves something behind.

pub mod attach;
pub mod clock;
mod closed;
pub mod detached;
pub mod engine;
pub mod host;
pub mod listen;
pub mod policy;
pub mod process;
pub mod service;
pub mod session;
pub mod stapxx;
pub mod verb;
