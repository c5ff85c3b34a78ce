//! Lines of stacks: frames of every shape that SystemTap and lj-lua-stacks print, and counts.
//!
//! In: one line. Out: its parts. Never: a guess at a line of another shape; time that grows faster
//! than the line.

use crate::format::source::CodePlace;
use crate::profile::FrameKind;

/// Brackets that are looked at from the end of a line.
const BRACKETS_MAX: usize = 8;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) struct FrameText<'a> {
    pub kind: FrameKind,
    /// The function; empty where SystemTap has none.
    pub name: &'a [u8],
    /// The module as the model names it: a path, `vmlinux` for the kernel, or nothing.
    pub module: &'a [u8],
    /// Hex digits of the address in the module, of frames without a name.
    pub offset: &'a [u8],
    /// SystemTap found the address on the stack without knowing that it returns there.
    pub inexact: bool,
}

impl<'a> FrameText<'a> {
    #[inline]
    pub(in crate::format) fn named(kind: FrameKind, name: &'a [u8], module: &'a [u8]) -> Self {
        Self {
            kind,
            name,
            module,
            offset: b"",
            inexact: false,
        }
    }

    /// A frame of which nothing but its address is known.
    pub(in crate::format) fn at(address: &'a [u8]) -> Self {
        Self::named(kind_of(address, b""), b"", b"")
    }
}

/// The usual shape, and no other: ` 0xADDR : NAME+0xOFF/0xSIZE [MODULE]`.
#[inline]
pub(super) fn usual(line: &[u8]) -> Option<FrameText<'_>> {
    let [b' ', b'0', b'x', rest @ .., b']'] = line else {
        return None;
    };
    let digits = memchr::memchr(b' ', rest)?;
    let (address, rest) = rest.split_at(digits);
    let body = rest.strip_prefix(b" : ")?;
    let open = memchr::memrchr(b'[', body)?;
    let (symbol, module) = (body[..open].strip_suffix(b" ")?, &body[open + 1..]);
    let name = without_offset(symbol)?;
    if name.is_empty() || !is_hex_number(address) {
        return None;
    }
    let kind = kind_of(address, module);
    Some(FrameText::named(kind, name, module_of(kind, module)))
}

/// The digits of a line that is a tab and a number, and whether it is below zero.
#[inline]
pub(in crate::format) fn count(line: &[u8]) -> Option<(&[u8], bool)> {
    let (digits, negative) = match line {
        [b'\t', b'-', digits @ ..] => (digits, true),
        [b'\t', digits @ ..] => (digits, false),
        _ => return None,
    };
    is_number(digits).then_some((digits, negative))
}

/// A frame of any shape:
///
/// ```text
///  0xADDR : NAME+0xOFF/0xSIZE at FILE:LINE [MODULE] (inexact)      and with any of the last four left out
///  0xADDR : 0xADDR [MODULE+0xOFF/0xSIZE]                           print_usyms of an address without symbol
///  0xADDR [MODULE+0xOFF/0xSIZE]
///  0xADDR
/// NAME+0xOFF/0xSIZE [MODULE]                                       the brief forms
/// ```
pub(super) fn any(line: &[u8]) -> Option<FrameText<'_>> {
    let text = line.trim_ascii();
    let (text, inexact) = match text.strip_suffix(b" (inexact)") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let frame = match address(text) {
        Some((digits, b"")) => FrameText::at(digits),
        Some((digits, rest)) => match rest.strip_prefix(b" : ") {
            Some(symbol) => symbol_of(symbol, digits)?,
            None => in_module(rest, digits)?,
        },
        None => brief(text)?,
    };
    Some(FrameText { inexact, ..frame })
}

/// `0xADDR` at the beginning, and what follows it: nothing, or something after a blank.
fn address(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(b"0x")?;
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    is_hex_number(digits).then_some((digits, rest))
}

/// What follows ` : `. An address before it makes it a frame even where it has no offset.
fn symbol_of<'a>(symbol: &'a [u8], digits: &'a [u8]) -> Option<FrameText<'a>> {
    if let Some((again, rest)) = address(symbol) {
        return if rest.is_empty() {
            Some(FrameText::at(again))
        } else {
            in_module(rest, again)
        };
    }
    let (symbol, module) = split_module(symbol);
    let name = without_offset(without_source(symbol)).unwrap_or(symbol);
    if name.trim_ascii().is_empty() {
        return None;
    }
    let kind = kind_of(digits, module);
    Some(FrameText::named(kind, name, module_of(kind, module)))
}

/// ` [MODULE+0xOFF/0xSIZE]`, and perhaps ` at FILE:LINE` behind it.
fn in_module<'a>(rest: &'a [u8], digits: &'a [u8]) -> Option<FrameText<'a>> {
    let inner = rest.strip_prefix(b" [")?;
    let close = memchr::memrchr(b']', inner)?;
    let after = &inner[close + 1..];
    if !after.is_empty() && !after.starts_with(b" at ") {
        return None;
    }
    let (module, offset) = split_offset(&inner[..close])?;
    let kind = kind_of(digits, module);
    Some(FrameText {
        offset,
        ..FrameText::named(kind, b"", module_of(kind, module))
    })
}

