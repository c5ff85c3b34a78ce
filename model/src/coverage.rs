//! How far a result can be trusted: asked, armed, captured, failed, lost, per host.
//!
//! In: what agents and the dispatcher saw. Out: the manifest of a run and the one line that stands
//! on every picture. Never: a loss that is left out because it looks bad.

use crate::finding::{Finding, FindingCode};
use crate::script::Printed;
use serde::{Deserialize, Serialize};

/// How a host came out of the run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum HostOutcome {
    /// Captured for the whole time, and everything arrived.
    Complete,
    /// Something is missing; its findings say what.
    Partial,
    /// The host's policy or privileges refused the order.
    Refused,
    /// Nothing was captured.
    #[default]
    Failed,
}

/// Captured processes whose places are told.
pub const PLACES_MAX: usize = 256;
/// Longest text of a place.
pub const PLACE_BYTES_MAX: usize = 512;

/// Where a captured process ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlace {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Its control group, by the path in /proc/PID/cgroup that tells most.
    pub group: String,
    /// Its container's id; empty when it is in none that is known by an id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
}

/// What the engine and the agent saw of one capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStats {
    /// Stacks taken.
    pub samples: u64,
    /// Records that the kernel could not deliver.
    pub lost: u64,
    /// Times the kernel throttled sampling.
    pub throttled: u64,
    /// Samples that the agent dropped to keep its bounds.
    pub dropped: u64,
    /// Stacks that were cut short.
    pub truncated: u64,
    /// Samples counted under `[pruned]`.
    pub pruned: u64,
    /// CPU time of the agent itself during the capture, in nanoseconds.
    pub own_cpu_ns: u64,
    /// How long handling a sample held up its CPU: median, in nanoseconds.
    pub pause_p50_ns: u64,
    /// The same, 99th percentile.
    pub pause_p99_ns: u64,
    /// CPU time of the targets by the kernel's own account, in nanoseconds.
    pub target_cpu_ns: u64,
    /// Processes that were captured.
    pub processes: u32,
    /// Runs of Lua frames between C code.
    #[serde(default)]
    pub lua_segments: u64,
    /// Those of them that were read while the target could run on.
    #[serde(default)]
    pub lua_racy: u64,
    /// Those of them that could not be followed.
    #[serde(default)]
    pub lua_failed: u64,
    /// Where they ran, of those that are in a control group; the first [`PLACES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<ProcessPlace>,
    /// What a script of the user's printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub printed: Vec<Printed>,
    /// The engine's mode.
    pub mode: String,
    /// When sampling began, on the agent's CLOCK_MONOTONIC, in nanoseconds.
    pub started_mono_ns: u64,
    /// When it ended, on the same clock.
    pub stopped_mono_ns: u64,
}

/// One host's part of the coverage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCoverage {
    /// How it came out.
    pub outcome: HostOutcome,
    /// The engine that was ordered.
    pub engine: String,
    /// Why that engine.
    pub engine_reason: String,
    /// The agent's version and the kernel's.
    pub agent_version: String,
    /// Kernel release.
    pub kernel: String,
    /// Hash of the gateway's configuration; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_hash: String,
    /// The agent said that it was ready.
    pub armed: bool,
    /// It captured something.
    pub captured: bool,
    /// What it saw.
    pub stats: CaptureStats,
    /// Agent's monotonic clock minus the coordinator's, in nanoseconds.
    pub clock_offset_ns: i64,
    /// The true offset lies within this of the measured one, in nanoseconds.
    pub clock_uncertainty_ns: u64,
    /// Recorded start on the coordinator's clock minus the planned instant, in nanoseconds.
    pub start_error_ns: i64,
    /// Batches that arrived.
    pub batches: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Connections that were opened after the first.
    pub reconnects: u32,
    /// Batches the agent made that never arrived.
    pub missing_batches: u64,
}

/// The manifest of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Every host that was asked, by name.
    pub hosts: std::collections::BTreeMap<String, HostCoverage>,
    /// What weakens the result.
    pub findings: Vec<Finding>,
}

impl Coverage {
    /// Hosts whose shares may be wrong, since too many samples were skipped there, and not evenly.
    fn biased(&self) -> impl Iterator<Item = &str> {
        let skipped = |host: &&str| {
            self.findings
                .iter()
                .any(|f| f.code == FindingCode::StapBiased && f.host.as_deref() == Some(*host))
        };
        self.hosts.keys().map(String::as_str).filter(skipped)
    }

