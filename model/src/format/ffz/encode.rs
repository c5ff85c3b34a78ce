//! Values to ffz bytes. In: a segment, or a profile and its cells. Out: bytes, always the same for
//! the same values. Never: a value left out.

use super::block::{CELLS, COUNTERS, DICTIONARY, END, HEAD, TOTALS, put_block};
use super::varint::{put, put_bytes};
use super::{FfzError, Head, MAGIC};
use crate::profile::{
    Cell, CounterRow, CounterSource, Frame, Node, NodeId, Profile, Segment, Series, SeriesId,
    Totals,
};
use foldhash::HashMap;
use std::collections::BTreeMap;
use std::io::Write;

/// A block of cells or totals is closed when it has this many raw bytes.
const BLOCK_RAW_BYTES: usize = 64 << 10;
/// A dictionary block is closed when it has this many frames or nodes, so that no block is huge.
const DICTIONARY_ENTRIES: usize = 1 << 18;

/// A batch: the segment's new dictionary entries, its cells and counters.
///
/// # Errors
/// [`FfzError::Write`] when compression fails.
pub fn encode_segment(head: &Head, segment: &Segment) -> Result<Vec<u8>, FfzError> {
    let mut out = MAGIC.to_vec();
    let base = [segment.base_frames, segment.base_nodes, segment.base_series];
    put_block(&mut out, HEAD, &head_bytes(head, base))?;
    if !(segment.frames.is_empty() && segment.nodes.is_empty() && segment.series.is_empty()) {
        dictionary(
            &mut out,
            &segment.frames,
            &segment.nodes,
            &segment.series,
            segment.base_nodes,
        )?;
    }
    let mut cells = CellBlocks::default();
    for (series, bin, cell) in &segment.cells {
        cells.push(&mut out, 0, head.measures.len(), *series, *bin, cell)?;
    }
    cells.flush(&mut out, 0)?;
    if !segment.counters.is_empty() {
        put_block(&mut out, COUNTERS, &counters(&segment.counters))?;
    }
    put_block(&mut out, END, &cells.index())?;
    Ok(out)
}

/// A whole profile with the cells that it has.
///
/// # Errors
/// [`FfzError::Write`] when compression fails.
pub fn encode_profile(profile: &Profile) -> Result<Vec<u8>, FfzError> {
    let mut out = Vec::new();
    let mut writer = ProfileWriter::begin(&mut out, profile)?;
    for ((series, bin), cell) in &profile.cells {
        writer.cell(*series, *bin, cell)?;
    }
    writer.finish()?;
    Ok(out)
}

/// Writes a profile whose cells come one by one, so that they are never all in memory.
pub struct ProfileWriter<W: Write> {
    sink: W,
    written: u64,
    measures: usize,
    cells: CellBlocks,
}

impl<W: Write> ProfileWriter<W> {
    /// Writes head, dictionary, totals and counters of `profile`.
    ///
    /// # Errors
    /// [`FfzError::Write`] with the operating system's words.
    pub fn begin(sink: W, profile: &Profile) -> Result<Self, FfzError> {
        let head = Head {
            probe: profile.probe.clone(),
            measures: profile.measures.clone(),
        };
        let mut out = MAGIC.to_vec();
        put_block(&mut out, HEAD, &head_bytes(&head, [0, 1, 0]))?;
        let (frames, nodes) = (profile.frames.as_slice(), &profile.tree.as_slice()[1..]);
        dictionary(&mut out, frames, nodes, profile.series.as_slice(), 1)?;
        totals(&mut out, head.measures.len(), &profile.totals)?;
        if !profile.counters.is_empty() {
            let rows: Vec<CounterRow> = profile
                .counters
                .iter()
                .map(|((host, source, bin, kind), value)| CounterRow {
                    host: host.clone(),
                    source: *source,
                    bin: *bin,
                    kind: *kind,
                    value: *value,
                })
                .collect();
            put_block(&mut out, COUNTERS, &counters(&rows))?;
        }
        let mut writer = Self {
            sink,
            written: 0,
            measures: head.measures.len(),
            cells: CellBlocks::default(),
        };
        writer.send(&out)?;
        Ok(writer)
    }

