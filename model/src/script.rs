//! A script of the user's: what a host is ordered to run, and what it printed there.
//!
//! In: a file's text, values; pieces of output. Out: the same, as values. Never: a judgement of what the script does (the
//! host's policy has that), or more output than the bound.

use crate::format::script_output::{OutputReader, ScriptOutput};
use crate::profile::Measure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Largest script that is ordered, with its modules, in bytes: an order is one message of at most 4 MiB.
pub const SCRIPT_BYTES_MAX: usize = 1 << 20;
/// Most values that are given to one.
pub const ARGUMENTS_MAX: usize = 64;
/// Most modules of one.
pub const MODULES_MAX: usize = 256;
/// Longest name of a module, in bytes: it becomes a file's.
const MODULE_NAME_BYTES_MAX: usize = 128;
/// Most that is kept of what it prints on one host, in bytes: it stands in the run's record.
pub const PRINTED_BYTES_MAX: usize = 256 << 10;
/// Most pieces of it.
pub const PIECES_MAX: usize = 8_192;

/// A script and the values of its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The file's name, for people.
    pub file: String,
    /// The script, as it was written.
    pub text: String,
    /// Values of `$^arg_NAME`, by NAME.
    pub arguments: BTreeMap<String, String>,
    /// The modules that it takes in, and those that these do, by the names of their `@use`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub modules: BTreeMap<String, ScriptModule>,
    /// What the count behind a stack that it prints is of.
    #[serde(default)]
    pub stack_unit: StackUnit,
}

impl Script {
    /// Whether it takes, names or prints stacks: whether a line that it prints may be a frame, and whether a module needs
    /// unwind data of its target.
    #[must_use]
    pub fn takes_stacks(&self) -> bool {
        let modules = self.modules.values().map(|module| &module.text);
        let mut texts = std::iter::once(&self.text).chain(modules);
        // backtrace, print_ustack, sprint_syms, usymname, luajit_debug_dumpstack …
        let words = ["trace", "stack", "sym"];
        texts.any(|text| words.iter().any(|word| text.contains(word)))
    }
}

/// What the counts of stacks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StackUnit {
    /// How often the stack was seen.
    #[default]
    Samples,
    /// Nanoseconds.
    Ns,
    /// Microseconds, which become nanoseconds.
    Us,
    /// Milliseconds, which become nanoseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// A sum of something that the script does not tell.
    Sum,
}

impl StackUnit {
    const WORDS: [(Self, &str); 6] = [
        (Self::Samples, "samples"),
        (Self::Ns, "ns"),
        (Self::Us, "us"),
        (Self::Ms, "ms"),
        (Self::Bytes, "bytes"),
        (Self::Sum, "sum"),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }

    /// What a profile of such stacks measures.
    #[must_use]
    pub fn measure(self) -> Measure {
        match self {
            Self::Samples => Measure::new("samples", "count"),
            Self::Ns | Self::Us | Self::Ms => Measure::new("time", "ns"),
            Self::Bytes => Measure::new("space", "bytes"),
            Self::Sum => Measure::new("sum", "count"),
        }
    }

    /// How much of the measure one of it is.
    #[must_use]
    pub fn scale(self) -> u64 {
        match self {
            Self::Us => 1_000,
            Self::Ms => 1_000_000,
            _ => 1,
        }
    }
}

impl FromStr for StackUnit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::WORDS.iter().find(|(_, word)| *word == text);
        known.map(|(unit, _)| *unit).ok_or_else(|| {
            let words = Self::WORDS.map(|(_, word)| word).join(", ");
            format!("{text:?} is no unit of stacks; use one of: {words}")
        })
    }
}

/// A file that a script takes in by `@use`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptModule {
    /// Its path where it was found, for people.
    pub file: String,
    /// The module, as it was written.
    pub text: String,
}

/// Whether a text can be the name of a module: words of letters, digits and underscores with dots between.
#[must_use]
pub fn is_module_name(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_word);
    name.len() <= MODULE_NAME_BYTES_MAX && name.split('.').all(is_word)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The modules that a script or module names by `@use a.b[, c]`, in order. As stap++ has it, comments are no exception.
#[must_use]
pub fn used_modules(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        for (at, opening) in line.match_indices("@use") {
            let list = &line[at + opening.len()..];
            if !list.starts_with(|c: char| c.is_ascii_whitespace() || c == '\x0b') {
                continue;
            }
            for part in list.split(',') {
                let part =
                    part.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
                let end = part.bytes().position(|b| !is_word(b) && b != b'.');
                let (name, behind) = part.split_at(end.unwrap_or(part.len()));
                // A dot that no word follows is not the name's.
                let whole = name
                    .split("..")
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches('.');
                if !is_module_name(whole) {
                    break;
                }
                names.push(whole.to_owned());
                let is_list = whole.len() == name.len()
                    && behind
                        .chars()
                        .all(|c| c.is_ascii_whitespace() || c == '\x0b');
                if !is_list {
                    break;
                }
            }
        }
    }
    names
}

