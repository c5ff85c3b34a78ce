//! ffz bytes to values. In: bytes from anywhere. Out: a segment or a profile.
//! Never: a panic, an unbounded allocation, or a document without its end block taken as whole.

use super::block::{Blocks, CELLS, COUNTERS, DICTIONARY, END, HEAD, TOTALS};
use super::known::Known;
use super::varint::Cursor;
use super::{FfzError, Head, Limits};
use crate::profile::{
    BuildId, Cell, CounterKind, CounterRow, CounterSource, FrameId, FrameKind, FrameRef, IdMap,
    MEASURES_MAX, Measure, Node, NodeId, Process, Profile, Segment, Series, SeriesId, Values,
};

/// What of a file is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Totals only: cells stay compressed and are passed over.
    Totals,
    /// Seconds too.
    Cells,
}

/// Reads a batch.
///
/// # Errors
/// [`FfzError`] that says where and how the bytes are damaged.
pub fn decode_segment(bytes: &[u8], limits: Limits) -> Result<(Head, Segment), FfzError> {
    let document = document(bytes, limits, Want::Cells)?;
    Ok((document.head, document.segment))
}

/// Reads only what a document is about, and how many frames, nodes and series it builds on.
///
/// # Errors
/// [`FfzError`] that says where and how the bytes are damaged.
pub fn decode_head(bytes: &[u8], limits: Limits) -> Result<(Head, [u32; 3]), FfzError> {
    let mut blocks = Blocks::open(bytes, limits)?;
    opening(&mut blocks, bytes.len())
}

/// The head block, which comes first.
pub(super) fn opening(blocks: &mut Blocks<'_>, len: usize) -> Result<(Head, [u32; 3]), FfzError> {
    let first = blocks.next()?.ok_or(FfzError::Truncated { at: len })?;
    if first.kind != HEAD {
        return Err(FfzError::Malformed("the first block is not a head"));
    }
    let raw = blocks.unpack(&first)?;
    head(&mut Cursor::new(&raw))
}

/// Reads a stored profile.
///
/// # Errors
/// [`FfzError`] that says where and how the bytes are damaged.
pub fn decode_profile(bytes: &[u8], limits: Limits, want: Want) -> Result<Profile, FfzError> {
    let document = document(bytes, limits, want)?;
    let mut profile = Profile::new(&document.head.probe, document.head.measures);
    let mut map = IdMap::default();
    profile
        .absorb_stored(&mut map, &document.segment, &document.totals)
        .map_err(|_| FfzError::Malformed("an id points outside its table"))?;
    Ok(profile)
}

struct Document {
    head: Head,
    segment: Segment,
    totals: Vec<(SeriesId, Cell)>,
}

fn document(bytes: &[u8], limits: Limits, want: Want) -> Result<Document, FfzError> {
    let mut blocks = Blocks::open(bytes, limits)?;
    let (head, [base_frames, base_nodes, base_series]) = opening(&mut blocks, bytes.len())?;
    let mut segment = Segment {
        base_frames,
        base_nodes,
        base_series,
        ..Segment::default()
    };
    let mut totals = Vec::new();
    let measures = head.measures.len();
    let mut texts_left = limits
        .total_raw_bytes_max
        .saturating_mul(TEXT_BYTES_BY_RAW_BYTE);
    while let Some(block) = blocks.next()? {
        if block.kind == CELLS && want == Want::Totals {
            continue;
        }
        let raw = blocks.unpack(&block)?;
        let mut cursor = Cursor::new(&raw);
        match block.kind {
            DICTIONARY => dictionary(&mut cursor, &mut segment, &mut texts_left)?,
            TOTALS => {
                while !cursor.is_empty() {
                    let series = SeriesId(cursor.number_u32()?);
                    totals.push((series, rows(&mut cursor, measures)?));
                }
            }
            CELLS => {
                while !cursor.is_empty() {
                    let series = SeriesId(cursor.number_u32()?);
                    let bin = second(&mut cursor)?;
                    segment
                        .cells
                        .push((series, bin, rows(&mut cursor, measures)?));
                }
            }
            COUNTERS => counters(&mut cursor, &mut segment, &mut texts_left)?,
            END => {
                if blocks.next()?.is_some() {
                    return Err(FfzError::Malformed("there are bytes after the end"));
                }
                return Ok(Document {
                    head,
                    segment,
                    totals,
                });
            }
            _ => return Err(FfzError::Malformed("a block of an unknown kind")),
        }
    }
    Err(FfzError::Truncated { at: bytes.len() })
}

