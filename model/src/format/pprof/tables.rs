//! The tables of a pprof file: everything but its samples.
//!
//! In: the whole input. Out: texts, mappings, functions, locations by their ids; where the samples
//! are. Never: more entries than the bounds below, whatever the input holds.

use super::guess::NAME_BYTES_MAX;
use super::wire::{Field, Fields, damaged};
use crate::format::import::ImportError;
use crate::profile::BuildId;
use std::ops::Range;

/// Most texts, functions and locations that are taken, each: 4 Mi. A process has some 100,000.
const ENTRIES_MAX: usize = 1 << 22;
/// Most lines of all locations together.
const LINES_MAX: usize = 1 << 23;
/// Most mappings, sample types and comments, each.
const FEW_MAX: usize = 1 << 16;
/// Longest text that is looked at whole, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// A mapping: a file as it lay in a process's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mapping {
    id: u64,
    pub start: u64,
    pub offset: u64,
    pub file: u32,
    build_id: u32,
    at: usize,
}

/// A function.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Function {
    id: u64,
    pub name: u32,
    pub system_name: u32,
    pub file: u32,
    pub start_line: u32,
    at: usize,
}

/// A location: the lines that one address stands for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Location {
    id: u64,
    /// Number in the table of mappings; none where it has none.
    pub mapping: Option<u32>,
    mapping_id: u64,
    pub address: u64,
    /// Where its lines are among [`Tables::lines`], the innermost first.
    pub lines: (u32, u32),
    at: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    input: &'a [u8],
    /// Where each text is.
    texts: Vec<Range<u32>>,
    pub mappings: Vec<Mapping>,
    pub functions: Vec<Function>,
    pub locations: Vec<Location>,
    /// The function of each line, by its number in the table; none where it has none.
    pub lines: Vec<Option<u32>>,
    line_ids: Vec<(u64, usize)>,
    /// Numbers of the texts for type and unit.
    pub sample_types: Vec<(u32, u32)>,
    pub period_type: (u32, u32),
    pub period: u64,
    pub comments: Vec<u32>,
}

impl<'a> Tables<'a> {
    /// Reads everything but the samples.
    pub fn read(input: &'a [u8]) -> Result<Self, ImportError> {
        let mut tables = Self {
            input,
            texts: Vec::new(),
            mappings: Vec::new(),
            functions: Vec::new(),
            locations: Vec::new(),
            lines: Vec::new(),
            line_ids: Vec::new(),
            sample_types: Vec::new(),
            period_type: (0, 0),
            period: 0,
            comments: Vec::new(),
        };
        let mut fields = Fields::new(input, 0..input.len());
        while let Some(field) = fields.next()? {
            tables.take(&field)?;
        }
        tables.link()?;
        Ok(tables)
    }

    fn take(&mut self, field: &Field) -> Result<(), ImportError> {
        match field.number {
            1 => {
                room(self.sample_types.len(), FEW_MAX, field, "sample types")?;
                let kind = self.value_type(field)?;
                self.sample_types.push(kind);
            }
            3 => {
                room(self.mappings.len(), FEW_MAX, field, "mappings")?;
                let mapping = self.mapping(field)?;
                self.mappings.push(mapping);
            }
            4 => {
                room(self.locations.len(), ENTRIES_MAX, field, "locations")?;
                let location = self.location(field)?;
                self.locations.push(location);
            }
            5 => {
                room(self.functions.len(), ENTRIES_MAX, field, "functions")?;
                let function = self.function(field)?;
                self.functions.push(function);
            }
            6 => {
                room(self.texts.len(), ENTRIES_MAX, field, "texts")?;
                let range = field.bytes()?;
                let place = |at| u32::try_from(at).map_err(|_| damaged(field.at, "lies too far"));
                self.texts.push(place(range.start)?..place(range.end)?);
            }
            11 => self.period_type = self.value_type(field)?,
            12 => self.period = field.number()?,
            13 => {
                let comments = &mut self.comments;
                field.numbers(self.input, |number| {
                    if comments.len() < FEW_MAX {
                        comments.push(index(number));
                    }
                })?;
            }
            // 2 is read afterwards; the rest says nothing about stacks.
            _ => {}
        }
        Ok(())
    }

