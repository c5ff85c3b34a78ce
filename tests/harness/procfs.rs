//! What /proc says about processes: who descends from whom, who carries a mark, who samples.
//!
//! In: a pid or a mark. Out: pids. Never: a signal; and a process that goes away while it is looked at
//! is simply not there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A process id.
pub type Pid = i32;

/// One process, told apart from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The process id.
    pub pid: Pid,
    /// Ticks since boot at which it started (field 22 of stat).
    pub start_ticks: u64,
}

impl Identity {
    /// The process that has `pid` now.
    pub fn of(pid: Pid) -> Option<Self> {
        stat(pid).map(|stat| Self {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether it still runs. A zombie does not: nothing of it is left but its exit status.
    pub fn alive(&self) -> bool {
        stat(self.pid)
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && !"ZX".contains(stat.state))
    }
}

struct Stat {
    state: char,
    parent: Pid,
    start_ticks: u64,
    cpu_ticks: u64,
}

/// The comm may hold blanks and parentheses, so the fields are counted from its last ')'.
fn stat(pid: Pid) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = line
        .get(line.rfind(')')? + 1..)?
        .split_ascii_whitespace()
        .collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        cpu_ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
    })
}

/// Every process on the machine that this process may see.
pub fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Children of `pid`, their children, and so on, in ascending order. An orphan that was adopted by
/// another process is not among them: [`find_ours`] finds those.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let mut children = BTreeMap::<Pid, Vec<Pid>>::new();
    for process in all() {
        if let Some(stat) = stat(process) {
            children.entry(stat.parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            found.push(child);
            parents.push(child);
        }
    }
    found.sort_unstable();
    found
}

/// Processes with `marker` in their arguments or in the environment they were started with, except
/// the asking one: what a program leaves behind is found even when it has a new parent, session and group.
pub fn find_ours(marker: &str) -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    let carries = |pid: Pid, file: &str| {
        fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| {
            bytes
                .windows(marker.len().max(1))
                .any(|w| w == marker.as_bytes())
        })
    };
    let mut found: Vec<Pid> = all()
        .into_iter()
        .filter(|&pid| pid != own && (carries(pid, "environ") || carries(pid, "cmdline")))
        .collect();
    found.sort_unstable();
    found
}

/// The value that `variable` had in the environment `pid` was started with.
pub fn start_variable(pid: Pid, variable: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{variable}=");
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|v| v.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// How many perf events `pid` holds open.
pub fn open_perf_fds(pid: Pid) -> usize {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|link| link.as_os_str().as_bytes() == b"anon_inode:[perf_event]")
        .count()
}

/// CPU time that `pid` has used, all threads, user and system.
pub fn cpu_time(pid: Pid) -> Option<std::time::Duration> {
    // USER_HZ, the unit of stat, has been 100 on every architecture this runs on.
    stat(pid).map(|stat| std::time::Duration::from_millis(stat.cpu_ticks * 10))
}

/// The most memory that `pid` has had resident so far, in KiB.
pub fn peak_memory_kib(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The name that `pid` carries (comm).
pub fn comm(pid: Pid) -> Option<String> {
    Some(
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()?
            .trim_end()
            .to_owned(),
    )
}
