//! Writes `profile.proto`.
//!
//! In: a profile. Out: gzip bytes that depend on its content only. Never: a sum that differs, or
//! two frames that become one.

use super::guess::names;
use super::measures::unit;
use super::wire::{put_bytes, put_number, put_packed};
use crate::format::in_order::{Walk, series};
use crate::profile::{
    BuildId, Frame, FrameId, FrameKind, NodeId, Profile, ROOT, Series, SeriesId, Values,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use foldhash::HashMap;
use std::io::Write as _;

/// The engine of series that a file names none of.
pub(super) const ENGINE: &str = "pprof";
/// Begins the comment that names the probe. Google's pprof does not show comments that begin with #.
pub(super) const PROBE_COMMENT: &str = "#fleetflame probe: ";
/// Bytes that are gathered before they are packed.
const PIECE_BYTES: usize = 64 << 10;
/// Most functions inlined at one location, so that a long chain of them is not written as often as it
/// is deep. Compilers make less than 20.
const INLINED_MAX: usize = 64;

/// When a profile was taken; zeros are written as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The start, in nanoseconds since 1970.
    pub from_unix_ns: u64,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
}

/// Writes a profile: all measures, all series (as labels), all frames. Without time.
#[must_use]
pub fn write(profile: &Profile) -> Vec<u8> {
    write_taken(profile, Taken::default())
}

/// The same with the time of the whole, for stores that keep profiles by time. Not with seconds.
#[must_use]
pub fn write_taken(profile: &Profile, taken: Taken) -> Vec<u8> {
    let mut out = Out {
        plain: Vec::new(),
        packed: GzEncoder::new(Vec::new(), Compression::default()),
    };
    let mut texts = Texts::default();
    texts.number("");
    let (mut message, mut room) = (Vec::new(), Vec::new());
    for measure in &profile.measures {
        message.clear();
        put_number(&mut message, 1, texts.number(&measure.name));
        put_number(&mut message, 2, texts.number(unit(&measure.unit)));
        out.message(1, &message);
    }
    let width = profile.measures.len().min(crate::profile::MEASURES_MAX);
    let series = series(profile);
    let period_ns = common_period(profile, &series);
    let walk = Walk::of(profile);
    let mut places = Places::new(profile);
    let mut labels = Vec::new();
    for id in series {
        let Some(series) = profile.series.get(id) else {
            continue;
        };
        labels.clear();
        put_labels(&mut labels, series, period_ns.is_none(), &mut texts);
        for (node, mut values) in profile.totals.get(&id).map_or(Vec::new(), |t| walk.rows(t)) {
            // An int64 holds half of what a u64 does; a larger value becomes several samples.
            while let Some(part) = part(&mut values) {
                message.clear();
                put_packed(&mut message, &mut room, 1, places.stack(NodeId(node)));
                let part = part.iter().take(width).copied();
                put_packed(&mut message, &mut room, 2, part);
                message.extend_from_slice(&labels);
                out.message(2, &message);
            }
        }
    }
    places.write(&mut out, &mut texts);
    put_number(&mut out.plain, 9, taken.from_unix_ns);
    put_number(&mut out.plain, 10, taken.duration_ns);
    if let Some(period_ns) = period_ns.filter(|p| *p > 0) {
        message.clear();
        put_number(&mut message, 1, texts.number("cpu"));
        put_number(&mut message, 2, texts.number("nanoseconds"));
        out.message(11, &message);
        put_number(&mut out.plain, 12, period_ns);
    }
    let comment = texts.number(&format!("{PROBE_COMMENT}{}", profile.probe));
    put_packed(&mut out.plain, &mut room, 13, [comment]);
    out.plain.extend_from_slice(&texts.encoded);
    out.finish()
}

/// Takes as much off the values as int64 holds; none when nothing is left.
fn part(values: &mut Values) -> Option<Values> {
    if values.iter().all(|v| *v == 0) {
        return None;
    }
    let mut part = Values::default();
    for (part, value) in part.iter_mut().zip(values) {
        *part = (*value).min(i64::MAX.cast_unsigned());
        *value -= *part;
    }
    Some(part)
}

