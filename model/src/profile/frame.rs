//! Frames: one level of a stack, and what makes two of them the same.
//!
//! In: names, modules, function starts. Out: ids and merge keys. Never: a run-time address in a
//! key (it would differ in each process and nothing would merge).

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hash, Hasher};

/// Where a frame's code runs, or what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum FrameKind {
    /// Native code in user space.
    User = 0,
    /// The kernel or one of its modules.
    Kernel = 1,
    /// Lua run by the interpreter.
    Lua = 2,
    /// Code made at run time by a JIT compiler.
    Jit = 3,
    /// A function inlined into the frame below it.
    Inline = 4,
    /// Not code: `[pruned]`, `[unknown]`, a process group.
    Marker = 5,
}

impl FrameKind {
    /// The kind with this number, as stored.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        [
            Self::User,
            Self::Kernel,
            Self::Lua,
            Self::Jit,
            Self::Inline,
            Self::Marker,
        ]
        .get(usize::from(number))
        .copied()
    }
}

/// A GNU build-id (ELF note `NT_GNU_BUILD_ID`), 1 to 32 bytes; usually 20 (SHA-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId {
    len: u8,
    bytes: [u8; 32],
}

impl BuildId {
    /// Takes 1 to 32 bytes; none for other lengths.
    #[must_use]
    pub fn new(id: &[u8]) -> Option<Self> {
        if id.is_empty() || id.len() > 32 {
            return None;
        }
        let mut bytes = [0; 32];
        bytes[..id.len()].copy_from_slice(id);
        Some(Self {
            len: u8::try_from(id.len()).ok()?,
            bytes,
        })
    }

    /// The id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// One level of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Where its code runs.
    pub kind: FrameKind,
    /// The function's name; empty when it has none.
    pub name: String,
    /// Base name of the module (`nginx`, `libc.so.6`, `vmlinux`); empty when unknown.
    pub module: String,
    /// Source file, for Lua and inlined functions; else empty.
    pub file: String,
    /// Line of the function's definition in `file`; 0 when unknown.
    pub line: u32,
    /// Build-id of the module. Beside the merge key for named frames, in it for unnamed ones.
    pub build_id: Option<BuildId>,
    /// ELF virtual address of the function's start; 0 when unknown. Never a run-time address.
    pub address: u64,
    /// The stack was read while its owner could run on, so the frame may be wrong.
    pub racy: bool,
}

