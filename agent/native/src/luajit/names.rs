//! What Lua functions are called. In: prototypes in a target's memory. Out: chunk, line and, where the
//! source is at hand, name. Never: text of a program (a chunk that has no name is named by its own
//! text, which may hold secrets: it is only hashed).

use super::layout::{object, prototype, string};
use super::memory::{Memory, half_at, is_object, word_at};
use std::hash::Hasher;

/// Longest chunk name that is read, in bytes. A chunk without a name can be megabytes.
const CHUNK_BYTES_MAX: usize = 4096;
/// Longest path that is kept whole.
const PATH_BYTES_MAX: usize = 512;
/// Longest name of a chunk that is no file.
const LABEL_BYTES_MAX: usize = 160;

/// Where a function was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its chunk.
    pub chunk: Chunk,
    /// Line of its first word; 0 for the chunk itself.
    pub line: u32,
    /// Lines that it is long, less one.
    pub lines: u32,
}

/// What was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// A file, by the path that it was loaded by.
    File(String),
    /// Something that its loader named, such as `access_by_lua(nginx.conf:52)`.
    Named(String),
}

impl Chunk {
    /// As it is shown.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::File(text) | Self::Named(text) => text,
        }
    }
}

/// Tells a prototype from another that lies at the same address later: mixed from where it was
/// defined and how long it is. 40 bits, never 0.
#[must_use]
pub fn key(head: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.write_u64(word_at(head, prototype::CHUNK));
    hash.write_u64(word_at(head, prototype::FIRST_LINE));
    hash.write_u32(half_at(head, prototype::INSTRUCTIONS));
    hash.finish() >> 24 | 1
}

/// Reads where the function with the prototype at `address` was defined; none when another lies there
/// now.
pub fn place(memory: &impl Memory, address: u64, wanted: u64) -> Option<Place> {
    if !is_object(address) {
        return None;
    }
    let head: [u8; prototype::HEAD_BYTES] = memory.bytes(address)?;
    if head[object::TYPE] != object::PROTO || key(&head) != wanted {
        return None;
    }
    let (name, length) = text(memory, word_at(&head, prototype::CHUNK), CHUNK_BYTES_MAX)?;
    Some(Place {
        chunk: chunk(&name, length),
        line: half_at(&head, prototype::FIRST_LINE),
        lines: half_at(&head, prototype::LINES),
    })
}

/// The first bytes of a string, and its whole length.
pub fn text(memory: &impl Memory, address: u64, bytes_max: usize) -> Option<(Vec<u8>, usize)> {
    if !is_object(address) {
        return None;
    }
    let head: [u8; string::TEXT as usize] = memory.bytes(address)?;
    if head[object::TYPE] != object::STRING {
        return None;
    }
    let start = address.checked_add(string::TEXT)?;
    // The length moved between builds. A string ends with a 0 and hardly ever holds one.
    string::LENGTH.iter().find_map(|&at| {
        let length = half_at(&head, at) as usize;
        let end: [u8; 1] = memory.bytes(start.checked_add(length as u64)?)?;
        if end != [0] {
            return None;
        }
        let mut bytes = vec![0; length.min(bytes_max)];
        let got = memory.read(start, &mut bytes);
        (got == bytes.len() && !bytes.contains(&0)).then_some((bytes, length))
    })
}

/// What a chunk's name says. `@` stands before a path and `=` before a name; everything else is the
/// program itself.
#[must_use]
pub fn chunk(name: &[u8], length: usize) -> Chunk {
    let rest = || String::from_utf8_lossy(&name[1..]).into_owned();
    match name.first() {
        Some(b'@') if length == name.len() => Chunk::File(shortened_path(rest())),
        Some(b'=') if length == name.len() && length <= LABEL_BYTES_MAX => Chunk::Named(rest()),
        _ => {
            let mut hash = Fnv::default();
            hash.write(name);
            hash.write_u64(length as u64);
            Chunk::Named(format!("[string {:08x}]", hash.finish() >> 32))
        }
    }
}

fn shortened_path(path: String) -> String {
    if path.len() <= PATH_BYTES_MAX {
        return path;
    }
    let mut hash = Fnv::default();
    hash.write(path.as_bytes());
    let mut at = path.len() - PATH_BYTES_MAX;
    while !path.is_char_boundary(at) {
        at += 1;
    }
    format!("[{:08x}]{}", hash.finish() >> 32, &path[at..])
}

/// FNV-1a with a final mix: the same on every host and in every version, so that frames merge.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.write(&word.to_le_bytes());
    }

    fn write_u32(&mut self, word: u32) {
        self.write(&word.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_path_or_a_name_and_never_its_own_text() {
        let of = |name: &str| chunk(name.as_bytes(), name.len());
        assert_eq!(
            of("@/usr/local/share/lua/5.1/kong/plugins/acl/handler.lua"),
            Chunk::File("/usr/local/share/lua/5.1/kong/plugins/acl/handler.lua".into())
        );
        assert_eq!(
            of("=access_by_lua(nginx.conf:52)"),
            Chunk::Named("access_by_lua(nginx.conf:52)".into())
        );
        let secret = of("local password = 'hunter2'; return password");
        assert!(secret.text().starts_with("[string ") && secret.text().len() == 17);
        assert!(!secret.text().contains("hunter2"));
        assert_eq!(secret, of("local password = 'hunter2'; return password"));
        assert_ne!(secret, of("local password = 'hunter3'; return password"));
        assert!(of("").text().starts_with("[string "));
        let long = format!("={}", "x".repeat(4000));
        assert!(
            of(&long).text().starts_with("[string "),
            "too long for a name"
        );
        let deep = format!("@/{}/handler.lua", "d".repeat(3000));
        assert!(of(&deep).text().len() < 600 && of(&deep).text().ends_with("/handler.lua"));
        // Cut while it was read: it may as well be a program.
        assert!(chunk(b"@/a", 5000).text().starts_with("[string "));
    }
}
