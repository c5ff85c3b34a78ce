//! Which libraries a target uses, from what the kernel and the loader print.
//!
//! In: text of /proc/PID/maps or of `ldd`. Out: paths. Never: a path guessed: a library that was
//! deleted is said to be.

use super::bindings::so_suffix;
use std::collections::BTreeSet;

/// Ends a path in /proc/PID/maps when the file has no name any more (proc_pid_maps(5)).
pub(super) const DELETED: &str = " (deleted)";

/// Libraries of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Those that are there, in order of their paths.
    pub libraries: BTreeSet<String>,
    /// Those whose files were removed or replaced since they were mapped, without the mark.
    pub deleted: BTreeSet<String>,
}

/// The libraries in the text of /proc/PID/maps. Paths with blanks are whole, and versions may have
/// letters (`libcrypto.so.1.0.2k`).
#[must_use]
pub fn libraries_of_maps(text: &str) -> Mapped {
    let mut mapped = Mapped::default();
    for line in text.lines() {
        // Address, permissions, offset, device, inode, then blanks up to the path.
        let Some(at) = line.find('/') else {
            continue;
        };
        if line[..at].split_ascii_whitespace().count() != 5 {
            continue;
        }
        // The kernel writes a line end within a path as \012; no such path is used.
        let path = &line[at..];
        match path.strip_suffix(DELETED) {
            Some(gone) if so_suffix(gone).is_some() => mapped.deleted.insert(gone.to_owned()),
            None if so_suffix(path).is_some() => mapped.libraries.insert(path.to_owned()),
            _ => continue,
        };
    }
    mapped
}

/// The libraries in the output of `ldd`: `libz.so.1 => /lib/libz.so.1 (0x…)`.
#[must_use]
pub fn libraries_of_ldd(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            let path = path.rsplit_once(" (0x").map_or(path, |(path, _)| path);
            (path.starts_with('/') && so_suffix(path).is_some()).then(|| path.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_whatever_their_names() {
        let text = "\
55d0 r-xp 00000000 08:01 123   /usr/sbin/nginx
7f00-7f10 r-xp 00000000 08:01 124                    /usr/lib64/libcrypto.so.1.0.2k
7f10-7f20 r-xp 00000000 08:01 125                    /opt/my libs/libfoo.so
7f20-7f30 r-xp 00000000 08:01 126                    /lib/libpcre.so.1.2.3 (deleted)
7f30-7f40 r--p 00000000 08:01 127                    /lib/libc.so.6
7f40-7f50 r--p 00000000 08:01 127                    /lib/libc.so.6
7f50-7f60 rw-p 00000000 00:00 0                      [heap]
7f60-7f70 rw-s 00000000 00:01 9                      /dev/zero (deleted)
";
        let mapped = libraries_of_maps(text);
        let list: Vec<&str> = mapped.libraries.iter().map(String::as_str).collect();
        assert_eq!(
            list,
            [
                "/lib/libc.so.6",
                "/opt/my libs/libfoo.so",
                "/usr/lib64/libcrypto.so.1.0.2k"
            ]
        );
        let gone: Vec<&str> = mapped.deleted.iter().map(String::as_str).collect();
        assert_eq!(gone, ["/lib/libpcre.so.1.2.3"]);
    }

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/libz.so.1 (0x00007f)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let list: Vec<String> = libraries_of_ldd(text).into_iter().collect();
        assert_eq!(list, ["/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
