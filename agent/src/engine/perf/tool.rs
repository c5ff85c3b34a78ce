//! The machine's perf: where it is, which it is, whether it may.
//!
//! In: a fixed list of folders, /proc, and perf itself, tried. Out: a path, a report. Never: a perf
//! that others than root and the agent's own user could have written.

use super::command::{self, Sampling};
use super::diagnose;
use crate::engine::program;
use crate::process::ask;
use model::coverage::CaptureStats;
use model::host::EngineReport;
use model::job::Event;
use model::{Finding, FindingCode};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `perf --version` takes ten milliseconds of CPU.
const VERSION: Duration = Duration::from_secs(3);
/// A trial takes 0.2 s of CPU, most of it in the kernel: on a host whose CPUs are all busy some
/// seconds, above all where it stays at the agent's nice 10. The coordinator waits 15 s for a report.
const TRIAL: Duration = Duration::from_secs(8);
/// Names of the device that the processor's counters are: x86, its hybrids.
const COUNTERS: [&str; 2] = ["cpu", "cpu_core"];
/// And how it begins on Arm: `armv8_pmuv3_0`, `armv8_cortex_a72`.
const ARM_COUNTERS: &str = "armv8_";

/// perf on this machine.
///
/// # Errors
/// As [`program::find`].
pub(super) fn find() -> Result<PathBuf, Finding> {
    let install =
        "Install perf (linux-perf, linux-tools or perf, by distribution), or use --engine native.";
    program::find("perf", install)
}

/// What this perf can do here: by trying it on a process that ends at once, or, where the native
/// engine may run (`may_sample`) and so perf has the rights that it needs, by its being there. Blocks
/// for up to eleven seconds, usually a fraction of one.
pub(in crate::engine) fn survey(may_sample: bool) -> EngineReport {
    let no = |how: String, findings: Vec<Finding>| EngineReport {
        engine: "perf".to_owned(),
        can_run: false,
        how,
        findings,
        events: Vec::new(),
        probes: Vec::new(),
    };
    let perf = match find() {
        Ok(perf) => perf,
        Err(finding) => return no(finding.evidence.clone(), vec![finding]),
    };
    let version = match ask(
        &command::version(&perf),
        &command::ENVIRONMENT,
        true,
        VERSION,
    ) {
        Ok(answer) => match command::parse_version(&answer.stdout) {
            Some(version) => version.to_owned(),
            None => {
                let what = format!("{} --version said {:?}", perf.display(), answer.stdout);
                let findings = diagnose::failure(&what, &answer.stderr);
                return no(first_words(&findings), findings);
            }
        },
        Err(e) => return no(format!("{}: {e}", perf.display()), Vec::new()),
    };
    let tried = if may_sample {
        Ok((Vec::new(), "not tried, since native may run"))
    } else {
        try_it(&perf).map(|findings| (findings, "tried"))
    };
    let (findings, tried) = match tried {
        Ok(good) => good,
        Err(findings) => {
            let how = format!("perf {version}: {}", first_words(&findings));
            return no(how, findings);
        }
    };
    let mut events = vec![Event::CpuClock.to_string()];
    if has_counters() {
        events.push(Event::Cycles.to_string());
    }
    EngineReport {
        engine: "perf".to_owned(),
        can_run: true,
        how: format!(
            "perf {version}, mode dwarf, events {}, {tried}",
            events.join(" and ")
        ),
        findings,
        events,
        probes: Vec::new(),
    }
}

/// Records a program that ends at once, with the options of a capture.
///
/// # Errors
/// Why that does not work.
fn try_it(perf: &Path) -> Result<Vec<Finding>, Vec<Finding>> {
    let sampling = Sampling {
        event: Event::CpuClock,
        kernel: true,
        hz: 99,
        stack_bytes: 4 << 10,
        ring_kib: 64,
    };
    let trial = ask(
        &command::trial(perf, sampling),
        &command::ENVIRONMENT,
        false,
        TRIAL,
    );
    let (what, stderr) = match trial {
        Ok(answer) if answer.status.is_some_and(|s| s.success()) => {
            return Ok(diagnose::diagnose(&answer.stderr));
        }
        Ok(answer) => {
            let what = answer.status.map_or_else(
                || format!("a trial of perf took over {} s", TRIAL.as_secs()),
                |status| format!("a trial of perf ended with {status}"),
            );
            (what, answer.stderr)
        }
        Err(e) => (format!("{}: {e}", perf.display()), String::new()),
    };
    Err(diagnose::failure(&what, &stderr))
}

