//! What was read of an input, and what of it was no stack.
//!
//! In: counts and lines from readers. Out: numbers and a few examples. Never: more than a few
//! hundred bytes of the input kept.

use crate::format::source::SourceStats;
use serde::Serialize;
use std::collections::BTreeMap;

/// Examples kept of each kind of foreign line.
const EXAMPLES_MAX: usize = 3;
/// Characters kept of an example.
const EXAMPLE_CHARS_MAX: usize = 100;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportStats {
    /// Bytes of the input.
    pub bytes: u64,
    /// Bytes after unpacking; the same where the input is not packed.
    pub unpacked_bytes: u64,
    /// Lines, of formats that have them.
    pub lines: u64,
    /// Stacks as they stand in the input, equal ones counted each time.
    pub stacks: u64,
    /// Sum of the first measure.
    pub samples: u64,
    /// Part of `samples` that was counted under `[pruned]` because a budget was full.
    pub pruned: u64,
    /// Part of `samples` that was counted under `[deeper]`.
    pub deeper: u64,
    /// Nodes of the call tree.
    pub nodes: usize,
    /// Distinct frames.
    pub frames: usize,
    /// Records that the tracer itself says it lost.
    pub lost_samples: u64,
    /// Samples of events that were left out, by the event's name.
    pub other_events: BTreeMap<String, u64>,
    /// What was no stack, by kind.
    pub foreign: Foreign,
    /// What weakens the result, each with how often: a truncated end, a count below zero …
    pub notes: BTreeMap<&'static str, u64>,
    /// How many frames got their source, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStats>,
}

impl ImportStats {
    /// Counts something that weakens the result. `what` is a phrase for people.
    pub fn note(&mut self, what: &'static str) {
        *self.notes.entry(what).or_default() += 1;
    }
}

/// Lines of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForeignLines {
    /// How many.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first few, with their line numbers, cut short.
    pub examples: Vec<String>,
}

/// Lines that are no part of a stack, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Foreign {
    kinds: BTreeMap<&'static str, ForeignLines>,
}

impl Foreign {
    /// Counts a line. `kind` is a phrase for people, such as `unwinder debug output`.
    pub fn add(&mut self, kind: &'static str, line: crate::format::lines::Line<'_>) {
        let lines = self.kinds.entry(kind).or_default();
        lines.lines += 1;
        lines.bytes += line.len as u64 + 1;
        if lines.examples.len() < EXAMPLES_MAX {
            let head = &line.bytes[..line.bytes.len().min(4 * EXAMPLE_CHARS_MAX)];
            let text = String::from_utf8_lossy(head).replace(char::is_control, " ");
            let text: String = text.trim().chars().take(EXAMPLE_CHARS_MAX).collect();
            lines.examples.push(format!("line {}: {text}", line.number));
        }
    }

    /// Counts lines of a kind of which examples are not wanted any more; `bytes` with their ends.
    pub fn add_many(&mut self, kind: &'static str, lines: u64, bytes: u64) {
        let all = self.kinds.entry(kind).or_default();
        all.lines += lines;
        all.bytes += bytes;
    }

    /// The kinds that were met.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &ForeignLines)> {
        self.kinds.iter().map(|(kind, lines)| (*kind, lines))
    }

    /// Lines of all kinds.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.kinds.values().map(|l| l.lines).sum()
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|l| l.bytes).sum()
    }
}