    /// Writes the values of one (series, second), numbered as in the profile given to `begin`.
    ///
    /// # Errors
    /// [`FfzError::Write`] with the operating system's words.
    pub fn cell(&mut self, series: SeriesId, bin: u32, cell: &Cell) -> Result<(), FfzError> {
        let mut out = Vec::new();
        self.cells
            .push(&mut out, self.written, self.measures, series, bin, cell)?;
        self.send(&out)
    }

    /// Writes what is left and the end block.
    ///
    /// # Errors
    /// [`FfzError::Write`] with the operating system's words.
    pub fn finish(mut self) -> Result<W, FfzError> {
        let mut out = Vec::new();
        self.cells.flush(&mut out, self.written)?;
        put_block(&mut out, END, &self.cells.index())?;
        self.send(&out)?;
        self.sink
            .flush()
            .map_err(|e| FfzError::Write(e.to_string()))?;
        Ok(self.sink)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), FfzError> {
        self.written += bytes.len() as u64;
        self.sink
            .write_all(bytes)
            .map_err(|e| FfzError::Write(e.to_string()))
    }
}

fn head_bytes(head: &Head, base: [u32; 3]) -> Vec<u8> {
    let mut raw = Vec::new();
    put_bytes(&mut raw, head.probe.as_bytes());
    put(&mut raw, head.measures.len() as u64);
    for measure in &head.measures {
        put_bytes(&mut raw, measure.name.as_bytes());
        put_bytes(&mut raw, measure.unit.as_bytes());
    }
    base.iter().for_each(|b| put(&mut raw, u64::from(*b)));
    raw
}

/// Each text once, in the order of first use.
#[derive(Default)]
struct Strings<'a> {
    order: Vec<&'a [u8]>,
    index: HashMap<&'a [u8], u64>,
}

impl<'a> Strings<'a> {
    fn id(&mut self, text: &'a [u8]) -> u64 {
        let next = self.order.len() as u64;
        let id = *self.index.entry(text).or_insert(next);
        if id == next {
            self.order.push(text);
        }
        id
    }
}

fn dictionary(
    out: &mut Vec<u8>,
    frames: &[Frame],
    nodes: &[Node],
    series: &[Series],
    base_nodes: u32,
) -> Result<(), FfzError> {
    let mut first = base_nodes;
    let mut frames = frames.chunks(DICTIONARY_ENTRIES);
    let mut series = Some(series);
    let mut nodes = nodes.chunks(DICTIONARY_ENTRIES);
    loop {
        // All frames come before the first node that may use them.
        let f = frames.next().unwrap_or_default();
        let n = if frames.len() == 0 {
            nodes.next().unwrap_or_default()
        } else {
            &[]
        };
        let s = series.take().unwrap_or_default();
        if f.is_empty() && n.is_empty() && s.is_empty() {
            return Ok(());
        }
        put_block(out, DICTIONARY, &dictionary_bytes(f, n, s, first))?;
        first += u32::try_from(n.len()).unwrap_or(u32::MAX);
    }
}

fn dictionary_bytes(frames: &[Frame], nodes: &[Node], series: &[Series], first: u32) -> Vec<u8> {
    let mut strings = Strings::default();
    let mut body = Vec::new();
    put(&mut body, frames.len() as u64);
    for frame in frames {
        let flags = (frame.kind as u64) | (u64::from(frame.racy) << 3);
        put(&mut body, flags);
        for text in [&frame.name, &frame.module, &frame.file] {
            put(&mut body, strings.id(text.as_bytes()));
        }
        put(&mut body, u64::from(frame.line));
        let id = frame.build_id.as_ref().map_or(&[][..], |b| b.as_bytes());
        put(&mut body, strings.id(id));
        put(&mut body, frame.address);
    }
    put(&mut body, nodes.len() as u64);
    for (node, id) in nodes.iter().zip(first..) {
        put(&mut body, u64::from(id - node.parent.0));
    }
    nodes
        .iter()
        .for_each(|n| put(&mut body, u64::from(n.frame.0)));
    put(&mut body, series.len() as u64);
    for s in series {
        let p = &s.process;
        for text in [
            &s.host, &s.thread, &s.engine, &s.mode, &s.event, &p.comm, &p.role,
        ] {
            put(&mut body, strings.id(text.as_bytes()));
        }
        put(&mut body, s.period_ns);
        put(&mut body, u64::from(p.pid));
        put(&mut body, p.start_ticks);
        put(&mut body, u64::from(p.generation));
        put(&mut body, p.worker.map_or(0, |w| u64::from(w) + 1));
    }
    let mut raw = Vec::with_capacity(body.len());
    put(&mut raw, strings.order.len() as u64);
    strings.order.iter().for_each(|s| put_bytes(&mut raw, s));
    raw.extend_from_slice(&body);
    raw
}

