//! The built-in probes: agent/probes, embedded.
//!
//! In: what is measured. Out: a script's text. Never: a word of an order in it: what differs between orders are the
//! script's numbers ($1, $2) and definitions.

use model::job::Probe;
use model::{CaptureOrder, Finding, FindingCode};

/// What all of them end in.
const REPORT: &str = include_str!("../../../probes/report.stp");

/// A built-in probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuiltIn {
    /// Its name: of its file, and in modules and coverage.
    pub name: &'static str,
    text: &'static str,
    /// It has the kernel's stacks too.
    pub kernel: bool,
}

pub(super) const ON_CPU_USER: BuiltIn = BuiltIn {
    name: "oncpu-user",
    text: include_str!("../../../probes/oncpu-user.stp"),
    kernel: false,
};

pub(super) const ON_CPU_MIXED: BuiltIn = BuiltIn {
    name: "oncpu-mixed",
    text: include_str!("../../../probes/oncpu-mixed.stp"),
    kernel: true,
};

/// All of them.
pub(super) const ALL: [BuiltIn; 2] = [ON_CPU_USER, ON_CPU_MIXED];

impl BuiltIn {
    /// The probe of an order.
    ///
    /// # Errors
    /// `probe-unavailable`.
    pub(super) fn of(order: &CaptureOrder) -> Result<Self, Finding> {
        match (order.probe, order.kernel) {
            (Probe::OnCpu, false) => Ok(ON_CPU_USER),
            (Probe::OnCpu, true) => Ok(ON_CPU_MIXED),
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
        format!("{REPORT}\n{}", self.text)
    }
}
