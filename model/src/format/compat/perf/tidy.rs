//! Names as the script tidies them.
//!
//! In: the parts of a frame's line. Out: the names of its functions, outermost first. Never: a
//! rule of our own.

/// What is added to names, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Annotate {
    pub kernel: bool,
    pub jit: bool,
    pub addresses: bool,
    /// The sample is of a process whose name begins with `java`.
    pub java: bool,
}

/// Writes the functions of one line behind each other, and where each ends. There are several where
/// a JIT compiler's map names inlined ones as `outer->inner`.
pub(super) fn tidy(
    address: &[u8],
    name: &[u8],
    module: &[u8],
    annotate: Annotate,
    out: &mut Vec<u8>,
    ends: &mut Vec<usize>,
) {
    let name = without_offset(name);
    if name.starts_with(b"(") {
        return;
    }
    let mut rest = without_empty_ends(name);
    let mut inlined = false;
    while let Some(part) = rest {
        let arrow = memchr::memmem::find(part, b"->");
        let function = &part[..arrow.unwrap_or(part.len())];
        rest = arrow.map(|at| &part[at + 2..]);
        let start = out.len();
        if function == b"[unknown]" {
            unnamed(address, module, annotate, out);
        } else {
            out.extend_from_slice(function);
        }
        generic(out, start);
        if annotate.java && out.get(start) == Some(&b'L') && out[start..].contains(&b'/') {
            out.remove(start);
        }
        let mark: &[u8] = if inlined {
            b"_[i]"
        } else if annotate.kernel && is_kernel(module) {
            b"_[k]"
        } else if annotate.jit && is_jit_map(module) {
            b"_[j]"
        } else {
            b""
        };
        // A kernel function is marked again even where its name ends so.
        let twice = memchr::memmem::find(&out[start..], mark).is_some();
        if mark == b"_[k]" || !twice {
            out.extend_from_slice(mark);
        }
        ends.push(out.len());
        inlined = true;
    }
}

/// Perl's `split` leaves out the empty parts at the end; a name of nothing has no part.
fn without_empty_ends(mut name: &[u8]) -> Option<&[u8]> {
    while let Some(rest) = name.strip_suffix(b"->") {
        name = rest;
    }
    (!name.is_empty()).then_some(name)
}

fn without_offset(name: &[u8]) -> &[u8] {
    let hex = |b: &&u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let digits = name.iter().rev().take_while(hex).count();
    match &name[..name.len() - digits] {
        [before @ .., b'+', b'0', b'x'] if digits > 0 => before,
        _ => name,
    }
}

/// `[unknown]` becomes the module's base name, in brackets.
fn unnamed(address: &[u8], module: &[u8], annotate: Annotate, out: &mut Vec<u8>) {
    out.push(b'[');
    if module == b"[unknown]" {
        out.extend_from_slice(b"unknown");
    } else {
        let base = memchr::memrchr(b'/', module).map_or(0, |at| at + 1);
        out.extend_from_slice(&module[base..]);
    }
    if annotate.addresses {
        out.extend_from_slice(b" <");
        out.extend_from_slice(address);
        out.push(b'>');
    }
    out.push(b']');
}

/// `;` becomes `:`, arguments go, except from what looks like a Go method, and quotes go.
fn generic(out: &mut Vec<u8>, start: usize) {
    const ANONYMOUS: &[u8] = b"(anonymous namespace)";
    for byte in out[start..].iter_mut().filter(|b| **b == b';') {
        *byte = b':';
    }
    let text = &out[start..];
    let open = memchr::memchr_iter(b'(', text).find(|at| !text[*at..].starts_with(ANONYMOUS));
    if let Some(open) = open
        && !is_go_method(text)
    {
        out.truncate(start + open);
    }
    if memchr::memchr2(b'"', b'\'', &out[start..]).is_some() {
        let mut kept = start;
        for at in start..out.len() {
            if !matches!(out[at], b'"' | b'\'') {
                out[kept] = out[at];
                kept += 1;
            }
        }
        out.truncate(kept);
    }
}

/// `net/http.(*Client).Do`: `.(`, and behind it `).`.
fn is_go_method(text: &[u8]) -> bool {
    let open = memchr::memmem::find(text, b".(");
    let close = memchr::memmem::rfind(text, b").");
    matches!((open, close), (Some(open), Some(close)) if open + 2 <= close)
}

fn is_kernel(module: &[u8]) -> bool {
    (module.starts_with(b"[") || module.ends_with(b"vmlinux"))
        && memchr::memmem::find(module, b"unknown").is_none()
}

/// Whether `/tmp/perf-PID.map` stands in it.
fn is_jit_map(module: &[u8]) -> bool {
    const BEGIN: &[u8] = b"/tmp/perf-";
    memchr::memmem::find_iter(module, BEGIN).any(|at| {
        let rest = &module[at + BEGIN.len()..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        digits > 0 && rest[digits..].starts_with(b".map")
    })
}
