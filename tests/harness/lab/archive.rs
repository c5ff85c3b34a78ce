//! The root of a guest, as the kernel unpacks it at boot: a cpio archive of the kind `newc`.
//!
//! In: files, folders and links with owners and modes. Out: the archive's bytes, the same for the same input.
//! Never: a file without its folders: those are made on the way.
//!
//! Layout: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. It is not compressed: the
//! guest's CPU is emulated, and unpacking costs more than reading.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    group: u32,
    content: Vec<u8>,
}

/// A root that grows; what is put at a path later wins.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Archive {
    /// A folder, 0755, and those above it.
    pub fn folder(&mut self, path: &Path) {
        let path = relative(path);
        for folder in path.ancestors().filter(|path| path.parent().is_some()) {
            self.entries
                .entry(folder.to_owned())
                .or_insert_with(|| Entry {
                    mode: FOLDER | 0o755,
                    group: 0,
                    content: Vec::new(),
                });
        }
    }

    /// A folder with a mode of its own.
    pub fn folder_with_mode(&mut self, path: &Path, mode: u32) {
        self.folder(path);
        self.put(path, FOLDER | mode, 0, Vec::new());
    }

    /// A file of root's.
    pub fn file(&mut self, path: &Path, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, FILE | mode, 0, content.into());
    }

    /// A file of root's and of a group.
    pub fn file_of_group(&mut self, path: &Path, mode: u32, group: u32, content: Vec<u8>) {
        self.put(path, FILE | mode, group, content);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &str) {
        self.put(path, LINK | 0o777, 0, target.as_bytes().to_vec());
    }

    /// Whether something lies there.
    pub fn holds(&self, path: &Path) -> bool {
        self.entries.contains_key(&relative(path))
    }

    fn put(&mut self, path: &Path, mode: u32, group: u32, content: Vec<u8>) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        let entry = Entry {
            mode,
            group,
            content,
        };
        self.entries.insert(relative(path), entry);
    }

    /// The archive. Folders come before what lies in them, because their paths sort first.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let name = path.as_os_str().as_encoded_bytes();
            member(&mut bytes, number + 1, name, entry);
        }
        let end = Entry {
            mode: 0,
            group: 0,
            content: Vec::new(),
        };
        member(&mut bytes, 0, b"TRAILER!!!", &end);
        bytes
    }
}

/// Magic, thirteen numbers of eight hexadecimal digits, the name with its NUL, the content; name and content
/// padded to four bytes.
fn member(bytes: &mut Vec<u8>, inode: usize, name: &[u8], entry: &Entry) {
    let numbers = [
        inode,
        entry.mode as usize,
        0, // owner
        entry.group as usize,
        1, // links
        0, // time of change
        entry.content.len(),
        0, // device of the file system, major and minor
        0,
        0, // device that a node stands for, major and minor
        0,
        name.len() + 1,
        0, // check sum, of another kind of archive
    ];
    bytes.extend(b"070701");
    for number in numbers {
        bytes.extend(format!("{number:08X}").as_bytes());
    }
    bytes.extend(name);
    bytes.push(0);
    pad(bytes);
    bytes.extend(&entry.content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The path without its leading slash and without `.`.
fn relative(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_lies_in_them() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), 0o644, *b"hello");
        archive.link(Path::new("/a/d"), "b/c");
        let bytes = archive.bytes();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<usize> = ["a\0", "a/b\0", "a/b/c\0", "a/d\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).expect("a member"))
            .collect();
        assert!(places.is_sorted(), "{places:?}");
        assert!(text.contains("hello") && text.contains("000081A4"));
    }

    #[test]
    fn a_member_has_the_kernels_layout() {
        let mut archive = Archive::default();
        archive.file_of_group(Path::new("/x"), 0o4754, 156, b"1234".to_vec());
        let bytes = archive.bytes();
        let head = String::from_utf8_lossy(&bytes[..110]).into_owned();
        assert_eq!(
            head,
            "07070100000001000089EC000000000000009C0000000100000000\
             000000040000000000000000000000000000000000000002\
             00000000"
        );
        assert_eq!(
            &bytes[110..116],
            b"x\0\x31234"
                .split_at(2)
                .0
                .iter()
                .chain(b"1234")
                .copied()
                .collect::<Vec<_>>()
        );
    }
}
