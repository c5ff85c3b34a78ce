//! What `stackcollapse-stap.pl` of FlameGraph writes for SystemTap's backtraces.
//!
//! In: pieces of the text. Out: folded lines in the script's order, byte for byte the same, faults
//! included: every line that is no bare number is a frame, a count below zero too; a frame ends at
//! its last `+`; a last stack without a count is dropped; a `%` is a directive of printf. Never:
//! unbounded memory: a stack of more than [`STACK_BYTES_MAX`], and every new one over
//! [`TEXT_BYTES_MAX`] of them, is counted in one line `[pruned]`, which the script does not have.
//!
//! Described after <https://github.com/brendangregg/FlameGraph> at 41fee1f and Perl 5.36. Not
//! imitated: the directives `%n` (the script dies) and `%p` (an address of Perl's own), which are
//! left as they stand, and widths beyond 65,535.

mod print;
#[cfg(test)]
mod tests;

use crate::format::lines::{Line, Lines};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Most bytes of different stacks that are kept: 1 GiB.
pub const TEXT_BYTES_MAX: usize = 1 << 30;
/// Most bytes of one stack.
const STACK_BYTES_MAX: usize = 16 << 20;
const PRUNED: &[u8] = b"[pruned]";

/// Reads text and imitates. See the module.
#[derive(Debug)]
pub struct CompatStap {
    lines: Lines,
    folding: Folding,
}

impl Default for CompatStap {
    fn default() -> Self {
        Self {
            lines: Lines::default(),
            folding: Folding::new(TEXT_BYTES_MAX),
        }
    }
}

/// What the script has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its standard output.
    pub text: Vec<u8>,
    /// How often it would warn (`Missing argument in printf`, `Invalid conversion in printf`).
    pub warnings: u64,
}

impl CompatStap {
    /// Takes the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        let folding = &mut self.folding;
        self.lines.feed(bytes, |line| folding.line(line));
    }

    /// The end of a file, with another to come: a line does not go on in the next file, a stack does.
    pub fn end_file(&mut self) {
        let folding = &mut self.folding;
        self.lines.end(|line| folding.line(line));
    }

    /// The end of the text: all lines, sorted by their stacks' bytes.
    #[must_use]
    pub fn finish(mut self) -> Written {
        self.end_file();
        let mut stacks: Vec<(&Vec<u8>, &Number)> = self.folding.counts.iter().collect();
        stacks.sort_unstable_by_key(|(stack, _)| *stack);
        let mut written = Written::default();
        let mut format = Vec::new();
        for (stack, count) in stacks {
            format.clear();
            format.extend_from_slice(stack);
            format.push(b' ');
            format.extend_from_slice(count.text().as_bytes());
            format.push(b'\n');
            written.warnings += print::print(&format, &mut written.text);
        }
        written
    }
}

/// A number as Perl keeps it: whole as long as 64 bits hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(u64),
    Float(f64),
}

impl Number {
    fn of(digits: &[u8]) -> Self {
        let text = std::str::from_utf8(digits).unwrap_or("0");
        text.parse()
            .map(Self::Whole)
            .unwrap_or_else(|_| Self::Float(text.parse().unwrap_or(f64::INFINITY)))
    }

    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) if a.checked_add(b).is_some() => Self::Whole(a + b),
            _ => Self::Float(self.float() + other.float()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Perl loses it as well")]
    fn float(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Float(n) => n,
        }
    }

    /// What `%.15g` prints. A float is never less than 2^64 here.
    fn text(self) -> String {
        match self {
            Self::Whole(n) => n.to_string(),
            Self::Float(n) if n.is_infinite() => "Inf".to_owned(),
            Self::Float(n) => {
                let text = format!("{n:.14e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let digits = digits.trim_end_matches('0').trim_end_matches('.');
                format!("{digits}e+{exponent:0>2}")
            }
        }
    }
}

/// The state that the script keeps from line to line.
#[derive(Debug)]
struct Folding {
    text_bytes_max: usize,
    /// Frames since the last count, leaf first, one behind the other, and where each ends.
    frames: Vec<u8>,
    ends: Vec<usize>,
    too_long: bool,
    counts: HashMap<Vec<u8>, Number, RandomState>,
    bytes: usize,
    key: Vec<u8>,
}

impl Folding {
    fn new(text_bytes_max: usize) -> Self {
        Self {
            text_bytes_max,
            frames: Vec::new(),
            ends: Vec::new(),
            too_long: false,
            counts: HashMap::default(),
            bytes: 0,
            key: Vec::new(),
        }
    }

    fn line(&mut self, line: Line<'_>) {
        if line.is_cut() {
            self.too_long = true;
        } else if line.len > line.bytes.len() {
            // The script keeps a carriage return: behind a number it makes it a frame.
            self.whole(&[line.bytes, b"\r"].concat());
        } else {
            self.whole(line.bytes);
        }
    }

    fn whole(&mut self, line: &[u8]) {
        let start = line.iter().position(|b| !is_space(*b));
        let Some(text) = start.map(|at| &line[at..]) else {
            return; // blank
        };
        if text.iter().all(u8::is_ascii_digit) {
            self.end(Number::of(text));
            return;
        }
        let frame = match memchr::memrchr(b'+', text) {
            Some(plus) => &text[..plus],
            None => text,
        };
        let frame = match memchr::memmem::rfind(frame, b" : ") {
            Some(at) => &frame[at + 3..],
            None => frame,
        };
        let frame = if frame.is_empty() { b"-" } else { frame };
        if self.frames.len() + frame.len() > STACK_BYTES_MAX || self.ends.len() > STACK_BYTES_MAX {
            self.too_long = true;
            return;
        }
        self.frames.extend_from_slice(frame);
        self.ends.push(self.frames.len());
    }

    /// A number alone on its line.
    fn end(&mut self, count: Number) {
        self.key.clear();
        if self.too_long {
            self.key.extend_from_slice(PRUNED);
        } else {
            for at in (0..self.ends.len()).rev() {
                let start = if at == 0 { 0 } else { self.ends[at - 1] };
                if at + 1 < self.ends.len() {
                    self.key.push(b';');
                }
                let frame = &self.frames[start..self.ends[at]];
                self.key.extend_from_slice(frame);
            }
        }
        self.frames.clear();
        self.ends.clear();
        self.too_long = false;
        if let Some(sum) = self.counts.get_mut(self.key.as_slice()) {
            *sum = sum.add(count);
            return;
        }
        if self.bytes + self.key.len() > self.text_bytes_max {
            self.key.clear();
            self.key.extend_from_slice(PRUNED);
        } else {
            self.bytes += self.key.len();
        }
        let sum = self.counts.entry_ref(self.key.as_slice());
        let sum = sum.or_insert(Number::Whole(0));
        *sum = sum.add(count);
    }
}

/// Whether `\s` matches, for bytes.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
