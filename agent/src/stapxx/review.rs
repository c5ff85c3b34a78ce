//! What a script will do with processes, judged before anything is compiled.
//!
//! In: a script and its modules as written, and the processes it is meant for. Out: how many runs,
//! and findings. Never: a script changed: a test written for one process is run once for each.

use super::expand::Source;
use model::{Finding, FindingCode};

/// How a script keeps other processes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// By `$^pid_ok`: right for one process and for several.
    Processes,
    /// By `target()` or `$^target`: right for one process only.
    OneProcess,
    /// By another test of its own (`pid()`, `execname()` …).
    Own,
    /// Not at all.
    None,
}

/// How a script is run for several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// One run for all of them together (`--master`).
    Together,
    /// One run for each (`-x`). stap compiles once: the process is given when it is loaded.
    Each,
    /// One run, and the script itself says what it looks at.
    Once,
}

/// How a script keeps other processes out. Comments and strings do not count.
#[must_use]
pub fn filter_of(script: &[u8]) -> Filter {
    let code = code_of(script);
    let compared = |word: &str| {
        ["==", "!="].iter().any(|sign| {
            code.contains(&format!("{sign}{word}")) || code.contains(&format!("{word}{sign}"))
        })
    };
    // What is only printed or an array's key keeps nobody out.
    if compared("target()") || code.contains("=target()") || code.contains("$^target") {
        Filter::OneProcess
    } else if code.contains("$^pid_ok") {
        Filter::Processes
    } else if ["pid()", "execname()", "pgrp()"]
        .iter()
        .any(|w| compared(w))
        || code.contains("isinstr(execname()")
    {
        Filter::Own
    } else {
        Filter::None
    }
}

/// How a script and its modules keep other processes out, together: by the strictest of their tests.
#[must_use]
pub fn filter_of_all<'a>(sources: impl IntoIterator<Item = &'a [u8]>) -> Filter {
    let filters: Vec<Filter> = sources.into_iter().map(filter_of).collect();
    let order = [Filter::OneProcess, Filter::Processes, Filter::Own];
    let first = order.into_iter().find(|filter| filters.contains(filter));
    first.unwrap_or(Filter::None)
}

/// How a script is run for `processes` processes, and what the user must know of it beforehand.
#[must_use]
pub fn runs_for(file: &str, filter: Filter, processes: usize) -> (Runs, Vec<Finding>) {
    match filter {
        Filter::Processes if processes > 1 => (Runs::Together, Vec::new()),
        Filter::Processes | Filter::OneProcess if processes <= 1 => (Runs::Each, Vec::new()),
        Filter::Processes | Filter::OneProcess => {
            let said = format!(
                "{file} tests for target(), which is one process; \
                 for {processes} processes it takes a run for each"
            );
            let finding = Finding::new(FindingCode::ScriptPerProcess, said);
            (Runs::Each, vec![finding])
        }
        Filter::Own => (Runs::Once, Vec::new()),
        Filter::None => {
            let said = format!("{file} has neither $^pid_ok nor target() nor another test");
            let finding = Finding::new(FindingCode::ScriptUnfiltered, said);
            (Runs::Once, vec![finding])
        }
    }
}

/// The first line with `process($^target)`, from 1: a probe point that holds a process's number.
#[must_use]
pub fn line_of_process_number(script: &[u8]) -> Option<usize> {
    let mut lines = script.split(|b| *b == b'\n');
    let at = lines.position(|line| code_of(line).contains("process($^target"));
    at.map(|at| at + 1)
}

/// A script that cannot be expanded, as a finding.
#[must_use]
pub fn invalid(error: &super::notice::ExpandError) -> Finding {
    Finding::new(FindingCode::ScriptInvalid, error.to_string())
}

