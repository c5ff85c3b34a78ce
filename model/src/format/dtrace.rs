//! DTrace aggregations keyed by stacks: frames a line, leaf first, then the count.
//!
//! In: lines as `dtrace` prints an aggregation over `stack()`, `ustack()` or both, with other keys
//! such as execname and pid before or behind them. Out: one stack for each count; execname and pid
//! become the series. Never: the header, a probe's line or other text made into a frame.
//!
//! A stack that has a function of the kernel itself (illumos `unix` and `genunix`, macOS
//! `mach_kernel`, FreeBSD `kernel`) is the kernel's as a whole: DTrace prints kernel and user stacks
//! apart, with an empty line between them.

mod frame;
#[cfg(test)]
mod tests;

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;
use crate::profile::{FrameId, FrameKind, Process, Series, SeriesId};

/// Bytes of one stack's lines that are kept until it is known whose it is.
const PART_BYTES_MAX: usize = 4 << 20;
const OTHER: &str = "lines that are neither frames nor counts";
const TOO_LONG: &str = "lines too long to be frames";

/// Reads what DTrace prints of an aggregation keyed by stacks.
#[derive(Debug)]
pub struct DtraceReader {
    depth_max: usize,
    /// Lines of the stack that is being read, and where each ends.
    part: Vec<u8>,
    ends: Vec<usize>,
    is_kernel: bool,
    stack: Vec<FrameId>,
    /// A line before the stack that may be its keys; its number.
    held: Vec<u8>,
    held_number: u64,
    keys: Vec<u8>,
    series: Option<SeriesId>,
    /// The keys that `series` was decided by.
    of: Vec<u8>,
}

impl DtraceReader {
    /// A reader.
    #[must_use]
    pub fn new(options: &ImportOptions) -> Self {
        Self {
            depth_max: options.limits.depth_max,
            part: Vec::new(),
            ends: Vec::new(),
            is_kernel: false,
            stack: Vec::new(),
            held: Vec::new(),
            held_number: 0,
            keys: Vec::new(),
            series: None,
            of: Vec::new(),
        }
    }

    fn frame(&mut self, line: &[u8], into: &mut Intake) {
        if !self.held.is_empty() {
            // What stands right above a stack are keys of it.
            std::mem::swap(&mut self.keys, &mut self.held);
            self.held.clear();
        }
        if self.part.len() + line.len() > PART_BYTES_MAX {
            self.end_part(into);
        }
        self.is_kernel |= frame::is_kernel(line);
        self.part.extend_from_slice(line);
        self.ends.push(self.part.len());
    }

    /// The end of one stack of an entry: its frames are known now.
    fn end_part(&mut self, into: &mut Intake) {
        let kind = if std::mem::take(&mut self.is_kernel) {
            FrameKind::Kernel
        } else {
            FrameKind::User
        };
        let mut from = 0;
        for &end in &self.ends {
            let (name, module) = frame::parse(&self.part[from..end]);
            let module = frame::module_of(kind, module);
            self.stack.push(into.fold.frame(kind, name, module));
            from = end;
        }
        if self.stack.len() > self.depth_max.saturating_mul(2).max(64) {
            let over = self.stack.len() - self.depth_max - 1;
            self.stack.drain(..over);
        }
        self.part.clear();
        self.ends.clear();
    }

    fn count(&mut self, count: u64, negative: bool, into: &mut Intake) {
        self.end_part(into);
        if self.stack.is_empty() {
            into.stats
                .note("counts without a stack, counted under [unknown]");
            self.stack.push(into.fold.frame(FrameKind::User, b"", b""));
        }
        let series = self.series(into);
        if negative || count == 0 {
            into.fold
                .take_leaf_first(series, &self.stack, &[count, 0, 0]);
        } else {
            into.fold
                .add_leaf_first(series, &self.stack, &[count, 0, 0]);
        }
        into.stats.stacks += 1;
        self.stack.clear();
        self.keys.clear();
    }

    /// The series of an entry: the first key that is a text is the execname, the first number the
    /// pid.
    fn series(&mut self, into: &mut Intake) -> SeriesId {
        if let Some(series) = self.series
            && self.of == self.keys
        {
            return series;
        }
        let mut process = Process::default();
        let text = String::from_utf8_lossy(&self.keys);
        for key in text.split_ascii_whitespace() {
            match key.parse::<u32>() {
                Ok(pid) if process.pid == 0 => process.pid = pid,
                Err(_) if process.comm.is_empty() => {
                    process.comm = key.replace(char::is_control, " ");
                }
                _ => {}
            }
        }
        process.role.clone_from(&process.comm);
        let series = into.fold.series(&Series {
            process,
            ..Series::default()
        });
        self.of.clone_from(&self.keys);
        self.series = Some(series);
        series
    }

    /// A number before a stack was a key of it, or the count of an empty one.
    fn release(&mut self, into: &mut Intake) {
        if self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        if let Some((b"", count, negative)) = frame::split_count(&held) {
            self.count(count, negative, into);
        } else {
            let line = Line {
                bytes: &held,
                number: self.held_number,
                len: held.len(),
            };
            into.stats.foreign.add(OTHER, line);
        }
    }

    fn hold(&mut self, line: Line<'_>, into: &mut Intake) {
        self.release(into);
        self.held.extend_from_slice(line.bytes);
        self.held_number = line.number;
    }
}

impl LineReader for DtraceReader {
    fn line(&mut self, line: Line<'_>, into: &mut Intake) {
        let text = line.bytes.trim_ascii();
        let between = self.stack.is_empty() && self.ends.is_empty();
        if text.is_empty() {
            self.release(into);
            self.end_part(into);
        } else if line.is_cut() {
            into.stats.foreign.add(TOO_LONG, line);
        } else if frame::is_frame(text) {
            self.frame(text, into);
        } else if between {
            self.hold(line, into);
        } else if let Some((keys, count, negative)) = frame::split_count(text) {
            if !keys.is_empty() {
                self.keys.push(b' ');
                self.keys.extend_from_slice(keys);
            }
            self.count(count, negative, into);
        } else {
            into.stats.foreign.add(OTHER, line);
        }
    }

    fn end(&mut self, into: &mut Intake) {
        self.release(into);
        if !self.stack.is_empty() || !self.ends.is_empty() {
            into.stats.note(
                "stacks without a count at the end: the output was cut off, and they are left out",
            );
        }
    }
}
