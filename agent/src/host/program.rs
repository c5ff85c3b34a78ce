//! What a process runs: its program, its libraries, a master's workers.
//!
//! In: process ids. Out: paths. Never: arguments or environments, or a path taken for the running
//! file when that file was replaced.

use super::mounts::host_paths;
use crate::process::ask;
use crate::stapxx::{Mapped, libraries_of_ldd, libraries_of_maps};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Ends the name of a file that was removed or replaced (proc_pid_exe(5)).
const DELETED: &str = " (deleted)";

/// A running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path, as a process with the same root sees it.
    pub path: String,
    /// Whether the file there is another one by now.
    pub is_replaced: bool,
    /// The process, when it has other mounts than we: a container's. Its paths are not ours then.
    elsewhere: Option<u32>,
}

impl Program {
    /// A path of the process as we see it.
    ///
    /// # Errors
    /// When it is in a container and no path of ours leads to the same file.
    pub fn visible_path(&self, path: &str) -> Result<String, String> {
        let Some(pid) = self.elsewhere else {
            return Ok(path.to_owned());
        };
        let mounts = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        let wanted = identity(&format!("/proc/{pid}/root{path}"));
        let paths = match (mounts("self"), mounts(&pid.to_string())) {
            (Ok(own), Ok(theirs)) => host_paths(&own, &theirs, path),
            _ => Vec::new(),
        };
        paths
            .into_iter()
            .find(|candidate| wanted.is_some() && identity(candidate) == wanted)
            .ok_or_else(|| {
                format!("{path} of process {pid} is in a container, and no path of this host leads to it")
            })
    }
}

/// Device and inode of a file.
fn identity(path: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// What `pid` runs.
///
/// # Errors
/// In stap++'s words: it is gone, or we may not see it.
pub fn program_of(pid: u32) -> Result<Program, String> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link)
        .map_err(|_| {
            format!("Nginx process {pid} is not running or you do not have enough permissions.")
        })?
        .to_string_lossy()
        .into_owned();
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let is_elsewhere = mounts(&pid.to_string()) != mounts("self");
    let replaced = path.strip_suffix(DELETED);
    Ok(Program {
        is_replaced: replaced.is_some(),
        elsewhere: is_elsewhere.then_some(pid),
        path: replaced.map_or(path.clone(), str::to_owned),
    })
}

/// The libraries of a process.
///
/// # Errors
/// In stap++'s words.
pub fn libraries_of_process(pid: u32) -> Result<Mapped, String> {
    let file = format!("/proc/{pid}/maps");
    let bytes = fs::read(&file).map_err(|e| format!("Cannot open {file} for reading: {e}"))?;
    Ok(libraries_of_maps(&String::from_utf8_lossy(&bytes)))
}

/// The libraries that the loader would take for a program.
///
/// # Errors
/// In stap++'s words, or the system's when the loader cannot be asked.
pub fn libraries_of_program(path: &Path) -> Result<BTreeSet<String>, String> {
    if !path.is_file() {
        return Err(format!("{} not found.", path.display()));
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let argv = [OsString::from("ldd"), path.into_os_string()];
    let answer = ask(&argv, &[("LC_ALL", "C")], true, Duration::from_secs(10))
        .map_err(|e| format!("cannot run ldd: {e}"))?;
    Ok(libraries_of_ldd(&answer.stdout))
}

/// The children of a process, in order of their ids.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect();
    children.sort_unstable();
    children
}

/// The process that made this one, or took it over; none when it is gone.
#[must_use]
pub fn parent_of(pid: u32) -> Option<u32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent's id in the text of /proc/PID/stat: the second field behind the name, which stands in
/// parentheses and may hold blanks and parentheses itself (proc_pid_stat(5)).
fn parent_in(stat: &str) -> Option<u32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_hide_no_parent() {
        assert_eq!(parent_in("12 (a) b (c)) S 7 12 12"), Some(7));
        assert_eq!(parent_in("12 (nginx) S 1 0"), Some(1));
        assert_eq!(parent_in("12 nginx"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = program_of(std::process::id()).unwrap();
        assert!(
            own.path.starts_with('/') && own.elsewhere.is_none(),
            "{own:?}"
        );
        let mapped = libraries_of_process(std::process::id()).unwrap();
        assert!(mapped.libraries.iter().any(|path| path.contains("libc.so")));
        assert!(program_of(u32::MAX).unwrap_err().contains("is not running"));
    }

    #[test]
    fn the_loader_is_asked_without_a_shell() {
        let libraries = libraries_of_program(Path::new("/bin/sh")).unwrap();
        assert!(
            libraries.iter().any(|path| path.contains("libc.so")),
            "{libraries:?}"
        );
        let hostile = libraries_of_program(Path::new("/bin/sh; id"));
        assert_eq!(hostile, Err("/bin/sh; id not found.".to_owned()));
    }
}
