//! Lines into samples.
//!
//! In: lines. Out: calls of [`Samples`]. Never: more kept than one line of 512 bytes.

use super::header::{self, Parsed};
use super::{FrameText, Header, Samples, frame};
use crate::format::lines::Line;

/// Longest line that is held until the next one says what it is.
const HELD_BYTES_MAX: usize = 512;
/// Longest line that may be a comm and nothing else. A comm has 15 bytes, those of kernel workers 63.
const COMM_BYTES_MAX: usize = 64;

const OUTSIDE: &str = "lines outside the stacks";
const INSIDE: &str = "lines in a stack that are no frames";
const RECORDS: &str = "perf's records of other things than samples";
const CUT: &str = "lines longer than 1 MiB";

/// A line whose meaning the next one decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    Nothing,
    /// A header, if a frame follows.
    Header,
    /// A frame without a module, which is an inlined one if the next line says so.
    Frame,
}

/// Takes lines apart. Feeds a [`Samples`].
#[derive(Debug, Default)]
pub struct Parser {
    inside: bool,
    held: Held,
    held_bytes: Vec<u8>,
    held_number: u64,
    held_len: usize,
}

impl Parser {
    /// Whether the next line belongs to a stack, and nothing is held that it could decide on.
    #[inline]
    pub(super) fn is_inside(&self) -> bool {
        self.inside && self.held == Held::Nothing
    }

    /// One line.
    #[inline]
    pub fn line(&mut self, line: Line<'_>, to: &mut impl Samples) {
        if self.is_inside()
            && let Some((frame, true)) = frame::columns(line.bytes)
            && !line.is_cut()
        {
            to.frame(&frame);
        } else {
            self.other(line, to);
        }
    }

    /// The end of the text.
    pub fn end(&mut self, to: &mut impl Samples) {
        self.release(b"", to);
        if std::mem::take(&mut self.inside) {
            to.end();
            to.cut();
        }
    }

    #[inline(never)]
    fn other(&mut self, line: Line<'_>, to: &mut impl Samples) {
        if self.release(line.bytes, to) {
            return;
        }
        if line.is_cut() {
            to.foreign(CUT, line);
            return;
        }
        if line.bytes.trim_ascii().is_empty() {
            if std::mem::take(&mut self.inside) {
                to.end();
            }
            return;
        }
        if let Some((frame, whole)) = frame::columns(line.bytes) {
            if !self.inside && !whole {
                to.foreign(OUTSIDE, line);
                return;
            }
            if !self.inside {
                // Printed without any field of the header.
                to.begin(&Header::default());
                self.inside = true;
            }
            if whole {
                to.frame(&frame);
            } else {
                self.hold(Held::Frame, line, &frame, to);
            }
            return;
        }
        self.header(line, to);
    }

    fn header(&mut self, line: Line<'_>, to: &mut impl Samples) {
        let parsed = header::parse(line.bytes);
        // No comm with a pid and a time is likely to begin so, but one could.
        let sure = matches!(parsed, Parsed::Sure(..) | Parsed::Record(_));
        if !sure && (line.bytes.starts_with(b"#") || line.bytes.starts_with(b"-- ")) {
            return;
        }
        if sure && std::mem::take(&mut self.inside) {
            to.end();
        }
        match parsed {
            Parsed::Sure(header, frame) => {
                to.begin(&header);
                self.inside = true;
                if let Some(frame) = frame {
                    to.frame(&frame);
                    to.end();
                    self.inside = false;
                }
            }
            Parsed::Record(record) => match lost(record) {
                Some(count) => to.lost(count),
                None => to.foreign(RECORDS, line),
            },
            Parsed::Weak(_) | Parsed::None if self.inside => {
                if let Some(frame) = frame::anywhere(line.bytes) {
                    to.frame(&frame);
                } else if !is_source_line(line.bytes) {
                    to.foreign(INSIDE, line);
                }
            }
            Parsed::Weak(header) => {
                let numbered = header.tid.is_some() || header.pid.is_some();
                let named = numbered || !header.event.is_empty() || header.time_ns.is_some();
                let max = if named {
                    HELD_BYTES_MAX
                } else {
                    COMM_BYTES_MAX
                };
                if line.bytes.len() > max {
                    to.foreign(OUTSIDE, line);
                } else {
                    self.keep(Held::Header, line);
                }
            }
            Parsed::None => to.foreign(OUTSIDE, line),
        }
    }

    /// Holds a frame, or gives it at once when it is too long for that.
    fn hold(&mut self, held: Held, line: Line<'_>, frame: &FrameText<'_>, to: &mut impl Samples) {
        if line.bytes.len() > HELD_BYTES_MAX {
            to.frame(frame);
        } else {
            self.keep(held, line);
        }
    }

    fn keep(&mut self, held: Held, line: Line<'_>) {
        self.held = held;
        self.held_bytes.clear();
        self.held_bytes.extend_from_slice(line.bytes);
        (self.held_number, self.held_len) = (line.number, line.len);
    }

    /// Says what the held line is, now that the next one is known. True when that one belongs to it.
    fn release(&mut self, next: &[u8], to: &mut impl Samples) -> bool {
        match std::mem::take(&mut self.held) {
            Held::Nothing => false,
            Held::Frame => {
                let source = is_source_line(next);
                if let Some((mut frame, _)) = frame::columns(&self.held_bytes) {
                    if source && next.ends_with(b" (inlined)") {
                        frame.module = b"inlined";
                    }
                    to.frame(&frame);
                }
                source
            }
            Held::Header => {
                let parsed = header::parse(&self.held_bytes);
                let begins = frame::columns(next).is_some() || frame::anywhere(next).is_some();
                let line = Line {
                    bytes: &self.held_bytes,
                    number: self.held_number,
                    len: self.held_len,
                };
                match parsed {
                    Parsed::Weak(header) if begins => {
                        to.begin(&header);
                        self.inside = true;
                    }
                    Parsed::Weak(header)
                        if next.is_empty() && !header.event.is_empty() && header.tid.is_some() =>
                    {
                        to.begin(&header);
                        self.inside = true;
                    }
                    _ => to.foreign(OUTSIDE, line),
                }
                false
            }
        }
    }
}

/// `  file.c:12`, `  libc.so.6[27b25]`: where perf says the source of the frame above it.
fn is_source_line(line: &[u8]) -> bool {
    matches!(line, [b' ', b' ', third, ..] if !third.is_ascii_whitespace())
}

/// The number of a record that says how many others were lost. `perf_event__fprintf` prints
/// `PERF_RECORD_LOST lost 42`.
fn lost(record: &[u8]) -> Option<u64> {
    record.strip_prefix(b"PERF_RECORD_LOST").map(|rest| {
        rest.split(|b| !b.is_ascii_digit())
            .find_map(header::number)
            .unwrap_or(0)
    })
}
