//! The built-in probes: agent/probes, embedded.
//!
//! In: what is measured. Out: a script's text. Never: a word of an order in it: what differs between orders are the
//! script's numbers ($1, $2) and definitions.

use model::job::Probe;
use model::{CaptureOrder, Finding, FindingCode};

/// What all of them end in.
const REPORT: &str = include_str!("../../../probes/report.stp");

/// What those that measure waits have in common.
const WAITS: &str = include_str!("../../../probes/offcpu.stp");

/// A built-in probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuiltIn {
    /// Its name: of its file, and in modules and coverage.
    pub name: &'static str,
    text: &'static str,
    /// It has the kernel's stacks too.
    pub kernel: bool,
    /// It weighs waits by their nanoseconds; `$2` is the shortest one that counts, not a period.
    pub waits: bool,
}

pub(super) const ON_CPU_USER: BuiltIn = BuiltIn {
    name: "oncpu-user",
    text: include_str!("../../../probes/oncpu-user.stp"),
    kernel: false,
    waits: false,
};

pub(super) const ON_CPU_MIXED: BuiltIn = BuiltIn {
    name: "oncpu-mixed",
    text: include_str!("../../../probes/oncpu-mixed.stp"),
    kernel: true,
    waits: false,
};

pub(super) const OFF_CPU_USER: BuiltIn = BuiltIn {
    name: "offcpu-user",
    text: include_str!("../../../probes/offcpu-user.stp"),
    kernel: false,
    waits: true,
};

pub(super) const OFF_CPU_MIXED: BuiltIn = BuiltIn {
    name: "offcpu-mixed",
    text: include_str!("../../../probes/offcpu-mixed.stp"),
    kernel: true,
    waits: true,
};

/// All of them.
pub(super) const ALL: [BuiltIn; 4] = [ON_CPU_USER, ON_CPU_MIXED, OFF_CPU_USER, OFF_CPU_MIXED];

/// What engine stap can measure here.
pub(in crate::engine) const PROBES: [Probe; 2] = [Probe::OnCpu, Probe::OffCpu];
/// Waits shorter than this are none: between two looks at the clock.
const WAIT_NS_MIN: u64 = 1_000;

impl BuiltIn {
    /// The probe of an order.
    ///
    /// # Errors
    /// `probe-unavailable`.
    pub(super) fn of(order: &CaptureOrder) -> Result<Self, Finding> {
        match (order.probe, order.kernel) {
            (Probe::OnCpu, false) => Ok(ON_CPU_USER),
            (Probe::OnCpu, true) => Ok(ON_CPU_MIXED),
            (Probe::OffCpu, false) => Ok(OFF_CPU_USER),
            (Probe::OffCpu, true) => Ok(OFF_CPU_MIXED),
            _ => {
                let said = format!("probe {} is not part of this version", order.probe);
                Err(Finding::new(FindingCode::ProbeUnavailable, said))
            }
        }
    }

    /// By its name.
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|probe| probe.name == name)
    }

    /// The whole script.
    pub(super) fn script(self) -> String {
        let waits = if self.waits { WAITS } else { "" };
        format!("{REPORT}\n{}\n{waits}", self.text)
    }

    /// What `$2` is: nanoseconds between two samples, or those from which on a wait counts.
    pub(super) fn period_ns(self, sample_hz: u32, min_wait_us: u32) -> u64 {
        if self.waits {
            (u64::from(min_wait_us) * 1_000).max(WAIT_NS_MIN)
        } else {
            1_000_000_000 / u64::from(sample_hz.max(1))
        }
    }
}
