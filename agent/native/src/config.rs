//! What the caller asks of the sampler. In: the order. Out: plain values. Never: a choice of mode.

use crate::cgroup::GroupSelector;
use crate::offcpu::STACKS_A_SECOND_MAX;
use model::job::Probe;

/// Everything that decides a capture.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// The host's name, for the series.
    pub host: String,
    /// What is measured: on-CPU or off-CPU.
    pub probe: Probe,
    /// Off-CPU: waits shorter than this are added up under one frame; nanoseconds.
    pub min_wait_ns: u64,
    /// Samples in a second and CPU; 1 to 10,000. The period varies around its inverse.
    pub sample_hz: u32,
    /// Whether kernel frames are wanted.
    pub include_kernel: bool,
    /// Segments of the request's path that stand below a sample's stack; 0 reads none.
    pub uri_segments: u32,
    /// Bytes of user stack that the kernel copies with each sample; rounded down to a multiple of
    /// 8, at most 60 KiB (a record's size is 16 bits).
    pub stack_copy_bytes: u32,
    /// Bytes of stack above the kernel's copy that are read when that came back full.
    pub stack_extension_bytes: u32,
    /// Bytes for rings and stack copies on the whole host.
    pub memory_budget_bytes: u64,
    /// Whether requests of gateways are counted by their memory.
    pub count_requests: bool,
    /// Whether the target may be stopped where nothing else is permitted.
    pub allow_ptrace: bool,
    /// Which processes; a process that any of them matches is a target.
    pub targets: Vec<TargetSelector>,
    /// How many of them.
    pub pick: Pick,
}

impl Default for NativeConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            probe: Probe::OnCpu,
            min_wait_ns: 0,
            sample_hz: 99,
            include_kernel: true,
            uri_segments: 0,
            stack_copy_bytes: 16 << 10,
            stack_extension_bytes: 256 << 10,
            memory_budget_bytes: 64 << 20,
            count_requests: true,
            allow_ptrace: false,
            targets: Vec::new(),
            pick: Pick::All,
        }
    }
}

impl NativeConfig {
    /// Whether waits are measured instead of CPU time.
    #[must_use]
    pub fn is_off_cpu(&self) -> bool {
        self.probe == Probe::OffCpu
    }

    /// Stacks that may come in a second from a CPU.
    #[must_use]
    pub fn stacks_hz(&self) -> u32 {
        if self.is_off_cpu() {
            u32::try_from(STACKS_A_SECOND_MAX).unwrap_or(u32::MAX)
        } else {
            self.sample_hz
        }
    }

    /// The nominal period in nanoseconds.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.sample_hz.clamp(1, 10_000))
    }
}

/// Names processes.
#[derive(Clone, Debug)]
pub enum TargetSelector {
    /// One process with all its threads.
    Pid(u32),
    /// Processes that run this executable: a whole path as the process's own mount namespace
    /// shows it, or a base name.
    Exe(String),
    /// Processes whose arguments, joined by spaces, match. The arguments are not kept.
    Cmdline(regex_lite::Regex),
    /// Processes of a unit or a container.
    Group(GroupSelector),
    /// nginx, OpenResty, Kong or APISIX masters and their children, found by executable and
    /// parent.
    Gateway,
}

/// How many of the matching processes are captured. For a gateway only workers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All of them.
    All,
    /// Those that used the most CPU while the sampler armed.
    Busiest(usize),
    /// Some at random, the same for the same seed and processes.
    Random(usize, u64),
}
