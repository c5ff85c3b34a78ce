//! ELF images: 64-bit little-endian, the only ones this engine unwinds. In: a way to read bytes
//! at offsets. Out: build-id, load segments, symbols, call frame information. Never: trust in an
//! offset or size that the file states; each read is bounded.
//!
//! Layouts: the System V ABI, chapters 4 and 5, and include/uapi/linux/elf.h.

use crate::cfi::CfiTable;
use crate::file::TargetFile;
use crate::symbols::{Binding, SymbolTable};
use model::demangle::NAME_BYTES_MAX;
use model::profile::BuildId;
use std::os::unix::fs::FileExt;

/// Reads bytes at an offset of an image.
pub trait Image {
    /// Exactly `length` bytes at `offset`, or none.
    fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

impl Image for TargetFile {
    fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        // The stated length may be a lie: never allocate more than the file has.
        if offset.checked_add(length as u64)? > self.key().size {
            return None;
        }
        let mut bytes = vec![0; length];
        self.inner().read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

impl Image for Vec<u8> {
    fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        Some(self.get(start..start.checked_add(length)?)?.to_vec())
    }
}

/// A segment that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Offset in the file.
    pub offset: u64,
    /// ELF virtual address.
    pub address: u64,
    /// Bytes in the file.
    pub length: u64,
    /// Whether it holds code (`PF_X`).
    pub is_code: bool,
}

/// What is known of one image.
#[derive(Debug, Default)]
pub struct Elf {
    /// `NT_GNU_BUILD_ID`.
    pub build_id: Option<BuildId>,
    /// `e_entry`.
    pub entry: u64,
    /// Load segments.
    pub loads: Vec<Load>,
    /// Functions by name.
    pub symbols: SymbolTable,
    /// Functions by FDE.
    pub cfi: CfiTable,
    /// File name in `.gnu_debuglink`.
    pub debug_link: Option<String>,
    /// Whether there is a full symbol table.
    pub has_symtab: bool,
    /// Address of nginx's pointer to its number of requests (src/event/ngx_event.c).
    pub request_pointer: Option<u64>,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// Symbol tables that are read of one file.
const SYMBOL_TABLES_MAX: usize = 4;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;
const SEGMENTS_MAX: usize = 256;
const SECTIONS_MAX: usize = 65_536;
/// Largest table that is read whole.
const TABLE_BYTES_MAX: u64 = 256 << 20;
const NOTE_BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }
    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at + 8)?.try_into().ok()?))
    }
}

#[derive(Clone, Debug, Default)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: usize,
}

/// What of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Everything.
    All,
    /// Build-id and load segments.
    Identity,
    /// Build-id and symbols (a file of separate debug symbols has no code).
    Symbols,
}

/// Reads an image.
///
/// # Errors
/// Why it is not an image that can be used.
pub fn parse(image: &dyn Image, want: Want) -> Result<Elf, &'static str> {
    let header = image.read(0, 64).ok_or("too short for an ELF header")?;
    let fields = Fields(&header);
    if !header.starts_with(b"\x7fELF") {
        return Err("not an ELF file");
    }
    if header[4] != 2 || header[5] != 1 {
        return Err("not a 64-bit little-endian ELF file");
    }
    let mut elf = Elf {
        entry: fields.u64(24).unwrap_or(0),
        ..Elf::default()
    };
    let segments = segments(image, fields).ok_or("program headers are cut off")?;
    for segment in &segments {
        let f = Fields(segment);
        let (Some(kind), Some(flags), Some(offset), Some(address), Some(length)) =
            (f.u32(0), f.u32(4), f.u64(8), f.u64(16), f.u64(32))
        else {
            continue;
        };
        match kind {
            PT_LOAD => elf.loads.push(Load {
                offset,
                address,
                length,
                is_code: flags & PF_X != 0,
            }),
            PT_NOTE if elf.build_id.is_none() && length <= NOTE_BYTES_MAX => {
                let notes = image.read(offset, usize::try_from(length).unwrap_or(0));
                elf.build_id = notes.as_deref().and_then(build_id);
            }
            _ => {}
        }
    }
    if want == Want::Identity {
        return Ok(elf);
    }
    let sections = sections(image, fields).unwrap_or_default();
    let mut tables = 0;
    for (section, _) in &sections {
        if section.kind == SHT_SYMTAB || section.kind == SHT_DYNSYM {
            // A file has one of each kind; thousands of headers for one large table are an attack.
            tables += 1;
            if tables > SYMBOL_TABLES_MAX {
                break;
            }
            let strings = sections.get(section.link).map(|s| &s.0);
            if let Some(strings) = strings {
                elf.has_symtab |= section.kind == SHT_SYMTAB;
                add_symbols(image, section, strings, &sections, &mut elf);
            }
        }
    }
    elf.symbols.finish();
    if want == Want::All {
        let named = |name: &[u8]| sections.iter().find(|s| s.1 == name).map(|s| &s.0);
        elf.debug_link = named(b".gnu_debuglink").and_then(|s| debug_link(image, s));
        let eh_frame = named(b".eh_frame")
            .filter(|s| s.kind != SHT_NOBITS && s.size <= TABLE_BYTES_MAX)
            .and_then(|s| {
                Some((
                    image.read(s.offset, usize::try_from(s.size).ok()?)?,
                    s.address,
                ))
            })
            .or_else(|| eh_frame_of_segment(image, &segments, &elf.loads));
        if let Some((bytes, address)) = eh_frame {
            let text = named(b".text").map_or(0, |s| s.address);
            let got = named(b".got").map_or(0, |s| s.address);
            elf.cfi = CfiTable::parse(bytes, address, text, got);
        }
    }
    Ok(elf)
}

