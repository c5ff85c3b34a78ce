//! What a host is and what it can do, as its agent reports it. In: the agent's survey.
//! Out: what the plan decides by. Never: command-line arguments or environment of its processes.

use crate::finding::Finding;
use crate::job::{Event, Probe};
use serde::{Deserialize, Serialize};

/// One gateway process that the agent found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayProcess {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent_pid: u32,
    /// What it is for, such as `nginx: worker`.
    pub role: String,
    /// The executable's path as the kernel gives it.
    pub exe: String,
}

/// Whether one engine can run on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineReport {
    /// The engine's word: `native`, `stap`, `perf`, `simulated`.
    pub engine: String,
    /// Whether it can run.
    pub can_run: bool,
    /// How it would run, such as the sampler's mode; or why it cannot.
    pub how: String,
    /// What weakens or prevents it.
    pub findings: Vec<Finding>,
    /// Words of the events that it can take stacks by; empty means `cpu-clock` only, as older
    /// agents say nothing.
    #[serde(default)]
    pub events: Vec<String>,
    /// Words of the probes that it can measure here; empty means `on-cpu` only, as older agents
    /// say nothing.
    #[serde(default)]
    pub probes: Vec<String>,
}

impl EngineReport {
    /// Whether it can take stacks by `event`.
    #[must_use]
    pub fn has_event(&self, event: Event) -> bool {
        let word = event.to_string();
        self.events.contains(&word) || (self.events.is_empty() && event == Event::CpuClock)
    }

    /// Whether it can measure `probe`.
    #[must_use]
    pub fn has_probe(&self, probe: Probe) -> bool {
        let word = probe.to_string();
        self.probes.contains(&word) || (self.probes.is_empty() && probe == Probe::OnCpu)
    }
}

/// A host's report about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The name it goes by (`gethostname`).
    pub hostname: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Processor architecture (`uname -m`).
    pub arch: String,
    /// Distribution, from os-release.
    pub os: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// The engines, and whether each can run.
    pub engines: Vec<EngineReport>,
    /// Gateway processes that were found.
    pub gateways: Vec<GatewayProcess>,
    /// What the host's policy allows, in words; and where it came from.
    pub policy: String,
    /// What else the host's owner should know.
    pub findings: Vec<Finding>,
}

impl HostReport {
    /// The report of one engine.
    #[must_use]
    pub fn engine(&self, word: &str) -> Option<&EngineReport> {
        self.engines.iter().find(|e| e.engine == word)
    }
}