fn totals(
    out: &mut Vec<u8>,
    measures: usize,
    totals: &BTreeMap<SeriesId, Totals>,
) -> Result<(), FfzError> {
    let mut raw = Vec::new();
    for (series, rows) in totals {
        let mut rows: Vec<_> = rows.iter().map(|(n, v)| (*n, *v)).collect();
        rows.sort_unstable_by_key(|r| r.0);
        for part in rows.chunks(DICTIONARY_ENTRIES) {
            put(&mut raw, u64::from(series.0));
            put_rows(
                &mut raw,
                measures,
                part.iter().map(|(n, v)| (*n, v)),
                part.len(),
            );
            if raw.len() >= BLOCK_RAW_BYTES {
                put_block(out, TOTALS, &raw)?;
                raw.clear();
            }
        }
    }
    if raw.is_empty() {
        Ok(())
    } else {
        put_block(out, TOTALS, &raw)
    }
}

/// Count, node deltas, then one column of values for each measure: like beside like compresses.
fn put_rows<'a>(
    raw: &mut Vec<u8>,
    measures: usize,
    rows: impl Iterator<Item = (NodeId, &'a crate::profile::Values)> + Clone,
    count: usize,
) {
    put(raw, count as u64);
    let mut last = 0;
    for (node, _) in rows.clone() {
        put(raw, u64::from(node.0.wrapping_sub(last)));
        last = node.0;
    }
    for measure in 0..measures {
        rows.clone()
            .for_each(|(_, values)| put(raw, values[measure]));
    }
}

fn counters(rows: &[CounterRow]) -> Vec<u8> {
    let mut strings = Strings::default();
    let mut body = Vec::new();
    put(&mut body, rows.len() as u64);
    for row in rows {
        put(&mut body, strings.id(row.host.as_bytes()));
        let source = match row.source {
            CounterSource::Host => 0,
            CounterSource::Series(id) => u64::from(id.0) + 1,
        };
        put(&mut body, source);
        put(&mut body, u64::from(row.bin));
        put(&mut body, row.kind as u64);
        put(&mut body, row.value);
    }
    let mut raw = Vec::with_capacity(body.len());
    put(&mut raw, strings.order.len() as u64);
    strings.order.iter().for_each(|s| put_bytes(&mut raw, s));
    raw.extend_from_slice(&body);
    raw
}

/// Gathers cells into blocks and remembers where they lie.
#[derive(Default)]
struct CellBlocks {
    raw: Vec<u8>,
    bins: Option<(u32, u32)>,
    index: Vec<(u64, u32, u32)>,
}

impl CellBlocks {
    fn push(
        &mut self,
        out: &mut Vec<u8>,
        offset: u64,
        measures: usize,
        series: SeriesId,
        bin: u32,
        cell: &Cell,
    ) -> Result<(), FfzError> {
        put(&mut self.raw, u64::from(series.0));
        put(&mut self.raw, u64::from(bin));
        put_rows(&mut self.raw, measures, cell.rows(), cell.nodes.len());
        let (low, high) = self.bins.unwrap_or((bin, bin));
        self.bins = Some((low.min(bin), high.max(bin)));
        if self.raw.len() >= BLOCK_RAW_BYTES {
            self.flush(out, offset)
        } else {
            Ok(())
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>, offset: u64) -> Result<(), FfzError> {
        let Some((low, high)) = self.bins.take() else {
            return Ok(());
        };
        self.index.push((offset + out.len() as u64, low, high));
        put_block(out, CELLS, &self.raw)?;
        self.raw.clear();
        Ok(())
    }

    fn index(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        put(&mut raw, self.index.len() as u64);
        for (offset, low, high) in &self.index {
            put(&mut raw, *offset);
            put(&mut raw, u64::from(*low));
            put(&mut raw, u64::from(*high));
        }
        raw
    }
}
