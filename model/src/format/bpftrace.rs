//! bpftrace maps keyed by stacks: `@name[`, frames a line, leaf first, `]: COUNT`.
//!
//! In: lines as bpftrace prints its maps at its end: any number of maps, one or two stacks in a key,
//! beside them comm, pid and other keys, in its stack modes `bpftrace`, `perf` and `raw`. Out: one
//! stack for each entry with a number; comm and pid become the series, the map's name its event.
//! Never: rows of histograms or other lines made into frames.
//!
//! Two stacks of one key are one stack: what stands first is nearer to the leaf, as in
//! `@[kstack, ustack]`. Which frames are the kernel's only the modes with addresses say.
//!
//! The shapes are those of `BPFtrace::get_stack` in bpftrace's `src/bpftrace.cpp`, `src/usyms.cpp`
//! and `src/output/text.cpp`.

mod frame;
#[cfg(test)]
mod tests;

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;
use crate::profile::{FrameId, Process, Series, SeriesId};

/// Bytes of keys that are kept of an entry.
const KEY_BYTES_MAX: usize = 4 << 10;
const OUTSIDE: &str = "lines outside of map entries";
const NO_STACK: &str = "map entries without a stack";
const NO_NUMBER: &str = "map entries whose value is no number, such as histograms and averages";

/// Reads what bpftrace prints of a map keyed by stacks.
#[derive(Debug)]
pub struct BpftraceReader {
    depth_max: usize,
    /// An entry has begun.
    inside: bool,
    stack: Vec<FrameId>,
    /// Name of the map, and the keys that are no stacks, each with a comma behind it.
    map: Vec<u8>,
    keys: Vec<u8>,
    series: Option<SeriesId>,
    /// Map and keys that `series` was decided by.
    of: (Vec<u8>, Vec<u8>),
}

impl BpftraceReader {
    /// A reader.
    #[must_use]
    pub fn new(options: &ImportOptions) -> Self {
        Self {
            depth_max: options.limits.depth_max,
            inside: false,
            stack: Vec::new(),
            map: Vec::new(),
            keys: Vec::new(),
            series: None,
            of: (Vec::new(), Vec::new()),
        }
    }

    /// `@name[`, `@name[comm, `, and entries without a stack, which are whole in their line.
    fn outside(&mut self, line: Line<'_>, into: &mut Intake) {
        let bytes = line.bytes;
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let opened = bytes.strip_prefix(b"@").and_then(|rest| {
            let word = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'_';
            let name = rest.iter().take_while(word).count();
            (rest.get(name) == Some(&b'[')).then(|| (&rest[..name], &rest[name + 1..]))
        });
        let Some((name, key)) = opened else {
            into.stats.foreign.add(OUTSIDE, line);
            return;
        };
        name.clone_into(&mut self.map);
        self.keys.clear();
        self.stack.clear();
        if let Some((keys, value)) = split_value(key) {
            // An empty stack was once printed as nothing: `@[, nginx]: 5`.
            if keys.is_empty() || keys.starts_with(b", ") {
                self.keep_keys(keys);
                self.close(value, line, into);
            } else {
                into.stats.foreign.add(NO_STACK, line);
            }
        } else {
            self.keep_keys(key);
            self.inside = true;
        }
    }

    fn inside(&mut self, line: Line<'_>, into: &mut Intake) {
        let bytes = line.bytes;
        match bytes.first() {
            Some(b']' | b',' | b')') => {
                if let Some((keys, value)) = split_value(bytes) {
                    self.keep_keys(keys);
                    self.inside = false;
                    self.close(value, line, into);
                } else {
                    self.keep_keys(bytes);
                }
            }
            Some(b'@') => {
                into.stats.note(CUT);
                self.inside = false;
                self.outside(line, into);
            }
            _ if bytes.trim_ascii().is_empty() => {}
            _ if line.is_cut() => into.stats.foreign.add("lines too long to be frames", line),
            _ if bytes.trim_ascii() == b"<unwind failure>" => {
                into.stats
                    .note("stacks that bpftrace could not unwind to their end");
            }
            _ => {
                let frame = frame::parse(bytes);
                let id = into.fold.frame(frame.kind, frame.name, frame.module);
                self.stack.push(id);
                if self.stack.len() > self.depth_max.saturating_mul(2).max(64) {
                    let over = self.stack.len() - self.depth_max - 1;
                    self.stack.drain(..over);
                }
            }
        }
    }

    /// Keeps the parts of a key that are no stacks.
    fn keep_keys(&mut self, text: &[u8]) {
        for key in text.split(|b| *b == b',') {
            let mut key = key.trim_ascii();
            // A key that is a tuple: `@[(comm, kstack)]`.
            key = key.strip_prefix(b"(").unwrap_or(key);
            key = key.strip_suffix(b")").unwrap_or(key);
            if !key.is_empty() && self.keys.len() + key.len() < KEY_BYTES_MAX {
                self.keys.extend_from_slice(key);
                self.keys.push(b',');
            }
        }
    }

    fn close(&mut self, value: &[u8], line: Line<'_>, into: &mut Intake) {
        let (digits, negative) = match value.trim_ascii() {
            [b'-', digits @ ..] => (digits, true),
            digits => (digits, false),
        };
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|d| d.parse::<u64>().ok());
        let Some(count) = number else {
            into.stats.foreign.add(NO_NUMBER, line);
            return;
        };
        if self.stack.is_empty() {
            into.stats
                .note("entries with an empty stack, counted under [unknown]");
            let unknown = frame::unknown();
            self.stack
                .push(into.fold.frame(unknown.kind, unknown.name, unknown.module));
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
    }

    /// The series of an entry: the first key that is a text is a comm, the first number a pid.
    fn series(&mut self, into: &mut Intake) -> SeriesId {
        if let Some(series) = self.series
            && (&self.of.0, &self.of.1) == (&self.map, &self.keys)
        {
            return series;
        }
        let mut process = Process::default();
        for key in self.keys.split(|b| *b == b',').filter(|k| !k.is_empty()) {
            let text = String::from_utf8_lossy(key);
            match text.parse::<u32>() {
                Ok(pid) if process.pid == 0 => process.pid = pid,
                Err(_) if process.comm.is_empty() => {
                    process.comm = text.replace(char::is_control, " ");
                }
                _ => {}
            }
        }
        process.role.clone_from(&process.comm);
        let series = into.fold.series(&Series {
            process,
            event: String::from_utf8_lossy(&self.map).into_owned(),
            ..Series::default()
        });
        if self.series.is_some() && self.of.0 != self.map {
            into.stats
                .note("changes from one map to another, whose counts are added up");
        }
        self.of = (self.map.clone(), self.keys.clone());
        self.series = Some(series);
        series
    }
}

const CUT: &str = "entries without an end: the output was cut off, and they are left out";

/// Keys and value of the text that ends an entry: `, nginx]: 5`.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::rfind(text, b"]: ")?;
    Some((&text[..at], &text[at + 3..]))
}

impl LineReader for BpftraceReader {
    fn line(&mut self, line: Line<'_>, into: &mut Intake) {
        if self.inside {
            self.inside(line, into);
        } else {
            self.outside(line, into);
        }
    }

    fn end(&mut self, into: &mut Intake) {
        if std::mem::take(&mut self.inside) {
            into.stats.note(CUT);
        }
    }
}