fn segments(image: &dyn Image, header: Fields<'_>) -> Option<Vec<Vec<u8>>> {
    let offset = header.u64(32)?;
    let size = usize::from(header.u16(54)?);
    let count = usize::from(header.u16(56)?).min(SEGMENTS_MAX);
    if size < 56 {
        return if count == 0 { Some(Vec::new()) } else { None };
    }
    let bytes = image.read(offset, size * count)?;
    Some(bytes.chunks_exact(size).map(<[u8]>::to_vec).collect())
}

fn sections(image: &dyn Image, header: Fields<'_>) -> Option<Vec<(Section, Vec<u8>)>> {
    let offset = header.u64(40)?;
    let size = usize::from(header.u16(58)?);
    let count = usize::from(header.u16(60)?).min(SECTIONS_MAX);
    let names_at = usize::from(header.u16(62)?);
    if offset == 0 || size < 64 || count == 0 {
        return None;
    }
    let bytes = image.read(offset, size.checked_mul(count)?)?;
    let list: Vec<Section> = bytes
        .chunks_exact(size)
        .filter_map(|chunk| {
            let f = Fields(chunk);
            Some(Section {
                name: f.u32(0)?,
                kind: f.u32(4)?,
                flags: f.u64(8)?,
                address: f.u64(16)?,
                offset: f.u64(24)?,
                size: f.u64(32)?,
                link: f.u32(40)? as usize,
            })
        })
        .collect();
    let names = list
        .get(names_at)
        .and_then(|s| table(image, s))
        .unwrap_or_default();
    let named = list.into_iter().map(|s| {
        let name = text_at(&names, s.name, 64).to_vec();
        (s, name)
    });
    Some(named.collect())
}

/// The text that begins at an offset, up to its 0 or the bound: without one, thousands of symbols that
/// share one text without an end cost its length each.
fn text_at(strings: &[u8], at: u32, bytes_max: usize) -> &[u8] {
    let rest = strings.get(at as usize..).unwrap_or_default();
    let rest = &rest[..rest.len().min(bytes_max)];
    rest.split(|&c| c == 0).next().unwrap_or_default()
}

fn table(image: &dyn Image, section: &Section) -> Option<Vec<u8>> {
    if section.kind == SHT_NOBITS || section.size > TABLE_BYTES_MAX {
        return None;
    }
    image.read(section.offset, usize::try_from(section.size).ok()?)
}

fn add_symbols(
    image: &dyn Image,
    section: &Section,
    strings: &Section,
    sections: &[(Section, Vec<u8>)],
    into: &mut Elf,
) {
    let (Some(rows), Some(strings)) = (table(image, section), table(image, strings)) else {
        return;
    };
    for row in rows.chunks_exact(24) {
        let f = Fields(row);
        let (Some(name), Some(index), Some(address), Some(size)) =
            (f.u32(0), f.u16(6), f.u64(8), f.u64(16))
        else {
            continue;
        };
        let binding = match row[4] >> 4 {
            1 | 10 => Binding::Global, // STB_GLOBAL, STB_GNU_UNIQUE
            2 => Binding::Weak,
            _ => Binding::Local,
        };
        let in_code = || {
            sections
                .get(usize::from(index))
                .is_some_and(|s| s.0.flags & SHF_EXECINSTR != 0)
        };
        // STT_FUNC and STT_GNU_IFUNC; assembler often leaves STT_NOTYPE.
        let is_function = match row[4] & 15 {
            2 | 10 => index != 0,
            0 => index != 0 && binding != Binding::Local && in_code(),
            _ => false,
        };
        // STT_OBJECT of a pointer's size.
        let is_pointer = row[4] & 15 == 1 && index != 0 && size == 8;
        if !is_function && !is_pointer {
            continue;
        }
        let name = text_at(&strings, name, NAME_BYTES_MAX);
        if is_function {
            into.symbols.add(address, size, name, binding);
        } else if name == b"ngx_stat_requests" {
            into.request_pointer = Some(address);
        }
    }
}

