//! Which format an input is, by its beginning.
//!
//! In: the first bytes, unpacked. Out: a format and the reason for it in words, or an error that
//! says what the input looks like and what to do. Never: a guess without a reason.

use super::{Format, ImportError};
use crate::format::stap;
use serde::Serialize;

/// A format, and why it is that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detection {
    /// The format.
    pub format: Format,
    /// Why, in words that fit after "because".
    pub because: String,
}

impl Detection {
    /// The user said so.
    #[must_use]
    pub fn told(format: Format) -> Self {
        Self {
            format,
            because: "you said so".to_owned(),
        }
    }
}

/// What each line looks like is counted over this many lines.
const LINES_MAX: usize = 2_000;

/// What an input is by its first bytes; some 64 KiB of them are enough.
///
/// # Errors
/// [`ImportError::Unknown`], with what to do.
pub fn detect_text(head: &[u8]) -> Result<Detection, ImportError> {
    detect(head, false)
}

/// Decides. `packed` says that the input came as gzip.
pub(super) fn detect(head: &[u8], packed: bool) -> Result<Detection, ImportError> {
    let found = |format, because: &str| {
        Ok(Detection {
            format,
            because: because.to_owned(),
        })
    };
    if head.starts_with(b"ffz") {
        return found(Format::Ffz, "it begins with ffz");
    }
    if head.starts_with(b"PERFILE2") {
        return Err(ImportError::Unknown(
            "it is perf.data, which only perf can read; run `perf script -i FILE` on the machine it was \
             recorded on and give its output"
                .to_owned(),
        ));
    }
    let text = head
        .iter()
        .all(|b| *b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r' | 0x1b | 0x0c));
    if !text && looks_like_pprof(head) {
        let because = if packed {
            "it is gzip around protobuf fields of profile.proto"
        } else {
            "it begins with protobuf fields of profile.proto"
        };
        return found(Format::Pprof, because);
    }
    let seen = Seen::of(head);
    if let Some((format, because)) = seen.verdict() {
        return Ok(Detection { format, because });
    }
    if head.iter().all(u8::is_ascii_whitespace) {
        return found(Format::Folded, "it is empty");
    }
    let begins = head.trim_ascii_start();
    let what = if begins.starts_with(b"{") || begins.starts_with(b"[{") {
        "it looks like JSON, which cannot be read (speedscope and Chrome traces are output formats here)"
    } else if !text {
        "it is binary and neither pprof nor ffz"
    } else {
        "no line of its beginning is a stack in any known format"
    };
    let words: Vec<&str> = Format::ALL.iter().map(|f| f.word()).collect();
    Err(ImportError::Unknown(format!(
        "{what}; known are {}; where you know better, say --from FORMAT",
        words.join(", ")
    )))
}

/// Lines of each shape.
#[derive(Debug, Default)]
struct Seen {
    folded: usize,
    stap_frame: usize,
    stap_count: usize,
    stap_debug: usize,
    perf_header: usize,
    perf_frame: usize,
    bpftrace_open: usize,
    bpftrace_close: usize,
    dtrace_frame: usize,
    lone_count: usize,
    lines: usize,
}

impl Seen {
    fn of(head: &[u8]) -> Self {
        let mut seen = Self::default();
        let mut lines = head.split(|b| *b == b'\n').peekable();
        while let Some(line) = lines.next() {
            let last = lines.peek().is_none();
            if seen.lines >= LINES_MAX || (last && head.len() >= super::HEAD_BYTES) {
                break; // the last one is cut
            }
            seen.lines += 1;
            seen.line(line.strip_suffix(b"\r").unwrap_or(line));
        }
        seen
    }

    fn line(&mut self, line: &[u8]) {
        let indented = line.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        let body = line.trim_ascii();
        if body.is_empty() || body.starts_with(b"#") {
            return;
        }
        if stap::is_debug(line) {
            self.stap_debug += 1;
            return;
        }
        if body.starts_with(b"0x") && stap::is_raw(line) {
            self.stap_count += 1;
            return;
        }
        let number = body.strip_prefix(b"-").unwrap_or(body);
        if number.iter().all(u8::is_ascii_digit) && !number.is_empty() {
            if line.starts_with(b"\t") && line.len() == body.len() + 1 {
                self.stap_count += 1;
            }
            self.lone_count += usize::from(indented);
        } else if opens_map_entry(line) {
            self.bpftrace_open += 1;
        } else if body.starts_with(b"]: ") || body.starts_with(b", ") || body.starts_with(b")]: ") {
            self.bpftrace_close += 1;
        } else if line.starts_with(b" 0x") && is_stap_frame(&line[3..]) {
            self.stap_frame += 1;
        } else if indented && is_perf_frame(body) {
            self.perf_frame += 1;
        } else if body.ends_with(b":") && is_perf_header(body) {
            self.perf_header += 1;
        } else if indented && memchr::memchr(b'`', body).is_some() {
            self.dtrace_frame += 1;
        } else if is_folded(line) {
            self.folded += 1;
        }
    }

    fn verdict(&self) -> Option<(Format, String)> {
        let lines = self.lines;
        if self.bpftrace_open > 0 && self.bpftrace_close > 0 {
            let n = self.bpftrace_open;
            return Some((
                Format::Bpftrace,
                format!("{n} of its first {lines} lines open a map entry (`@[`)"),
            ));
        }
        if self.perf_frame > 0 && self.perf_header > 0 {
            let n = self.perf_header;
            return Some((
                Format::Perf,
                format!("{n} of its first {lines} lines are headers of perf samples"),
            ));
        }
        if self.stap_frame > 0 || self.stap_count > 0 {
            let (f, c) = (self.stap_frame, self.stap_count);
            return Some((
                Format::Stap,
                format!(
                    "of its first {lines} lines {f} are SystemTap frames and {c} are counts after a tab"
                ),
            ));
        }
        if self.stap_debug > 0 {
            let n = self.stap_debug;
            return Some((
                Format::Stap,
                format!("{n} of its first {lines} lines are debug output of SystemTap's runtime"),
            ));
        }
        if self.dtrace_frame > 0 && self.lone_count > 0 {
            let n = self.dtrace_frame;
            return Some((
                Format::Dtrace,
                format!("{n} of its first {lines} lines are module`function"),
            ));
        }
        (self.folded > 0).then(|| {
            let n = self.folded;
            (
                Format::Folded,
                format!("{n} of its first {lines} lines end in a blank and a number"),
            )
        })
    }
}

/// `@name[`, `@[comm, `: an entry of a map whose key goes on in the next line.
fn opens_map_entry(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"@") else {
        return false;
    };
    let name = rest
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_');
    rest.get(name.count()) == Some(&b'[') && memchr::memmem::find(rest, b"]: ").is_none()
}

