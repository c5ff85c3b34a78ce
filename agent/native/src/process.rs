//! Which processes are targets, and what they are for. In: what /proc shows, the selectors. Out:
//! targets with their roles. Never: a process taken for a gateway by its title alone (anybody may
//! call itself `nginx: worker process`).

use crate::config::{Pick, TargetSelector};
use crate::modules::base_name;
use crate::proc::Seen;
use std::collections::{BTreeMap, BTreeSet};

/// A process that is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The process.
    pub pid: u32,
    /// What it is for.
    pub role: Role,
    /// The master that a gateway process belongs to.
    pub master: Option<u32>,
    /// It answers its last requests after a reload.
    pub is_leaving: bool,
}

/// What a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A gateway's master.
    Master,
    /// A gateway's worker.
    Worker,
    /// Keeps the cache on disk.
    CacheManager,
    /// Loads the cache at start.
    CacheLoader,
    /// Does what workers may not.
    PrivilegedAgent,
    /// Not a gateway.
    Plain,
}

impl Role {
    /// As it stands in a series; none for a plain process, whose comm stands there.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Master => Some("nginx: master"),
            Self::Worker => Some("nginx: worker"),
            Self::CacheManager => Some("nginx: cache manager"),
            Self::CacheLoader => Some("nginx: cache loader"),
            Self::PrivilegedAgent => Some("nginx: privileged agent"),
            Self::Plain => None,
        }
    }
}

/// Executables of nginx and what is built from it. Kong and APISIX run OpenResty's `nginx`.
const GATEWAYS: [&str; 5] = ["nginx", "openresty", "nginx-debug", "angie", "tengine"];

/// Whether it is one of them.
#[must_use]
pub fn is_gateway(process: &Seen) -> bool {
    GATEWAYS.contains(&base_name(&process.exe))
}

/// Everything that the selectors match, in order of pid.
#[must_use]
pub fn find(selectors: &[TargetSelector], processes: &BTreeMap<u32, Seen>) -> Vec<Target> {
    let mut found: BTreeMap<u32, Target> = BTreeMap::new();
    let wants_gateway = selectors
        .iter()
        .any(|s| matches!(s, TargetSelector::Gateway));
    for process in processes.values() {
        let gateway = gateway_role(process, processes);
        let matches = selectors.iter().any(|selector| match selector {
            TargetSelector::Pid(pid) => *pid == process.pid,
            TargetSelector::Exe(name) if name.contains('/') => *name == process.exe,
            TargetSelector::Exe(name) => !process.exe.is_empty() && base_name(&process.exe) == name,
            TargetSelector::Cmdline(pattern) => {
                // Kernel threads have no arguments and no executable.
                !process.title.is_empty() && pattern.is_match(&process.title)
            }
            TargetSelector::Group(group) => process.groups.as_ref().is_some_and(|g| g.is_in(group)),
            TargetSelector::Gateway => false,
        });
        if matches || (wants_gateway && gateway.is_some()) {
            let (role, master) = gateway.unwrap_or((Role::Plain, None));
            let is_leaving = process.title.contains("process is shutting down");
            found.insert(
                process.pid,
                Target {
                    pid: process.pid,
                    role,
                    master,
                    is_leaving,
                },
            );
        }
    }
    found.into_values().collect()
}

/// A gateway process is one whose executable is a gateway's; it is a child if its parent runs the
/// same executable and does not itself have children of that kind.
fn gateway_role(process: &Seen, all: &BTreeMap<u32, Seen>) -> Option<(Role, Option<u32>)> {
    if !is_gateway(process) {
        return None;
    }
    let is_child_of = |child: &Seen, parent: &Seen| {
        child.parent == parent.pid && child.exe == parent.exe && is_gateway(child)
    };
    let parent = all
        .get(&process.parent)
        .filter(|parent| is_child_of(process, parent));
    let has_children = all.values().any(|child| is_child_of(child, process));
    let Some(parent) = parent.filter(|_| !has_children) else {
        return Some((Role::Master, Some(process.pid)));
    };
    // Among the children the title tells them apart. A new worker carries its master's title
    // until init_worker is done.
    let title = process.title.as_str();
    let role = if title.contains("cache manager process") {
        Role::CacheManager
    } else if title.contains("cache loader process") {
        Role::CacheLoader
    } else if title.contains("privileged agent process") {
        Role::PrivilegedAgent
    } else {
        Role::Worker
    };
    Some((role, Some(parent.pid)))
}

/// Chooses among targets. `chosen` stay until they leave; `cpu_ns` ranks the rest. Where there
/// are workers, only workers count.
#[must_use]
pub fn pick(
    pick: Pick,
    targets: Vec<Target>,
    chosen: &BTreeSet<u32>,
    cpu_ns: &dyn Fn(u32) -> u64,
) -> Vec<Target> {
    let (n, seed) = match pick {
        Pick::All => return targets,
        Pick::Busiest(n) => (n, None),
        Pick::Random(n, seed) => (n, Some(seed)),
    };
    let any_worker = targets.iter().any(|t| t.role == Role::Worker);
    let mut candidates: Vec<Target> = targets
        .into_iter()
        .filter(|t| !any_worker || t.role == Role::Worker)
        .collect();
    candidates.sort_by_cached_key(|t| {
        let rank = match seed {
            Some(seed) => scramble(seed ^ u64::from(t.pid)),
            None => u64::MAX - cpu_ns(t.pid),
        };
        (t.is_leaving, !chosen.contains(&t.pid), rank, t.pid)
    });
    candidates.truncate(n);
    candidates.sort_by_key(|t| t.pid);
    candidates
}

