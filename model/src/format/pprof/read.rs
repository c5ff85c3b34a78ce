//! Reads `profile.proto`.
//!
//! In: the whole file, unpacked. Out: a profile with the first measures that the file has, and
//! series by host, process and thread. Never: a negative value in a sum, or a location's run-time
//! address in a frame.

use super::guess::{Said, is_marked};
use super::measures::{measure, probe};
use super::tables::{Tables, index};
use super::wire::{Field, Fields, damaged};
use super::write::{ENGINE, PROBE_COMMENT};
use crate::format::fold::{Fold, FoldLimits, clean};
use crate::format::import::{ImportError, ImportOptions, Intake, WholeReader};
use crate::profile::{FrameId, MEASURES_MAX, Measure, Process, Profile, Series, SeriesId, Values};
use foldhash::HashMap;
use std::ops::Range;

/// Longest set of labels of one sample that is looked at, in bytes.
const LABELS_BYTES_MAX: usize = 64 << 10;

const MORE_MEASURES: &str = "pprof: sample types beyond the first three are left out";
const NEGATIVE: &str = "pprof: values below zero, as differences have them, are counted as nothing";
const OTHER_LABELS: &str =
    "pprof: samples have labels other than host, process and thread, which are not kept";
const CUT: &str = "pprof: names longer than 16 KiB are cut";

/// Reads `profile.proto`.
#[derive(Debug)]
pub struct PprofReader {
    host: String,
    limits: FoldLimits,
    keep_offsets: bool,
}

impl PprofReader {
    /// A reader. Samples without a label that names their host belong to that of `options`.
    #[must_use]
    pub fn new(options: &ImportOptions) -> Self {
        Self {
            host: options.host.clone(),
            limits: options.limits,
            keep_offsets: options.keep_offsets,
        }
    }
}

impl WholeReader for PprofReader {
    const WORD: &'static str = "pprof";

    fn read(&self, bytes: &[u8], into: &mut Intake) -> Result<Option<Profile>, ImportError> {
        let tables = Tables::read(bytes)?;
        let mut samples = Samples::new(&tables, self);
        let mut fields = Fields::new(bytes, 0..bytes.len());
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                samples.sample(bytes, &field, into)?;
            }
        }
        if tables.sample_types.len() > MEASURES_MAX {
            into.stats.note(MORE_MEASURES);
        }
        let fold = samples.fold;
        into.stats.pruned += fold.pruned()[0];
        into.stats.deeper += fold.deeper()[0];
        Ok(Some(fold.into_profile()))
    }
}

/// The samples of one file, on their way into a fold.
struct Samples<'a> {
    tables: &'a Tables<'a>,
    fold: Fold,
    keep_offsets: bool,
    depth_max: usize,
    /// How many of the model's units one of the file's is.
    factors: Vec<u64>,
    period_ns: u64,
    /// Frames of the tables' lines; those of a location are there once it was met.
    frames: Vec<FrameId>,
    met: Vec<bool>,
    /// Frames of locations without lines.
    bare: HashMap<u32, FrameId>,
    /// Frames by function and mapping.
    by_function: HashMap<(u32, Option<u32>, u64, bool), FrameId>,
    /// The labels of the last sample, as bytes, and its series.
    last: Option<(Vec<u8>, SeriesId)>,
    // Reused for each sample.
    ids: Vec<u64>,
    values: Vec<u64>,
    labels: Vec<Range<usize>>,
    stack: Vec<FrameId>,
}

impl<'a> Samples<'a> {
    fn new(tables: &'a Tables<'a>, reader: &PprofReader) -> Self {
        let mut fold = Fold::new(&reader.host, ENGINE, reader.limits);
        let types = tables.sample_types.iter().take(MEASURES_MAX);
        let text = |number| clean(tables.text(number));
        let (measures, factors): (Vec<Measure>, Vec<u64>) = types
            .map(|(kind, unit)| measure(&text(*kind), &text(*unit)))
            .unzip();
        let said = tables.comments.iter().find_map(|c| {
            let comment = text(*c);
            comment.strip_prefix(PROBE_COMMENT).map(str::to_owned)
        });
        let probe = said.unwrap_or_else(|| probe(&measures).to_owned());
        let (period, factor) = measure(&text(tables.period_type.0), &text(tables.period_type.1));
        let period_ns = match i64::try_from(tables.period) {
            Ok(_) if period.unit == "ns" => tables.period.saturating_mul(factor),
            _ => 0,
        };
        fold.measured(&probe, measures);
        Self {
            tables,
            fold,
            keep_offsets: reader.keep_offsets,
            depth_max: reader.limits.depth_max,
            factors,
            period_ns,
            frames: vec![FrameId(0); tables.lines.len()],
            met: vec![false; tables.locations.len()],
            bare: HashMap::default(),
            by_function: HashMap::default(),
            last: None,
            ids: Vec::new(),
            values: Vec::new(),
            labels: Vec::new(),
            stack: Vec::new(),
        }
    }