/// After ` 0x`: hex digits, then nothing, ` : `, or ` [`.
fn is_stap_frame(rest: &[u8]) -> bool {
    let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let after = &rest[digits..];
    let begins = |text: &[u8]| after.starts_with(text);
    digits > 0 && (after.is_empty() || begins(b" : ") || begins(b" [") || begins(b" (inexact)"))
}

/// `ffffffff8103 do_idle+0x1a ([kernel.kallsyms])`.
fn is_perf_frame(body: &[u8]) -> bool {
    let digits = body.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    digits >= 2
        && body.get(digits) == Some(&b' ')
        && body.ends_with(b")")
        && memchr::memchr(b'(', body).is_some()
}

/// `nginx 1234/1234 [000] 12.345: 10101010 cpu-clock:`: a comm, a pid, and a number with a colon.
fn is_perf_header(body: &[u8]) -> bool {
    let words = body
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty());
    let mut numbers = 0;
    for word in words.skip(1) {
        let plain = word.strip_suffix(b":").unwrap_or(word);
        let digits = plain
            .iter()
            .all(|b| b.is_ascii_digit() || matches!(b, b'/' | b'.'));
        numbers += usize::from(digits && plain.first().is_some_and(u8::is_ascii_digit));
    }
    numbers > 0
}

fn is_folded(line: &[u8]) -> bool {
    line.iter().rposition(|b| *b == b' ').is_some_and(|at| {
        let count = &line[at + 1..];
        at > 0
            && !count.is_empty()
            && count.iter().all(|b| b.is_ascii_digit() || *b == b'.')
            && count[0].is_ascii_digit()
    })
}

/// Whether the first bytes are fields of `Profile` in profile.proto, each with the wire type that
/// it has there (<https://github.com/google/pprof/blob/main/proto/profile.proto>).
fn looks_like_pprof(head: &[u8]) -> bool {
    // Field 1 to 6 and 11 are length-delimited (or packed), 7 to 10, 12 and 14 are varints; Go
    // writes sample_type (1) first, others may begin with samples or the string table.
    head.first().is_some_and(|key| {
        let (field, wire) = (key >> 3, key & 7);
        matches!((field, wire), (1..=6 | 11 | 13, 2) | (7..=10 | 12 | 14, 0))
    })
}
