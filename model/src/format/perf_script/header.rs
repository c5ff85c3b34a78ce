//! Lines that begin a sample: `COMM PID/TID [CPU] SECONDS.MICROS: PERIOD EVENT: TEXT`.
//!
//! In: one line. Out: its parts, and how sure it is that they are that. Never: a comm cut short: it
//! may hold blanks, digits, colons and parentheses, so it is what stands before the number that
//! stands before the time.

use super::frame;
use super::{FrameText, Header};

/// Longest beginning of a line that is searched for a time.
const SEARCH_BYTES_MAX: usize = 512;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A header; of a sample with one frame, where the frame stands on the same line.
    Sure(Header<'a>, Option<FrameText<'a>>),
    /// What follows the time begins with `PERF_RECORD_`.
    Record(&'a [u8]),
    /// A header if a frame follows, since nothing else could stand before one. With an event also
    /// if an empty line follows.
    Weak(Header<'a>),
    /// None of them.
    None,
}

/// A word and where it stands.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a [u8],
    start: usize,
}

fn word_at(line: &[u8], from: usize) -> Option<Word<'_>> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = from + line.get(from..)?.iter().position(|b| !blank(b))?;
    let len = line[start..].iter().position(blank);
    Some(Word {
        text: &line[start..len.map_or(line.len(), |len| start + len)],
        start,
    })
}

impl Word<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// Takes a line apart.
pub(super) fn parse(line: &[u8]) -> Parsed<'_> {
    let mut before: [Option<Word<'_>>; 3] = [None; 3]; // nearest first
    let mut lone = None;
    let mut at = 0;
    while let Some(word) = word_at(line, at) {
        at = word.end();
        if let Some(time) = time(word.text) {
            if before[0].is_none() {
                return timed(line, Header::default(), time, at);
            }
            if let Some(header) = owner(line, before) {
                return timed(line, header, time, at);
            }
            lone = lone.or(Some((word, time)));
        }
        before = [Some(word), before[0], before[1]];
        if at > SEARCH_BYTES_MAX {
            break;
        }
    }
    if let Some((word, time)) = lone {
        let comm = line[..word.start].trim_ascii();
        if let Parsed::Sure(mut header, None) = timed(line, Header::default(), time, word.end()) {
            header.comm = comm;
            return Parsed::Weak(header);
        }
    }
    untimed(line)
}

/// Comm, pid and tid by the words before the time: flags (`misc`), a cpu, and a number in this
/// order from the time to the left.
fn owner<'a>(line: &'a [u8], before: [Option<Word<'a>>; 3]) -> Option<Header<'a>> {
    let mut before = before.into_iter().flatten().peekable();
    before.next_if(|w| w.text.len() <= 6 && w.text.iter().all(u8::is_ascii_alphabetic));
    before.next_if(|w| is_cpu(w.text));
    let word = before.next()?;
    let (pid, tid) = ids(word.text)?;
    Some(Header {
        comm: line[..word.start].trim_ascii(),
        pid,
        tid,
        ..Header::default()
    })
}

/// What follows the time: a period or not, an event or not, a frame or text or nothing.
fn timed<'a>(line: &'a [u8], owner: Header<'a>, time_ns: Option<u64>, from: usize) -> Parsed<'a> {
    let mut header = Header { time_ns, ..owner };
    let rest = line[from..].trim_ascii();
    if rest.starts_with(b"PERF_RECORD_") {
        return Parsed::Record(rest);
    }
    let frame = after_time(rest, &mut header);
    Parsed::Sure(header, frame)
}

fn after_time<'a>(rest: &'a [u8], header: &mut Header<'a>) -> Option<FrameText<'a>> {
    let first = word_at(rest, 0)?;
    if let Some(event) = event(first.text) {
        header.event = event;
        return frame::anywhere(&rest[first.end()..]);
    }
    let period = number(first.text);
    let second = word_at(rest, first.end());
    if period.is_some()
        && let Some(second) = second
        && let Some(event) = event(second.text)
    {
        header.period = period;
        header.event = event;
        return frame::anywhere(&rest[second.end()..]);
    }
    if second.is_none() {
        header.period = period;
        return None;
    }
    let whole = frame::anywhere(rest);
    let behind = frame::anywhere(&rest[first.end()..]);
    // Both when the address is followed by a name that looks like one; an address that is also a
    // decimal number is rarer than a period.
    match (period, behind) {
        (Some(_), Some(frame)) => {
            header.period = period;
            Some(frame)
        }
        _ => whole,
    }
}

/// A header without a time: `COMM PID [CPU] PERIOD EVENT:`, each but one of them left out.
fn untimed(line: &[u8]) -> Parsed<'_> {
    if line.len() > SEARCH_BYTES_MAX {
        return Parsed::None;
    }
    if let Some(at) = memchr::memmem::find(line, b" PERF_RECORD_") {
        return Parsed::Record(&line[at + 1..]);
    }
    let mut words = [None; 4]; // the nearest first
    // What ends in a colon before the last word is part of a comm, if the last word is an event.
    let event_last = line.trim_ascii_end().ends_with(b":");
    let mut at = 0;
    while let Some(word) = word_at(line, at) {
        at = word.end();
        let last = word_at(line, at).is_none();
        let named = event(word.text).filter(|_| last || !event_last);
        if named.is_none() && !last {
            words = [Some(word), words[0], words[1], words[2]];
            continue;
        }
        let mut before = words.into_iter().flatten().peekable();
        let nearest = match named {
            Some(_) => before.next(),
            None => Some(word),
        };
        let frame = named.and_then(|_| frame::anywhere(&line[at..]));
        let mut header = if let Some(header) = numbered(line, nearest, &mut before) {
            header
        } else if last || frame.is_some() {
            // A comm alone, or nothing.
            let comm = nearest.map_or(&b""[..], |nearest| line[..nearest.end()].trim_ascii());
            Header {
                comm,
                ..Header::default()
            }
        } else {
            words = [Some(word), words[0], words[1], words[2]];
            continue; // a word of the comm that ends in a colon
        };
        header.event = named.unwrap_or_default();
        return match frame {
            Some(frame) => Parsed::Sure(header, Some(frame)),
            None => Parsed::Weak(header),
        };
    }
    Parsed::None
}

