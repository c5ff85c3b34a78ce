//! What `stackcollapse-perf.pl` of FlameGraph writes for `perf script` text.
//!
//! In: pieces of the text. Out: folded lines in the script's order, byte for byte the same, oddities
//! and losses included: a last stack without an empty line is dropped, a comm of one letter takes
//! the time with it, a `(` in a name ends it. Never: unbounded memory: over [`TEXT_BYTES_MAX`]
//! stacks are counted in one line `[pruned]`, which the script does not have.
//!
//! Described after <https://github.com/brendangregg/FlameGraph> at 41fee1f (`stackcollapse-perf.pl`,
//! which keeps no version number). `--inline`, `--context` and `--srcline` are not imitated.

mod line;
#[cfg(test)]
mod tests;
mod tidy;

use crate::format::lines::{Line, Lines};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use line::{event_of, frame_of, owner_of};
use tidy::{Annotate, tidy};

/// Most bytes of different stacks that are kept: 1 GiB.
pub const TEXT_BYTES_MAX: usize = 1 << 30;
/// Most bytes of one stack. The rest of its frames is left out and it is counted as `[pruned]`.
const STACK_BYTES_MAX: usize = 16 << 20;
const PRUNED: &[u8] = b"[pruned]";

/// The script's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompatPerfOptions {
    /// `--kernel`: `_[k]` behind kernel functions. `--all` is this and `jit`.
    pub kernel: bool,
    /// `--jit`: `_[j]` behind functions of a JIT compiler's map.
    pub jit: bool,
    /// `--pid`: the process behind the comm.
    pub pid: bool,
    /// `--tid`: process and thread behind the comm.
    pub tid: bool,
    /// `--addrs`: the address beside the module of functions without a name.
    pub addrs: bool,
    /// `--event-filter`; empty for the first event that is met.
    pub event_filter: String,
}

/// Reads text and imitates. See the module.
#[derive(Debug)]
pub struct CompatPerf {
    lines: Lines,
    folding: Folding,
}

impl CompatPerf {
    /// Nothing read yet.
    #[must_use]
    pub fn new(options: CompatPerfOptions) -> Self {
        Self {
            lines: Lines::default(),
            folding: Folding::new(options, TEXT_BYTES_MAX),
        }
    }

    /// Takes the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        let folding = &mut self.folding;
        self.lines.feed(bytes, |line| folding.line(line));
    }

    /// The end of a file, with another to come: a line does not go on in the next file, a sample does.
    pub fn end_file(&mut self) {
        let folding = &mut self.folding;
        self.lines.end(|line| folding.line(line));
    }

    /// Lines that the script would warn of (`Unrecognized line`), so far.
    #[must_use]
    pub fn unrecognized(&self) -> u64 {
        self.folding.unrecognized
    }

    /// The end of the text: all lines, sorted by their stacks' bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let folding = &mut self.folding;
        self.lines.end(|line| folding.line(line));
        let mut stacks: Vec<(&Vec<u8>, &u64)> = folding.counts.iter().collect();
        stacks.sort_unstable();
        let mut out = Vec::new();
        for (stack, count) in stacks {
            out.extend_from_slice(stack);
            out.push(b' ');
            out.extend_from_slice(count.to_string().as_bytes());
            out.push(b'\n');
        }
        out
    }
}

/// The state that the script keeps from line to line.
#[derive(Debug)]
struct Folding {
    options: CompatPerfOptions,
    text_bytes_max: usize,
    event: Vec<u8>,
    /// Comm and ids of the sample, as they are printed. None between samples.
    owner: Option<Vec<u8>>,
    period: u64,
    /// Texts of the frames, one behind the other, and where each ends; leaf first.
    frames: Vec<u8>,
    ends: Vec<usize>,
    too_long: bool,
    counts: HashMap<Vec<u8>, u64, RandomState>,
    bytes: usize,
    key: Vec<u8>,
    names: Vec<u8>,
    unrecognized: u64,
}

impl Folding {
    fn new(options: CompatPerfOptions, text_bytes_max: usize) -> Self {
        Self {
            event: options.event_filter.clone().into_bytes(),
            options,
            text_bytes_max,
            owner: None,
            period: 1,
            frames: Vec::new(),
            ends: Vec::new(),
            too_long: false,
            counts: HashMap::default(),
            bytes: 0,
            key: Vec::new(),
            names: Vec::new(),
            unrecognized: 0,
        }
    }

