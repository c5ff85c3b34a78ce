//! What this process may do. In: /proc/self. Out: capabilities by name. Never: an assumption that
//! root may everything (containers take capabilities away).

use crate::file::read_proc;

/// Capabilities that matter here, with their numbers (include/uapi/linux/capability.h) and what
/// is lost without them.
pub const CAPABILITIES: [(&str, u32, &str); 7] = [
    (
        "CAP_PERFMON",
        38,
        "sampling other users' processes and the kernel",
    ),
    (
        "CAP_SYS_PTRACE",
        19,
        "reading other users' mappings and memory: all names",
    ),
    ("CAP_SYSLOG", 34, "names of kernel functions"),
    (
        "CAP_SYS_NICE",
        23,
        "real-time priority: long stacks may be torn",
    ),
    (
        "CAP_CHECKPOINT_RESTORE",
        40,
        "names in executables that were replaced on disk",
    ),
    (
        "CAP_IPC_LOCK",
        14,
        "rings beyond kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK",
    ),
    (
        "CAP_SYS_ADMIN",
        21,
        "what CAP_PERFMON gives, before Linux 5.8",
    ),
];

/// Effective capabilities of those in [`CAPABILITIES`].
#[must_use]
pub fn effective() -> Vec<&'static str> {
    let status = read_proc("/proc/self/status", 64 << 10).unwrap_or_default();
    parse(&String::from_utf8_lossy(&status))
}

fn parse(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = line
        .and_then(|l| u64::from_str_radix(l.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .filter(|c| bits >> c.1 & 1 == 1)
        .map(|c| c.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read() {
        assert_eq!(
            parse("Name:\tx\nCapEff:\t0000004000080000\n"),
            ["CAP_PERFMON", "CAP_SYS_PTRACE"]
        );
        assert!(parse("").is_empty());
    }
}
