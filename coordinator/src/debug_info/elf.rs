//! ELF files: read whole, and taken apart by the crate object.
//!
//! In: a path, or a file's bytes. Out: segments, symbols, build-id, links to debug files, unpacked sections.
//! Never: a file that is mapped (one that is cut short meanwhile would kill us), one that is no regular file,
//! or more bytes than are allowed, packed or unpacked.

use super::address::{Layout, Segment};
use super::symbols::Symbol;
use model::format::source::Untold;
use object::read::CompressionFormat;
use object::{
    Object as _, ObjectKind, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// Largest file that is read, and most bytes that one of its sections may have unpacked.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Most segments that are looked at; a program has about a dozen.
const SEGMENTS_MAX: usize = 256;
/// Room that is made for unpacked bytes before they come, for each packed byte. What a file states is not believed.
const LIKELY_GROWTH: u64 = 8;
/// Longest name of a symbol that is kept.
const NAME_BYTES_MAX: usize = 4096;

/// A file's bytes.
#[derive(Clone, Debug)]
pub struct Bytes(Rc<[u8]>);

impl Bytes {
    /// Reads a file of at most `max` bytes.
    pub fn read(path: &Path, max: u64) -> Result<Self, Untold> {
        let about = std::fs::metadata(path).map_err(|_| Untold::NoFile)?;
        if !about.is_file() {
            return Err(Untold::NoFile);
        }
        if about.len() > FILE_BYTES_MAX.min(max) {
            return Err(Untold::Damaged);
        }
        let file = File::open(path).map_err(|_| Untold::NoFile)?;
        Self::of(file, about.len(), about.len()).ok_or(Untold::Damaged)
    }

    /// All that comes, if it is as long as it should be. Room is made for `likely` bytes at once.
    fn of(from: impl Read, len: u64, likely: u64) -> Option<Self> {
        let mut bytes = Vec::new();
        let room = usize::try_from(len.min(likely)).ok()?;
        bytes.try_reserve_exact(room).ok()?;
        from.take(len).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == len).then(|| Self::from(bytes))
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The checksum that `.gnu_debuglink` has of a file.
    pub fn crc(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(&self.0);
        crc.sum()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Bytes of a section: in the file, or unpacked.
#[derive(Debug)]
pub struct Section {
    /// The bytes it is part of.
    pub bytes: Rc<[u8]>,
    /// Which of them it is.
    pub range: std::ops::Range<usize>,
    /// They were packed.
    pub is_unpacked: bool,
}

/// A file that was taken apart.
#[derive(Debug)]
pub struct Elf<'a> {
    bytes: &'a Bytes,
    file: object::File<'a>,
}

impl<'a> Elf<'a> {
    /// Takes a file apart.
    pub fn parse(bytes: &'a Bytes) -> Result<Self, Untold> {
        let file = object::File::parse(&*bytes.0).map_err(|_| Untold::Damaged)?;
        Ok(Self { bytes, file })
    }

    /// Whether it has debug info itself.
    pub fn has_debug_info(&self) -> bool {
        self.file
            .section_by_name(".debug_info")
            .is_some_and(|s| s.file_range().is_some_and(|(_, bytes)| bytes > 0))
    }

    /// Whether its numbers have their lowest byte first.
    pub fn is_little_endian(&self) -> bool {
        self.file.is_little_endian()
    }

    /// How it is mapped.
    pub fn layout(&self) -> Layout {
        let segments = self.file.segments().take(SEGMENTS_MAX).map(|s| Segment {
            address: s.address(),
            bytes: s.size(),
            in_file: s.file_range(),
            is_code: s.permissions().executable(),
        });
        Layout {
            segments: segments.collect(),
            is_fixed: self.file.kind() == ObjectKind::Executable && self.is_fixed(),
        }
    }

    /// A position-independent program is a shared object (`ET_DYN`) by its header.
    fn is_fixed(&self) -> bool {
        let kind = self.bytes.0.get(16..18);
        let kind = kind.and_then(|b| <[u8; 2]>::try_from(b).ok());
        let kind = kind.map(|b| {
            if self.is_little_endian() {
                u16::from_le_bytes(b)
            } else {
                u16::from_be_bytes(b)
            }
        });
        kind == Some(object::elf::ET_EXEC.0)
    }

    /// Its functions.
    pub fn each_symbol(&self, mut each: impl FnMut(&[u8], Symbol)) {
        let all = self.file.symbols().chain(self.file.dynamic_symbols());
        for symbol in all.filter(|s| !s.is_undefined()) {
            let code = matches!(
                symbol.kind(),
                SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown
            );
            let Ok(name) = symbol.name_bytes() else {
                continue;
            };
            if code && !name.is_empty() && name.len() <= NAME_BYTES_MAX {
                let (address, bytes) = (symbol.address(), symbol.size().min(FILE_BYTES_MAX));
                each(name, Symbol { address, bytes });
            }
        }
    }

    /// Its build-id in hex digits; empty without one.
    pub fn build_id(&self) -> String {
        let id = self.file.build_id().ok().flatten();
        hex(id.filter(|id| id.len() <= 32).unwrap_or_default())
    }

    /// Name and checksum of the file with its debug info.
    pub fn debug_link(&self) -> Option<(&[u8], u32)> {
        self.file.gnu_debuglink().ok().flatten()
    }

    /// Path and build-id of the file that it shares debug info with.
    pub fn shared_debug_link(&self) -> Option<(&[u8], String)> {
        let (path, id) = self.file.gnu_debugaltlink().ok().flatten()?;
        (id.len() <= 32).then(|| (path, hex(id)))
    }

    /// A section by its name, unpacked; empty where the file has none.
    pub fn section(&self, name: &str, max: u64) -> Result<Section, Untold> {
        let empty = Section {
            bytes: Rc::new([]),
            range: 0..0,
            is_unpacked: false,
        };
        let Some(section) = self.file.section_by_name(name) else {
            return Ok(empty);
        };
        let at = section.compressed_file_range();
        let at = at.map_err(|_| Untold::Damaged)?;
        let begin = usize::try_from(at.offset).map_err(|_| Untold::Damaged)?;
        let bytes = usize::try_from(at.compressed_size).map_err(|_| Untold::Damaged)?;
        let end = begin.checked_add(bytes).ok_or(Untold::Damaged)?;
        let packed = self.bytes.0.get(begin..end).ok_or(Untold::Damaged)?;
        if at.uncompressed_size > FILE_BYTES_MAX.min(max) {
            return Err(Untold::Damaged);
        }
        let likely = at.compressed_size.saturating_mul(LIKELY_GROWTH);
        let unpacked = match at.format {
            CompressionFormat::None => {
                return Ok(Section {
                    bytes: Rc::clone(&self.bytes.0),
                    range: begin..end,
                    is_unpacked: false,
                });
            }
            CompressionFormat::Zlib => {
                let unpack = flate2::read::ZlibDecoder::new(packed);
                Bytes::of(unpack, at.uncompressed_size, likely)
            }
            CompressionFormat::Zstandard => zstd::Decoder::with_buffer(packed)
                .ok()
                .and_then(|unpack| Bytes::of(unpack, at.uncompressed_size, likely)),
            _ => None,
        };
        let bytes = unpacked.ok_or(Untold::Damaged)?.0;
        Ok(Section {
            range: 0..bytes.len(),
            bytes,
            is_unpacked: true,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
