//! One frame of bpftrace.
//!
//! In: a line of a stack. Out: its kind, name and module. Never: an address in a name.

use crate::profile::FrameKind;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameText<'a> {
    pub kind: FrameKind,
    pub name: &'a [u8],
    pub module: &'a [u8],
}

/// A frame of which nothing is known.
pub(super) fn unknown() -> FrameText<'static> {
    FrameText {
        kind: FrameKind::User,
        name: b"",
        module: b"",
    }
}

/// Parses a line. It is one of
///
/// ```text
///     NAME+OFFSET   [inlined] NAME@FILE:LINE   NAME+OFFSET@FILE:LINE   0xADDR     mode bpftrace
/// <tab>ADDR NAME+OFFSET (MODULE)   ADDR 0xADDR ([unknown])                        mode perf
/// ADDR   BUILDID 0xOFFSET                                                         modes raw, build_id
/// ```
pub(super) fn parse(line: &[u8]) -> FrameText<'_> {
    let text = line.trim_ascii();
    // Addresses stand alone, and in front of names where a tab says that the mode is perf.
    let space = memchr::memchr(b' ', text);
    let first = &text[..space.unwrap_or(text.len())];
    let indented = line.starts_with(b" ");
    let (address, rest) = if indented || !is_hex(first) {
        (&b""[..], text)
    } else {
        (first, space.map_or(&b""[..], |at| &text[at + 1..]))
    };
    let (symbol, module) = split_module(rest);
    let (symbol, inlined) = match symbol.strip_prefix(b"[inlined] ") {
        Some(symbol) => (symbol, true),
        None => (symbol, module == b"inlined"),
    };
    let bare = symbol.strip_prefix(b"0x").filter(|digits| is_hex(digits));
    let kernel = is_kernel(address) || bare.is_some_and(is_kernel);
    let kind = match (kernel, inlined) {
        (true, _) => FrameKind::Kernel,
        (_, true) => FrameKind::Inline,
        _ => FrameKind::User,
    };
    let module = match module {
        b"[unknown]" | b"inlined" | b"" if kernel && bare.is_none() && !symbol.is_empty() => {
            &b"vmlinux"[..]
        }
        b"[unknown]" | b"inlined" => b"",
        module => module,
    };
    let name = if bare.is_some() {
        b""
    } else {
        without_offset(symbol)
    };
    FrameText { kind, name, module }
}

/// A text, and what stands in parentheses at its end after a blank, if that is a path or says that
/// there is none: C++ names have parentheses too.
fn split_module(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(inner) = text.strip_suffix(b")") else {
        return (text, b"");
    };
    match memchr::memmem::rfind(inner, b" (") {
        Some(at) => (&inner[..at], &inner[at + 2..]),
        None => (text, b""),
    }
}

/// A name without `+12` or `+12@file.c:3` at its end, or `@file.c:3`.
fn without_offset(symbol: &[u8]) -> &[u8] {
    if let Some(plus) = memchr::memrchr(b'+', symbol) {
        let rest = &symbol[plus + 1..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 && matches!(rest.get(digits), None | Some(b'@')) {
            return &symbol[..plus];
        }
    }
    // `memcpy@@GLIBC_2.14` has no line.
    match memchr::memrchr(b'@', symbol) {
        Some(at) if at > 0 && ends_in_line(&symbol[at + 1..]) => &symbol[..at],
        _ => symbol,
    }
}

fn ends_in_line(source: &[u8]) -> bool {
    memchr::memrchr(b':', source).is_some_and(|colon| {
        let line = &source[colon + 1..];
        !line.is_empty() && line.iter().all(u8::is_ascii_digit)
    })
}

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit)
}

/// The upper half of the addresses.
fn is_kernel(address: &[u8]) -> bool {
    address.len() == 16 && address.starts_with(b"ffff") && address[4] >= b'8'
}
