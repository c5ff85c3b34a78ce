//! What a frame of a pprof file is. In: function, mapping. Out: a frame. Never: a run-time address
//! in a frame.
//!
//! pprof has no kinds of code. What a frame is follows from its mapping, by the rules for `perf
//! script` (both name the kernel the same way), and from its place: of several lines at one location
//! all but the last are inlined. Where these rules would not give back what is written, the system
//! name of the function is the name and a mark: `access_[j]`.

use crate::format::fold::{base_name, clean};
use crate::format::perf_script::{FrameText, kind_of, module_of};
use crate::profile::{BuildId, Frame, FrameKind};

/// Longest name that is kept whole, in bytes; templates in C++ make names of several thousand.
pub(super) const NAME_BYTES_MAX: usize = 16 << 10;

const MARKS: [(char, FrameKind); 6] = [
    ('u', FrameKind::User),
    ('k', FrameKind::Kernel),
    ('l', FrameKind::Lua),
    ('j', FrameKind::Jit),
    ('i', FrameKind::Inline),
    ('m', FrameKind::Marker),
];
/// Follows the kind in the mark of a frame that was read while its owner ran on.
const RACY: char = '?';

/// What a file says about one line of a location.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    /// The function; all empty where there is none.
    pub name: &'a [u8],
    pub system_name: &'a [u8],
    pub file: &'a [u8],
    pub start_line: u32,
    /// Of the mapping.
    pub module: &'a [u8],
    pub build_id: Option<BuildId>,
    /// Of the location: a run-time address, except in a frame with a mark.
    pub address: u64,
    /// Another line of the same location follows, into which this one is inlined.
    pub inlined: bool,
}

impl Said<'_> {
    /// The frame that is meant.
    pub fn frame(&self) -> Frame {
        marked(self.system_name).map_or_else(
            || self.guess(),
            |(name, kind, racy)| self.as_marked(name, kind, racy),
        )
    }

    fn as_marked(&self, name: &[u8], kind: FrameKind, racy: bool) -> Frame {
        let joined = self.inlined && kind == FrameKind::Inline;
        Frame {
            kind,
            name: text(name),
            module: if joined {
                String::new()
            } else {
                text(base_name(self.module))
            },
            file: text(self.file),
            line: self.start_line,
            build_id: self.build_id.filter(|_| !joined),
            address: if joined { 0 } else { self.address },
            racy,
        }
    }

    /// The frame by the rules for files of other programs.
    fn guess(&self) -> Frame {
        let name = [self.name, self.system_name]
            .into_iter()
            .find(|n| !n.trim_ascii().is_empty() && !is_address(n))
            .unwrap_or_default();
        if self.inlined {
            return Frame::named(FrameKind::Inline, text(name), "");
        }
        // perf gives the kernel's own file with a path; here it may stand without one.
        let module = match self.module {
            b"vmlinux" => b"[kernel.kallsyms]",
            module => module,
        };
        let digits = format!("{:016x}", self.address);
        let said = FrameText {
            address: digits.as_bytes(),
            name,
            module,
            offset: b"",
        };
        let kind = kind_of(&said);
        let module = text(base_name(module_of(kind, module)));
        Frame {
            build_id: self.build_id,
            ..Frame::named(kind, text(name), module)
        }
    }
}

/// A text without control characters, at most [`NAME_BYTES_MAX`] long.
fn text(bytes: &[u8]) -> String {
    let mut text = clean(bytes);
    if text.len() > NAME_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NAME_BYTES_MAX));
        text.truncate(text.trim_end().len());
    }
    text
}

/// `0x7f01a2b3c4d5`: what some tools write where they know no name. It differs in each process.
fn is_address(name: &[u8]) -> bool {
    let digits = name.trim_ascii().strip_prefix(b"0x");
    digits.is_some_and(|d| !d.is_empty() && d.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a system name says what its frame is.
pub(super) fn is_marked(system_name: &[u8]) -> bool {
    marked(system_name).is_some()
}

/// Name, kind and raciness of a system name with a mark.
fn marked(system_name: &[u8]) -> Option<(&[u8], FrameKind, bool)> {
    let inner = system_name.strip_suffix(b"]")?;
    let (inner, racy) = match inner.strip_suffix(&[RACY as u8]) {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    let (letter, rest) = inner.split_last()?;
    let name = rest.strip_suffix(b"_[")?;
    let (_, kind) = MARKS.iter().find(|(mark, _)| *mark as u8 == *letter)?;
    Some((name, *kind, racy))
}

/// The name with the mark that says what the frame is.
fn mark(frame: &Frame) -> String {
    let mark = MARKS.iter().find(|(_, kind)| *kind == frame.kind);
    let letter = mark.map_or('u', |(letter, _)| *letter);
    let racy = if frame.racy { "?" } else { "" };
    format!("{}_[{letter}{racy}]", frame.name)
}

/// The name that people see, and the system name from which the frame can be read back.
pub(super) fn names(frame: &Frame) -> (String, String) {
    let shown = frame.title();
    let said = Said {
        name: shown.as_bytes(),
        system_name: shown.as_bytes(),
        file: frame.file.as_bytes(),
        start_line: frame.line,
        module: frame.module.as_bytes(),
        build_id: frame.build_id,
        address: frame.address,
        inlined: false,
    };
    // An inlined function may stand at a location of its own or at that of its caller.
    let plain = frame.kind != FrameKind::Inline && said.frame() == *frame;
    let system_name = if plain { shown.clone() } else { mark(frame) };
    (shown, system_name)
}
