//! From a path inside of a container to a path of the host that leads to the same file.
//!
//! In: the text of two /proc/PID/mountinfo. Out: paths that may be the one. Never: a path through
//! /proc/PID/root: stap resolves names as realpath(3) does, for which that link is only `/`, and so
//! would set its probes in the host's own file.

/// One mount (proc_pid_mountinfo(5)).
struct Mount {
    /// `major:minor` of the file system.
    device: String,
    /// Which folder of the file system is mounted.
    root: String,
    /// Where.
    point: String,
}

/// Paths by which a process with the mounts `own` may reach what is `path` for one with the mounts
/// `theirs`. The caller compares the files.
#[must_use]
pub(super) fn host_paths(own: &str, theirs: &str, path: &str) -> Vec<String> {
    // The last of two mounts at the same place covers the first.
    let mut holder: Option<(Mount, &str)> = None;
    for mount in mounts(theirs) {
        if let Some(inside) = below(&mount.point, path)
            && holder
                .as_ref()
                .is_none_or(|(best, _)| mount.point.len() >= best.point.len())
        {
            holder = Some((mount, inside));
        }
    }
    let Some((holder, inside)) = holder else {
        return Vec::new();
    };
    let in_file_system = join(&holder.root, inside);
    mounts(own)
        .filter(|mount| mount.device == holder.device)
        .filter_map(|mount| Some(join(&mount.point, below(&mount.root, &in_file_system)?)))
        .collect()
}

fn mounts(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some(Mount {
            device: fields.next()?.to_owned(),
            root: unescaped(fields.next()?),
            point: unescaped(fields.next()?),
        })
    })
}

/// The rest of `path` below `folder`, without a slash at its begin.
fn below<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

fn join(folder: &str, rest: &str) -> String {
    let folder = folder.trim_end_matches('/');
    if rest.is_empty() && !folder.is_empty() {
        return folder.to_owned();
    }
    format!("{folder}/{rest}")
}

/// Blank, tab, line end and backslash are written as `\040`, `\011`, `\012` and `\134`.
fn unescaped(field: &str) -> String {
    [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", r"\"),
    ]
    .into_iter()
    .fold(field.to_owned(), |text, (code, sign)| {
        text.replace(code, sign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
90 22 0:52 / /var/lib/docker/overlay2/ab/merged rw - overlay overlay rw
91 22 8:2 / /srv\\040data rw - ext4 /dev/sda2 rw
";
    const CONTAINER: &str = "\
300 200 0:52 / / rw - overlay overlay rw
301 300 8:2 /kong/lib /usr/local/lib rw - ext4 /dev/sda2 rw
302 300 0:99 / /tmp rw - tmpfs tmpfs rw
";

    #[test]
    fn files_of_a_container_are_found_on_the_host() {
        for (path, paths) in [
            (
                "/usr/sbin/nginx",
                vec!["/var/lib/docker/overlay2/ab/merged/usr/sbin/nginx"],
            ),
            ("/usr/local/lib/libx.so", vec!["/srv data/kong/lib/libx.so"]),
            (
                "/usr/local/libx",
                vec!["/var/lib/docker/overlay2/ab/merged/usr/local/libx"],
            ),
            ("/tmp/x", vec![]),
            ("relative", vec![]),
        ] {
            assert_eq!(host_paths(HOST, CONTAINER, path), paths, "{path}");
        }
        assert_eq!(host_paths(HOST, HOST, "/a"), ["/a"]);
        assert!(host_paths("", "garbage\n1 2 3", "/a").is_empty());
    }
}