impl Frame {
    /// A function with a name.
    #[must_use]
    pub fn named(kind: FrameKind, name: impl Into<String>, module: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            module: module.into(),
            file: String::new(),
            line: 0,
            build_id: None,
            address: 0,
            racy: false,
        }
    }

    /// A function without a symbol: known by its module and the start that its FDE gives. With
    /// address 0 it is only known to be in the module.
    #[must_use]
    pub fn unnamed(
        kind: FrameKind,
        module: impl Into<String>,
        build_id: Option<BuildId>,
        address: u64,
    ) -> Self {
        Self {
            build_id,
            address,
            ..Self::named(kind, "", module)
        }
    }

    /// Something that is not code, such as `[pruned]`.
    #[must_use]
    pub fn marker(name: impl Into<String>) -> Self {
        Self::named(FrameKind::Marker, name, "")
    }

    /// The same with its texts borrowed.
    #[must_use]
    pub fn borrowed(&self) -> FrameRef<'_> {
        FrameRef {
            kind: self.kind,
            name: &self.name,
            module: &self.module,
            file: &self.file,
            line: self.line,
            build_id: self.build_id,
            address: self.address,
            racy: self.racy,
        }
    }

    /// What makes two frames the same when profiles are added.
    #[must_use]
    pub fn key(&self) -> FrameKey<'_> {
        self.borrowed().key()
    }

    /// The frame as folded text and graphs show it: kernel frames end in `_[k]`, JIT-compiled
    /// ones in `_[j]`, inlined ones in `_[i]`; unnamed ones are `[module]+0xADDR`, `[module]`
    /// or `[unknown]`. `;`, newlines and other control characters cannot appear.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = String::new();
        let is_lua = matches!(self.kind, FrameKind::Lua | FrameKind::Jit);
        if !self.file.is_empty() && (self.line > 0 || is_lua) {
            label.push_str(&self.file);
            if self.line > 0 {
                let _ = write!(label, ":{}", self.line);
            }
            if !self.name.is_empty() {
                label.push(' ');
            }
        }
        if !self.name.is_empty() || !label.is_empty() {
            label.push_str(&self.name);
        } else if !self.module.is_empty() {
            let bare = self.module.trim_start_matches('[').trim_end_matches(']');
            let _ = write!(label, "[{bare}]");
            if self.address != 0 {
                let _ = write!(label, "+{:#x}", self.address);
            }
        } else {
            label.push_str("[unknown]");
        }
        match self.kind {
            FrameKind::Kernel => label.push_str("_[k]"),
            FrameKind::Jit => label.push_str("_[j]"),
            FrameKind::Inline => label.push_str("_[i]"),
            FrameKind::User | FrameKind::Lua | FrameKind::Marker => {}
        }
        if label.chars().any(|c| c == ';' || c.is_control()) {
            label = label
                .chars()
                .map(|c| {
                    if c == ';' {
                        ':'
                    } else if c.is_control() {
                        ' '
                    } else {
                        c
                    }
                })
                .collect();
        }
        label
    }

    /// The label where the module stands beside it: without the marks of kernel and inlined code. JIT-compiled
    /// code keeps its mark, because readers add up functions of one name, and the interpreter's is the same.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = match self.kind {
            FrameKind::Jit => FrameKind::Jit,
            _ => FrameKind::User,
        };
        let frame = Self {
            kind,
            ..self.clone()
        };
        frame.label()
    }

    /// Takes over what the same frame from elsewhere knows more. Symmetric and associative, so
    /// that the order in which hosts are merged does not show.
    fn unite(&mut self, other: FrameRef<'_>) {
        self.racy |= other.racy;
        if (self.address, self.line) == (other.address, other.line)
            && self.build_id == other.build_id
            && self.file == other.file
        {
            return; // nearly always
        }
        let mine = (self.build_id, self.address);
        let theirs = (other.build_id, other.address);
        // None sorts first, and a known id is worth more than none.
        let best = match (mine.0.is_some(), theirs.0.is_some()) {
            (true, false) => mine,
            (false, true) => theirs,
            _ => mine.min(theirs),
        };
        (self.build_id, self.address) = best;
        if self.file.is_empty() || (!other.file.is_empty() && other.file < self.file.as_str()) {
            other.file.clone_into(&mut self.file);
        }
        self.line = match (self.line, other.line) {
            (0, line) | (line, 0) => line,
            (a, b) => a.min(b),
        };
    }
}

/// A [`Frame`] whose texts lie elsewhere, such as in a decoded block: looked up without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of the same name in Frame")]
pub struct FrameRef<'a> {
    pub kind: FrameKind,
    pub name: &'a str,
    pub module: &'a str,
    pub file: &'a str,
    pub line: u32,
    pub build_id: Option<BuildId>,
    pub address: u64,
    pub racy: bool,
}

impl<'a> FrameRef<'a> {
    /// What makes two frames the same when profiles are added.
    #[must_use]
    pub fn key(&self) -> FrameKey<'a> {
        let unnamed = self.name.is_empty();
        let lined = matches!(
            self.kind,
            FrameKind::Lua | FrameKind::Jit | FrameKind::Inline
        );
        FrameKey {
            kind: self.kind,
            name: self.name,
            module: self.module,
            file: if lined { self.file } else { "" },
            line: if lined { self.line } else { 0 },
            build_id: if unnamed { self.build_id } else { None },
            address: if unnamed { self.address } else { 0 },
        }
    }

    /// With texts of its own.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        Frame {
            kind: self.kind,
            name: self.name.to_owned(),
            module: self.module.to_owned(),
            file: self.file.to_owned(),
            line: self.line,
            build_id: self.build_id,
            address: self.address,
            racy: self.racy,
        }
    }
}

/// What makes two frames the same. See [`Frame::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameKey<'a> {
    kind: FrameKind,
    name: &'a str,
    module: &'a str,
    file: &'a str,
    line: u32,
    build_id: Option<BuildId>,
    address: u64,
}

impl Hash for FrameKey<'_> {
    /// Name and module tell nearly all frames apart; the rest is left to the comparison, except
    /// where there is no name.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.name.as_bytes());
        state.write(self.module.as_bytes());
        state.write_u64(self.address << 32 ^ u64::from(self.line) << 8 ^ self.kind as u64);
    }
}