fn head(cursor: &mut Cursor<'_>) -> Result<(Head, [u32; 3]), FfzError> {
    let probe = cursor.text()?;
    let count = cursor.count()?;
    if count == 0 || count > MEASURES_MAX {
        return Err(FfzError::Malformed("a profile has 1 to 3 measures"));
    }
    let mut measures = Vec::with_capacity(count);
    for _ in 0..count {
        measures.push(Measure {
            name: cursor.text()?,
            unit: cursor.text()?,
        });
    }
    let base = [
        cursor.number_u32()?,
        cursor.number_u32()?,
        cursor.number_u32()?,
    ];
    if base[1] == 0 {
        return Err(FfzError::Malformed("a tree has at least its root"));
    }
    Ok((Head { probe, measures }, base))
}

/// A few bytes can name one long text a million times. So all texts of a document together, as they
/// lie in memory, are at most this many times the raw bytes that its limits allow.
pub(super) const TEXT_BYTES_BY_RAW_BYTE: usize = 8;
/// What a text in memory takes beside its bytes: its place in the entry, and the allocator's share.
const TEXT_BYTES_BESIDE: usize = 32;

/// A block's table of texts, and what copies of them may still take.
pub(super) struct Texts<'a, 'b> {
    table: Vec<&'a [u8]>,
    left: &'b mut usize,
}

impl<'a, 'b> Texts<'a, 'b> {
    pub(super) fn read(cursor: &mut Cursor<'a>, left: &'b mut usize) -> Result<Self, FfzError> {
        let count = cursor.count()?;
        let mut table = Vec::with_capacity(count);
        for _ in 0..count {
            table.push(cursor.bytes()?);
        }
        Ok(Self { table, left })
    }

