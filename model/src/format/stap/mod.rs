//! SystemTap backtraces: frames a line, leaf first, then a tab and the count.
//!
//! In: lines as `print_ustack`, `print_backtrace` and their kin print them (sample-bt and other
//! scripts of stapxx, scripts of one's own), and the Lua stacks of lj-lua-stacks. Out: one stack for
//! each count. Never: a line of another shape made into a frame: warnings, unwinder debug output,
//! timing reports are counted by kind.
//!
//! Counts have signs (sample-bt-leaks prints what was freed and not allocated in its window). They
//! are added up over the whole import; stacks of nothing or less are left out, and said.
//!
//! The shapes of frames are those of `_stp_snprint_addr` in SystemTap's `runtime/sym.c` and of
//! `luajit_debug_dumpstack` in stapxx's `tapset/luajit.sxx`; docs/formats.md lists them.

mod foreign;
mod frame;
mod sourced;
#[cfg(test)]
mod tests;

use super::import::{ImportOptions, Intake, LineReader};
use super::known_lines::KnownLines;
use super::lines::{Ahead, Line};
use crate::profile::{Frame, FrameId, FrameKind, SeriesId};
pub(super) use foreign::is_debug;
pub(super) use frame::{FrameText, count, hex, is_symbol, raw};

/// A line that is a frame of a stack of any kind, but for lone words.
pub(super) fn frame(line: &[u8]) -> Option<FrameText<'_>> {
    frame::usual(line)
        .or_else(|| frame::any(line))
        .or_else(|| frame::lua(line))
}

/// Whether a line is a frame of a Lua stack, and no other.
pub(super) fn is_lua(line: &[u8]) -> bool {
    frame::any(line).is_none() && frame::lua(line).is_some()
}

/// Whether a line is a stack of bare addresses and its count.
pub(super) fn is_raw(line: &[u8]) -> bool {
    frame::raw(line).is_some()
}

/// Note of frames that may be none.
const INEXACT: &str = "frames that SystemTap guessed from what lay on the stack (inexact)";
/// Lines of debug output that the stats are given one by one, to have examples.
const EXAMPLES: u64 = 3;

/// Reads backtraces as SystemTap scripts print them.
#[derive(Debug)]
pub struct StapReader {
    keep_offsets: bool,
    depth_max: usize,
    series: Option<SeriesId>,
    /// Frames since the last count, leaf first.
    stack: Vec<FrameId>,
    /// A frame of user space was among them: those that follow are where calls return to.
    callers: bool,
    /// A lone word, which is the leaf of a Lua stack when a frame of one follows; its number.
    held: Vec<u8>,
    held_number: u64,
    debug: Debug,
    known: KnownLines,
}

/// Debug output, which can be nearly all of an input: lines and bytes that the stats do not have yet.
#[derive(Debug, Default)]
struct Debug {
    met: u64,
    lines: u64,
    bytes: u64,
}

impl StapReader {
    /// A reader.
    #[must_use]
    pub fn new(options: &ImportOptions) -> Self {
        Self {
            keep_offsets: options.keep_offsets,
            depth_max: options.limits.depth_max,
            series: None,
            stack: Vec::new(),
            callers: false,
            held: Vec::new(),
            held_number: 0,
            debug: Debug::default(),
            known: KnownLines::default(),
        }
    }

    /// One more frame.
    #[inline]
    fn push(&mut self, text: &FrameText<'_>, into: &mut Intake) -> FrameId {
        let id = if self.keep_offsets && text.name.is_empty() {
            unnamed(text, into)
        } else {
            into.fold.frame(text.kind, text.name, text.module)
        };
        self.push_frame(id);
        id
    }

    /// The same. Of a stack that is too deep the frames next to the leaf go: the fold counts
    /// it under `[deeper]` at the depth where it is cut.
    #[inline]
    fn push_frame(&mut self, id: FrameId) {
        self.stack.push(id);
        if self.stack.len() > self.depth_max.saturating_mul(2).max(64) {
            let over = self.stack.len() - self.depth_max - 1;
            self.stack.drain(..over);
        }
    }