/// Ids and period by the words before the event.
fn numbered<'a>(
    line: &'a [u8],
    nearest: Option<Word<'a>>,
    before: &mut dyn Iterator<Item = Word<'a>>,
) -> Option<Header<'a>> {
    let mut word = nearest?;
    let mut next = before.next();
    let mut period = None;
    // perf prints a period in at least 10 columns and a blank.
    if let Some(previous) = next
        && word.end() - previous.end() >= 11
        && let Some(number) = number(word.text)
        && (ids(previous.text).is_some() || is_cpu(previous.text))
    {
        period = Some(number);
        word = previous;
        next = before.next();
    }
    if is_cpu(word.text)
        && let Some(previous) = next
    {
        word = previous;
    }
    let (pid, tid) = ids(word.text)?;
    Some(Header {
        comm: line[..word.start].trim_ascii(),
        pid,
        tid,
        period,
        ..Header::default()
    })
}

/// The event's name of `NAME:`. A name never begins with a digit.
fn event(word: &[u8]) -> Option<&[u8]> {
    let name = word.strip_suffix(b":")?;
    let first = name.first()?;
    (!first.is_ascii_digit() && *first != b'(').then_some(name)
}

/// `PID/TID` or `TID`; an id below zero is none.
fn ids(word: &[u8]) -> Option<(Option<u32>, Option<u32>)> {
    let id = |text: &[u8]| -> Option<Option<u32>> {
        match text.strip_prefix(b"-") {
            Some(digits) => number(digits).map(|_| None),
            None => number(text).map(|n| u32::try_from(n).ok()),
        }
    };
    match memchr::memchr(b'/', word) {
        Some(at) => Some((id(&word[..at])?, id(&word[at + 1..])?)),
        None => Some((None, id(word)?)),
    }
}

fn is_cpu(word: &[u8]) -> bool {
    word.strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .is_some_and(|digits| number(digits).is_some())
}

/// Decimal digits and nothing else; none beyond 64 bits.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `SECONDS.MICROS:` or `SECONDS.NANOS:` in nanoseconds. The inner value is none beyond 64 bits.
#[expect(
    clippy::option_option,
    reason = "no time, and a time too large, differ"
)]
fn time(word: &[u8]) -> Option<Option<u64>> {
    let word = word.strip_suffix(b":")?;
    let dot = memchr::memchr(b'.', word)?;
    let (seconds, fraction) = (&word[..dot], &word[dot + 1..]);
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(9 - u32::try_from(fraction.len()).unwrap_or(9));
    Some(number(seconds).and_then(|s| {
        s.checked_mul(1_000_000_000)?
            .checked_add(number(fraction)? * scale)
    }))
}
