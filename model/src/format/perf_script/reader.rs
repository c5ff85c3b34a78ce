//! Samples into the fold.
//!
//! In: lines. Out: one stack a sample. Never: samples of two events in one sum.

use super::frame::hex;
use super::modules::Modules;
use super::sourced::At;
use super::{FrameText, Header, Parser, PerfOptions, Samples};
use crate::format::import::{ImportOptions, Intake, LineReader};
use crate::format::known_lines::KnownLines;
use crate::format::lines::{Ahead, Line};
use crate::profile::{Frame, FrameId, FrameKind, Measure, Process, Series, SeriesId};
use foldhash::HashMap;

/// Below this an address that perf prints for a file is not one of a mapping that the kernel chose:
/// it counts from the file's begin (perf 6.0 and later), or the file is linked to it.
const FILE_ADDRESS_MAX: u64 = 0x4000_0000;
/// Events by name that are counted one by one when they are left out.
const EVENTS_MAX: usize = 64;

/// Folds `perf script` text.
#[derive(Debug)]
pub struct PerfReader {
    parser: Parser,
    state: State,
    known: KnownLines,
}

impl PerfReader {
    /// A reader.
    #[must_use]
    pub fn new(options: &ImportOptions) -> Self {
        Self {
            parser: Parser::default(),
            state: State::new(options),
            known: KnownLines::default(),
        }
    }
}

impl LineReader for PerfReader {
    #[inline]
    fn line(&mut self, line: Line<'_>, into: &mut Intake) {
        let state = &mut self.state;
        state.alone = None;
        let was_inside = self.parser.is_inside();
        self.parser.line(line, &mut Folding { state, into });
        // Inside before and after it, the line decided on itself only.
        if let Some(id) = self.state.alone
            && was_inside
            && self.parser.is_inside()
            && into.source.is_none()
        {
            self.known.learn(line.bytes, id);
        }
    }

    #[inline]
    fn ahead(&mut self, rest: &[u8]) -> Option<Ahead> {
        let state = &mut self.state;
        if !self.parser.is_inside() || !state.options.skip_after.is_empty() {
            return None;
        }
        let (id, ahead) = self.known.find(rest)?;
        if !state.skip {
            state.push(id);
        }
        Some(ahead)
    }

    fn end(&mut self, into: &mut Intake) {
        let state = &mut self.state;
        self.parser.end(&mut Folding { state, into });
    }
}

/// What the second measure is. The first is always the number of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// The event is a clock: its period is time on a CPU.
    Cpu,
    /// The event counts something: its period is how much of it.
    Period,
    /// The text has no periods.
    None,
}

/// Process and thread.
type Ids = (Option<u32>, Option<u32>);

#[derive(Debug)]
pub(super) struct State {
    options: PerfOptions,
    keep_offsets: bool,
    depth_max: usize,
    series_max: usize,
    /// The event that is taken, once it is known, and what it measures.
    taken: Option<(Vec<u8>, Second)>,
    period_ns: u64,
    /// The sample is of another event, or what is left of it is above a function of `skip_after`.
    skip: bool,
    skip_rest: bool,
    /// Where the frames that are read stand, for their source.
    pub(super) at: At,
    series: SeriesId,
    /// What `series` was decided by.
    of: Option<(Ids, Vec<u8>)>,
    /// Series by process and thread, with the comm that they were decided by.
    met: HashMap<Ids, (Vec<u8>, SeriesId)>,
    processes: HashMap<u32, String>,
    modules: Modules,
    stack: Vec<FrameId>,
    values: [u64; 3],
    /// The frame that the line which is read came to, when it came to one and nothing else.
    alone: Option<FrameId>,
}

impl State {
    fn new(options: &ImportOptions) -> Self {
        Self {
            options: options.perf.clone(),
            keep_offsets: options.keep_offsets,
            depth_max: options.limits.depth_max,
            series_max: options.limits.series_max,
            taken: None,
            period_ns: 0,
            skip: false,
            skip_rest: false,
            at: At::default(),
            series: SeriesId(0),
            of: None,
            met: HashMap::default(),
            processes: HashMap::default(),
            modules: Modules::default(),
            stack: Vec::new(),
            values: [0; 3],
            alone: None,
        }
    }

