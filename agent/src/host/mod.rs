//! What this machine is and what it can do. In: /proc, uname, os-release. Out: a [`HostReport`].
//! Never: command lines or environments of processes.

mod mounts;
pub mod program;

use crate::engine;
use crate::policy::Policy;
use model::host::GatewayProcess;
use model::{Finding, HostReport};
use std::fs;

/// Looks at the machine. Takes some milliseconds of CPU.
#[must_use]
pub fn survey(policy: &Result<Policy, Finding>) -> HostReport {
    let uname = nix::sys::utsname::uname();
    let text = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname
            .as_ref()
            .map_or_else(|_| String::new(), |u| f(u).to_string_lossy().into_owned())
    };
    let fallback = Policy::default();
    let allowed = policy.as_ref().unwrap_or(&fallback);
    let mut engines = engine::survey(allowed);
    if policy.is_err() {
        for engine in &mut engines {
            engine.can_run = false;
            "the host's policy file is refused".clone_into(&mut engine.how);
        }
    }
    HostReport {
        hostname: text(nix::sys::utsname::UtsName::nodename),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: text(nix::sys::utsname::UtsName::release),
        arch: text(nix::sys::utsname::UtsName::machine),
        os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        cpus: cpus(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default()),
        memory_mb: memory_mb(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        engines,
        gateways: gateways(),
        policy: policy
            .as_ref()
            .map_or_else(|_| "refused".to_owned(), Policy::describe),
        findings: policy.as_ref().err().cloned().into_iter().collect(),
    }
}

fn gateways() -> Vec<GatewayProcess> {
    native::gateways()
        .into_iter()
        .map(|g| GatewayProcess {
            pid: g.pid,
            parent_pid: g.parent_pid,
            role: g.role,
            exe: g.exe,
        })
        .collect()
}

/// `PRETTY_NAME` of os-release(5).
fn os_name(text: &str) -> String {
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// CPUs in a list such as `0-3,5` (kernel's Documentation/admin-guide/cputopology.rst).
fn cpus(list: &str) -> u32 {
    let part = |p: &str| -> Option<u32> {
        match p.split_once('-') {
            Some((low, high)) => high
                .parse::<u32>()
                .ok()?
                .checked_sub(low.parse().ok()?)?
                .checked_add(1),
            None => p.parse::<u32>().ok().map(|_| 1),
        }
    };
    list.trim().split(',').filter_map(part).sum()
}

/// `MemTotal` of /proc/meminfo, which is in KiB.
fn memory_mb(text: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line
        .and_then(|l| l.trim().strip_suffix(" kB"))
        .and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_lists() {
        assert_eq!(cpus("0-3,5\n"), 5);
        assert_eq!(cpus("0"), 1);
        assert_eq!(cpus("garbage,3-1"), 0);
        assert_eq!(
            memory_mb("MemTotal:       24590000 kB\nMemFree: 1 kB\n"),
            24_013
        );
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }

    #[test]
    fn surveys_this_machine() {
        let report = survey(&Ok(Policy::default()));
        assert!(report.cpus > 0 && report.memory_mb > 0 && !report.kernel.is_empty());
        assert!(report.engine("native").is_some());
    }
}