/// The build-id among notes: name size, description size, type, name, description, each padded
/// to four bytes; type 3 of owner `GNU`.
fn build_id(notes: &[u8]) -> Option<BuildId> {
    let mut rest = notes;
    while rest.len() >= 12 {
        let f = Fields(rest);
        let (owner, length, kind) = (f.u32(0)? as usize, f.u32(4)? as usize, f.u32(8)?);
        let padded = |n: usize| n.checked_add(3).map(|n| n & !3);
        let body = 12_usize.checked_add(padded(owner)?)?;
        if kind == 3 && rest.get(12..12_usize.checked_add(owner)?)? == b"GNU\0" {
            return BuildId::new(rest.get(body..body.checked_add(length)?)?);
        }
        rest = rest.get(body.checked_add(padded(length)?)?..)?;
    }
    None
}

fn debug_link(image: &dyn Image, section: &Section) -> Option<String> {
    if section.size > 4096 {
        return None;
    }
    let bytes = table(image, section)?;
    let name = bytes.split(|&c| c == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Without section headers: `.eh_frame_hdr` has its own segment and points to `.eh_frame`, whose
/// end is not stated, so that the rest of its load segment is taken.
fn eh_frame_of_segment(
    image: &dyn Image,
    segments: &[Vec<u8>],
    loads: &[Load],
) -> Option<(Vec<u8>, u64)> {
    let segment = segments
        .iter()
        .find(|s| Fields(s).u32(0) == Some(PT_GNU_EH_FRAME))?;
    let f = Fields(segment);
    let (offset, address) = (f.u64(8)?, f.u64(16)?);
    let head = image.read(offset, 8)?;
    // Version 1 and a pointer encoded as DW_EH_PE_pcrel | DW_EH_PE_sdata4, as all linkers write it.
    if head[0] != 1 || head[1] != 0x1b {
        return None;
    }
    let by = i32::from_le_bytes(head[4..8].try_into().ok()?);
    let target = address.wrapping_add(4).wrapping_add_signed(i64::from(by));
    let load = loads
        .iter()
        .find(|l| target >= l.address && target - l.address < l.length)?;
    let skip = target - load.address;
    let length = load.length - skip;
    if length > TABLE_BYTES_MAX {
        return None;
    }
    let bytes = image.read(
        load.offset.checked_add(skip)?,
        usize::try_from(length).ok()?,
    )?;
    Some((bytes, target))
}

/// A function, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// ELF address of its start; 0 when unknown.
    pub start: u64,
    /// Its name, if it has one.
    pub name: Option<&'a str>,
}

impl Elf {
    /// Bytes of tables that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.symbols.bytes() + self.cfi.bytes()
    }

    /// The function that contains the ELF address.
    #[must_use]
    pub fn function(&self, address: u64) -> Function<'_> {
        if let Some((start, name)) = self.symbols.containing(address) {
            return Function {
                start,
                name: Some(name),
            };
        }
        match self.cfi.function_start(address) {
            Some(start) => Function {
                start,
                name: self.symbols.starting_at(start),
            },
            None => Function {
                start: 0,
                name: None,
            },
        }
    }

    /// Run-time minus ELF address of a mapping of code, of file offset `offset` at `start`, that is
    /// `length` bytes long. Mappings begin at page borders, so that the segment before may end in the
    /// first page; with lld it has another distance from its file offset.
    #[must_use]
    pub fn bias(&self, start: u64, offset: u64, length: u64) -> Option<u64> {
        let end = offset.checked_add(length)?;
        let shared = |l: &Load| {
            let last = l.offset.saturating_add(l.length).min(end);
            last.saturating_sub(l.offset.max(offset))
        };
        let within = self.loads.iter().filter(|l| shared(l) > 0);
        let load = within.max_by_key(|l| (l.is_code, shared(l)))?;
        Some(
            start
                .wrapping_sub(offset)
                .wrapping_sub(load.address.wrapping_sub(load.offset)),
        )
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