    /// Whether samples of this event are taken. The first one that is decides what is measured.
    fn takes(&mut self, header: &Header<'_>, into: &mut Intake) -> bool {
        if let Some((event, _)) = &self.taken {
            return event == header.event
                || (self.options.event.as_deref()).is_some_and(|e| is_event(header.event, e));
        }
        if let Some(event) = &self.options.event
            && !is_event(header.event, event)
        {
            return false;
        }
        let second = match header.period {
            Some(_) if is_clock(header.event) => Second::Cpu,
            Some(_) if !header.event.is_empty() => Second::Period,
            _ => Second::None,
        };
        let event = String::from_utf8_lossy(header.event);
        let on_cpu = header.event.is_empty() || is_clock(header.event) || is_cycles(header.event);
        let probe = if on_cpu { "on-cpu" } else { &event };
        let measures = match second {
            Second::Cpu => Measure::on_cpu(),
            Second::Period => vec![
                Measure::new("samples", "count"),
                Measure::new("period", "count"),
            ],
            Second::None => Measure::samples_only(),
        };
        into.fold.measured(probe, measures);
        if second == Second::Cpu {
            self.period_ns = header.period.unwrap_or(0);
        }
        self.taken = Some((header.event.to_vec(), second));
        true
    }

    /// The series of a sample. A process has the name of its main thread where that was met before.
    fn series(&mut self, header: &Header<'_>, into: &mut Intake) -> SeriesId {
        let ids = (header.pid, header.tid);
        if let Some((of, comm)) = &self.of
            && *of == ids
            && comm == header.comm
        {
            return self.series;
        }
        if let Some((comm, series)) = self.met.get(&ids)
            && comm == header.comm
        {
            self.series = *series;
            self.of = Some((ids, comm.clone()));
            return self.series;
        }
        let comm = String::from_utf8_lossy(header.comm).replace(char::is_control, " ");
        let mut process = Process {
            pid: header.pid.unwrap_or(0),
            ..Process::default()
        };
        process.comm = match header.pid {
            Some(pid) if header.tid == Some(pid) => {
                self.remember(pid, &comm);
                comm.clone()
            }
            Some(pid) => match self.processes.get(&pid) {
                Some(known) => known.clone(),
                None => {
                    self.remember(pid, &comm);
                    comm.clone()
                }
            },
            None => comm.clone(),
        };
        process.role.clone_from(&process.comm);
        let event = self.taken.as_ref().map_or(&b""[..], |(event, _)| event);
        let series = Series {
            process,
            thread: if self.options.by_tid {
                comm
            } else {
                String::new()
            },
            event: String::from_utf8_lossy(event).into_owned(),
            period_ns: self.period_ns,
            ..Series::default()
        };
        self.series = into.fold.series(&series);
        if self.met.len() < self.series_max {
            self.met.insert(ids, (header.comm.to_vec(), self.series));
        }
        self.of = Some((ids, header.comm.to_vec()));
        self.series
    }

    fn remember(&mut self, pid: u32, comm: &str) {
        if self.processes.len() < self.series_max || self.processes.contains_key(&pid) {
            let before = self.processes.insert(pid, comm.to_owned());
            if before.is_some_and(|before| before != comm) {
                self.met.clear(); // its threads belong to another name from now on
            }
        }
    }

    /// What follows from a frame for those behind it.
    #[inline]
    fn after(&mut self, frame: &FrameText<'_>) {
        if !self.options.skip_after.is_empty() {
            self.skip_rest = (self.options.skip_after.iter()).any(|s| s.as_bytes() == frame.name);
        }
    }

    /// One more frame. Of a stack that is too deep the frames next to the leaf go: the fold counts
    /// it under `[deeper]` at the depth where it is cut.
    #[inline]
    pub(super) fn push(&mut self, frame: FrameId) {
        self.stack.push(frame);
        if self.stack.len() > self.depth_max.saturating_mul(2).max(64) {
            let over = self.stack.len() - self.depth_max - 1;
            self.stack.drain(..over);
        }
    }
}

/// `name` or `name:MODIFIERS` (see `man perf-list`, EVENT MODIFIERS).
fn is_event(event: &[u8], name: &str) -> bool {
    event.strip_prefix(name.as_bytes()).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix(b":")
                .is_some_and(|letters| letters.iter().all(|l| b"ukhGHIpPSDWebR".contains(l)))
    })
}

/// Whether the event is a clock of the kernel, whose period is in nanoseconds.
fn is_clock(event: &[u8]) -> bool {
    is_event(event, "cpu-clock") || is_event(event, "task-clock")
}

fn is_cycles(event: &[u8]) -> bool {
    let base = event.split(|b| *b == b':').next().unwrap_or(event);
    base == b"cycles" || base.ends_with(b"/cycles/") || base == b"cpu-cycles"
}

/// The state, and where it puts things.
pub(super) struct Folding<'a> {
    pub(super) state: &'a mut State,
    pub(super) into: &'a mut Intake,
}

