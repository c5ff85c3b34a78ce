//! Lines of frames: `\t ADDRESS NAME+0xOFFSET (MODULE)`.
//!
//! In: one line. Out: its parts, and what a module's name says about a frame. Never: a guess at a
//! line that has another shape.

use super::FrameText;
use crate::profile::FrameKind;

/// A frame in the shape that perf prints in a stack: a tab, the address in at least 16 columns, and
/// what follows it. The flag says whether it has a module in parentheses; without one
/// (`-F` without `dso`, and inlined functions with `srcline`) it has none.
#[inline]
pub(super) fn columns(line: &[u8]) -> Option<(FrameText<'_>, bool)> {
    let rest = line.strip_prefix(b"\t")?;
    let (address, rest) = match rest.split_first_chunk::<16>() {
        Some((field, rest @ [b' ', ..])) if is_address(field) => {
            let blanks = field.iter().filter(|b| **b == b' ').count();
            (&field[blanks..], rest)
        }
        _ => address(rest)?,
    };
    if rest.ends_with(b")")
        && let Some((name, module)) = split_module(rest)
    {
        return Some((text(address, name, module), true));
    }
    // Without a module only the columns tell a frame from another indented line.
    (line.len() - rest.len() >= 17).then(|| (text(address, without_cut_module(rest), b""), false))
}

/// ` NAME (MOD`, where the text was cut in the middle of the module: only the name is known.
fn without_cut_module(rest: &[u8]) -> &[u8] {
    match memchr::memmem::rfind(rest, b" (") {
        Some(open) if memchr::memchr(b')', &rest[open..]).is_none() => &rest[..open],
        _ => rest,
    }
}

/// A frame anywhere: blanks or none in front, and a module in parentheses at its end.
pub(super) fn anywhere(text_of: &[u8]) -> Option<FrameText<'_>> {
    let trimmed = text_of.trim_ascii();
    if !trimmed.ends_with(b")") {
        return None;
    }
    let (address, rest) = address(trimmed)?;
    let (name, module) = split_module(rest)?;
    Some(text(address, name, module))
}

/// Without branches, other than the one in `core`.
#[inline]
fn is_hex(byte: u8) -> bool {
    (byte.wrapping_sub(b'0') <= 9) | ((byte | 0x20).wrapping_sub(b'a') <= 5)
}

/// Whether a field is blanks, then hex digits to its end. Without a branch for each byte, so that
/// the compiler takes all of them at once.
#[inline]
fn is_address(field: &[u8; 16]) -> bool {
    let known = field
        .iter()
        .fold(true, |all, &b| all & (is_hex(b) | (b == b' ')));
    let gap = (0..15).fold(false, |any, i| {
        any | ((field[i] != b' ') & (field[i + 1] == b' '))
    });
    known && !gap && field[15] != b' '
}

/// Hex digits, and what follows them; with nothing before them but blanks, and a blank or nothing
/// after them.
#[inline]
fn address(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let from = text.iter().position(|b| *b != b' ')?;
    let digits = text[from..]
        .iter()
        .position(|b| !b.is_ascii_hexdigit())
        .unwrap_or(text.len() - from);
    let after = from + digits;
    let ended = text.get(after).is_none_or(|b| *b == b' ');
    ((1..=16).contains(&digits) && ended).then(|| (&text[from..after], &text[after..]))
}

#[inline]
fn text<'a>(address: &'a [u8], name: &'a [u8], module: &'a [u8]) -> FrameText<'a> {
    let (name, offset) = split_offset(trim(name));
    FrameText {
        address,
        name: if name == b"[unknown]" { b"" } else { name },
        module: if module == b"[unknown]" { b"" } else { module },
        offset,
    }
}

/// Like `trim_ascii`, which is too slow for every line.
#[inline]
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Name and module of ` NAME (MODULE)`. The module's parenthesis is the one that pairs with the
/// last: paths have blanks and parentheses too, such as `(/opt/a (x86)/b (deleted))`.
#[inline]
fn split_module(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = &rest[..rest.len() - 1];
    let open = match memchr::memrchr2(b'(', b')', inner) {
        Some(at) if inner[at] == b'(' => at,
        _ => paired(inner)?,
    };
    let before = inner[..open].last();
    matches!(before, None | Some(b' ')).then(|| (&inner[..open], &inner[open + 1..]))
}

/// Where the parenthesis opens that the end of `inner` closes; where they do not pair, the last one
/// that begins a path or a name in brackets.
fn paired(inner: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    for at in memchr::memrchr2_iter(b'(', b')', inner) {
        if inner[at] == b')' {
            depth += 1;
        } else if depth == 0 {
            return Some(at);
        } else {
            depth -= 1;
        }
    }
    let begins = |open: &[u8]| memchr::memmem::rfind(inner, open).map(|at| at + 1);
    begins(b" (/").max(begins(b" (["))
}

