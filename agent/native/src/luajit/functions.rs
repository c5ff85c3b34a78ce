//! Frames of Lua functions. In: what was kept of a sample, the process's memory and source files. Out:
//! frames as they are folded. Never: a source file opened in another way than below the process's root,
//! a cache without a bound.

use super::callsite::{self, Call};
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
/// Bytes of source that are read in one capture. A large gateway has some megabytes.
const SOURCE_BUDGET_BYTES: u64 = 16 << 20;
/// Names that are kept in one capture, of all files.
const NAMES_MAX: usize = 200_000;
/// Files whose names are kept.
const SOURCES_MAX: usize = 8192;
/// Functions whose frames are kept before they are made anew.
const FUNCTIONS_MAX: usize = 1 << 16;

/// Calls that are looked at for the name of one function.
const CALLS_MAX: u8 = 8;

/// A function's frame.
#[derive(Debug)]
struct Known {
    frame: Frame,
    /// Calls that may still be looked at; 0 when its source told its name, or that it has none.
    calls_left: u8,
}

/// What Lua functions are called, by process.
#[derive(Debug, Default)]
pub struct Functions {
    frames: HashMap<(u32, u64, u64), Known>,
    /// Source files by process and path; none for one that cannot be used.
    paths: HashMap<(u32, String), Option<Arc<SourceNames>>>,
    files: HashMap<FileKey, Arc<SourceNames>>,
    read_bytes: u64,
    names: usize,
}

impl Functions {
    /// The frame of the function with this prototype. `call` is where it was called: a function whose
    /// source cannot be read is named as the first caller names it that does.
    pub fn frame(
        &mut self,
        memory: &impl Memory,
        pid: u32,
        prototype: u64,
        key: u64,
        call: Option<Call>,
    ) -> Frame {
        let at = (pid, prototype, key);
        if !self.frames.contains_key(&at) {
            // One that could not be read may be there at the next sample.
            let Some(place) = names::place(memory, prototype, key) else {
                return Frame::named(FrameKind::Lua, "[lua]", "");
            };
            let known = self.named(pid, &place);
            if self.frames.len() >= FUNCTIONS_MAX {
                self.frames.clear();
            }
            self.frames.insert(at, known);
        }
        let Some(known) = self.frames.get_mut(&at) else {
            return Frame::named(FrameKind::Lua, "[lua]", "");
        };
        if let Some(call) = call
            && known.calls_left > 0
        {
            known.calls_left -= 1;
            if let Some(name) = callsite::name(memory, call) {
                known.frame.name = name;
                known.calls_left = 0;
            }
        }
        known.frame.clone()
    }

    fn named(&mut self, pid: u32, place: &Place) -> Known {
        if place.line == 0 {
            // The chunk itself, as it was loaded.
            let (name, file) = match &place.chunk {
                Chunk::File(path) => ("main chunk", path.as_str()),
                Chunk::Named(name) => (name.as_str(), ""),
            };
            let frame = Frame {
                file: file.to_owned(),
                ..Frame::named(FrameKind::Lua, name, "")
            };
            return Known {
                frame,
                calls_left: 0,
            };
        }
        let source = match &place.chunk {
            Chunk::File(path) => self.source(pid, path),
            Chunk::Named(_) => None,
        };
        let name = source
            .as_ref()
            .and_then(|s| s.name(place.line, place.lines));
        let frame = Frame {
            file: place.chunk.text().to_owned(),
            line: place.line,
            ..Frame::named(FrameKind::Lua, name.unwrap_or_default(), "")
        };
        Known {
            frame,
            calls_left: if source.is_none() { CALLS_MAX } else { 0 },
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
        // Without a source the caller is asked.
        let left = NAMES_MAX.saturating_sub(self.names);
        if left == 0 || self.read_bytes.saturating_add(key.size) > SOURCE_BUDGET_BYTES {
            return None;
        }
        self.read_bytes += key.size;
        let text = file.read(0, usize::try_from(key.size).ok()?)?;
        let names = Arc::new(SourceNames::parse(&text, left));
        self.names += names.len();
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
            let place = Place {
                chunk: Chunk::File(path(name)),
                line: 1,
                lines: 1,
            };
            functions.named(me, &place).frame
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
        assert_eq!(
            (device.frame.name.as_str(), device.calls_left),
            ("", CALLS_MAX)
        );
    }

    #[test]
    fn all_sources_together_have_a_bound_in_bytes_and_in_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let me = std::process::id();
        let name = |functions: &mut Functions, path: String, line, lines| {
            let chunk = Chunk::File(path);
            functions
                .named(me, &Place { chunk, line, lines })
                .frame
                .name
        };
        // 45,000 names of 11 bytes each a file.
        let mut many = Functions::default();
        for file in 0..5 {
            let mut text = String::new();
            for i in 0..45_000 {
                text.push_str(&format!("function f{i:05}()\nend\n"));
            }
            fs::write(path(&format!("{file}.lua")), text).unwrap();
            let expected = if file < 4 { "f44999" } else { "" };
            let found = name(&mut many, path(&format!("{file}.lua")), 89_999, 1);
            assert_eq!(found, expected, "{file}");
        }
        assert_eq!(many.names, NAMES_MAX);
        let mut large = Functions::default();
        for file in 0..5 {
            let mut text = b"function f()\nend\n".to_vec();
            text.resize(SOURCE_BYTES_MAX as usize, b' ');
            fs::write(path(&format!("large{file}.lua")), text).unwrap();
            let expected = if file < 4 { "f" } else { "" };
            assert_eq!(
                name(&mut large, path(&format!("large{file}.lua")), 1, 1),
                expected
            );
        }
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
            functions.named(1, &place).frame.label()
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
