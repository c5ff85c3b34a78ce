//! Stored totals straight into a sum: what merging and drawing many files need.
//!
//! In: an ffz file's bytes. Out: its totals in a profile that other files go into as well. Never: a
//! dictionary of its own on the way, or a copy of a text that the sum already has; nor seconds and
//! counters, which stay where they are.

use super::block::{Blocks, CELLS, COUNTERS, DICTIONARY, END, TOTALS};
use super::decode::{TEXT_BYTES_BY_RAW_BYTE, Texts, frame, opening, series};
use super::known::{Known, Row};
use super::varint::Cursor;
use super::{FfzError, Limits};
use crate::profile::{
    FrameId, MEASURES_MAX, MergeError, Node, NodeId, Profile, ROOT, Series, SeriesId, Values,
    add_values,
};

/// Why a file could not be added. The sum is then half done and must be thrown away.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddError {
    /// The file is damaged.
    #[error(transparent)]
    Damaged(#[from] FfzError),
    /// It measures something else.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Numbers of a file as they are in the sum.
struct Numbers {
    frames: Vec<FrameId>,
    nodes: Vec<NodeId>,
    series: Vec<SeriesId>,
}

/// Adds the totals of the file in `bytes` to `sum`, of which `known` is kept from file to file. Each of its series goes into the one that
/// `as_series` gives for it, so that those that need not be told apart cost no memory.
///
/// # Errors
/// [`AddError`]; `sum` is then of no use any more.
pub fn add_totals(
    sum: &mut Profile,
    known: &mut Known,
    bytes: &[u8],
    limits: Limits,
    as_series: impl FnMut(&Series) -> Series,
) -> Result<(), AddError> {
    let mut totals = std::mem::take(&mut sum.totals);
    let added = add_rows(
        sum,
        known,
        bytes,
        limits,
        MEASURES_MAX,
        as_series,
        |series, node, values| {
            let totals = totals.entry(series).or_default();
            add_values(totals.entry(node).or_default(), values);
        },
    );
    sum.totals = totals;
    added
}

/// The same, with the first `wanted` values given to `row` in the numbers of `sum`, whose totals stay as
/// they are.
///
/// # Errors
/// [`AddError`]; what `row` was given is then of no use any more.
pub fn add_rows(
    sum: &mut Profile,
    known: &mut Known,
    bytes: &[u8],
    limits: Limits,
    wanted: usize,
    mut as_series: impl FnMut(&Series) -> Series,
    mut row: impl FnMut(SeriesId, NodeId, &Values),
) -> Result<(), AddError> {
    let mut blocks = Blocks::open(bytes, limits)?;
    let (head, base) = opening(&mut blocks, bytes.len())?;
    if base != [0, 1, 0] {
        return Err(FfzError::Malformed("a stored profile begins at the root").into());
    }
    let other = Profile::new(&head.probe, head.measures);
    sum.merge(&other)?; // checks the measures, or takes them over
    let measures = other.measures.len();
    let mut numbers = Numbers {
        frames: Vec::new(),
        nodes: vec![ROOT],
        series: Vec::new(),
    };
    known.rewind();
    let mut texts_left = limits
        .total_raw_bytes_max
        .saturating_mul(TEXT_BYTES_BY_RAW_BYTE);
    while let Some(block) = blocks.next()? {
        match block.kind {
            CELLS | COUNTERS => {}
            DICTIONARY => {
                let raw = blocks.unpack(&block)?;
                let mut cursor = Cursor::new(&raw);
                dictionary(
                    sum,
                    known,
                    &mut cursor,
                    &mut numbers,
                    &mut texts_left,
                    &mut as_series,
                )?;
            }
            TOTALS => {
                let raw = blocks.unpack(&block)?;
                let mut cursor = Cursor::new(&raw);
                while !cursor.is_empty() {
                    totals(&mut cursor, &numbers, measures, wanted, &mut row)?;
                }
            }
            END if blocks.next()?.is_none() => return Ok(()),
            END => return Err(FfzError::Malformed("there are bytes after the end").into()),
            _ => return Err(FfzError::Malformed("a block of an unknown kind").into()),
        }
    }
    Err(FfzError::Truncated { at: bytes.len() }.into())
}

fn dictionary(
    sum: &mut Profile,
    known: &mut Known,
    cursor: &mut Cursor<'_>,
    numbers: &mut Numbers,
    texts_left: &mut usize,
    as_series: &mut impl FnMut(&Series) -> Series,
) -> Result<(), FfzError> {
    let mut texts = Texts::read(cursor, texts_left)?;
    let ids = texts.known(known)?;
    for _ in 0..cursor.count()? {
        let mut again = cursor.clone();
        let row = Row::read(cursor, &ids)?;
        let id = match known.frame(&row) {
            Some(id) => id,
            None => {
                let frame = frame(&mut again, &mut texts)?;
                let id = sum.frames.intern_ref(frame);
                known.learn(row, id);
                id
            }
        };
        numbers.frames.push(id);
    }
    // All parents stand before all frames, so two cursors go side by side.
    let count = cursor.count()?;
    let mut parents = cursor.clone();
    cursor.skip(count)?;
    numbers.nodes.reserve(count);
    // Hosts that run the same program meet much of it in the same order, and then the next node is
    // the one after the last that was known: looking there first saves most walks through the table.
    // What only this host has lies between, at the end of the tree, and does not move that place.
    let mut last = ROOT;
    for _ in 0..count {
        let back = usize::try_from(parents.number()?).unwrap_or(usize::MAX);
        let parent = numbers.nodes.len().checked_sub(back).filter(|_| back > 0);
        let parent = parent.ok_or(FfzError::Malformed(
            "a node's parent does not come before it",
        ))?;
        let frame = numbers.frames.get(cursor.number_u32()? as usize);
        let frame = frame.ok_or(FfzError::Malformed("an id points outside its table"))?;
        let (parent, frame) = (numbers.nodes[parent], *frame);
        let next = NodeId(last.0.saturating_add(1));
        let node = if sum.tree.get(next) == Some(Node { parent, frame }) {
            next
        } else {
            let before = sum.tree.len();
            let node = sum.tree.intern(parent, frame);
            if sum.tree.len() > before {
                numbers.nodes.push(node);
                continue;
            }
            node
        };
        last = node;
        numbers.nodes.push(node);
    }
    for _ in 0..cursor.count()? {
        let series = as_series(&series(cursor, &mut texts)?);
        numbers.series.push(sum.series.intern(&series));
    }
    Ok(())
}

/// One series' rows: node numbers, then a column for each measure.
fn totals(
    cursor: &mut Cursor<'_>,
    numbers: &Numbers,
    measures: usize,
    wanted: usize,
    row: &mut impl FnMut(SeriesId, NodeId, &Values),
) -> Result<(), FfzError> {
    const OUTSIDE: FfzError = FfzError::Malformed("an id points outside its table");
    let series = numbers.series.get(cursor.number_u32()? as usize);
    let series = *series.ok_or(OUTSIDE)?;
    let count = cursor.count()?;
    let mut nodes = cursor.clone();
    // One cursor for each column.
    let mut columns = Vec::with_capacity(wanted);
    for measure in 0..measures {
        cursor.skip(count)?;
        if measure < wanted {
            columns.push(cursor.clone());
        }
    }
    cursor.skip(count)?;
    let mut node = 0_u32;
    for i in 0..count {
        let delta = nodes.number_u32()?;
        if i > 0 && delta == 0 {
            return Err(FfzError::Malformed("a node stands twice in a cell"));
        }
        let next = node.checked_add(delta);
        node = next.ok_or(FfzError::Malformed("a node's number"))?;
        let mut values = Values::default();
        for (value, column) in values.iter_mut().zip(&mut columns) {
            *value = column.number()?;
        }
        let id = numbers.nodes.get(node as usize).ok_or(OUTSIDE)?;
        row(series, *id, &values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ffz::encode_profile;
    use crate::profile::Frame;
    use crate::profile::tests::{any_rows, profile_from};
    use proptest::prelude::*;

    type Stacks = Vec<((Series, Option<u32>, Vec<Frame>), Values)>;

    /// Totals without any numbering.
    fn stacks(profile: &Profile) -> Stacks {
        let stacks = profile.canonical().stacks.into_iter();
        stacks.filter(|(key, _)| key.1.is_none()).collect()
    }

    proptest! {
        #[test]
        fn files_added_straight_are_the_merge_of_their_profiles(a in any_rows(), b in any_rows()) {
            let files = [profile_from(&a), profile_from(&b)];
            let (mut sum, mut known) = (Profile::default(), Known::default());
            let mut merged = Profile::default();
            for profile in files {
                let bytes = encode_profile(&profile).unwrap();
                add_totals(&mut sum, &mut known, &bytes, Limits::FILE, Clone::clone).unwrap();
                merged.merge(&profile).unwrap();
            }
            prop_assert_eq!(stacks(&sum), stacks(&merged));
        }

        #[test]
        fn damage_is_refused_where_it_concerns_totals(
            a in any_rows(), at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>(),
        ) {
            let whole = profile_from(&a);
            let mut bytes = encode_profile(&whole).unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            let (mut sum, mut known) = (Profile::default(), Known::default());
            if add_totals(&mut sum, &mut known, &bytes, Limits::FILE, Clone::clone).is_ok() {
                prop_assert!(!cut);
                prop_assert_eq!(stacks(&sum), stacks(&whole));
            }
        }
    }
}