/// What a policy names a script by: BLAKE3 over the script and every module that it uses, as written.
/// Their file names do not count, the names of the modules do.
#[must_use]
pub fn script_hash<'a>(
    script: &[u8],
    modules: impl IntoIterator<Item = (&'a str, &'a Source)>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |name: &str, bytes: &[u8]| {
        for piece in [name.as_bytes(), bytes] {
            hasher.update(&(piece.len() as u64).to_le_bytes());
            hasher.update(piece);
        }
    };
    part("", script);
    let mut modules: Vec<(&str, &Source)> = modules.into_iter().collect();
    modules.sort_unstable_by_key(|(name, _)| *name);
    for (name, source) in modules {
        part(name, &source.bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// Code without blanks, comments (`#`, `//`, `/* */`) and strings.
fn code_of(script: &[u8]) -> String {
    let mut code = String::with_capacity(script.len());
    let mut rest = script;
    while let Some((&byte, behind)) = rest.split_first() {
        let skipped = match byte {
            b'#' => line_len(behind),
            b'/' if behind.first() == Some(&b'/') => line_len(behind),
            b'/' if behind.first() == Some(&b'*') => {
                let inside = &behind[1..];
                let end = inside.windows(2).position(|w| w == b"*/");
                end.map_or(behind.len(), |end| end + 3)
            }
            b'"' => string_len(behind),
            _ => {
                if !byte.is_ascii_whitespace() {
                    code.push(char::from(byte));
                }
                0
            }
        };
        rest = &behind[skipped..];
    }
    code
}

fn line_len(text: &[u8]) -> usize {
    text.iter().position(|b| *b == b'\n').unwrap_or(text.len())
}

/// Bytes of a string behind its opening quote, the closing one included; a line ends it too.
fn string_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            b'\n' => return at,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_seen_in_code_only() {
        for (script, filter) in [
            ("if ($^pid_ok) { }", Filter::Processes),
            ("if (pid() == target()) { }", Filter::OneProcess),
            ("if (pid () == target ( )) { }", Filter::OneProcess),
            ("p = pid(); if (p != target()) next", Filter::OneProcess),
            (
                "if ($^pid_ok) { printf(\"%d\", target()) }",
                Filter::Processes,
            ),
            ("begin[tid()] = pid(); println(target())", Filter::None),
            ("if (execname() == \"nginx\") { }", Filter::Own),
            (
                "# target()\n// $^pid_ok\n/* pid() */ printf(\"target() \\\" pid()\")",
                Filter::None,
            ),
            ("probe @pfunc(f) { a++ }", Filter::None),
            ("/*", Filter::None),
            ("\"\\", Filter::None),
        ] {
            assert_eq!(filter_of(script.as_bytes()), filter, "{script}");
        }
    }

    #[test]
    fn what_is_done_with_several_processes_is_said() {
        let codes = |filter, n| {
            let (runs, findings) = runs_for("a.sxx", filter, n);
            (runs, findings.first().map(|f| f.code))
        };
        assert_eq!(codes(Filter::Processes, 4), (Runs::Together, None));
        assert_eq!(codes(Filter::Processes, 1), (Runs::Each, None));
        assert_eq!(codes(Filter::OneProcess, 1), (Runs::Each, None));
        assert_eq!(
            codes(Filter::OneProcess, 4),
            (Runs::Each, Some(FindingCode::ScriptPerProcess))
        );
        assert_eq!(codes(Filter::Own, 4), (Runs::Once, None));
        assert_eq!(
            codes(Filter::None, 1),
            (Runs::Once, Some(FindingCode::ScriptUnfiltered))
        );
    }

    #[test]
    fn a_hash_covers_modules_and_their_names() {
        let module = |text: &str| Source {
            file: "x".into(),
            bytes: text.into(),
        };
        let (a, b) = (module("a"), module("b"));
        let hash = script_hash(b"s", [("m", &a), ("n", &b)]);
        assert_eq!(hash, script_hash(b"s", [("n", &b), ("m", &a)]));
        for other in [
            script_hash(b"s", [("m", &b), ("n", &a)]),
            script_hash(b"s", [("m", &a)]),
            script_hash(b"t", [("m", &a), ("n", &b)]),
        ] {
            assert_ne!(hash, other);
        }
        assert_eq!(hash.len(), 64);
    }
}
