//! Frames of Lua functions. In: what was kept of a sample, the process's memory and source files. Out:
//! frames as they are folded. Never: a source file opened in another way than below the process's root,
//! a cache without a bound.

use super::memory::Memory;
use super::names::{self, Chunk, Place};
use super::source::SourceNames;
use crate::elf::Image;
use crate::file::{FileKey, TargetFile};
use foldhash::HashMap;
use model::profile::{Frame, FrameKind};
use std::sync::Arc;

/// Largest source file that is read.
const SOURCE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of source that are read in one capture.
const SOURCE_BUDGET_BYTES: u64 = 128 << 20;
/// Files whose names are kept.
const SOURCES_MAX: usize = 8192;
/// Functions whose frames are kept before they are made anew.
const FUNCTIONS_MAX: usize = 1 << 16;

/// What Lua functions are called, by process.
#[derive(Debug, Default)]
pub struct Functions {
    frames: HashMap<(u32, u64, u64), Frame>,
    /// Source files by process and path; none for one that cannot be used.
    paths: HashMap<(u32, String), Option<Arc<SourceNames>>>,
    files: HashMap<FileKey, Arc<SourceNames>>,
    read_bytes: u64,
}

impl Functions {
    /// The frame of the function with this prototype.
    pub fn frame(&mut self, memory: &impl Memory, pid: u32, prototype: u64, key: u64) -> Frame {
        if let Some(known) = self.frames.get(&(pid, prototype, key)) {
            return known.clone();
        }
        let place = names::place(memory, prototype, key);
        let frame = match &place {
            Some(place) => self.named(pid, place),
            None => Frame::named(FrameKind::Lua, "[lua]", ""),
        };
        if self.frames.len() >= FUNCTIONS_MAX {
            self.frames.clear();
        }
        // One that could not be read may be there at the next sample.
        if place.is_some() {
            self.frames.insert((pid, prototype, key), frame.clone());
        }
        frame
    }

    fn named(&mut self, pid: u32, place: &Place) -> Frame {
        let chunk = place.chunk.text();
        if place.line == 0 {
            // The chunk itself, as it was loaded.
            return Frame {
                file: match &place.chunk {
                    Chunk::File(path) => path.clone(),
                    Chunk::Named(_) => String::new(),
                },
                ..Frame::named(
                    FrameKind::Lua,
                    match &place.chunk {
                        Chunk::File(_) => "main chunk",
                        Chunk::Named(name) => name,
                    },
                    "",
                )
            };
        }
        let name = match &place.chunk {
            Chunk::File(path) => self
                .source(pid, path)
                .and_then(|s| s.name(place.line, place.lines).map(str::to_owned)),
            Chunk::Named(_) => None,
        };
        Frame {
            file: chunk.to_owned(),
            line: place.line,
            ..Frame::named(FrameKind::Lua, name.unwrap_or_default(), "")
        }
    }

    fn source(&mut self, pid: u32, path: &str) -> Option<Arc<SourceNames>> {
        if let Some(known) = self.paths.get(&(pid, path.to_owned())) {
            return known.clone();
        }
        let read = self.read_source(pid, path);
        if self.paths.len() >= SOURCES_MAX {
            self.paths.clear();
        }
        self.paths.insert((pid, path.to_owned()), read.clone());
        read
    }

    fn read_source(&mut self, pid: u32, path: &str) -> Option<Arc<SourceNames>> {
        let file = open(pid, path)?;
        let key = file.key();
        if let Some(known) = self.files.get(&key) {
            return Some(Arc::clone(known));
        }
        if self.read_bytes.saturating_add(key.size) > SOURCE_BUDGET_BYTES {
            return None;
        }
        self.read_bytes += key.size;
        let text = file.read(0, usize::try_from(key.size).ok()?)?;
        let names = Arc::new(SourceNames::parse(&text));
        if self.files.len() >= SOURCES_MAX {
            self.files.clear();
        }
        self.files.insert(key, Arc::clone(&names));
        Some(names)
    }

    /// Forgets processes that are gone.
    pub fn retain(&mut self, alive: &dyn Fn(u32) -> bool) {
        self.frames.retain(|key, _| alive(key.0));
        self.paths.retain(|key, _| alive(key.0));
    }
}

/// A source file below the process's root. A link in the last place is not followed: a target could
/// lead it to a file that only we may read.
fn open(pid: u32, path: &str) -> Option<TargetFile> {
    if path.starts_with('/') {
        return TargetFile::open_in_root_of(pid, path, false, SOURCE_BYTES_MAX).ok();
    }
    // Relative paths count from where the daemon was started.
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let path = cwd.join(path);
    TargetFile::open_in_root_of(pid, path.to_str()?, false, SOURCE_BYTES_MAX).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a FIFO is made by mkfifo")]
    fn a_source_that_is_no_plain_file_gives_no_name_and_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("plain.lua"), "local function f()\nend\n").unwrap();
        symlink("/etc/shadow", path("link.lua")).unwrap();
        symlink(path("plain.lua"), path("near.lua")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(path("fifo.lua"))
            .status();
        assert!(made.unwrap().success());
        let big = fs::File::create(path("big.lua")).unwrap();
        big.set_len(SOURCE_BYTES_MAX + 1).unwrap();
        let mut functions = Functions::default();
        let me = std::process::id();
        let mut frame = |name: &str| {
            functions.named(
                me,
                &Place {
                    chunk: Chunk::File(path(name)),
                    line: 1,
                    lines: 1,
                },
            )
        };
        assert_eq!(frame("plain.lua").name, "f");
        for name in ["link.lua", "near.lua", "fifo.lua", "big.lua", "none.lua"] {
            let frame = frame(name);
            assert_eq!((frame.name.as_str(), frame.line), ("", 1), "{name}");
            assert_eq!(frame.label(), format!("{}:1", path(name)));
        }
        let device = functions.named(
            me,
            &Place {
                chunk: Chunk::File("/dev/zero".into()),
                line: 1,
                lines: 1,
            },
        );
        assert_eq!(device.name, "");
    }

    #[test]
    fn chunks_are_shown_by_their_names() {
        let mut functions = Functions::default();
        let mut label = |chunk, line| {
            let place = Place {
                chunk,
                line,
                lines: 0,
            };
            functions.named(1, &place).label()
        };
        let phase = || Chunk::Named("access_by_lua(nginx.conf:52)".into());
        assert_eq!(label(phase(), 0), "access_by_lua(nginx.conf:52)");
        assert_eq!(label(phase(), 3), "access_by_lua(nginx.conf:52):3");
        assert_eq!(
            label(Chunk::File("/no/a.lua".into()), 0),
            "/no/a.lua main chunk"
        );
    }
}