/// The period that all series have, in nanoseconds; none where they differ.
fn common_period(profile: &Profile, series: &[SeriesId]) -> Option<u64> {
    let mut periods = series
        .iter()
        .filter_map(|id| profile.series.get(*id))
        .map(|s| s.period_ns);
    let first = periods.next()?;
    (first <= i64::MAX.cast_unsigned() && periods.all(|p| p == first)).then_some(first)
}

fn put_labels(out: &mut Vec<u8>, series: &Series, with_period: bool, texts: &mut Texts) {
    let process = &series.process;
    let worker = process.worker.map(|w| w.to_string()).unwrap_or_default();
    let mut message = Vec::new();
    for (key, text) in [
        ("host", &series.host),
        ("process", &process.comm),
        ("role", &process.role),
        // A text, because a label whose number is 0 is none.
        ("worker", &worker),
        ("thread", &series.thread),
        ("engine", &series.engine),
        ("mode", &series.mode),
        ("event", &series.event),
    ] {
        if !text.is_empty() {
            message.clear();
            put_number(&mut message, 1, texts.number(key));
            put_number(&mut message, 2, texts.number(text));
            put_bytes(out, 3, &message);
        }
    }
    let period = if with_period { series.period_ns } else { 0 };
    for (key, number, unit) in [
        ("pid", u64::from(process.pid), ""),
        ("start_ticks", process.start_ticks, ""),
        ("generation", u64::from(process.generation), ""),
        ("period", period, "nanoseconds"),
    ] {
        if number > 0 {
            message.clear();
            put_number(&mut message, 1, texts.number(key));
            put_number(&mut message, 3, number);
            put_number(&mut message, 4, texts.number(unit));
            put_bytes(out, 3, &message);
        }
    }
}

/// Bytes on their way into gzip.
struct Out {
    plain: Vec<u8>,
    packed: GzEncoder<Vec<u8>>,
}

impl Out {
    fn message(&mut self, field: u32, message: &[u8]) {
        put_bytes(&mut self.plain, field, message);
        if self.plain.len() >= PIECE_BYTES {
            self.pack();
        }
    }

    fn pack(&mut self) {
        // Writing to memory does not fail.
        let _ = self.packed.write_all(&self.plain);
        self.plain.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        self.pack();
        self.packed.finish().unwrap_or_default()
    }
}

/// The string table: each text once, in the order of first use.
#[derive(Default)]
struct Texts {
    by_text: HashMap<String, u64>,
    encoded: Vec<u8>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.by_text.get(text) {
            return *number;
        }
        let number = self.by_text.len() as u64;
        self.by_text.insert(text.to_owned(), number);
        put_bytes(&mut self.encoded, 6, text.as_bytes());
        number
    }
}

/// Locations: a frame, or a frame with what is inlined into it.
struct Places<'a> {
    profile: &'a Profile,
    /// By the first line's node: location, and the node below the caller's. 0 where not met yet.
    by_node: Vec<(u32, u32)>,
    by_frames: HashMap<Vec<u32>, u32>,
    /// Frames of each location, the innermost first.
    locations: Vec<Vec<u32>>,
    /// A frame of the program itself: the one nearest to a root that has a module. pprof takes the
    /// first mapping for that of the program.
    program: Option<&'a Frame>,
    stack: Vec<u64>,
}

