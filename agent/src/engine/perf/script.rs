//! Stacks from perf script's text into the recorder, while they come.
//!
//! In: bytes, and who the targets are. Out: stacks, counters, what was left out and why. Never: a
//! stack of a process that is no target, a run-time address in a frame, or a line that is dropped
//! without being counted.
//!
//! A frame without a name is `[module]`: the text has no function starts. What is text can be
//! forged: a target whose own symbols or files have line breaks in their names can pretend to be
//! another line. It is bounded by what a sample may say here: a target's pid, a time within the
//! capture, a period near the nominal one.

use super::command::DEPTH_MAX;
use model::format::lines::{Line, Lines};
use model::format::perf_script::{FrameText, Header, Parser, Samples, kind_of, module_of};
use model::profile::{
    CounterKind, CounterSource, Frame, FrameId, FrameKind, Process, Recorder, Series, SeriesId,
};
use std::collections::HashMap;

const SECOND_NS: u64 = 1_000_000_000;
/// Frames that are remembered by their text.
const FRAMES_MAX: usize = 1 << 16;
/// Threads that are remembered.
const THREADS_MAX: usize = 1 << 16;
/// A period may be this many times the nominal one: a late timer counts for what it missed.
const PERIODS_MAX: u64 = 64;
/// Foreign lines that are kept as examples, and how much of each.
const EXAMPLES_MAX: usize = 3;
const EXAMPLE_CHARS_MAX: usize = 120;

/// What does not change during a capture.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// The host's name.
    pub host: String,
    /// The engine's mode.
    pub mode: String,
    /// The event's word.
    pub event: String,
    /// Kernel frames too.
    pub kernel: bool,
    /// Nominal period in nanoseconds.
    pub period_ns: u64,
    /// The event is a clock: a sample's period is the time that it stands for. Else each stands for
    /// the nominal period, which is what the kernel steers the counter by.
    pub is_clock: bool,
}

impl Taken {
    /// The series of one thread name of one process.
    pub(super) fn series(&self, process: Process, thread: String) -> Series {
        Series {
            host: self.host.clone(),
            process,
            thread,
            engine: "perf".to_owned(),
            mode: self.mode.clone(),
            event: self.event.clone(),
            period_ns: self.period_ns,
        }
    }
}

impl Taken {
    /// Whether perf took what it was asked. It falls back silently: to user space (`:u`) without
    /// the privilege for the kernel, and to another event where there is no such counter.
    fn is_asked(&self, event: &str) -> bool {
        let (name, modifiers) = event.split_once(':').unwrap_or((event, ""));
        let user_only = modifiers.contains('u') && !modifiers.contains('k');
        // Hybrid processors have the event once for each kind of core: cpu_core/cycles/.
        name.split('/').any(|part| part == self.event) && user_only != self.kernel
    }
}

/// Whose samples are taken, and from when to when.
pub(super) trait Targets {
    /// The process and thread name of a sample, if it is one of a target; and if it comes to this
    /// reader, since two perfs may see one process.
    fn of(&mut self, pid: u32, tid: u32) -> Option<(Process, String)>;
    /// The window in nanoseconds of perf's time: from, and up to.
    fn window(&self) -> (u64, u64);
    /// Changes whenever an answer of [`Targets::of`] may have changed.
    fn version(&self) -> u64;
}

/// What came, beside what is in the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Samples that are in the recorder.
    pub samples: u64,
    /// Samples outside of the window or of others than the targets.
    pub others: u64,
    /// Records that perf said were lost.
    pub lost: u64,
    /// Stacks that had more than [`DEPTH_MAX`] frames, as far as can be seen.
    pub truncated: u64,
    /// Lines that were no part of a sample.
    pub foreign: u64,
    /// The first of them.
    pub examples: Vec<String>,
    /// An event that is not the one that was asked for, as perf names it.
    pub other_event: Option<String>,
}

/// Reads one perf script's output.
#[derive(Debug)]
pub(super) struct StackReader {
    lines: Lines,
    parser: Parser,
    state: State,
}

#[derive(Debug)]
struct State {
    taken: Taken,
    account: Account,
    frames: HashMap<Vec<u8>, FrameId>,
    series: HashMap<(u32, u32), Option<SeriesId>>,
    series_version: u64,
    /// The sample in hand; none when it is not taken.
    sample: Option<(SeriesId, u32, u64)>,
    stack: Vec<FrameId>,
    cut: bool,
    last_bin: u32,
    key: Vec<u8>,
}

impl StackReader {
    /// A reader that has seen nothing.
    pub(super) fn new(taken: Taken) -> Self {
        Self {
            lines: Lines::default(),
            parser: Parser::default(),
            state: State {
                taken,
                account: Account::default(),
                frames: HashMap::default(),
                series: HashMap::default(),
                series_version: 0,
                sample: None,
                stack: Vec::new(),
                cut: false,
                last_bin: 0,
                key: Vec::new(),
            },
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], targets: &mut dyn Targets, into: &mut Recorder) {
        let (parser, state) = (&mut self.parser, &mut self.state);
        state.refresh(targets.version());
        let mut reading = Reading {
            state,
            targets,
            into,
        };
        self.lines
            .feed(bytes, |line| parser.line(line, &mut reading));
    }