/// A text, and the digits of the `+0x…` at its end; none where it has no such end.
#[inline]
pub(super) fn split_offset(text: &[u8]) -> (&[u8], &[u8]) {
    // The last eight bytes at once: how long an offset is cannot be foreseen, and a branch that
    // goes wrong costs more than all of them.
    let near = text.last_chunk::<8>().map_or(8, |tail| {
        let hex = |i: usize| u8::from(is_hex(tail[i])) << i;
        (0..8).fold(0, |mask, i| mask | hex(i)).leading_ones() as usize
    });
    let digits = if near < 8 {
        near
    } else {
        let digits = text.iter().rev().take_while(|b| is_hex(**b));
        digits.count()
    };
    let (before, digits) = text.split_at(text.len() - digits);
    // The 0 of 0x is no part of the digits: x is none.
    match before {
        [name @ .., b'+', b'0', b'x'] if !digits.is_empty() => (name, digits),
        _ => (text, b""),
    }
}

/// A number in hex digits; none beyond 64 bits.
pub(super) fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What kind of frame this is, by what perf prints as its module.
///
/// Kernel: `[kernel.kallsyms]` and its sections, `[guest.kernel.kallsyms…]`, a path of `vmlinux` or
/// of a `.ko` file, `bpf_prog_…`, and every other name in brackets (`[nf_tables]`) but those of
/// memory in user space (`[vdso]`, `[heap]` …). Without a module, a named frame in the upper half
/// of the addresses: only the kernel has names there.
#[inline]
#[must_use]
pub fn kind_of(frame: &FrameText<'_>) -> FrameKind {
    let module = frame.module;
    match module {
        [b'[', ..] if !in_user_space(module) => FrameKind::Kernel,
        b"inlined" => FrameKind::Inline,
        [] if !frame.name.is_empty()
            && frame.address.len() == 16
            && frame.address.starts_with(b"ffff") =>
        {
            FrameKind::Kernel
        }
        [b'b', ..] if module.starts_with(b"bpf_prog_") => FrameKind::Kernel,
        [.., b'p'] if is_jit_map(base(module)) => FrameKind::Jit,
        [.., b'o'] if is_jit_dump(base(module)) => FrameKind::Jit,
        [.., b'o' | b'z' | b't'] if kernel_object(module).is_some() => FrameKind::Kernel,
        _ if module.len() > 7 && is_kernel_image(module) => FrameKind::Kernel,
        _ => FrameKind::User,
    }
}

/// Names in brackets that perf gives to memory of user space.
fn in_user_space(module: &[u8]) -> bool {
    const BEGIN: [&[u8]; 10] = [
        b"[vdso",
        b"[vsyscall",
        b"[vvar",
        b"[vectors",
        b"[sigpage",
        b"[heap",
        b"[stack",
        b"[anon",
        b"[uprobes",
        b"[unknown",
    ];
    !module.starts_with(b"[kernel") && BEGIN.iter().any(|begin| module.starts_with(begin))
}

/// `vmlinux`, `vmlinux-5.4.0`, `vmlinux.debug`: the kernel itself.
fn is_kernel_image(module: &[u8]) -> bool {
    let base = base(module);
    base.strip_prefix(b"vmlinux")
        .is_some_and(|rest| matches!(rest, [] | [b'-' | b'.' | b'_', ..]))
}

/// `perf-PID.map`, which JIT compilers write for perf.
fn is_jit_map(base: &[u8]) -> bool {
    base.strip_prefix(b"perf-")
        .and_then(|rest| rest.strip_suffix(b".map"))
        .is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
}

/// `jitted-PID-N.so`, which `perf inject --jit` writes.
fn is_jit_dump(base: &[u8]) -> bool {
    base.starts_with(b"jitted-") && base.ends_with(b".so")
}

/// The name of a kernel module that is given as a file, packed or not.
fn kernel_object(module: &[u8]) -> Option<&[u8]> {
    let base = base(module);
    [&b".ko"[..], b".ko.xz", b".ko.gz", b".ko.zst", b".ko.debug"]
        .iter()
        .find_map(|end| base.strip_suffix(*end))
}

fn base(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path).map_or(path, |at| &path[at + 1..])
}

/// The module's name as the model has it, so that hosts and engines merge: `vmlinux` for the
/// kernel, a kernel module without brackets or path, `jit` for code that a map file names, nothing
/// for inlined functions; paths without ` (deleted)`.
#[must_use]
pub fn module_of(kind: FrameKind, module: &[u8]) -> &[u8] {
    match kind {
        FrameKind::Inline => b"",
        FrameKind::Jit => b"jit",
        FrameKind::Kernel => kernel_module(module),
        _ => module.strip_suffix(b" (deleted)").unwrap_or(module),
    }
}

fn kernel_module(module: &[u8]) -> &[u8] {
    if module.starts_with(b"[guest.kernel") {
        return b"guest.kernel";
    }
    if module.is_empty() || module.starts_with(b"[kernel.") || is_kernel_image(module) {
        return b"vmlinux";
    }
    if let Some(name) = kernel_object(module) {
        return name;
    }
    if module.starts_with(b"bpf_prog_") {
        return b"bpf";
    }
    let bare = module.strip_prefix(b"[").unwrap_or(module);
    bare.strip_suffix(b"]").unwrap_or(bare)
}