impl<'a> Places<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            by_node: vec![(0, 0); profile.tree.len()],
            by_frames: HashMap::default(),
            locations: Vec::new(),
            program: None,
            stack: Vec::new(),
        }
    }

    /// The locations from a node to the root.
    fn stack(&mut self, node: NodeId) -> impl Iterator<Item = u64> {
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        let mut at = node;
        while at != ROOT {
            let (location, caller) = self.of(at);
            stack.push(u64::from(location));
            at = caller;
        }
        if self.program.is_none() {
            let callers = stack.iter().rev().filter_map(|l| self.caller(*l));
            let mut callers = callers.filter(|f| f.kind == FrameKind::User);
            self.program = callers.find(|f| !f.module.is_empty());
        }
        self.stack = stack;
        self.stack.iter().copied()
    }

    /// The frame that a location is of, without what is inlined into it.
    fn caller(&self, location: u64) -> Option<&'a Frame> {
        let frames = self
            .locations
            .get(usize::try_from(location).ok()?.checked_sub(1)?)?;
        self.profile.frames.get(FrameId(*frames.last()?))
    }

    fn of(&mut self, node: NodeId) -> (u32, NodeId) {
        let (known, caller) = self.by_node[node.0 as usize];
        if known != 0 {
            return (known, NodeId(caller));
        }
        let mut frames = Vec::with_capacity(1);
        let mut at = node;
        while let Some(here) = self.profile.tree.get(at) {
            frames.push(here.frame.0);
            at = here.parent;
            if !self.is_joined(here.frame) || frames.len() > INLINED_MAX {
                break;
            }
        }
        // What is inlined into nothing, or too deep, has a location of its own.
        if frames.len() > 1 && frames.last().is_some_and(|f| self.is_joined(FrameId(*f))) {
            frames.truncate(1);
            at = self.profile.tree.get(node).map_or(ROOT, |n| n.parent);
        }
        let next = u32::try_from(self.locations.len() + 1).unwrap_or(u32::MAX);
        let location = match self.by_frames.get(&frames) {
            Some(known) => *known,
            None => {
                self.by_frames.insert(frames.clone(), next);
                self.locations.push(frames);
                next
            }
        };
        self.by_node[node.0 as usize] = (location, at.0);
        (location, at)
    }

    /// Whether a frame can share its caller's location: it knows nothing of a module.
    fn is_joined(&self, frame: FrameId) -> bool {
        let frame = self.profile.frames.get(frame);
        frame.is_some_and(|f| {
            f.kind == FrameKind::Inline
                && f.module.is_empty()
                && f.build_id.is_none()
                && f.address == 0
        })
    }

    fn write(&self, out: &mut Out, texts: &mut Texts) {
        let mut mappings: HashMap<(&str, Option<BuildId>), u64> = HashMap::default();
        let mut mapping_of = |frame: &'a Frame, out: &mut Out, texts: &mut Texts| {
            if frame.module.is_empty() && frame.build_id.is_none() && frame.address == 0 {
                return 0;
            }
            let next = mappings.len() as u64 + 1;
            let key = (frame.module.as_str(), frame.build_id);
            *mappings.entry(key).or_insert_with(|| {
                put_mapping(out, next, frame, texts);
                next
            })
        };
        if let Some(program) = self.program {
            mapping_of(program, out, texts);
        }
        let mut functions: HashMap<u32, u64> = HashMap::default();
        let mut message = Vec::new();
        let mut line = Vec::new();
        for (id, frames) in (1_u64..).zip(&self.locations) {
            let Some(caller) = self.caller(id) else {
                continue;
            };
            let mapping = mapping_of(caller, out, texts);
            let mut lines = Vec::new();
            for number in frames {
                let Some(frame) = self.profile.frames.get(FrameId(*number)) else {
                    continue;
                };
                let next = functions.len() as u64 + 1;
                let function = *functions.entry(*number).or_insert_with(|| {
                    put_function(out, next, frame, texts);
                    next
                });
                line.clear();
                put_number(&mut line, 1, function);
                put_number(&mut line, 2, u64::from(frame.line));
                put_bytes(&mut lines, 4, &line);
            }
            message.clear();
            put_number(&mut message, 1, id);
            put_number(&mut message, 2, mapping);
            put_number(&mut message, 3, caller.address);
            message.extend_from_slice(&lines);
            out.message(4, &message);
        }
    }
}

/// A mapping of all addresses from 0: addresses are those in the ELF file already.
fn put_mapping(out: &mut Out, id: u64, frame: &Frame, texts: &mut Texts) {
    let mut message = Vec::new();
    put_number(&mut message, 1, id);
    put_number(&mut message, 3, u64::MAX);
    put_number(&mut message, 5, texts.number(&frame.module));
    let build_id = frame.build_id.map(|b| b.to_string()).unwrap_or_default();
    put_number(&mut message, 6, texts.number(&build_id));
    // Names are there; pprof need not look for files to take them from.
    put_number(&mut message, 7, 1);
    out.message(3, &message);
}

fn put_function(out: &mut Out, id: u64, frame: &Frame, texts: &mut Texts) {
    let (name, system_name) = names(frame);
    let mut message = Vec::new();
    put_number(&mut message, 1, id);
    put_number(&mut message, 2, texts.number(&name));
    put_number(&mut message, 3, texts.number(&system_name));
    put_number(&mut message, 4, texts.number(&frame.file));
    put_number(&mut message, 5, u64::from(frame.line));
    out.message(5, &message);
}
