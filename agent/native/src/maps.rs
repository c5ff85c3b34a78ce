//! What a process has mapped. In: the text of /proc/PID/maps. Out: executable mappings in order
//! of address. Never: more rows than the bound (a hostile process maps what it likes).

use crate::file;
use std::io;

/// Most executable mappings of one process that are kept.
pub const MAPPINGS_MAX: usize = 20_000;
/// Most text that is read: 65,530 mappings (`vm.max_map_count`) are about 6 MB.
const MAPS_BYTES_MAX: usize = 32 << 20;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Device, as the kernel states it (another number than `stat`'s on some file systems).
    pub dev: u64,
    /// Inode; 0 for anonymous memory.
    pub ino: u64,
    /// Path, `[vdso]`, or empty.
    pub path: String,
}

/// The rows of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// Executable mappings in order of address.
    pub rows: Vec<Mapping>,
    /// Rows of any kind that were seen.
    pub seen: usize,
    /// Whether some were left out.
    pub cut: bool,
}

/// Reads /proc/PID/maps.
///
/// # Errors
/// `ESRCH`/`ENOENT` when the process is gone, `EACCES` without `CAP_SYS_PTRACE`.
pub fn read(pid: u32) -> io::Result<Maps> {
    let bytes = file::read_proc(&format!("/proc/{pid}/maps"), MAPS_BYTES_MAX)?;
    let mut maps = parse(&String::from_utf8_lossy(&bytes));
    maps.cut |= bytes.len() == MAPS_BYTES_MAX;
    Ok(maps)
}

/// Device and inode of what is mapped at an address, if it is shared or a file.
#[must_use]
pub fn backing(pid: u32, address: u64) -> Option<(u64, u64)> {
    let bytes = file::read_proc(&format!("/proc/{pid}/maps"), MAPS_BYTES_MAX).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut rows = text.lines().filter_map(any_row);
    let (mapping, shared) = rows.find(|m| m.0.start <= address && address < m.0.end)?;
    (shared && mapping.ino != 0).then_some((mapping.dev, mapping.ino))
}

/// Reads the text of a maps file.
#[must_use]
pub fn parse(text: &str) -> Maps {
    let mut maps = Maps::default();
    for line in text.lines() {
        maps.seen += 1;
        let Some(mapping) = row(line) else { continue };
        if maps.rows.len() == MAPPINGS_MAX {
            maps.cut = true;
            break;
        }
        maps.rows.push(mapping);
    }
    maps.rows.sort_by_key(|m| m.start);
    maps
}

/// An executable row.
fn row(line: &str) -> Option<Mapping> {
    let permissions = line.split(' ').nth(1)?;
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    any_row(line).map(|r| r.0)
}

/// `START-END PERMS OFFSET MAJOR:MINOR INODE   PATH`, and whether it is shared.
fn any_row(line: &str) -> Option<(Mapping, bool)> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim_start(), ""));
        rest = after;
        field
    };
    let (range, permissions, offset, device, inode) = (field(), field(), field(), field(), field());
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end {
        return None;
    }
    let mapping = Mapping {
        start,
        end,
        offset: hex(offset)?,
        dev: hex(major)? << 32 | hex(minor)?,
        ino: inode.parse().ok()?,
        path: unescape(rest.trim_start()),
    };
    Some((mapping, permissions.as_bytes().get(3) == Some(&b's')))
}

/// The kernel writes a newline in a path as `\012`.
fn unescape(path: &str) -> String {
    path.replace("\\012", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn executable_rows_are_kept_with_their_paths() {
        let maps = parse(
            "55d0-55e0 r--p 00000000 fe:00 42                    /usr/sbin/nginx\n\
             55e0-5600 r-xp 00001000 fe:00 42                    /usr/sbin/nginx\n\
             7000-8000 rwxp 00000000 00:00 0 \n\
             9000-a000 r-xp 00000000 fe:00 7    /tmp/a b\\012c (deleted)\n\
             ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]\n",
        );
        assert_eq!(maps.seen, 5);
        let paths: Vec<_> = maps.rows.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(
            paths,
            ["/usr/sbin/nginx", "", "/tmp/a b\nc (deleted)", "[vsyscall]"]
        );
        assert_eq!((maps.rows[0].offset, maps.rows[0].ino), (0x1000, 42));
    }

    #[test]
    fn there_is_an_end_to_the_rows() {
        let text: String = (1..MAPPINGS_MAX + 10)
            .map(|i| format!("{:x}-{:x} r-xp 0 0:0 0 \n", i * 4096, (i + 1) * 4096))
            .collect();
        let maps = parse(&text);
        assert!(maps.cut && maps.rows.len() == MAPPINGS_MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9a-f\\-rwxp :\n/]{0,400}") {
            for row in parse(&text).rows {
                prop_assert!(row.start < row.end);
            }
        }
    }
}