/// `NAME+0xOFF`, `NAME+0xOFF [MODULE]`, `NAME+0xOFF/0xSIZE [MODULE]`: without an address only a name
/// that looks like one is taken. Blanks are in the arguments of C++ functions.
fn brief(text: &[u8]) -> Option<FrameText<'_>> {
    let (symbol, module) = split_module(text);
    let name = without_offset(without_source(symbol))?;
    let plain = memchr::memchr3(b' ', b'(', b'<', name).is_none_or(|at| name[at] != b' ');
    if name.is_empty() || !plain || name.starts_with(b"0x") {
        return None;
    }
    let kind = kind_of(b"", module);
    Some(FrameText::named(kind, name, module_of(kind, module)))
}

/// A text, and the module in brackets at its end; empty where it has none. Of several brackets the
/// one is the module's that follows an offset.
fn split_module(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(inner) = text.strip_suffix(b"]") else {
        return (text, b"");
    };
    let opens = memchr::memmem::rfind_iter(inner, b" [");
    let of = |open: usize| (&inner[..open], &inner[open + 2..]);
    let after_offset = opens
        .take(BRACKETS_MAX)
        .find(|open| without_offset(without_source(&inner[..*open])).is_some());
    let last = || memchr::memmem::rfind(inner, b" [");
    after_offset.or_else(last).map_or((text, &b""[..]), of)
}

/// `NAME+0xOFF/0xSIZE` of `NAME+0xOFF/0xSIZE at FILE:LINE`.
fn without_source(symbol: &[u8]) -> &[u8] {
    match memchr::memmem::find(symbol, b" at ") {
        Some(at) if without_offset(&symbol[..at]).is_some() => &symbol[..at],
        _ => symbol,
    }
}

/// What stands before `+0xOFF/0xSIZE` or `+0xOFF` at the end; none without one.
#[inline]
fn without_offset(symbol: &[u8]) -> Option<&[u8]> {
    split_offset(symbol).map(|(name, _)| name)
}

/// What stands before `+0xOFF/0xSIZE` or `+0xOFF` at the end, and the digits of OFF.
#[inline]
fn split_offset(symbol: &[u8]) -> Option<(&[u8], &[u8])> {
    // The last sixteen bytes at once: how long the numbers are cannot be foreseen, and a branch that
    // goes wrong costs more than all of them.
    if let Some((before, tail)) = symbol.split_last_chunk::<16>() {
        let mask = (0..16).fold(0_u16, |mask, i| mask | u16::from(is_hex(tail[i])) << i);
        let size = mask.leading_ones() as usize;
        let offset = if size < 13 {
            (mask << (size + 3)).leading_ones() as usize
        } else {
            0
        };
        let from = 16_usize.wrapping_sub(size + offset + 6);
        if size > 0
            && offset > 0
            && from < 16
            && tail[16 - size - 3..][..3] == *b"/0x"
            && tail[from..][..3] == *b"+0x"
        {
            let name = before.len() + from;
            return Some((&symbol[..name], &symbol[name + 3..][..offset]));
        }
    }
    split_offset_of_any_length(symbol)
}

#[inline(never)]
fn split_offset_of_any_length(symbol: &[u8]) -> Option<(&[u8], &[u8])> {
    let plus = memchr::memrchr(b'+', symbol)?;
    let numbers = symbol[plus + 1..].strip_prefix(b"0x")?;
    let offset = match memchr::memchr(b'/', numbers) {
        Some(at) => {
            // SystemTap prints a size of nothing as 0x0 or as 0.
            let size = &numbers[at + 1..];
            if !is_hex_number(size.strip_prefix(b"0x").unwrap_or(size)) {
                return None;
            }
            &numbers[..at]
        }
        None => numbers,
    };
    is_hex_number(offset).then_some((&symbol[..plus], offset))
}

/// Where the code of a frame lies, by the line that it was read from.
pub(super) fn place<'a>(line: &'a [u8], text: &FrameText<'a>) -> CodePlace<'a> {
    let own = line.trim_ascii();
    let address = address(own).and_then(|(digits, _)| hex(digits));
    let place = CodePlace {
        module: text.module,
        symbol: text.name,
        address,
        ..CodePlace::default()
    };
    // `+0xOFF/0xSIZE` stands right behind the name, or behind the module where there is none.
    let part = if text.name.is_empty() {
        text.module
    } else {
        text.name
    };
    let begin = part.as_ptr().addr().wrapping_sub(line.as_ptr().addr());
    let behind = (!part.is_empty())
        .then(|| line.get(begin.wrapping_add(part.len())..))
        .flatten();
    let Some(numbers) = behind.and_then(|rest| rest.strip_prefix(b"+0x")) else {
        return place;
    };
    let (offset, rest) = hex_digits(numbers);
    let size = rest.strip_prefix(b"/").and_then(|size| {
        let digits = size.strip_prefix(b"0x").unwrap_or(size);
        hex(hex_digits(digits).0)
    });
    match hex(offset) {
        Some(offset) if text.name.is_empty() => CodePlace {
            mapped: Some((offset, size)),
            ..place
        },
        offset => CodePlace {
            offset,
            size,
            ..place
        },
    }
}

