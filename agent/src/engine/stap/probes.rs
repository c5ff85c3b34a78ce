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
    /// It copies samples, which are unwound here: it needs no unwind data, and ends in nothing else.
    pub copies: bool,
    /// It weighs waits by their nanoseconds; `$2` is the shortest one that counts, not a period.
    pub waits: bool,
}

pub(super) const ON_CPU_USER: BuiltIn = BuiltIn {
    name: "oncpu-user",
    text: include_str!("../../../probes/oncpu-user.stp"),
    kernel: false,
    copies: false,
    waits: false,
};

pub(super) const ON_CPU_MIXED: BuiltIn = BuiltIn {
    name: "oncpu-mixed",
    text: include_str!("../../../probes/oncpu-mixed.stp"),
    kernel: true,
    copies: false,
    waits: false,
};

pub(super) const OFF_CPU_USER: BuiltIn = BuiltIn {
    name: "offcpu-user",
    text: include_str!("../../../probes/offcpu-user.stp"),
    kernel: false,
    copies: false,
    waits: true,
};

pub(super) const OFF_CPU_MIXED: BuiltIn = BuiltIn {
    name: "offcpu-mixed",
    text: include_str!("../../../probes/offcpu-mixed.stp"),
    kernel: true,
    copies: false,
    waits: true,
};

pub(super) const LUA: BuiltIn = BuiltIn {
    name: "lua",
    text: include_str!("../../../probes/lua.stp"),
    kernel: false,
    copies: true,
    waits: false,
};

/// All of them.
pub(super) const ALL: [BuiltIn; 5] = [ON_CPU_USER, ON_CPU_MIXED, OFF_CPU_USER, OFF_CPU_MIXED, LUA];

/// What engine stap can measure here.
pub(in crate::engine) const PROBES: [Probe; 3] = [Probe::OnCpu, Probe::OffCpu, Probe::Lua];
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
            (Probe::Lua, _) if cfg!(target_arch = "x86_64") => Ok(LUA),
            (Probe::Lua, _) => {
                let said = "the probe lua reads registers of x86-64, and this is another machine";
                Err(Finding::new(FindingCode::ProbeUnavailable, said))
            }
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
        if self.copies {
            return self.text.to_owned();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a format of lua.stp prints.
    fn printed(format: &str) -> usize {
        let mut bytes = 0;
        let mut rest = format.replace("\\n", "\n");
        while let Some(first) = rest.chars().next() {
            let (length, width) = match first {
                '%' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let width = rest[1..end].trim_start_matches('-').parse();
                    // The mark of a sample, one character.
                    (end + 1, width.unwrap_or(1))
                }
                _ => (1, 1),
            };
            bytes += width;
            rest = rest.split_off(length);
        }
        bytes
    }

    #[test]
    fn what_lua_prints_never_ends_where_systemtap_would_lose_the_next_message() {
        let formats: Vec<&str> = LUA
            .text
            .split("printf(\"")
            .skip(1)
            .map(|rest| rest.split("\"").next().unwrap())
            .collect();
        let head = formats.iter().find(|f| f.starts_with("%s")).unwrap();
        let tail = formats.iter().find(|f| f.starts_with("%8b%8b\\n")).unwrap();
        assert_eq!((printed(head) + printed(tail)) % 16, 8);
        // What the reader takes for a sample's beginning, a pid and nine registers.
        assert_eq!(printed(head), 7 + 8 * 10);
        let mut pieces = 0;
        for format in formats.iter().filter(|f| *f != head && *f != tail) {
            let is_whole = format.ends_with("\\n");
            assert_eq!(
                printed(format) % 16,
                if is_whole { 8 } else { 0 },
                "{format}"
            );
            pieces += usize::from(!is_whole);
        }
        assert!(pieces >= 3 && formats.len() >= 9, "{formats:?}");
    }

    #[test]
    fn probes_are_known_by_their_names_and_lua_has_a_report_of_its_own() {
        assert!(
            ALL.iter()
                .all(|probe| BuiltIn::named(probe.name) == Some(*probe))
        );
        assert!(!LUA.script().contains(REPORT) && ON_CPU_USER.script().contains(REPORT));
    }
}