    fn value_type(&self, field: &Field) -> Result<(u32, u32), ImportError> {
        let mut fields = Fields::new(self.input, field.bytes()?);
        let mut pair = (0, 0);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => pair.0 = index(field.number()?),
                2 => pair.1 = index(field.number()?),
                _ => {}
            }
        }
        Ok(pair)
    }

    fn mapping(&self, field: &Field) -> Result<Mapping, ImportError> {
        let mut fields = Fields::new(self.input, field.bytes()?);
        let mut mapping = Mapping {
            at: field.at,
            ..Mapping::default()
        };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => mapping.id = field.number()?,
                2 => mapping.start = field.number()?,
                4 => mapping.offset = field.number()?,
                5 => mapping.file = index(field.number()?),
                6 => mapping.build_id = index(field.number()?),
                _ => {}
            }
        }
        Ok(mapping)
    }

    fn function(&self, field: &Field) -> Result<Function, ImportError> {
        let mut fields = Fields::new(self.input, field.bytes()?);
        let mut function = Function {
            at: field.at,
            ..Function::default()
        };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => function.id = field.number()?,
                2 => function.name = index(field.number()?),
                3 => function.system_name = index(field.number()?),
                4 => function.file = index(field.number()?),
                5 => function.start_line = u32::try_from(field.number()?).unwrap_or(0),
                _ => {}
            }
        }
        Ok(function)
    }

    fn location(&mut self, field: &Field) -> Result<Location, ImportError> {
        let mut fields = Fields::new(self.input, field.bytes()?);
        let from = index(self.line_ids.len() as u64);
        let mut location = Location {
            at: field.at,
            ..Location::default()
        };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => location.id = field.number()?,
                2 => location.mapping_id = field.number()?,
                3 => location.address = field.number()?,
                4 => {
                    room(self.line_ids.len(), LINES_MAX, &field, "lines")?;
                    let mut line = Fields::new(self.input, field.bytes()?);
                    let mut function = 0;
                    while let Some(field) = line.next()? {
                        if field.number == 1 {
                            function = field.number()?;
                        }
                    }
                    self.line_ids.push((function, field.at));
                }
                _ => {}
            }
        }
        location.lines = (from, index(self.line_ids.len() as u64));
        Ok(location)
    }

    /// Replaces ids by numbers in tables, which come in any order.
    fn link(&mut self) -> Result<(), ImportError> {
        sort(&mut self.mappings, |m| (m.id, m.at), "mapping")?;
        sort(&mut self.functions, |f| (f.id, f.at), "function")?;
        sort(&mut self.locations, |l| (l.id, l.at), "location")?;
        let mappings = &self.mappings;
        for location in &mut self.locations {
            if location.mapping_id != 0 {
                let found = find(mappings, |m| m.id, location.mapping_id);
                location.mapping = Some(found.ok_or_else(|| {
                    damaged(
                        location.at,
                        format!(
                            "location {} lies in mapping {}, which is not there",
                            location.id, location.mapping_id
                        ),
                    )
                })?);
            }
        }
        let ids = std::mem::take(&mut self.line_ids);
        self.lines.reserve_exact(ids.len());
        for (id, at) in ids {
            let found = find(&self.functions, |f| f.id, id);
            if id != 0 && found.is_none() {
                return Err(damaged(
                    at,
                    format!("a line names function {id}, which is not there"),
                ));
            }
            self.lines.push(found);
        }
        Ok(())
    }

    /// The number of the location with this id.
    pub fn location_by_id(&self, id: u64) -> Option<u32> {
        find(&self.locations, |l| l.id, id)
    }

    /// A text by its number, cut to [`TEXT_BYTES_MAX`]; empty for a number that there is not.
    pub fn text(&self, number: u32) -> &'a [u8] {
        let range = self.texts.get(number as usize).cloned().unwrap_or(0..0);
        let (start, end) = (range.start as usize, range.end as usize);
        &self.input[start..end.min(start + TEXT_BYTES_MAX)]
    }

    /// Whether a text is too long to be kept whole as a name.
    pub fn is_long(&self, number: u32) -> bool {
        let range = self.texts.get(number as usize);
        range.is_some_and(|r| r.len() > NAME_BYTES_MAX)
    }

    /// The build-id of a mapping, where it is one of ELF: hex digits.
    pub fn build_id(&self, mapping: &Mapping) -> Option<BuildId> {
        let text = std::str::from_utf8(self.text(mapping.build_id)).ok()?;
        if text.len() % 2 != 0 || text.len() > 64 || !text.is_ascii() {
            return None;
        }
        let bytes: Result<Vec<u8>, _> = (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16))
            .collect();
        BuildId::new(&bytes.ok()?)
    }
}

/// The number of a table's entry; one that is too large for any table is in none.
pub(super) fn index(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn room(len: usize, max: usize, field: &Field, what: &str) -> Result<(), ImportError> {
    if len < max {
        return Ok(());
    }
    Err(damaged(
        field.at,
        format!("there are more than {max} {what}"),
    ))
}

/// Sorts by id; each id must be there once.
fn sort<T>(
    entries: &mut [T],
    id_at: impl Fn(&T) -> (u64, usize),
    what: &str,
) -> Result<(), ImportError> {
    entries.sort_by_key(|e| id_at(e));
    if let Some(first) = entries.first()
        && id_at(first).0 == 0
    {
        return Err(damaged(id_at(first).1, format!("a {what} has no id")));
    }
    for pair in entries.windows(2) {
        if id_at(&pair[0]).0 == id_at(&pair[1]).0 {
            let (id, at) = id_at(&pair[1]);
            return Err(damaged(at, format!("{what} {id} is there twice")));
        }
    }
    Ok(())
}

fn find<T>(entries: &[T], id_of: impl Fn(&T) -> u64, id: u64) -> Option<u32> {
    // Most writers number from 1 without a gap.
    let near = usize::try_from(id.wrapping_sub(1)).ok();
    if let Some(near) = near
        && entries.get(near).is_some_and(|e| id_of(e) == id)
    {
        return u32::try_from(near).ok();
    }
    let found = entries.binary_search_by_key(&id, id_of).ok()?;
    u32::try_from(found).ok()
}
