//! Between the model's values and the wire's messages, one file for each noun.
//!
//! In: either. Out: the other. Never: a value that the model would not take (texts from the wire
//! are parsed like texts from people).

pub mod finding;
mod host;
mod order;
mod stats;

/// A message does not hold what it must.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the peer sent a bad {what}: {why}")]
pub struct BadMessage {
    /// The field.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

pub(crate) fn bad(what: &'static str, why: impl std::fmt::Display) -> BadMessage {
    let why: String = why.to_string().chars().take(200).collect();
    BadMessage { what, why }
}

/// Parses a run id from the wire.
///
/// # Errors
/// [`BadMessage`] when it is none.
pub fn run_id(text: &str) -> Result<model::RunId, BadMessage> {
    model::RunId::parse(text).map_err(|e| bad("run id", e))
}
