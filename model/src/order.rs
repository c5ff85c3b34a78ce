//! One host's fully decided part of a run. In: the plan's decisions. Out: what an agent does.
//! Never: an alternative for the agent to choose from.

use crate::ids::{HostName, RunId};
use crate::job::{EngineChoice, Event, Pick, Probe, Target};
use serde::{Deserialize, Serialize};

/// What an agent may use up for one capture. It keeps to these by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// CPU of the agent in percent of one core, over the capture.
    pub cpu_pct_max: u32,
    /// Memory of the agent's stacks, rings and copies, in MiB.
    pub memory_mb_max: u32,
    /// Distinct stacks (nodes of the call tree).
    pub stacks_max: u32,
    /// Bytes sent, in MiB.
    pub output_mb_max: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            cpu_pct_max: 10,
            memory_mb_max: 256,
            stacks_max: 1 << 20,
            output_mb_max: 256,
        }
    }
}

/// What the simulated engine plays: any number of hosts, without a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulated {
    /// Seed of its random numbers.
    pub seed: u64,
    /// Processes it plays.
    #[serde(default)]
    pub processes: u32,
    /// Distinct stacks a process.
    #[serde(default)]
    pub stacks: u32,
    /// A real child process that lives as long as the capture, to prove that it is cleaned up.
    #[serde(default)]
    pub child: bool,
    /// Milliseconds that arming takes.
    #[serde(default)]
    pub arm_ms: u64,
}

/// One host's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureOrder {
    /// The run it belongs to.
    pub run: RunId,
    /// The host it is for.
    pub host: HostName,
    /// How; never [`EngineChoice::Auto`].
    pub engine: EngineChoice,
    /// What.
    pub probe: Probe,
    /// By which event.
    pub event: Event,
    /// The processes.
    pub targets: Vec<Target>,
    /// Which of them.
    pub pick: Pick,
    /// Samples a second and CPU.
    pub sample_hz: u32,
    /// How long, in milliseconds.
    pub duration_ms: u64,
    /// Kernel frames too.
    pub kernel: bool,
    /// Off-CPU only: waits shorter than this, in microseconds, are added up under one frame.
    pub min_wait_us: u32,
    /// Segments of the request's path that stand below each stack taken in one; 0 for none.
    pub uri_segments: u32,
    /// What it may use up.
    pub budgets: Budgets,
    /// Silence after which the agent stops by itself, in milliseconds.
    pub lease_ms: u64,
    /// The script of [`Probe::Script`].
    pub script: Option<crate::script::Script>,
    /// What the simulated engine plays; none for every other engine.
    pub simulated: Option<Simulated>,
}
