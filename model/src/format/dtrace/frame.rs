//! Lines of DTrace's stacks.
//!
//! In: a line without the blanks around it. Out: its parts. Never: an address in a name.

use crate::profile::FrameKind;

/// Modules that are the kernel itself, without which there is no kernel stack.
const KERNELS: [&[u8]; 5] = [b"unix", b"genunix", b"mach_kernel", b"kernel", b"vmlinux"];

/// ``MODULE`FUNCTION+0xOFF``, ``MODULE`0xADDR``, `0xADDR`.
pub(super) fn is_frame(text: &[u8]) -> bool {
    match memchr::memchr(b'`', text) {
        Some(at) => at > 0 && at + 1 < text.len() && !text[..at].contains(&b' '),
        None => is_address(text),
    }
}

fn is_address(text: &[u8]) -> bool {
    text.strip_prefix(b"0x").is_some_and(is_hex)
}

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit)
}

/// Whether only a kernel stack has this frame.
pub(super) fn is_kernel(text: &[u8]) -> bool {
    match memchr::memchr(b'`', text) {
        Some(at) => KERNELS.contains(&&text[..at]),
        // The upper half of the addresses.
        None => text.len() == 18 && text.starts_with(b"0xffff") && text[6] >= b'8',
    }
}

/// Name and module of a frame; the name is empty where there is only an address.
pub(super) fn parse(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(at) = memchr::memchr(b'`', text) else {
        return (b"", b"");
    };
    let (module, function) = (&text[..at], &text[at + 1..]);
    if is_address(function) {
        return (b"", module);
    }
    let name = match memchr::memrchr(b'+', function) {
        Some(plus) if is_address(&function[plus + 1..]) => &function[..plus],
        _ => function,
    };
    (name, module)
}

/// The module's name as the model has it. What is the kernel itself has one name everywhere.
pub(super) fn module_of(kind: FrameKind, module: &[u8]) -> &[u8] {
    match kind {
        FrameKind::Kernel if KERNELS.contains(&module) => b"vmlinux",
        _ => module,
    }
}

/// Keys, count and whether it is below zero, of a line that ends in a number.
pub(super) fn split_count(text: &[u8]) -> Option<(&[u8], u64, bool)> {
    let text = text.trim_ascii();
    let at = text
        .iter()
        .rposition(u8::is_ascii_whitespace)
        .map_or(0, |at| at + 1);
    let (number, negative) = match &text[at..] {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = std::str::from_utf8(number)
        .ok()?
        .parse()
        .unwrap_or(u64::MAX);
    Some((text[..at].trim_ascii(), count, negative))
}
