//! Files of targets, read with care. In: a process and a path that the process chose. Out: bytes
//! of a regular file. Never: a mapping (a file cut short would be SIGBUS), a device opened, a
//! link followed out of the process's root, more bytes than the bound.

use crate::sys;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Largest file that is looked into.
pub const FILE_BYTES_MAX: u64 = 512 << 20;
/// Largest file of separate debug symbols; only its symbol table is read.
pub const DEBUG_FILE_BYTES_MAX: u64 = 8 << 30;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Time of the last change of its content, seconds.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_ns: i64,
    /// Length in bytes.
    pub size: u64,
}

/// An open regular file. Reads are `pread`s, so that a file that shrinks gives an error.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    key: FileKey,
}

impl TargetFile {
    /// Opens what the process `pid` has mapped at `start..end`, whatever its path now leads to
    /// (`/proc/PID/map_files`; needs `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`).
    ///
    /// # Errors
    /// What open says; `InvalidInput` when it is not a regular file or too big.
    pub fn open_mapped(pid: u32, start: u64, end: u64) -> io::Result<Self> {
        let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
        Self::reopen(open_path(Path::new(&path), 0)?, FILE_BYTES_MAX)
    }

    /// Opens the executable of `pid`, even a deleted one.
    ///
    /// # Errors
    /// As `open_mapped`.
    pub fn open_exe(pid: u32) -> io::Result<Self> {
        Self::reopen(
            open_path(Path::new(&format!("/proc/{pid}/exe")), 0)?,
            FILE_BYTES_MAX,
        )
    }

    /// Opens `path` as the process sees it: below its own root, without following a final link.
    ///
    /// # Errors
    /// As `open_mapped`; `ELOOP` for a link.
    pub fn open_in_root_of(pid: u32, path: &str, follow: bool, bytes_max: u64) -> io::Result<Self> {
        let nofollow = if follow { 0 } else { libc::O_NOFOLLOW };
        let flags = libc::O_PATH | libc::O_CLOEXEC | nofollow;
        let root = open_path(Path::new(&format!("/proc/{pid}/root")), libc::O_DIRECTORY)?;
        let name = CString::new(path).map_err(io::Error::other)?;
        let file = match sys::open_in_root(&root.into(), &name, flags) {
            Ok(fd) => File::from(fd),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                // Before Linux 5.6; callers compare the inode with the mapping's.
                open_path(Path::new(&format!("/proc/{pid}/root{path}")), nofollow)?
            }
            Err(error) => return Err(error),
        };
        Self::reopen(file, bytes_max)
    }

    /// Opens a path of our own system.
    ///
    /// # Errors
    /// As `open_mapped`.
    pub fn open_own(path: &Path, bytes_max: u64) -> io::Result<Self> {
        Self::reopen(open_path(path, 0)?, bytes_max)
    }

    /// An `O_PATH` descriptor has no effect on what it names; only what is a regular file is then
    /// opened for reading.
    fn reopen(handle: File, bytes_max: u64) -> io::Result<Self> {
        let meta = handle.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        if meta.len() > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes are more than {bytes_max}", meta.len()),
            ));
        }
        let handle: OwnedFd = handle.into();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))?;
        let key = key_of(&file.metadata()?);
        Ok(Self { file, key })
    }

    /// Which state of which file it is.
    #[must_use]
    pub fn key(&self) -> FileKey {
        self.key
    }

    /// Whether the file changed since it was opened.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.file
            .metadata()
            .map_or(true, |meta| key_of(&meta) != self.key)
    }

    /// The file, for positioned reads.
    #[must_use]
    pub fn inner(&self) -> &File {
        &self.file
    }
}

fn key_of(meta: &fs::Metadata) -> FileKey {
    FileKey {
        dev: meta.dev(),
        ino: meta.ino(),
        mtime: meta.mtime(),
        mtime_ns: meta.mtime_nsec(),
        size: meta.len(),
    }
}

fn open_path(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC | flags)
        .open(path)
}

/// A file as a process sees it, below its own root; none that is no plain file, or longer. A link in the last place is not
/// followed: a target could lead it to a file that only we may read.
#[must_use]
pub fn read_in_root_of(pid: u32, path: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let absolute = path.starts_with('/');
    let file = absolute.then(|| TargetFile::open_in_root_of(pid, path, false, bytes_max))?;
    let (mut bytes, mut file) = (Vec::new(), file.ok()?.file.take(bytes_max));
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads a file of /proc, which has no length of its own, up to `limit` bytes.
///
/// # Errors
/// What open and read say.
pub fn read_proc(path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Image;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a FIFO is made by mkfifo")]
    fn only_regular_files_below_the_root_are_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let plain = dir.path().join("plain");
        fs::write(&plain, b"hello").expect("write");
        let link = dir.path().join("link");
        symlink("/etc/shadow", &link).expect("symlink");
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        let me = std::process::id();
        let open = |p: &Path| {
            TargetFile::open_in_root_of(me, p.to_str().expect("utf8"), false, FILE_BYTES_MAX)
        };
        assert_eq!(
            open(&plain).expect("open").read(0, 5).expect("read"),
            b"hello"
        );
        assert!(open(&link).is_err(), "a link in place of a mapped file");
        if made.is_ok_and(|s| s.success()) {
            assert!(
                open(&fifo).is_err(),
                "a FIFO must be refused, not waited for"
            );
        }
        assert!(open(Path::new("/dev/zero")).is_err());
        assert!(TargetFile::open_own(dir.path(), 9).is_err());
        assert!(
            TargetFile::open_own(&plain, 4).is_err(),
            "bigger than the bound"
        );
    }

    #[test]
    fn a_file_that_changes_is_noticed_and_a_short_read_is_no_fault() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 10_000]).expect("write");
        let file = TargetFile::open_own(&path, FILE_BYTES_MAX).expect("open");
        assert!(!file.has_changed());
        File::create(&path)
            .expect("truncate")
            .write_all(b"x")
            .expect("write");
        assert!(file.has_changed());
        assert!(file.read(5_000, 8).is_none());
    }
}
