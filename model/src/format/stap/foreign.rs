//! What else stands in the output of SystemTap scripts.
//!
//! In: lines. Out: what those are that are neither frames nor counts, in words for people. Never:
//! a decision about what is a frame.

pub(super) const TOO_LONG: &str = "lines too long to be frames";
pub(super) const OTHER: &str = "lines that are neither frames nor counts";
pub(super) const DEBUG: &str =
    "debug output of SystemTap's runtime (run without -DDEBUG_UNWIND and its like)";
const MESSAGE: &str = "warnings and errors of SystemTap";
const REPORT: &str = "timing reports of stap -t";
const NO_STACK: &str = "places where SystemTap had no backtrace";

/// The kind of a line.
pub(super) fn kind(line: &[u8]) -> &'static str {
    // On a terminal the messages are coloured: ESC [ numbers letter.
    let mut text = line;
    while let Some(rest) = text.strip_prefix(b"\x1b[") {
        let letter = rest.iter().position(u8::is_ascii_alphabetic);
        text = letter.map_or(&b""[..], |at| &rest[at + 1..]);
    }
    let begins = |words: &[&[u8]]| words.iter().any(|w| text.starts_with(w));
    if begins(&[
        b"WARNING: ",
        b"ERROR: ",
        b"Pass ",
        b"semantic error",
        b"parse error",
    ]) {
        MESSAGE
    } else if begins(&[b"<no user backtrace", b"<no kernel backtrace"]) {
        NO_STACK
    } else if begins(&[
        b"----- probe hit report",
        b"----- refresh report",
        b"'__global_",
    ]) || (memchr::memmem::find(text, b", hits: ").is_some()
        && memchr::memmem::find(text, b", cycles: ").is_some())
    {
        REPORT
    } else {
        OTHER
    }
}

/// `unwind_frame:1207: …`: function and line of SystemTap's runtime, as its `_stp_dbug` prints them
/// into the data when it is built with `-DDEBUG_UNWIND` and the like.
#[inline]
pub(in crate::format) fn is_debug(line: &[u8]) -> bool {
    // No function of the runtime has a longer name.
    let head = &line[..line.len().min(64)];
    let Some(colon) = memchr::memchr(b':', head) else {
        return false;
    };
    let (function, rest) = (&line[..colon], &line[colon + 1..]);
    let word =
        |b: u8| ((b | 0x20).wrapping_sub(b'a') <= 25) | (b == b'_') | (b.wrapping_sub(b'0') <= 9);
    let digits = rest
        .iter()
        .take(6)
        .take_while(|b| b.is_ascii_digit())
        .count();
    (1..=5).contains(&digits)
        && rest[digits..].starts_with(b": ")
        && function.first().is_some_and(|b| !b.is_ascii_digit())
        && function.iter().fold(true, |all, b| all & word(*b))
}
