//! The fleet: who is there, and what can each host do.
//!
//! In: inventories; hosts and how they are reached. Out: their reports, and open conversations. Never: a wait
//! for the slowest host past the deadline.

pub mod inventory;
mod survey;

pub use survey::{Fleet, HostLine, survey};
