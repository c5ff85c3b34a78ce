//! Functions and lines by address, from a file's DWARF.
//!
//! In: a file with debug info, an address as the file counts. Out: the function there, and before it what was
//! inlined into it. Never: work or memory without bounds, whatever the debug info says: readings are counted
//! ([`Allowance`]), and entries nested deeper than compilers nest them are refused, since they are read by
//! recursion.

use super::elf::{Bytes, Elf};
use super::metered::{Allowance, Metered};
use addr2line::Context;
use gimli::{EndianRcSlice, RunTimeEndian, SectionId};
use model::demangle::demangle;
use model::format::source::{SourceFrame, Untold};
use std::fmt;
use std::rc::Rc;

/// Readings for each byte of debug info. glibc's needs 0.8 for all of its functions and lines, a program of
/// rustc's 0.5 (docs/testing.md).
const READINGS_A_BYTE: u64 = 8;
/// Readings that small files have beside that.
const READINGS_MIN: u64 = 1 << 20;
/// Readings for one address: names of functions are read anew each time.
const READINGS_AN_ADDRESS: u64 = 4 << 10;
/// Deepest nesting of entries. The deepest that was seen is 29, of rustc's.
const DEPTH_MAX: isize = 500;
/// Most functions that are taken of one address.
const FRAMES_MAX: usize = 256;

/// The sections that are needed.
const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The debug info of a file.
pub struct Dwarf {
    context: Context<Metered>,
    allowance: Rc<Allowance>,
    unpacked_bytes: u64,
}

impl fmt::Debug for Dwarf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dwarf").finish_non_exhaustive()
    }
}

impl Dwarf {
    /// Loads what `file` has, and what it shares with others; unpacked at most `max` bytes.
    pub fn load(file: &Bytes, shared: Option<&Bytes>, max: u64) -> Result<Self, Untold> {
        let allowance = Allowance::new(READINGS_MIN);
        let mut loading = Loading {
            allowance: &allowance,
            unpacked_bytes: 0,
            max,
        };
        let mut dwarf = gimli::Dwarf::load(|id| loading.section(&Elf::parse(file)?, id))?;
        if let Some(shared) = shared {
            dwarf.load_sup(|id| loading.section(&Elf::parse(shared)?, id))?;
        }
        let unpacked_bytes = loading.unpacked_bytes;
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        let bounded = is_bounded(&dwarf).map_err(|_| Untold::Damaged)?;
        if !bounded {
            return Err(Untold::Damaged);
        }
        let context = Context::from_dwarf(dwarf).map_err(|_| Untold::Damaged)?;
        Ok(Self {
            context,
            allowance,
            unpacked_bytes,
        })
    }

    /// Bytes that it takes beside those of the files.
    pub fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    /// The functions at an address, innermost first: never empty.
    pub fn frames(&self, address: u64) -> Result<Vec<SourceFrame>, Untold> {
        if self.allowance.is_used_up() {
            return Err(Untold::Damaged);
        }
        self.allowance.grant(READINGS_AN_ADDRESS);
        // Debug info that was split off (`.dwo`) is not looked for.
        let found = self.context.find_frames(address).skip_all_loads();
        let mut found = found.map_err(|_| Untold::Damaged)?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next().map_err(|_| Untold::Damaged)? {
            let name = frame.function.as_ref().map(|f| f.raw_name());
            let name = name.transpose().map_err(|_| Untold::Damaged)?;
            let location = frame.location.as_ref();
            let path = location.and_then(|l| l.file).unwrap_or_default();
            frames.push(SourceFrame {
                function: name.map(|name| demangle(&name)).unwrap_or_default(),
                file: path.rsplit('/').next().unwrap_or_default().to_owned(),
                line: location.and_then(|l| l.line).unwrap_or_default(),
            });
            if frames.len() > FRAMES_MAX {
                return Err(Untold::Damaged);
            }
        }
        if frames.is_empty() {
            return Err(Untold::NoDebugInfo);
        }
        Ok(frames)
    }
}

/// What is loaded so far.
struct Loading<'a> {
    allowance: &'a Rc<Allowance>,
    unpacked_bytes: u64,
    max: u64,
}

impl Loading<'_> {
    fn section(&mut self, file: &Elf<'_>, id: SectionId) -> Result<Metered, Untold> {
        let endian = if file.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        if !SECTIONS.contains(&id) {
            let nothing = EndianRcSlice::new(Rc::new([]), endian);
            return Ok(Metered::new(nothing, self.allowance));
        }
        let left = self.max.saturating_sub(self.unpacked_bytes);
        let section = file.section(id.name(), left)?;
        if section.is_unpacked {
            self.unpacked_bytes += section.range.len() as u64;
        }
        let bytes = section.range.len() as u64;
        self.allowance.grant(bytes.saturating_mul(READINGS_A_BYTE));
        let bytes = EndianRcSlice::new(section.bytes, endian).range(section.range);
        Ok(Metered::new(bytes, self.allowance))
    }
}

/// Whether its entries are nested no deeper than [`DEPTH_MAX`].
fn is_bounded(dwarf: &gimli::Dwarf<Metered>) -> gimli::Result<bool> {
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            if entries.next_depth() > DEPTH_MAX {
                return Ok(false);
            }
            if let Some(abbreviation) = entries.read_abbreviation()? {
                entries.skip_attributes(abbreviation.attributes())?;
            }
        }
    }
    Ok(true)
}