    fn sample(
        &mut self,
        input: &[u8],
        field: &Field,
        into: &mut Intake,
    ) -> Result<(), ImportError> {
        self.ids.clear();
        self.values.clear();
        self.labels.clear();
        let mut labels_bytes = 0_usize;
        let types = self.tables.sample_types.len();
        let mut fields = Fields::new(input, field.bytes()?);
        let ids_max = self.depth_max.saturating_add(1);
        let mut value_count = 0_usize;
        while let Some(part) = fields.next()? {
            match part.number {
                1 => part.numbers(input, |id| {
                    // The leaf comes first; of too many, those at the root are kept.
                    if self.ids.len() >= ids_max.saturating_mul(2) {
                        self.ids.drain(..ids_max);
                    }
                    self.ids.push(id);
                })?,
                2 => part.numbers(input, |value| {
                    if value_count < MEASURES_MAX {
                        self.values.push(value);
                    }
                    value_count += 1;
                })?,
                3 => {
                    let range = part.bytes()?;
                    labels_bytes += range.len();
                    if labels_bytes <= LABELS_BYTES_MAX {
                        self.labels.push(range);
                    } else {
                        into.stats.note(OTHER_LABELS);
                    }
                }
                _ => {}
            }
        }
        if value_count != types {
            return Err(damaged(
                field.at,
                format!("a sample has {value_count} values, but there are {types} sample types"),
            ));
        }
        into.stats.stacks += 1;
        let values = self.values(into);
        if values.iter().all(|v| *v == 0) {
            return Ok(());
        }
        self.stack_of(field, into)?;
        let series = self.series(input, into)?;
        self.fold.add_root_first(series, &self.stack, &values);
        Ok(())
    }

    fn values(&self, into: &mut Intake) -> Values {
        let mut row = Values::default();
        let mut negative = false;
        for ((sum, value), factor) in row.iter_mut().zip(&self.values).zip(&self.factors) {
            // An int64 is written as the number of its two's complement.
            match i64::try_from(*value) {
                Ok(_) => *sum = value.saturating_mul(*factor),
                Err(_) => negative = true,
            }
        }
        if negative {
            into.stats.note(NEGATIVE);
        }
        row
    }

    /// Puts the frames of the sample's locations together, the root first.
    fn stack_of(&mut self, field: &Field, into: &mut Intake) -> Result<(), ImportError> {
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        let ids = std::mem::take(&mut self.ids);
        for id in ids.iter().rev() {
            let Some(number) = self.tables.location_by_id(*id) else {
                return Err(damaged(
                    field.at,
                    format!("a sample names location {id}, which is not there"),
                ));
            };
            let (from, to) = self.tables.locations[number as usize].lines;
            if from == to {
                stack.push(self.bare(number));
            } else {
                self.meet(number, into);
                let lines = &self.frames[from as usize..to as usize];
                stack.extend(lines.iter().rev().take(self.depth_max.saturating_add(1)));
            }
            if stack.len() > self.depth_max {
                stack.truncate(self.depth_max + 1);
                break;
            }
        }
        self.ids = ids;
        self.stack = stack;
        Ok(())
    }