    /// The numbers of all texts of the table. New ones are copied, and counted as that.
    pub(super) fn known(&mut self, known: &mut Known) -> Result<Vec<u32>, FfzError> {
        let mut ids = Vec::with_capacity(self.table.len());
        for text in &self.table {
            let (id, new) = known.text(text);
            if new {
                *self.left = self
                    .left
                    .checked_sub(text.len() + TEXT_BYTES_BESIDE)
                    .ok_or(FfzError::Malformed("the texts are too large"))?;
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// The bytes behind the next number.
    fn bytes(&self, cursor: &mut Cursor<'_>) -> Result<&'a [u8], FfzError> {
        let id = usize::try_from(cursor.number()?).unwrap_or(usize::MAX);
        self.table
            .get(id)
            .copied()
            .ok_or(FfzError::Malformed("a text points outside its table"))
    }

    /// The text behind the next number, of which a copy will be made.
    fn text(&mut self, cursor: &mut Cursor<'_>) -> Result<&'a str, FfzError> {
        let bytes = self.bytes(cursor)?;
        *self.left = self
            .left
            .checked_sub(bytes.len() + TEXT_BYTES_BESIDE)
            .ok_or(FfzError::Malformed("the texts are too large"))?;
        std::str::from_utf8(bytes).map_err(|_| FfzError::Malformed("a text is not UTF-8"))
    }
}

fn dictionary(
    cursor: &mut Cursor<'_>,
    segment: &mut Segment,
    texts_left: &mut usize,
) -> Result<(), FfzError> {
    let mut texts = Texts::read(cursor, texts_left)?;
    for _ in 0..cursor.count()? {
        segment.frames.push(frame(cursor, &mut texts)?.to_frame());
    }
    let count = cursor.count()?;
    let first = u64::from(segment.base_nodes) + segment.nodes.len() as u64;
    if first + count as u64 > u64::from(u32::MAX) {
        return Err(FfzError::Malformed("too many nodes"));
    }
    let mut parents = Vec::with_capacity(count);
    for id in first..first + count as u64 {
        let back = cursor.number()?;
        if back == 0 || back > id {
            return Err(FfzError::Malformed(
                "a node's parent does not come before it",
            ));
        }
        let parent = u32::try_from(id - back).map_err(|_| FfzError::Malformed("too many nodes"))?;
        parents.push(NodeId(parent));
    }
    for parent in parents {
        segment.nodes.push(Node {
            parent,
            frame: FrameId(cursor.number_u32()?),
        });
    }
    for _ in 0..cursor.count()? {
        segment.series.push(series(cursor, &mut texts)?);
    }
    Ok(())
}

/// A frame whose texts stay in the block.
pub(super) fn frame<'a>(
    cursor: &mut Cursor<'a>,
    texts: &mut Texts<'a, '_>,
) -> Result<FrameRef<'a>, FfzError> {
    let flags = cursor.number()?;
    let kind = FrameKind::from_u8((flags & 7) as u8)
        .filter(|_| flags < 16)
        .ok_or(FfzError::Malformed("a frame of an unknown kind"))?;
    let (name, module) = (texts.text(cursor)?, texts.text(cursor)?);
    let file = texts.text(cursor)?;
    let line = cursor.number_u32()?;
    let id = texts.bytes(cursor)?;
    let build_id = BuildId::new(id);
    if build_id.is_none() && !id.is_empty() {
        return Err(FfzError::Malformed("a build-id is longer than 32 bytes"));
    }
    Ok(FrameRef {
        kind,
        name,
        module,
        file,
        line,
        build_id,
        address: cursor.number()?,
        racy: flags & 8 != 0,
    })
}

pub(super) fn series(
    cursor: &mut Cursor<'_>,
    texts: &mut Texts<'_, '_>,
) -> Result<Series, FfzError> {
    let mut text = || texts.text(cursor).map(str::to_owned);
    let (host, thread, engine, mode, event, comm, role) = (
        text()?,
        text()?,
        text()?,
        text()?,
        text()?,
        text()?,
        text()?,
    );
    let period_ns = cursor.number()?;
    let pid = cursor.number_u32()?;
    let start_ticks = cursor.number()?;
    let generation = cursor.number_u32()?;
    let worker = match cursor.number()? {
        0 => None,
        n => Some(u32::try_from(n - 1).map_err(|_| FfzError::Malformed("a worker's number"))?),
    };
    let process = Process {
        pid,
        start_ticks,
        generation,
        comm,
        role,
        worker,
    };
    Ok(Series {
        host,
        process,
        thread,
        engine,
        mode,
        event,
        period_ns,
    })
}

fn rows(cursor: &mut Cursor<'_>, measures: usize) -> Result<Cell, FfzError> {
    let count = cursor.count()?;
    let mut cell = Cell {
        nodes: Vec::with_capacity(count),
        values: vec![Values::default(); count],
    };
    let mut last = 0_u32;
    for i in 0..count {
        let delta = cursor.number_u32()?;
        if i > 0 && delta == 0 {
            return Err(FfzError::Malformed("a node stands twice in a cell"));
        }
        last = last
            .checked_add(delta)
            .ok_or(FfzError::Malformed("a node's number"))?;
        cell.nodes.push(NodeId(last));
    }
    for measure in 0..measures {
        for values in &mut cell.values {
            values[measure] = cursor.number()?;
        }
    }
    Ok(cell)
}

/// Later seconds than this are no capture's: twice the longest one, [`crate::job::DURATION_MS_MAX`]. Whoever looks at
/// every second of a profile takes memory for each of its workers, so one host must not make it as many as it likes.
pub(super) const SECOND_MAX: u32 = 7_200;
const _: () = assert!(SECOND_MAX as u64 == 2 * crate::job::DURATION_MS_MAX / 1_000);

fn second(cursor: &mut Cursor<'_>) -> Result<u32, FfzError> {
    let second = cursor.number_u32()?;
    if second > SECOND_MAX {
        return Err(FfzError::Malformed("a second that is no capture's"));
    }
    Ok(second)
}

fn counters(
    cursor: &mut Cursor<'_>,
    segment: &mut Segment,
    texts_left: &mut usize,
) -> Result<(), FfzError> {
    let mut texts = Texts::read(cursor, texts_left)?;
    for _ in 0..cursor.count()? {
        let host = texts.text(cursor)?.to_owned();
        let source = match cursor.number()? {
            0 => CounterSource::Host,
            n => CounterSource::Series(SeriesId(
                u32::try_from(n - 1).map_err(|_| FfzError::Malformed("a counter's series"))?,
            )),
        };
        let bin = second(cursor)?;
        let kind = u8::try_from(cursor.number()?)
            .ok()
            .and_then(CounterKind::from_u8)
            .ok_or(FfzError::Malformed("a counter of an unknown kind"))?;
        let value = cursor.number()?;
        segment.counters.push(CounterRow {
            host,
            source,
            bin,
            kind,
            value,
        });
    }
    Ok(())
}
