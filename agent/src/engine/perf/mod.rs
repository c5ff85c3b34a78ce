//! The system's own perf as an engine, where that is all that is allowed.
//!
//! ```text
//!  capture ──starts──▶ perf record ──pipe──▶ perf script ──pipe──▶ script (text) ──▶ recorder
//!     │ targets, counters, clock     ▲
//!     └──── enable, ping ── control ─┘
//! ```
//! In: an order. Out: stacks. Never: a file on the disk (a stack goes from the kernel's ring through
//! two pipes, so what is kept is bounded by them), a shell, or a perf that the policy did not list.
//!
//! `command` says what perf is asked, `script` reads its stacks, `diagnose` its complaints (all
//! three pure); `tool` finds it and tries it; `pipeline` holds one pair of processes; `sources`
//! is who is captured, by which pair; `capture` is a capture's life, `engine` the trait.

mod capture;
mod command;
mod diagnose;
mod engine;
mod pipeline;
mod script;
mod sources;
mod tool;

pub use engine::PerfEngine;
pub(super) use tool::survey;