/// Number of a frame in one profile's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// Frames by number; each merge key once. Append-only.
#[derive(Clone, Debug, Default)]
pub struct FrameTable {
    frames: Vec<Frame>,
    /// Frame numbers by key; the keys stand in `frames` and are not repeated here.
    by_key: HashTable<FrameId>,
    state: RandomState,
}

impl FrameTable {
    /// The id of `frame`, which is added when its key is new.
    pub fn intern(&mut self, frame: &Frame) -> FrameId {
        self.intern_ref(frame.borrowed())
    }

    /// The same, with a copy of the texts made only when the key is new.
    pub fn intern_ref(&mut self, frame: FrameRef<'_>) -> FrameId {
        let key = frame.key();
        let (frames, state) = (&mut self.frames, &self.state);
        let same = |id: &FrameId| frames[id.0 as usize].key() == key;
        let hash_of = |id: &FrameId| state.hash_one(frames[id.0 as usize].key());
        match self.by_key.entry(state.hash_one(key), same, hash_of) {
            Entry::Occupied(there) => {
                let id = *there.get();
                frames[id.0 as usize].unite(frame);
                id
            }
            Entry::Vacant(room) => {
                let id = FrameId(u32::try_from(frames.len()).unwrap_or(u32::MAX));
                room.insert(id);
                frames.push(frame.to_frame());
                id
            }
        }
    }

    /// The id of `frame`, if its key is there.
    #[must_use]
    pub fn find(&self, frame: &Frame) -> Option<FrameId> {
        let key = frame.key();
        let same = |id: &FrameId| self.frames[id.0 as usize].key() == key;
        self.by_key.find(self.state.hash_one(key), same).copied()
    }

    /// The frame with this number.
    #[must_use]
    pub fn get(&self, id: FrameId) -> Option<&Frame> {
        self.frames.get(id.0 as usize)
    }

    /// All frames, by number.
    #[must_use]
    pub fn as_slice(&self) -> &[Frame] {
        &self.frames
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_function_in_two_builds_is_one_frame_and_an_unnamed_one_is_not() {
        let id = |n: u8| BuildId::new(&[n; 20]);
        let mut table = FrameTable::default();
        let mut named = Frame::named(FrameKind::User, "ngx_worker_process_cycle", "nginx");
        named.build_id = id(1);
        let a = table.intern(&named);
        named.build_id = id(2);
        assert_eq!(table.intern(&named), a);
        let x = table.intern(&Frame::unnamed(FrameKind::User, "nginx", id(1), 0x40));
        let y = table.intern(&Frame::unnamed(FrameKind::User, "nginx", id(2), 0x40));
        assert_ne!(x, y);
    }

    #[test]
    fn labels_follow_the_product_s_rules() {
        let k = |kind, name: &str, module: &str| Frame::named(kind, name, module).label();
        assert_eq!(
            k(FrameKind::Kernel, "do_syscall_64", "vmlinux"),
            "do_syscall_64_[k]"
        );
        assert_eq!(k(FrameKind::User, "[T; 3]::sort", "x"), "[T: 3]::sort");
        assert_eq!(
            Frame::unnamed(FrameKind::User, "nginx", None, 0x1a2b).label(),
            "[nginx]+0x1a2b"
        );
        assert_eq!(
            Frame::unnamed(FrameKind::User, "nginx", None, 0).label(),
            "[nginx]"
        );
        assert_eq!(
            Frame::unnamed(FrameKind::User, "", None, 0).label(),
            "[unknown]"
        );
        assert_eq!(
            Frame::unnamed(FrameKind::User, "[vdso]", None, 0x10).label(),
            "[vdso]+0x10"
        );
        let lua = Frame {
            file: "a/handler.lua".into(),
            line: 42,
            ..Frame::named(FrameKind::Jit, "access", "")
        };
        assert_eq!(lua.label(), "a/handler.lua:42 access_[j]");
        let mut nameless = Frame {
            name: String::new(),
            kind: FrameKind::Lua,
            ..lua
        };
        assert_eq!(nameless.label(), "a/handler.lua:42");
        (nameless.name, nameless.line) = ("main chunk".into(), 0);
        assert_eq!(nameless.label(), "a/handler.lua main chunk");
    }
}