fn first_words(findings: &[Finding]) -> String {
    findings
        .first()
        .map_or_else(|| "it cannot run".to_owned(), |f| f.evidence.clone())
}

/// Whether the processor's counters can be used. perf itself falls back to a clock where there are
/// none, and says nothing.
pub(super) fn has_counters() -> bool {
    let devices = std::fs::read_dir("/sys/bus/event_source/devices");
    devices.is_ok_and(|devices| {
        devices.flatten().any(|device| {
            let name = device.file_name();
            name.to_str()
                .is_some_and(|n| COUNTERS.contains(&n) || n.starts_with(ARM_COUNTERS))
        })
    })
}

/// How far our CLOCK_MONOTONIC is ahead of the kernel's own, by which perf takes its times: the
/// offset of our time namespace, in nanoseconds (time_namespaces(7)).
pub(super) fn time_offset_ns() -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    parse_offset(&text)
}

fn parse_offset(text: &str) -> i64 {
    let mut words = text
        .lines()
        .find_map(|l| l.strip_prefix("monotonic"))
        .unwrap_or("")
        .split_ascii_whitespace()
        .map(|w| w.parse::<i64>().unwrap_or(0));
    let seconds = words.next().unwrap_or(0);
    seconds.saturating_mul(1_000_000_000) + words.next().unwrap_or(0)
}

/// The highest rate that the kernel allows now. It lowers it by itself when samples take too long
/// (sysctl/kernel.rst, perf_cpu_time_max_percent), and perf script does not show that.
pub(super) fn rate_max() -> Option<i64> {
    native::sysctl("kernel/perf_event_max_sample_rate")
}

/// What the kernel's own throttling came to: the finding, and how often for the account.
pub(super) fn throttled(
    before: Option<i64>,
    after: Option<i64>,
    stats: &mut CaptureStats,
) -> Option<Finding> {
    let (before, after) = (before?, after?);
    if after >= before {
        return None;
    }
    stats.throttled += 1;
    let said = format!(
        "the kernel lowered kernel.perf_event_max_sample_rate from {before} to {after} during the capture"
    );
    Some(Finding::new(FindingCode::SamplesLost, said))
}

/// Most events that perf may open here: half of the descriptors that it may have.
pub(super) fn events_max() -> usize {
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let hard = hard.map_or(1_024, |(_, hard)| hard);
    usize::try_from(hard / 2)
        .unwrap_or(usize::MAX)
        .clamp(64, EVENTS_MAX)
}

/// However many descriptors there are: opening each takes some microseconds, and each is visited
/// when it is enabled.
const EVENTS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_namespace_s_offset_is_read() {
        let text = "monotonic           -3  500000000\nboottime            0         0\n";
        assert_eq!(parse_offset(text), -2_500_000_000);
        assert_eq!(parse_offset(""), 0);
    }

    #[test]
    fn a_lower_rate_limit_is_told_once() {
        let mut stats = CaptureStats::default();
        assert!(throttled(Some(100_000), Some(100_000), &mut stats).is_none());
        let told = throttled(Some(100_000), Some(25_000), &mut stats).unwrap();
        assert!(told.evidence.contains("from 100000 to 25000"));
        assert_eq!(stats.throttled, 1);
    }

    #[test]
    fn this_machine_s_perf_can_run_and_says_how() {
        let report = survey(false);
        assert!(
            report.can_run && report.how.ends_with(", tried"),
            "{report:?}"
        );
        assert!(survey(true).how.contains("not tried"));
        assert!(report.has_event(Event::CpuClock));
        assert_eq!(report.has_event(Event::Cycles), has_counters());
    }
}