    fn count(&mut self, digits: &[u8], negative: bool, into: &mut Intake) {
        let count = digits.iter().fold(0_u64, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
        if count == u64::MAX {
            into.stats.note("counts too large for 64 bits");
        }
        if self.stack.is_empty() {
            into.stats
                .note("counts without a stack, counted under [unknown]");
            self.stack.push(into.fold.frame(FrameKind::User, b"", b""));
        }
        let series = *self.series.get_or_insert_with(|| into.fold.whole());
        if negative || count == 0 {
            into.fold
                .take_leaf_first(series, &self.stack, &[count, 0, 0]);
        } else {
            into.fold
                .add_leaf_first(series, &self.stack, &[count, 0, 0]);
        }
        into.stats.stacks += 1;
        self.stack.clear();
        self.callers = false;
    }

    #[inline]
    fn debug(&mut self, line: Line<'_>, into: &mut Intake) {
        self.debug.met += 1;
        if self.debug.met <= EXAMPLES {
            into.stats.foreign.add(foreign::DEBUG, line);
        } else {
            self.debug.lines += 1;
            self.debug.bytes += line.len as u64 + 1;
        }
    }

    /// Everything but the most usual shape of frames, counts, and debug output.
    #[inline(never)]
    fn other(&mut self, line: Line<'_>, into: &mut Intake) {
        let bytes = line.bytes;
        if bytes.trim_ascii().is_empty() {
            return;
        }
        if line.is_cut() {
            into.stats.foreign.add(foreign::TOO_LONG, line);
            return;
        }
        if let Some(text) = frame::any(bytes) {
            self.release(false, into);
            if text.inexact {
                into.stats.note(INEXACT);
            }
            self.push(&text, into);
        } else if let Some(text) = frame::lua(bytes) {
            self.release(true, into);
            self.push(&text, into);
        } else if let Some((addresses, count)) = frame::raw(bytes) {
            self.release(false, into);
            for address in addresses.split(|b| *b == b' ').filter(|a| !a.is_empty()) {
                let text = FrameText::at(&address[2..]);
                self.push(&text, into);
            }
            self.count(count, false, into);
        } else if self.stack.is_empty() && frame::is_symbol(bytes) {
            self.release(false, into);
            self.held.extend_from_slice(bytes);
            self.held_number = line.number;
        } else {
            into.stats.foreign.add(foreign::kind(bytes), line);
        }
    }

    /// Says what the held word is, now that what follows it is known.
    fn release(&mut self, is_leaf: bool, into: &mut Intake) {
        if self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        if is_leaf {
            self.push(&FrameText::named(FrameKind::User, &held, b""), into);
        } else {
            let line = Line {
                bytes: &held,
                number: self.held_number,
                len: held.len(),
            };
            into.stats.foreign.add(foreign::OTHER, line);
        }
    }
}

/// An unnamed frame with its offset in the module, where the line has one.
#[inline(never)]
fn unnamed(text: &FrameText<'_>, into: &mut Intake) -> FrameId {
    match frame::hex(text.offset).filter(|o| *o > 0) {
        Some(offset) => {
            let module = String::from_utf8_lossy(text.module);
            let base = module.rsplit('/').next().unwrap_or(&module);
            let module = base.replace(char::is_control, " ");
            into.fold
                .whole_frame(&Frame::unnamed(text.kind, module, None, offset))
        }
        None => into.fold.frame(text.kind, b"", text.module),
    }
}

impl LineReader for StapReader {
    #[inline]
    fn line(&mut self, line: Line<'_>, into: &mut Intake) {
        if into.source.is_some() && self.with_source(line, into) {
            return;
        }
        if let Some(text) = frame::usual(line.bytes) {
            if !self.held.is_empty() {
                self.release(false, into);
            }
            let id = self.push(&text, into);
            if into.source.is_none() {
                self.known.learn(line.bytes, id);
            }
        } else if let Some((digits, negative)) = frame::count(line.bytes) {
            if !self.held.is_empty() {
                self.release(false, into);
            }
            self.count(digits, negative, into);
        } else if foreign::is_debug(line.bytes) {
            self.debug(line, into);
        } else {
            self.other(line, into);
        }
    }

    #[inline]
    fn ahead(&mut self, rest: &[u8]) -> Option<Ahead> {
        if !self.held.is_empty() {
            return None;
        }
        let (id, ahead) = self.known.find(rest)?;
        self.push_frame(id);
        Some(ahead)
    }

    fn end(&mut self, into: &mut Intake) {
        self.release(false, into);
        let debug = std::mem::take(&mut self.debug);
        if debug.lines > 0 {
            (into.stats.foreign).add_many(foreign::DEBUG, debug.lines, debug.bytes);
        }
        if !self.stack.is_empty() {
            into.stats.note(
                "stacks without a count at the end: the output was cut off, and they are left out",
            );
        }
    }
}
