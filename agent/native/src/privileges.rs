//! What this process may do. In: /proc/self. Out: capabilities by name, and the command that gives
//! those that are missing. Never: an assumption that root may everything (containers take capabilities
//! away).

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

/// What to do to get capabilities, for the reader of a finding: the command, with those that the agent
/// has already, because it replaces them all.
#[must_use]
pub fn grant(wanted: &[&'static str]) -> String {
    let status = read_proc("/proc/self/status", 64 << 10).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let program = std::env::current_exe();
    let program = program.map(|p| p.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|_| "fleetflame-agent".to_owned());
    let is_root = effective_user(&status) == Some(0);
    let has = parse(&status);
    if wanted.iter().all(|name| has.contains(name)) {
        return format!(
            "The agent has {} already: a seccomp profile, a security module or kernel lockdown refuses it.",
            wanted.join(" and ")
        );
    }
    words(&has, wanted, is_root, &program)
}

fn words(has: &[&str], wanted: &[&'static str], is_root: bool, program: &str) -> String {
    let names = wanted.join(" and ");
    let all = CAPABILITIES.iter().map(|c| c.0);
    let all = all.filter(|name| has.contains(name) || wanted.contains(name));
    if is_root {
        // Root without a capability is in a container or unit that took it away.
        let add: Vec<String> = all
            .filter(|name| wanted.contains(name))
            .map(|name| format!("--cap-add={}", name.trim_start_matches("CAP_")))
            .collect();
        return format!(
            "Give the agent {names}: {} for docker and podman, securityContext.capabilities in Kubernetes.",
            add.join(" ")
        );
    }
    let all: Vec<String> = all.map(str::to_lowercase).collect();
    format!(
        "Give the agent {names}: setcap {}+ep {program} (as root), or AmbientCapabilities= in its unit.",
        all.join(",")
    )
}

/// The second number after `Uid:`.
fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a program of ours that becomes root (setuid, or run by root) would have the capability of this number
/// (include/uapi/linux/capability.h): whether it is in the bounding set.
#[must_use]
pub fn root_would_have(number: u32) -> bool {
    let status = read_proc("/proc/self/status", 64 << 10).unwrap_or_default();
    let bits = bits(&String::from_utf8_lossy(&status), "CapBnd:");
    bits.checked_shr(number).is_some_and(|b| b & 1 == 1)
}

/// Whether setuid programs stay what we are (prctl(2), PR_SET_NO_NEW_PRIVS; systemd's NoNewPrivileges).
#[must_use]
pub fn no_new_privileges() -> bool {
    let status = read_proc("/proc/self/status", 64 << 10).unwrap_or_default();
    bits(&String::from_utf8_lossy(&status), "NoNewPrivs:") == 1
}

fn bits(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok())
        .unwrap_or(0)
}

fn parse(status: &str) -> Vec<&'static str> {
    let bits = bits(status, "CapEff:");
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
        let status = "CapEff:\t0\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\n";
        assert_eq!(bits(status, "CapBnd:").count_ones(), 41);
        assert_eq!((bits(status, "NoNewPrivs:"), bits(status, "x")), (1, 0));
    }

    #[test]
    fn the_command_names_what_is_missing_and_keeps_what_is_there() {
        let said = words(
            &["CAP_PERFMON"],
            &["CAP_SYS_PTRACE"],
            false,
            "/usr/bin/fleetflame-agent",
        );
        let command = "setcap cap_perfmon,cap_sys_ptrace+ep /usr/bin/fleetflame-agent";
        assert!(
            said.starts_with("Give the agent CAP_SYS_PTRACE: ") && said.contains(command),
            "{said}"
        );
        let said = words(
            &["CAP_SYSLOG"],
            &["CAP_PERFMON", "CAP_SYS_PTRACE"],
            true,
            "/a",
        );
        assert!(
            said.contains("--cap-add=PERFMON --cap-add=SYS_PTRACE for docker"),
            "{said}"
        );
        assert!(
            !said.contains("setcap") && !said.contains("SYSLOG"),
            "{said}"
        );
        assert_eq!(
            effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"),
            Some(0)
        );
        assert_eq!(effective_user(""), None);
    }
}