    fn line(&mut self, line: Line<'_>) {
        if line.bytes.starts_with(b"#") {
            return;
        }
        if line.is_cut() {
            self.unrecognized += 1;
        } else if line.len > line.bytes.len() {
            // The script keeps a carriage return, and a line with nothing else does not end a stack.
            self.whole(&[line.bytes, b"\r"].concat());
        } else {
            self.whole(line.bytes);
        }
    }

    fn whole(&mut self, line: &[u8]) {
        if line.is_empty() {
            self.end();
        } else if let Some((comm, pid, tid)) = owner_of(line) {
            self.begin(line, comm, pid, tid);
        } else if let Some((address, name, module)) = frame_of(line) {
            if self.owner.is_some() {
                self.frame(address, name, module);
            }
        } else {
            self.unrecognized += 1;
        }
    }

    /// A header. One of another event is passed over, and then the lines after it still belong to
    /// the sample before it, if that has not ended.
    fn begin(&mut self, line: &[u8], comm: &[u8], pid: &[u8], tid: &[u8]) {
        let mut period = &b""[..];
        if let Some((number, event)) = event_of(line) {
            if self.event.is_empty() {
                event.clone_into(&mut self.event);
            } else if self.event != event {
                return;
            }
            period = number;
        }
        self.period = match period {
            b"" | b"0" => 1,
            digits => (digits.iter()).fold(0_u64, |sum, digit| {
                sum.saturating_mul(10)
                    .saturating_add(u64::from(digit - b'0'))
            }),
        };
        let (pid, tid) = match tid {
            b"" | b"0" => (&b"?"[..], pid),
            _ => (pid, tid),
        };
        let owner = self.owner.get_or_insert_default();
        owner.clear();
        owner.extend_from_slice(comm);
        if self.options.tid || self.options.pid {
            owner.push(b'-');
            owner.extend_from_slice(pid);
        }
        if self.options.tid {
            owner.push(b'/');
            owner.extend_from_slice(tid);
        }
        for byte in owner.iter_mut().filter(|b| **b == b' ') {
            *byte = b'_';
        }
    }

    fn frame(&mut self, address: &[u8], name: &[u8], module: &[u8]) {
        let annotate = Annotate {
            kernel: self.options.kernel,
            jit: self.options.jit,
            addresses: self.options.addrs,
            java: (self.owner.as_deref()).is_some_and(|o| o.starts_with(b"java")),
        };
        if self.frames.len() + name.len() + module.len() > STACK_BYTES_MAX {
            self.too_long = true;
            return;
        }
        // The innermost of inlined functions is the last of a line, and the leaf comes first here.
        let (from, first) = (self.frames.len(), self.ends.len());
        tidy(
            address,
            name,
            module,
            annotate,
            &mut self.frames,
            &mut self.ends,
        );
        if self.ends.len() - first > 1 {
            self.turn(from, first);
        }
    }

    /// Turns the order of the functions that one line has given.
    fn turn(&mut self, from: usize, first: usize) {
        self.names.clear();
        self.names.extend_from_slice(&self.frames[from..]);
        let ends = self.ends.split_off(first);
        self.frames.truncate(from);
        for at in (0..ends.len()).rev() {
            let start = if at == 0 { from } else { ends[at - 1] };
            let name = &self.names[start - from..ends[at] - from];
            self.frames.extend_from_slice(name);
            self.ends.push(self.frames.len());
        }
    }

    /// An empty line.
    fn end(&mut self) {
        let Some(owner) = self.owner.take() else {
            return;
        };
        self.key.clear();
        if self.too_long {
            self.key.extend_from_slice(PRUNED);
        } else {
            self.key.extend_from_slice(&owner);
            for at in (0..self.ends.len()).rev() {
                let start = if at == 0 { 0 } else { self.ends[at - 1] };
                self.key.push(b';');
                let name = &self.frames[start..self.ends[at]];
                self.key.extend_from_slice(name);
            }
        }
        self.frames.clear();
        self.ends.clear();
        self.too_long = false;
        if let Some(count) = self.counts.get_mut(self.key.as_slice()) {
            *count = count.saturating_add(self.period);
            return;
        }
        if self.bytes + self.key.len() > self.text_bytes_max {
            self.key.clear();
            self.key.extend_from_slice(PRUNED);
        } else {
            self.bytes += self.key.len();
        }
        let count = self.counts.entry_ref(self.key.as_slice()).or_default();
        *count = count.saturating_add(self.period);
    }
}
