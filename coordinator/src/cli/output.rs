//! What verbs say. In: data, talk, errors. Out: stdout, stderr, exit codes. Never: talk on stdout,
//! colour where it is not wanted, a panic because the reader went away.

use super::{FAILED, USAGE};
use crate::render::{findings_text, printable};
use crate::spec::SpecError;
use crate::store::StoreError;
use anyhow::Context as _;
use model::Finding;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

/// How a verb speaks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document on stdout.
    pub json: bool,
    quiet: bool,
}

/// A mistake of the user's, in words that say what would be right.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error for a mistake of the user's.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

impl Output {
    /// As asked for on the command line.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Writes data to stdout.
    pub fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .context("failed to write to stdout")
    }

    /// Writes one JSON document to stdout.
    pub fn document(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value).context("failed to write JSON")?;
        text.push('\n');
        self.data(&text)
    }

    /// Writes data to a file, or to stdout without one.
    pub fn data_to(&self, file: Option<&Path>, text: &str) -> anyhow::Result<()> {
        match file.filter(|f| *f != Path::new("-")) {
            None => self.data(text),
            Some(file) => std::fs::write(file, text)
                .with_context(|| format!("failed to write {}", file.display())),
        }
    }

    /// Says something to a person. A lost stderr is nobody's problem.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }

    /// Tells findings to a person.
    pub fn talk_findings(&self, findings: &[Finding]) {
        self.talk(&findings_text(findings));
    }

    /// Whether a person wants no talk.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether stdout takes bold text.
    pub fn bold(&self) -> bool {
        self.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
    }
}

/// Writes an error with all its causes to stderr.
pub fn complain(error: &anyhow::Error) {
    let mut text = String::from("fleetflame: ");
    for (i, cause) in error.chain().enumerate() {
        if i > 0 {
            text.push_str(": ");
        }
        let said = cause.to_string();
        let store = i == 0 && cause.is::<StoreError>();
        text.push_str(&format!(
            "{}{}",
            if store { "failed to " } else { "" },
            printable(&said)
        ));
    }
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The exit code for an error.
pub fn code_of(error: &anyhow::Error) -> u8 {
    let wrong_usage = error.chain().any(|cause| {
        let store = cause.downcast_ref::<StoreError>().is_some_and(|e| {
            use StoreError::{NotARun, Taken, Unknown};
            matches!(e, NotARun { .. } | Taken { .. } | Unknown { .. })
        });
        let absent = cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        cause.is::<Usage>() || cause.is::<SpecError>() || store || absent
    });
    if wrong_usage { USAGE } else { FAILED }
}

/// Whether the reader of stdout went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