impl Samples for Folding<'_> {
    fn begin(&mut self, header: &Header<'_>) {
        let (state, into) = (&mut *self.state, &mut *self.into);
        state.stack.clear();
        state.alone = None;
        state.skip_rest = false;
        state.at = At::default();
        state.skip = !state.takes(header, into);
        if state.skip {
            into.stats
                .note("samples of other events, which were left out");
            let events = &mut into.stats.other_events;
            let name = String::from_utf8_lossy(header.event);
            if let Some(count) = events.get_mut(&*name) {
                *count += 1;
            } else {
                let full = events.len() >= EVENTS_MAX;
                let name = if full { "[other]" } else { &name };
                *events.entry(name.to_owned()).or_default() += 1;
            }
            return;
        }
        state.series(header, into);
        state.values[0] = 1;
        state.values[1] = match state.taken {
            Some((_, Second::Cpu | Second::Period)) => header.period.unwrap_or_else(|| {
                into.stats
                    .note("samples without a period among some with one");
                0
            }),
            _ => 0,
        };
    }

    #[inline]
    fn frame(&mut self, frame: &FrameText<'_>) {
        if self.state.skip || self.state.skip_rest {
            return;
        }
        if self.into.source.is_some() && self.with_source(frame) {
            self.state.after(frame);
            return;
        }
        let state = &mut *self.state;
        let fold = &mut self.into.fold;
        let told;
        let (kind, module, dsoff) = match state.modules.find(frame.module) {
            Some(known) => (known.kind, &known.module[..], &b""[..]),
            None => {
                told = state.modules.tell(frame);
                (told.kind, &told.module[..], &frame.module[told.path_len..])
            }
        };
        if frame.name.is_empty()
            && state.keep_offsets
            && let Some(address) = file_address(frame, kind, dsoff)
        {
            let module = String::from_utf8_lossy(module);
            let base = module.rsplit('/').next().unwrap_or(&module);
            let frame = Frame::unnamed(kind, base.replace(char::is_control, " "), None, address);
            let id = fold.whole_frame(&frame);
            state.push(id);
            state.alone = Some(id);
            return;
        }
        if kind == FrameKind::Jit
            && let Some(at) = memchr::memmem::find(frame.name, b"->")
        {
            let module = module.to_vec();
            inlined(state, self.into, frame.name, at, &module);
        } else {
            let id = fold.frame(kind, frame.name, module);
            state.push(id);
            state.alone = Some(id);
        }
        state.after(frame);
    }

    fn end(&mut self) {
        let (state, into) = (&mut *self.state, &mut *self.into);
        if state.skip {
            return;
        }
        if state.stack.is_empty() {
            into.stats
                .note("samples without a stack, counted under [unknown]");
            let unknown = into.fold.frame(FrameKind::User, b"", b"");
            state.stack.push(unknown);
        }
        (into.fold).add_leaf_first(state.series, &state.stack, &state.values);
        into.stats.stacks += 1;
    }

    fn foreign(&mut self, kind: &'static str, line: Line<'_>) {
        self.into.stats.foreign.add(kind, line);
    }

    fn cut(&mut self) {
        let stats = &mut self.into.stats;
        stats.note("the text ends without an empty line, so its last stack may be cut");
    }

    fn lost(&mut self, count: u64) {
        let stats = &mut self.into.stats;
        stats.note("times perf said that it lost records");
        stats.lost_samples = stats.lost_samples.saturating_add(count);
    }
}

/// A JIT compiler that inlines names its functions `outer->inner->innermost` in perf's map.
#[cold]
fn inlined(state: &mut State, into: &mut Intake, name: &[u8], first: usize, module: &[u8]) {
    let mut end = name.len();
    while let Some(at) = memchr::memmem::rfind(&name[first..end], b"->") {
        let part = &name[first + at + 2..end];
        if !part.is_empty() {
            let id = into.fold.frame(FrameKind::Inline, part, b"");
            state.push(id);
        }
        end = first + at;
    }
    let id = into.fold.frame(FrameKind::Jit, &name[..end], module);
    state.push(id);
}

/// The address of an unnamed frame in its file, where the text has one that no run changes: behind
/// the module, or as the address itself.
fn file_address(frame: &FrameText<'_>, kind: FrameKind, dsoff: &[u8]) -> Option<u64> {
    if kind != FrameKind::User || !frame.module.starts_with(b"/") || frame.module.starts_with(b"//")
    {
        return None;
    }
    let address = hex(frame.address).filter(|a| *a < FILE_ADDRESS_MAX);
    let dsoff = dsoff.strip_prefix(b"+0x").and_then(hex);
    dsoff.or(address).filter(|a| *a > 0)
}