    /// Finds the frames of a location's lines, unless they are known.
    fn meet(&mut self, number: u32, into: &mut Intake) {
        if std::mem::replace(&mut self.met[number as usize], true) {
            return;
        }
        let location = self.tables.locations[number as usize];
        let (from, to) = location.lines;
        for line in from..to {
            let inlined = line + 1 < to;
            let Some(function) = self.tables.lines[line as usize] else {
                self.frames[line as usize] = self.bare(number);
                continue;
            };
            let texts = self.tables.functions[function as usize];
            // Many locations are of one function; their addresses differ and seldom matter.
            let by_address =
                location.mapping.is_none() || is_marked(self.tables.text(texts.system_name));
            let address = if by_address { location.address } else { 0 };
            let key = (function, location.mapping, address, inlined);
            if let Some(known) = self.by_function.get(&key) {
                self.frames[line as usize] = *known;
                continue;
            }
            if self.tables.is_long(texts.name) || self.tables.is_long(texts.system_name) {
                into.stats.note(CUT);
            }
            let said = Said {
                name: self.tables.text(texts.name),
                system_name: self.tables.text(texts.system_name),
                file: self.tables.text(texts.file),
                start_line: texts.start_line,
                inlined,
                ..self.said(number)
            };
            let frame = self.fold.whole_frame(&said.frame());
            self.by_function.insert(key, frame);
            self.frames[line as usize] = frame;
        }
    }

    /// The frame of a location that no function is known of.
    fn bare(&mut self, number: u32) -> FrameId {
        if let Some(known) = self.bare.get(&number) {
            return *known;
        }
        let said = self.said(number);
        let mut frame = said.frame();
        let location = self.tables.locations[number as usize];
        if let Some(mapping) = location.mapping.filter(|_| self.keep_offsets) {
            let mapping = self.tables.mappings[mapping as usize];
            let offset = said.address.saturating_sub(mapping.start);
            frame.address = offset.saturating_add(mapping.offset);
        }
        let frame = self.fold.whole_frame(&frame);
        self.bare.insert(number, frame);
        frame
    }

    /// What a location says without its lines.
    fn said(&self, number: u32) -> Said<'a> {
        let location = self.tables.locations[number as usize];
        let mapping = location.mapping.map(|m| &self.tables.mappings[m as usize]);
        Said {
            module: mapping.map_or(&[], |m| self.tables.text(m.file)),
            build_id: mapping.and_then(|m| self.tables.build_id(m)),
            address: location.address,
            ..Said::default()
        }
    }

    fn series(&mut self, input: &[u8], into: &mut Intake) -> Result<SeriesId, ImportError> {
        let labels = &self.labels;
        if let Some((bytes, series)) = &self.last
            && labels.iter().flat_map(|l| &input[l.clone()]).eq(bytes)
        {
            return Ok(*series);
        }
        let mut series = Series {
            period_ns: self.period_ns,
            ..Series::default()
        };
        let mut others = false;
        for label in labels {
            others |= !self.label(input, label.clone(), &mut series)?;
        }
        if others {
            into.stats.note(OTHER_LABELS);
        }
        if series.process.role.is_empty() {
            series.process.role.clone_from(&series.process.comm);
        }
        let id = self.fold.series(&series);
        let bytes = self.labels.iter().flat_map(|l| &input[l.clone()]);
        self.last = Some((bytes.copied().collect(), id));
        Ok(id)
    }

    /// Takes one label; says whether it has a place in a series.
    fn label(
        &self,
        input: &[u8],
        label: Range<usize>,
        series: &mut Series,
    ) -> Result<bool, ImportError> {
        let mut fields = Fields::new(input, label);
        let (mut key, mut text, mut number) = (0, 0, 0);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => key = index(field.number()?),
                2 => text = index(field.number()?),
                3 => number = field.number()?,
                _ => {}
            }
        }
        let text = clean(self.tables.text(text));
        // Tools differ in whether a process id is a number or a text.
        let number = if text.is_empty() {
            number
        } else {
            text.parse().unwrap_or(0)
        };
        let small = u32::try_from(number).unwrap_or(0);
        let process: &mut Process = &mut series.process;
        match self.tables.text(key) {
            b"host" | b"hostname" => series.host = text,
            b"pid" | b"process_id" => process.pid = small,
            b"process" | b"comm" => process.comm = text,
            b"role" => process.role = text,
            b"worker" => process.worker = Some(small),
            b"generation" => process.generation = small,
            b"start_ticks" => process.start_ticks = number,
            b"thread" | b"thread_name" => series.thread = text,
            b"engine" => series.engine = text,
            b"mode" => series.mode = text,
            b"event" => series.event = text,
            b"period" => series.period_ns = number,
            // Thread ids: series are by thread name on purpose.
            b"tid" | b"thread_id" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}
