//! What the agent asks of this crate beside a capture. In: /proc. Out: gateway processes.
//! Never: a process taken for a gateway by its title alone.

use crate::config::TargetSelector;
use crate::{proc, process, sys};

/// A gateway process on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayProcess {
    /// Process id.
    pub pid: u32,
    /// Its parent's.
    pub parent_pid: u32,
    /// What it is for, such as `nginx: worker`.
    pub role: String,
    /// Its executable.
    pub exe: String,
}

/// Masters, workers and other processes of every gateway on this host, in order of pid.
#[must_use]
pub fn gateways() -> Vec<GatewayProcess> {
    let seen = proc::pids()
        .into_iter()
        .filter_map(proc::look)
        .map(|s| (s.pid, s))
        .collect();
    let targets = process::find(&[TargetSelector::Gateway], &seen);
    targets
        .into_iter()
        .filter_map(|target| {
            let process = seen.get(&target.pid)?;
            Some(GatewayProcess {
                pid: target.pid,
                parent_pid: process.parent,
                role: target.role.as_str().unwrap_or(&process.comm).to_owned(),
                exe: process.exe.clone(),
            })
        })
        .collect()
}

/// Niceness of everything in the agent but the threads that take samples.
const AGENT_NICE: i32 = 10;

/// Lets everything else on the host go first. Call it before any thread is started: on Linux each
/// thread has its own niceness and inherits it.
pub fn lower_own_priority() {
    // Lowering one's own priority is always permitted.
    let _ = sys::set_nice(AGENT_NICE);
}

/// Gives a child that must not wait behind a busy gateway the priority of everything else on the
/// host. Without the privilege it keeps the agent's.
pub fn give_usual_priority(child: u32) {
    if child != 0 {
        let _ = sys::set_nice_of(child, 0);
    }
}
