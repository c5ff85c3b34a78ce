//! /proc, read by hand. In: process ids. Out: what the kernel says of them, none when they are
//! gone. Never: trust in a name that the process chose (comm and arguments are hints only).

use crate::cgroup::Groups;
use crate::file::read_proc;
use std::fs;

/// One process, as /proc shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// Start in clock ticks since boot.
    pub start_ticks: u64,
    /// `/proc/PID/comm`.
    pub comm: String,
    /// Where `/proc/PID/exe` leads, without ` (deleted)`; empty when it may not be read.
    pub exe: String,
    /// Arguments joined by spaces, at most 4 KiB. For matching; never stored.
    pub title: String,
    /// Its control groups, where targets are named by them.
    pub groups: Option<Groups>,
}

/// A process with all that is looked at.
#[must_use]
pub fn look(pid: u32) -> Option<Seen> {
    let stat = read_proc(&format!("/proc/{pid}/stat"), 4096).ok()?;
    let (comm, parent, start_ticks) = parse_stat(&String::from_utf8_lossy(&stat))?;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .map(|p| p.to_string_lossy().into_owned())
        .unwrap_or_default();
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned();
    let arguments = read_proc(&format!("/proc/{pid}/cmdline"), 4096).unwrap_or_default();
    let title = String::from_utf8_lossy(&arguments)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    Some(Seen {
        pid,
        parent,
        start_ticks,
        comm,
        exe,
        title,
        groups: None,
    })
}

/// Comm, parent and start time of `/proc/PID/stat`. The comm may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<(String, u32, u64)> {
    let (head, tail) = text.rsplit_once(')')?;
    let comm = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((comm, parent, start))
}

fn numbers(path: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// All process ids.
#[must_use]
pub fn pids() -> Vec<u32> {
    numbers("/proc")
}

/// Thread ids of a process.
#[must_use]
pub fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task"))
}

/// A thread's name.
#[must_use]
pub fn thread_name(pid: u32, tid: u32) -> Option<String> {
    let bytes = read_proc(&format!("/proc/{pid}/task/{tid}/comm"), 64).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// CPU time and run-queue wait of a thread in nanoseconds (`schedstat`, first two fields).
#[must_use]
pub fn schedstat(pid: u32, tid: u32) -> Option<(u64, u64)> {
    let bytes = read_proc(&format!("/proc/{pid}/task/{tid}/schedstat"), 128).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// CPU time of all threads that now are, in nanoseconds.
#[must_use]
pub fn cpu_ns(pid: u32) -> u64 {
    threads(pid)
        .into_iter()
        .filter_map(|tid| schedstat(pid, tid))
        .map(|s| s.0)
        .sum()
}

/// A number in a file of /proc/sys.
#[must_use]
pub fn sysctl(name: &str) -> Option<i64> {
    let bytes = read_proc(&format!("/proc/sys/{name}"), 64).ok()?;
    String::from_utf8_lossy(&bytes).trim().parse().ok()
}

/// CPUs that are online (`/sys/devices/system/cpu/online`).
#[must_use]
pub fn online_cpus() -> Vec<usize> {
    let bytes = read_proc("/sys/devices/system/cpu/online", 4096).unwrap_or_default();
    let list = parse_cpu_list(String::from_utf8_lossy(&bytes).trim());
    if list.is_empty() { vec![0] } else { list }
}

/// `0-3,8,10-11`.
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) {
            cpus.extend(from..=to.min(crate::sys::CPUS_MAX - 1));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comm_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(text), Some(("a) b (c)".into(), 3, 4242)));
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(parse_cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert!(parse_cpu_list("").is_empty());
    }

    #[test]
    fn we_see_ourselves() {
        let me = look(std::process::id()).expect("self");
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(me.exe.contains("fleetflame") && !threads(me.pid).is_empty());
        assert!(look(u32::MAX).is_none());
    }
}