/// A piece of output: whole lines, but for the last piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Milliseconds since the capture's start.
    pub at_ms: u64,
    /// The lines.
    pub text: String,
}

/// Takes what a script prints, while it comes.
#[derive(Clone, Debug, Default)]
pub struct PrintedReader {
    pieces: Vec<Printed>,
    line: Vec<u8>,
    kept: usize,
    dropped: u64,
}

impl PrintedReader {
    /// The next bytes.
    pub fn feed(&mut self, bytes: &[u8], at_ms: u64) {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|b| *b == b'\n') {
            let rest = self.line.split_off(end + 1);
            let lines = std::mem::replace(&mut self.line, rest);
            self.keep(&lines, at_ms);
        } else if self.line.len() > PRINTED_BYTES_MAX {
            let line = std::mem::take(&mut self.line);
            self.keep(&line, at_ms);
        }
    }

    /// All of it, and how many bytes were beyond the bound.
    #[must_use]
    pub fn end(mut self, at_ms: u64) -> (Vec<Printed>, u64) {
        let line = std::mem::take(&mut self.line);
        self.keep(&line, at_ms);
        (self.pieces, self.dropped)
    }

    fn keep(&mut self, bytes: &[u8], at_ms: u64) {
        let mut room = PRINTED_BYTES_MAX.saturating_sub(self.kept);
        if self.pieces.len() >= PIECES_MAX && self.pieces.last().is_some_and(|p| p.at_ms != at_ms) {
            room = 0;
        }
        let (bytes, beyond) = bytes.split_at(bytes.len().min(room));
        self.dropped = self.dropped.saturating_add(beyond.len() as u64);
        self.kept += bytes.len();
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        match self.pieces.last_mut() {
            Some(last) if last.at_ms == at_ms => last.text.push_str(&text),
            _ => self.pieces.push(Printed {
                at_ms,
                text: text.into_owned(),
            }),
        }
    }
}

/// What one host printed, told apart.
#[must_use]
pub fn output_of(pieces: &[Printed]) -> ScriptOutput {
    let mut reader = OutputReader::default();
    for piece in pieces {
        reader.feed(piece.text.as_bytes(), piece.at_ms);
    }
    reader.end(pieces.last().map_or(0, |piece| piece.at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_by_use() {
        let names = |text: &str| used_modules(text).join(" ");
        assert_eq!(
            names("@use a.b, c ,d\n# @use e\nprobe x {} @use f"),
            "a.b c d e f"
        );
        assert_eq!(
            names("@use a b, c\n@user d\n@use\n@use .a\n@use a..b, c"),
            "a a"
        );
        assert_eq!(names("@use a., b\n@use c, @use d"), "a c d");
        for odd in ["", ".", "a..b", "a/b", "../a", "\u{e9}", &"a".repeat(200)] {
            assert!(!is_module_name(odd), "{odd}");
        }
    }

    #[test]
    fn units_have_words_and_times_are_nanoseconds() {
        for (unit, word) in StackUnit::WORDS {
            assert_eq!((unit.word(), word.parse()), (word, Ok(unit)));
        }
        assert!("kg".parse::<StackUnit>().is_err());
        assert_eq!(StackUnit::Us.measure(), StackUnit::Ns.measure());
        assert_eq!(StackUnit::Ms.scale(), 1_000_000);
        let mut script = Script::default();
        assert!(!script.takes_stacks());
        script.text.push_str("probe x { print_ustack(s) }");
        assert!(script.takes_stacks());
    }

    #[test]
    fn lines_stay_whole_with_the_time_of_their_end() {
        let mut reader = PrintedReader::default();
        reader.feed(b"a\nb", 1);
        reader.feed("\u{e9}".as_bytes().split_at(1).0, 2);
        reader.feed("\u{e9}".as_bytes().split_at(1).1, 3);
        reader.feed(b"\nc\nd", 4);
        let (pieces, dropped) = reader.end(9);
        let told: Vec<(u64, &str)> = pieces.iter().map(|p| (p.at_ms, p.text.as_str())).collect();
        assert_eq!(told, [(1, "a\n"), (4, "b\u{e9}\nc\n"), (9, "d")]);
        assert_eq!(dropped, 0);
        assert_eq!(output_of(&pieces).parts.len(), 4);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut reader = PrintedReader::default();
        for at_ms in 0..40_000 {
            reader.feed(b"0123456789abcdef\n", at_ms);
        }
        reader.feed(&vec![b'x'; 2 * PRINTED_BYTES_MAX], 50_000);
        let (pieces, dropped) = reader.end(50_001);
        let kept: usize = pieces.iter().map(|p| p.text.len()).sum();
        assert!(pieces.len() <= PIECES_MAX && kept <= PRINTED_BYTES_MAX);
        assert_eq!(
            kept as u64 + dropped,
            40_000 * 17 + 2 * PRINTED_BYTES_MAX as u64
        );
    }
}
