//! YAML. The only door to the YAML library.
//!
//! In: text from a person, hostile text too. Out: a job, or one error with its place. Never: more
//! than a bounded amount of work: the size, the depth, the number of nodes and aliases are limited.

use super::raw::{LabelledHost, RawFleet, RawJob};
use model::JobSpec;
use serde::de::DeserializeOwned;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_yaml::{Options, SnippetMode};
use std::fmt;

/// Largest job spec that is read.
pub const JOB_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a job spec, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The file's name, as the person gave it.
    pub source: String,
    /// Line from 1; none when it concerns the whole document.
    pub line: Option<u64>,
    /// Column from 1.
    pub column: Option<u64>,
    /// What is wrong and what would be accepted.
    pub message: String,
}

impl SpecError {
    /// An error about a line, or about the whole of `source`.
    #[must_use]
    pub fn new(source: &str, line: Option<u64>, message: impl Into<String>) -> Self {
        Self {
            source: source.to_owned(),
            line,
            column: line.map(|_| 1),
            message: message.into(),
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for SpecError {}

/// Reads a job spec. `source` is named in errors.
///
/// # Errors
/// [`SpecError`] with line and column.
pub fn read_job(bytes: &[u8], source: &str) -> Result<JobSpec, SpecError> {
    let raw: RawJob = read(bytes, source)?;
    raw.into_job().map_err(|message| whole(source, message))
}

/// Reads a fleet file: hosts with labels.
///
/// # Errors
/// [`SpecError`] with line and column.
pub fn read_fleet(bytes: &[u8], source: &str) -> Result<Vec<LabelledHost>, SpecError> {
    let raw: RawFleet = read(bytes, source)?;
    raw.into_hosts().map_err(|message| whole(source, message))
}

/// Reads any YAML document of a bounded size as a tree, for formats of others.
///
/// # Errors
/// [`SpecError`] with line and column.
pub fn read_tree<T: DeserializeOwned>(bytes: &[u8], source: &str) -> Result<T, SpecError> {
    read(bytes, source)
}

fn whole(source: &str, message: String) -> SpecError {
    SpecError::new(source, None, message)
}

fn read<T: DeserializeOwned>(bytes: &[u8], source: &str) -> Result<T, SpecError> {
    let whole = |message: String| whole(source, message);
    if bytes.len() > JOB_BYTES_MAX {
        return Err(whole(format!(
            "the file has {} bytes; at most {JOB_BYTES_MAX} are read",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count() as u64
            + 1;
        SpecError {
            line: Some(line),
            column: Some(1),
            ..whole("the file is not UTF-8 text".to_owned())
        }
    })?;
    if text.trim().is_empty() {
        return Err(whole(
            "the file is empty; `fleetflame example capture` prints one that works".to_owned(),
        ));
    }
    serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let place = error.location();
        SpecError {
            source: source.to_owned(),
            line: place.map(|p| p.line()),
            column: place.map(|p| p.column()),
            message: message(&error),
        }
    })
}

/// Strict where YAML is loose, and bounded: a job spec has some hundreds of nodes.
fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 100_000,
            max_nodes: 50_000,
            max_depth: 32,
            flow_nesting_limit: 32,
            max_aliases: 100,
            max_anchors: 100,
            max_documents: 1,
            max_recorded_anchor_events: 50_000,
            max_total_scalar_bytes: JOB_BYTES_MAX,
            max_merge_keys: 0,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 100,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        no_schema: false,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The library's words on one line, without the place, which stands before them, and without its
/// own options, which a person cannot set.
fn message(error: &serde_yaml::Error) -> String {
    let said = error
        .without_snippet()
        .render_with_options(serde_yaml::render_options! {
            snippets: SnippetMode::Off,
        });
    let said = said.replace(['\n', '\t'], " ");
    let said = said
        .rsplit_once(" at line ")
        .map_or(said.as_str(), |(said, _)| said);
    for (theirs, ours) in PLAIN_WORDS {
        if said.starts_with(theirs) {
            return (*ours).to_owned();
        }
    }
    let said = said
        .split(", set DuplicateKeyPolicy")
        .next()
        .unwrap_or(said);
    said.chars().take(400).collect()
}

/// The library's words for which a person needs better ones, by how they begin.
const PLAIN_WORDS: &[(&str, &str)] = &[
    ("invalid u", "a whole number is needed here, such as 99"),
    ("invalid i", "a whole number is needed here, such as 99"),
    ("invalid boolean", "write true or false"),
    ("expected string scalar", "a text is needed here"),
    (
        "expected mapping start",
        "key: value is needed here; `fleetflame example capture` prints a job that works",
    ),
    (
        "expected sequence start",
        "a list is needed here, such as [nginx]",
    ),
    (
        "YAML merge keys",
        "merge keys (<<) are not read; write the values out",
    ),
    ("recursion limit", "the document is nested too deeply"),
    (
        "budget breached: Documents",
        "a file holds one job; remove the second document (---)",
    ),
    ("budget breached", "the document is too large for a job"),
    (
        "alias replay",
        "the document repeats itself too often through aliases (*)",
    ),
];

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