    /// The line that stands on every picture.
    #[must_use]
    pub fn line(&self) -> String {
        let asked = self.hosts.len();
        let captured = self.hosts.values().filter(|h| h.captured).count();
        let mut parts = vec![format!("{captured} of {asked} host{}", plural(asked))];
        // Agents say these numbers, and not every agent means well.
        let sum = |of: fn(&CaptureStats) -> u64| {
            self.hosts
                .values()
                .map(|h| of(&h.stats))
                .fold(0, u64::saturating_add)
        };
        let taken = sum(|s| s.samples);
        let lost = sum(|s| s.lost.saturating_add(s.dropped));
        parts.push(format!(
            "{} % of samples lost",
            percent(lost, taken.saturating_add(lost))
        ));
        let biased: Vec<&str> = self.biased().collect();
        if let [first, more @ ..] = &biased[..] {
            parts.push(match more.len() {
                0 => format!("BIASED on {first}"),
                n => format!("BIASED on {first} and {n} more"),
            });
        }
        let partial = self
            .hosts
            .values()
            .filter(|h| h.outcome == HostOutcome::Partial)
            .count();
        if partial > 0 {
            parts.push(format!("{partial} only in part"));
        }
        let pruned = sum(|s| s.pruned);
        if pruned > 0 {
            parts.push(format!("{} % under [pruned]", percent(pruned, taken)));
        }
        let mut modes: std::collections::BTreeMap<String, usize> =
            std::collections::BTreeMap::new();
        for host in self.hosts.values().filter(|h| h.captured) {
            let mode = format!("{} {}", host.engine, host.stats.mode);
            *modes.entry(mode.trim().to_owned()).or_default() += 1;
        }
        let alike = modes.len() == 1;
        for (mode, n) in modes {
            parts.push(if alike {
                format!("by {mode}")
            } else {
                format!("{n} host{} by {mode}", plural(n))
            });
        }
        parts.join(", ")
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// `part` of `whole` in percent with one decimal; never rounds a loss down to 0.0.
fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0".to_owned();
    }
    let tenths = (u128::from(part) * 1_000).div_ceil(u128::from(whole));
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_never_hides_a_small_loss() {
        let mut coverage = Coverage::default();
        let stats = CaptureStats {
            samples: 1_000_000,
            lost: 1,
            mode: "A".into(),
            ..Default::default()
        };
        let host = HostCoverage {
            captured: true,
            engine: "native".into(),
            stats,
            ..Default::default()
        };
        coverage.hosts.insert("a".into(), host);
        coverage.hosts.insert("b".into(), HostCoverage::default());
        assert_eq!(
            coverage.line(),
            "1 of 2 hosts, 0.1 % of samples lost, by native A"
        );
    }

    #[test]
    fn hosts_whose_shares_may_be_wrong_are_named() {
        let mut coverage = Coverage::default();
        for name in ["a", "b", "c"] {
            let host = HostCoverage {
                captured: true,
                engine: "stap".into(),
                ..Default::default()
            };
            coverage.hosts.insert(name.into(), host);
        }
        let finding = |host| Finding::new(FindingCode::StapBiased, "9 of 100").on(host);
        coverage.findings.push(finding("b"));
        let line = coverage.line();
        assert!(line.contains("lost, BIASED on b, by stap"), "{line}");
        coverage.findings.push(finding("c"));
        let line = coverage.line();
        assert!(line.contains("BIASED on b and 1 more,"), "{line}");
        // Another host's finding is none of this part.
        coverage.hosts.retain(|name, _| name == "a");
        assert!(!coverage.line().contains("BIASED"));
    }

    #[test]
    fn hosts_that_were_taken_otherwise_are_counted() {
        let host = |engine: &str, mode: &str| HostCoverage {
            captured: true,
            engine: engine.into(),
            stats: CaptureStats {
                mode: mode.into(),
                ..Default::default()
            },
            ..Default::default()
        };
        let mut coverage = Coverage::default();
        for (name, host) in [
            ("a", host("native", "cpu-wide/fifo")),
            ("b", host("perf", "dwarf")),
            ("c", host("perf", "dwarf")),
        ] {
            coverage.hosts.insert(name.into(), host);
        }
        assert!(
            (coverage.line()).ends_with("1 host by native cpu-wide/fifo, 2 hosts by perf dwarf"),
            "{}",
            coverage.line()
        );
    }
}
