//! What files brought that were added to a sum before: hosts that run the same program have the same texts
//! and frames, mostly in the same order, and those are then not looked at letter by letter again.
//!
//! In: texts as they lie in a block, frames as numbers of them. Out: a text's number, a frame's number in
//! the sum. Never: two frames taken for one that differ in anything at all; what makes frames the same is
//! [`crate::profile::FrameTable`]'s business.

use super::FfzError;
use super::varint::Cursor;
use crate::profile::FrameId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher as _, Hash};

/// A frame of a file, its texts by their numbers in [`Known`]. Two equal rows are equal frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    flags: u64,
    address: u64,
    name: u32,
    module: u32,
    file: u32,
    line: u32,
    build_id: u32,
}

impl Row {
    /// Reads what [`super::decode::frame`] reads, without believing it: `texts` are the numbers of the
    /// block's texts.
    pub(super) fn read(cursor: &mut Cursor<'_>, texts: &[u32]) -> Result<Self, FfzError> {
        let text = |cursor: &mut Cursor<'_>| {
            let at = usize::try_from(cursor.number()?).unwrap_or(usize::MAX);
            let id = texts.get(at).copied();
            id.ok_or(FfzError::Malformed("a text points outside its table"))
        };
        Ok(Self {
            flags: cursor.number()?,
            name: text(cursor)?,
            module: text(cursor)?,
            file: text(cursor)?,
            line: cursor.number_u32()?,
            build_id: text(cursor)?,
            address: cursor.number()?,
        })
    }
}

/// See the module. It belongs to one sum, whose frames it numbers.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// All texts, one after the other, and where each ends.
    letters: Vec<u8>,
    ends: Vec<usize>,
    by_text: HashTable<u32>,
    rows: Vec<(Row, FrameId)>,
    by_row: HashTable<u32>,
    state: RandomState,
    /// Behind the text and the row that were met last.
    next_text: usize,
    next_row: usize,
}

fn slice<'a>(letters: &'a [u8], ends: &[usize], id: usize) -> Option<&'a [u8]> {
    let begin = match id {
        0 => 0,
        _ => *ends.get(id - 1)?,
    };
    letters.get(begin..*ends.get(id)?)
}

impl Known {
    /// From the first text and frame again: another file begins.
    pub(super) fn rewind(&mut self) {
        (self.next_text, self.next_row) = (0, 0);
    }

    /// The number of a text, and whether it is a new one.
    pub(super) fn text(&mut self, text: &[u8]) -> (u32, bool) {
        if slice(&self.letters, &self.ends, self.next_text) == Some(text) {
            self.next_text += 1;
            return ((self.next_text - 1) as u32, false); // numbers of this table fit
        }
        let (letters, ends) = (&self.letters, &self.ends);
        let hash = self.state.hash_one(text);
        let same = |id: &u32| slice(letters, ends, *id as usize) == Some(text);
        if let Some(&id) = self.by_text.find(hash, same) {
            self.next_text = id as usize + 1;
            return (id, false);
        }
        let id = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        self.letters.extend_from_slice(text);
        self.ends.push(self.letters.len());
        let (letters, ends, state) = (&self.letters, &self.ends, &self.state);
        let hash_of = |id: &u32| state.hash_one(slice(letters, ends, *id as usize).unwrap_or(&[]));
        self.by_text.insert_unique(hash, id, hash_of);
        (id, true)
    }

    /// The number of a frame that was met before.
    #[inline]
    pub(super) fn frame(&mut self, row: &Row) -> Option<FrameId> {
        if let Some((there, id)) = self.rows.get(self.next_row)
            && there == row
        {
            self.next_row += 1;
            return Some(*id);
        }
        let rows = &self.rows;
        let same = |id: &u32| rows[*id as usize].0 == *row;
        let at = *self.by_row.find(self.state.hash_one(row), same)? as usize;
        self.next_row = at + 1;
        Some(rows[at].1)
    }

    /// Keeps the number of a frame that was not met before.
    pub(super) fn learn(&mut self, row: Row, id: FrameId) {
        let at = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push((row, id));
        let (rows, state) = (&self.rows, &self.state);
        let hash_of = |at: &u32| state.hash_one(rows[*at as usize].0);
        self.by_row.insert_unique(state.hash_one(row), at, hash_of);
    }
}