/// SplitMix64's finaliser: spreads neighbouring pids.
fn scramble(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Numbers of workers, counted from 0 in order of pid within one master and generation.
#[must_use]
pub fn worker_numbers(workers: &[(u32, Option<u32>, u32)]) -> BTreeMap<u32, u32> {
    let mut next: BTreeMap<(Option<u32>, u32), u32> = BTreeMap::new();
    let mut sorted = workers.to_vec();
    sorted.sort_unstable();
    let mut numbers = BTreeMap::new();
    for (pid, master, generation) in sorted {
        let number = next.entry((master, generation)).or_default();
        numbers.insert(pid, *number);
        *number += 1;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: u32, parent: u32, exe: &str, title: &str) -> (u32, Seen) {
        let (exe, title) = (exe.to_owned(), title.to_owned());
        (
            pid,
            Seen {
                pid,
                parent,
                exe,
                title,
                ..Seen::default()
            },
        )
    }

    fn gateway() -> BTreeMap<u32, Seen> {
        let nginx = "/usr/local/openresty/nginx/sbin/nginx";
        BTreeMap::from([
            seen(1, 0, "/sbin/init", "init"),
            seen(
                10,
                1,
                nginx,
                "nginx: master process /usr/local/openresty/nginx/sbin/nginx",
            ),
            seen(11, 10, nginx, "nginx: worker process"),
            seen(12, 10, nginx, "nginx: worker process is shutting down"),
            seen(
                13,
                10,
                nginx,
                "nginx: master process /usr/local/openresty/nginx/sbin/nginx",
            ),
            seen(14, 10, nginx, "nginx: cache manager process"),
            seen(15, 10, nginx, "nginx: privileged agent process"),
            seen(16, 10, "/bin/sh", "nginx: worker process"),
            seen(20, 1, "/tmp/evil", "nginx: worker process"),
            seen(21, 1, "/usr/bin/python3", "python3 app.py --secret"),
        ])
    }

    #[test]
    fn a_gateway_is_found_by_executable_and_parent_not_by_title() {
        let found = find(&[TargetSelector::Gateway], &gateway());
        let roles: Vec<_> = found.iter().map(|t| (t.pid, t.role)).collect();
        assert_eq!(
            roles,
            [
                (10, Role::Master),
                (11, Role::Worker),
                (12, Role::Worker),
                (13, Role::Worker),
                (14, Role::CacheManager),
                (15, Role::PrivilegedAgent)
            ]
        );
        assert!(found[2].is_leaving && !found[1].is_leaving);
    }

    #[test]
    fn other_selectors_match_path_name_and_arguments() {
        let by = |s: TargetSelector| -> Vec<u32> {
            find(&[s], &gateway()).iter().map(|t| t.pid).collect()
        };
        assert_eq!(by(TargetSelector::Exe("python3".into())), [21]);
        assert_eq!(by(TargetSelector::Exe("/tmp/evil".into())), [20]);
        assert_eq!(by(TargetSelector::Pid(21)), [21]);
        assert_eq!(
            by(TargetSelector::Cmdline(
                regex_lite::Regex::new("app\\.py").expect("re")
            )),
            [21]
        );
    }

    #[test]
    fn the_busiest_workers_are_picked_and_kept() {
        let all = find(&[TargetSelector::Gateway], &gateway());
        let cpu = |pid| if pid == 11 { 5 } else { 9 };
        let pids = |t: Vec<Target>| t.iter().map(|t| t.pid).collect::<Vec<_>>();
        let none = BTreeSet::new();
        // 12 is busy but leaving.
        assert_eq!(
            pids(pick(Pick::Busiest(2), all.clone(), &none, &cpu)),
            [11, 13]
        );
        let chosen = BTreeSet::from([11]);
        assert_eq!(
            pids(pick(Pick::Busiest(1), all.clone(), &chosen, &cpu)),
            [11]
        );
        let once = pids(pick(Pick::Random(2, 7), all.clone(), &none, &cpu));
        assert_eq!(
            once,
            pids(pick(Pick::Random(2, 7), all.clone(), &none, &cpu))
        );
        assert_eq!(once.len(), 2);
        assert_eq!(pick(Pick::All, all.clone(), &none, &cpu).len(), all.len());
    }

    #[test]
    fn workers_are_numbered_by_pid_in_each_generation() {
        let numbers = worker_numbers(&[
            (30, Some(1), 1),
            (12, Some(1), 0),
            (11, Some(1), 0),
            (31, Some(1), 1),
        ]);
        assert_eq!(
            numbers,
            BTreeMap::from([(11, 0), (12, 1), (30, 0), (31, 1)])
        );
    }
}