/// The hex digits that a text begins with, and the rest.
fn hex_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !is_hex(*b)).unwrap_or(text.len());
    text.split_at(end)
}

/// Where a frame runs. The upper half of the addresses is the kernel's (Linux on x86-64 and arm64).
#[inline]
fn kind_of(address: &[u8], module: &[u8]) -> FrameKind {
    let upper = address.len() == 16 && address.starts_with(b"ffff") && address[4] >= b'8';
    if upper || module == b"kernel" {
        FrameKind::Kernel
    } else {
        FrameKind::User
    }
}

/// The module's name as the model has it, so that hosts and engines merge.
#[inline]
fn module_of(kind: FrameKind, module: &[u8]) -> &[u8] {
    match kind {
        FrameKind::Kernel if module == b"kernel" => b"vmlinux",
        _ => module,
    }
}

/// A frame of a Lua stack:
///
/// ```text
/// @PATH:LINE  =CHUNK:LINE  PATH:LINE  T:PATH:LINE     T: is where a compiled trace starts
/// MODULE:FUNCTION                                     as fix-lua-bt rewrites the first
/// C:SYMBOL  C:0xADDR  builtin#N  [tail]
/// ```
pub(super) fn lua(line: &[u8]) -> Option<FrameText<'_>> {
    if line == b"[tail]" {
        return Some(FrameText::named(FrameKind::Lua, line, b""));
    }
    if let Some(number) = line.strip_prefix(b"builtin#") {
        return is_number(number).then(|| FrameText::named(FrameKind::Lua, line, b""));
    }
    if let Some(symbol) = line.strip_prefix(b"C:") {
        if let Some(digits) = symbol.strip_prefix(b"0x") {
            return is_hex_number(digits).then(|| FrameText::at(digits));
        }
        return is_symbol(symbol).then(|| FrameText::named(FrameKind::User, symbol, b""));
    }
    let (text, kind) = match line.strip_prefix(b"T:") {
        Some(text) => (text, FrameKind::Jit),
        None => (line, FrameKind::Lua),
    };
    let (path, marked) = match text {
        [b'@' | b'=', path @ ..] => (path, true),
        _ => (text, false),
    };
    let colon = memchr::memrchr(b':', path)?;
    let (chunk, place) = (&path[..colon], &path[colon + 1..]);
    let known = if is_number(place) {
        // A mark says that it is a chunk's name, which may be any text.
        !chunk.is_empty() && (marked || is_path(chunk))
    } else {
        is_path(chunk) && !chunk.contains(&b'/') && is_symbol(place)
    };
    known.then(|| FrameText::named(kind, path, b""))
}

/// Whether it could be a path or the name of a chunk, such as `access_by_lua(nginx.conf:12)`:
/// neither a blank nor two colons in it, and a letter or a slash first.
fn is_path(text: &[u8]) -> bool {
    let begins = text
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'/' | b'.' | b'_'));
    let known = text.iter().all(|b| {
        b.is_ascii_alphanumeric() || b"_./-+~@%()".contains(b) || *b >= 0x80 || *b == b':'
    });
    let colons = memchr::memchr_iter(b':', text).count();
    begins && known && (colons == 0 || (colons == 1 && text.ends_with(b")")))
}

/// Whether it could be the name of a C function, alone on its line.
pub(in crate::format) fn is_symbol(text: &[u8]) -> bool {
    let begins = text
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    begins
        && text.len() < 256
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.@$".contains(b))
}

/// Addresses and count of `0xADDR 0xADDR \tCOUNT`: a script that prints `ubacktrace()` as it is.
pub(in crate::format) fn raw(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = memchr::memrchr(b'\t', line)?;
    let (addresses, count) = (&line[..tab], &line[tab + 1..]);
    let mut words = addresses.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let known = words.clone().next().is_some()
        && words.all(|w| w.strip_prefix(b"0x").is_some_and(is_hex_number));
    (known && is_number(count)).then_some((addresses, count))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Without branches, other than the one in `core`.
#[inline]
fn is_hex(byte: u8) -> bool {
    (byte.wrapping_sub(b'0') <= 9) | ((byte | 0x20).wrapping_sub(b'a') <= 5)
}

/// One to 16 hex digits. Without a branch for each of them.
#[inline]
fn is_hex_number(text: &[u8]) -> bool {
    (1..=16).contains(&text.len()) && text.iter().fold(true, |all, b| all & is_hex(*b))
}

/// A number in hex digits.
pub(in crate::format) fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