    /// The end of the text.
    pub(super) fn end(mut self, targets: &mut dyn Targets, into: &mut Recorder) -> Account {
        let (parser, state) = (&mut self.parser, &mut self.state);
        let mut reading = Reading {
            state,
            targets,
            into,
        };
        self.lines.end(|line| parser.line(line, &mut reading));
        parser.end(&mut reading);
        self.state.account
    }
}

impl State {
    fn refresh(&mut self, version: u64) {
        if version != self.series_version || self.series.len() > THREADS_MAX {
            self.series.clear();
            self.series_version = version;
        }
    }
}

/// The state, who is asked, and where stacks go.
struct Reading<'a> {
    state: &'a mut State,
    targets: &'a mut dyn Targets,
    into: &'a mut Recorder,
}

impl Reading<'_> {
    fn series(&mut self, pid: u32, tid: u32) -> Option<SeriesId> {
        if let Some(known) = self.state.series.get(&(pid, tid)) {
            return *known;
        }
        let found = self
            .targets
            .of(pid, tid)
            .map(|(process, thread)| self.into.series(&self.state.taken.series(process, thread)));
        self.state.series.insert((pid, tid), found);
        found
    }

    /// What a sample stands for, in nanoseconds.
    fn covered(&self, period: Option<u64>) -> u64 {
        let nominal = self.state.taken.period_ns;
        match period {
            Some(period) if self.state.taken.is_clock => {
                period.min(nominal.saturating_mul(PERIODS_MAX))
            }
            _ => nominal,
        }
    }
}

impl Samples for Reading<'_> {
    fn begin(&mut self, header: &Header<'_>) {
        self.state.stack.clear();
        self.state.cut = false;
        self.state.sample = None;
        let (from, until) = self.targets.window();
        let time = header.time_ns.unwrap_or(0);
        let (Some(pid), Some(tid)) = (header.pid, header.tid) else {
            self.state.account.others += 1;
            return;
        };
        let inside = (from..until).contains(&time);
        let series = if inside { self.series(pid, tid) } else { None };
        let Some(series) = series else {
            self.state.account.others += 1;
            return;
        };
        if self.state.account.other_event.is_none() {
            let event = String::from_utf8_lossy(header.event);
            if !self.state.taken.is_asked(&event) {
                self.state.account.other_event = Some(event.into_owned());
            }
        }
        let bin = u32::try_from((time - from) / SECOND_NS).unwrap_or(u32::MAX);
        self.state.last_bin = bin;
        self.state.sample = Some((series, bin, self.covered(header.period)));
    }

    fn frame(&mut self, frame: &FrameText<'_>) {
        let state = &mut *self.state;
        if state.sample.is_none() {
            return;
        }
        if state.stack.len() >= DEPTH_MAX {
            state.cut = true;
            return;
        }
        let kind = kind_of(frame);
        state.key.clear();
        state.key.push(kind as u8);
        state.key.extend_from_slice(frame.name);
        state.key.push(0);
        state.key.extend_from_slice(frame.module);
        if let Some(id) = state.frames.get(&state.key) {
            state.stack.push(*id);
            return;
        }
        let id = self.into.frame(&named(kind, frame));
        if state.frames.len() >= FRAMES_MAX {
            state.frames.clear();
        }
        state.frames.insert(state.key.clone(), id);
        state.stack.push(id);
    }

    fn end(&mut self) {
        let state = &mut *self.state;
        let Some((series, bin, covered_ns)) = state.sample.take() else {
            return;
        };
        if state.stack.is_empty() {
            let unknown = Frame::unnamed(FrameKind::User, "", None, 0);
            state.stack.push(self.into.frame(&unknown));
        }
        if state.cut || state.stack.len() == DEPTH_MAX {
            state.account.truncated += 1;
            state
                .stack
                .push(self.into.frame(&Frame::marker("[truncated]")));
        }
        state.stack.reverse();
        self.into
            .add_stack(series, bin, &state.stack, &[1, covered_ns, 0]);
        state.account.samples += 1;
    }

    fn foreign(&mut self, kind: &'static str, line: Line<'_>) {
        let account = &mut self.state.account;
        account.foreign += 1;
        if account.examples.len() < EXAMPLES_MAX {
            let text = String::from_utf8_lossy(line.bytes);
            let text: String = text.chars().take(EXAMPLE_CHARS_MAX).collect();
            account.examples.push(format!("{kind}: {text:?}"));
        }
    }

    fn lost(&mut self, count: u64) {
        self.state.account.lost = self.state.account.lost.saturating_add(count);
        self.into.count(
            CounterSource::Host,
            self.state.last_bin,
            CounterKind::Lost,
            count,
        );
    }
}

/// A frame as every engine has it: the module by its base name.
fn named(kind: FrameKind, frame: &FrameText<'_>) -> Frame {
    let module = module_of(kind, frame.module);
    let base = module.rsplit(|b| *b == b'/').next().unwrap_or(module);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(char::is_control, " ");
    // memcpy@@GLIBC_2.14 is memcpy, as the native engine names it.
    let name = match frame.name.iter().position(|b| *b == b'@') {
        Some(at) if at > 0 => &frame.name[..at],
        _ => frame.name,
    };
    if frame.name.is_empty() {
        Frame::unnamed(kind, text(base), None, 0)
    } else {
        Frame::named(kind, text(name), text(base))
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
