//! What this engine can do here. In: the machine, asked by trying. Out: a report with findings
//! whose remedies name the missing capability or sysctl. Never: a sample.

use crate::attr::{self, EventPlan, Features, Scope, Trigger};
use crate::config::NativeConfig;
use crate::kallsyms::KernelSymbols;
use crate::mode::{Mode, Priority};
use crate::{file, privileges, proc, sys};
use model::finding::{Finding, FindingCode};

/// What was found.
#[derive(Clone, Debug)]
pub struct NativeReport {
    /// Kernel release.
    pub kernel: String,
    /// CPUs that are online.
    pub cpus: usize,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<i64>,
    /// `kernel.perf_event_max_sample_rate`.
    pub sample_rate_max: Option<i64>,
    /// Effective capabilities that matter.
    pub capabilities: Vec<&'static str>,
    /// The mode that a capture would have; none when it cannot run.
    pub mode: Option<Mode>,
    /// What is missing, and what is lost without it.
    pub findings: Vec<Finding>,
}

/// What the kernel permits, found by trying.
#[derive(Clone, Debug)]
pub(crate) struct Permitted {
    pub cpu_wide: bool,
    pub features: Features,
    pub findings: Vec<Finding>,
}

/// Tries from the best scope to the weakest; nothing is sampled, the events stay disabled.
pub(crate) fn permitted(config: &NativeConfig, cpu: usize) -> Result<Permitted, Finding> {
    let own = u32::try_from(sys::thread_id()).unwrap_or(0);
    let kernel = config.include_kernel;
    let steps = [(true, true), (true, false), (false, true), (false, false)];
    let mut last = None;
    let off_cpu = config.is_off_cpu();
    let trigger = if off_cpu {
        Trigger::Switches(1)
    } else {
        Trigger::CpuClock(config.period_ns())
    };
    let wanted = |&(cpu_wide, with_kernel): &(bool, bool)| {
        if off_cpu {
            // Switches happen in the kernel, and only those of the targets are wanted.
            !cpu_wide && with_kernel
        } else {
            kernel || !with_kernel
        }
    };
    for (cpu_wide, kernel) in steps.into_iter().filter(wanted) {
        let plan = EventPlan {
            trigger,
            stack_copy_bytes: 1024,
            features: Features::all(kernel),
        };
        let scope = if cpu_wide {
            Scope::Cpu(cpu)
        } else {
            Scope::Task(own, cpu)
        };
        match attr::open_with_ladder(plan, scope) {
            Ok((_, features, dropped)) => {
                let mut findings = restrictions(config, cpu_wide, kernel, &dropped);
                findings.extend(off_cpu.then(preemption_unknown).flatten());
                return Ok(Permitted {
                    cpu_wide,
                    features,
                    findings,
                });
            }
            Err(error) => last = Some(error),
        }
    }
    if off_cpu {
        return Err(no_switches(last));
    }
    let error = last.map_or_else(|| "nothing was tried".to_owned(), |e| e.to_string());
    let mut evidence = format!("perf_event_open: {error}; {}", situation());
    if config.allow_ptrace {
        evidence.push_str("; stopping the target instead is not built into this engine");
    }
    let finding = Finding::new(FindingCode::PerfNotPermitted, evidence);
    Err(finding.with_remedy(not_permitted()))
}

/// What to do where nothing can be sampled.
fn not_permitted() -> String {
    let grant = privileges::grant(&["CAP_PERFMON", "CAP_SYS_PTRACE"]);
    format!(
        "{grant} Or run it as root. Before Linux 5.8 it is CAP_SYS_ADMIN instead of CAP_PERFMON."
    )
}

/// The targets are of another user, and their threads may not be sampled.
pub(crate) fn no_threads(count: u64, why: &str) -> Finding {
    let evidence = format!(
        "{count} events of threads could not be opened: {why}; {}",
        situation()
    );
    Finding::new(FindingCode::PerfNotPermitted, evidence).with_remedy(not_permitted())
}

/// Why switches cannot be sampled.
fn no_switches(error: Option<std::io::Error>) -> Finding {
    let words = error
        .as_ref()
        .map_or_else(|| "nothing was tried".to_owned(), ToString::to_string);
    if error.as_ref().is_some_and(attr::is_unknown_attribute) {
        let evidence = format!(
            "off-cpu needs PERF_RECORD_SWITCH (Linux 4.3), and this is Linux {}: {words}",
            release()
        );
        return Finding::new(FindingCode::ProbeUnavailable, evidence)
            .with_remedy("Capture with --probe on-cpu on this host, or use a newer kernel.");
    }
    let evidence = format!(
        "off-cpu samples in the kernel, and perf_event_open says {words}; {}",
        situation()
    );
    Finding::new(FindingCode::PerfNotPermitted, evidence).with_remedy(format!(
        "{} Or set kernel.perf_event_paranoid to 1 or less.",
        privileges::grant(&["CAP_PERFMON"])
    ))
}

/// The one part of a switch record that cannot be asked for: whether the thread was preempted. A kernel
/// without it just never says so.
fn preemption_unknown() -> Option<Finding> {
    let release = release();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < (4, 17)).then(|| {
        let evidence = format!(
            "Linux {release} does not say which threads were preempted (Linux 4.17): waiting for a CPU counts as blocked"
        );
        Finding::new(FindingCode::PerfAttrUnsupported, evidence)
    })
}

fn release() -> String {
    let bytes = file::read_proc("/proc/sys/kernel/osrelease", 256).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn situation() -> String {
    let paranoid = proc::sysctl("kernel/perf_event_paranoid");
    let paranoid = paranoid.map_or_else(|| "unreadable".to_owned(), |p| p.to_string());
    let have = privileges::effective().join(" ");
    let have = if have.is_empty() { "none" } else { &have };
    format!("kernel.perf_event_paranoid is {paranoid}, capabilities: {have}")
}

/// The first pid namespace's inode number (`PROC_PID_INIT_INO` in include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A finding when `link`, what /proc/self/ns/pid leads to, is not the host's pid namespace.
fn pid_namespace(link: &str) -> Option<Finding> {
    (link != FIRST_PID_NAMESPACE).then(|| {
        let evidence = format!("the agent is in {link}, the host's is {FIRST_PID_NAMESPACE}");
        Finding::new(FindingCode::PidNamespace, evidence)
    })
}

fn restrictions(
    config: &NativeConfig,
    cpu_wide: bool,
    kernel: bool,
    dropped: &[&'static str],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let link = std::fs::read_link("/proc/self/ns/pid");
    findings.extend(link.ok().and_then(|l| pid_namespace(&l.to_string_lossy())));
    let have = privileges::effective();
    let has = |name: &str| have.contains(&name);
    let restricted = |what: &str, missing: &'static str, or: &str| {
        let evidence = format!("{what}; {}", situation());
        Finding::new(FindingCode::PerfRestricted, evidence)
            .with_remedy(format!("{}{or}", privileges::grant(&[missing])))
    };
    if config.include_kernel && !kernel {
        findings.push(restricted(
            "kernel frames are not sampled",
            "CAP_PERFMON",
            " Or set kernel.perf_event_paranoid to 1 or less.",
        ));
    }
    if !cpu_wide && !config.is_off_cpu() {
        findings.push(restricted(
            "only processes of the agent's own user can be sampled, by an event for each thread",
            "CAP_PERFMON",
            " Or set kernel.perf_event_paranoid to 0 or less.",
        ));
    }
    if !has("CAP_SYS_PTRACE") {
        findings.push(restricted(
            "mappings of other users' processes cannot be read, so their frames have no names, and their executables \
             neither, so they are found by pid: or cmd: only",
            "CAP_SYS_PTRACE",
            "",
        ));
    }
    for what in dropped {
        let evidence = format!("this kernel has no {what}");
        findings.push(Finding::new(FindingCode::PerfAttrUnsupported, evidence));
    }
    findings
}

/// The kernel's names, and a finding when it hides them.
pub(crate) fn kernel_symbols(wanted: bool) -> (KernelSymbols, Option<Finding>) {
    if !wanted {
        return (KernelSymbols::default(), None);
    }
    let symbols = KernelSymbols::load().unwrap_or_default();
    let hidden = symbols.is_empty().then(names_hidden);
    (symbols, hidden)
}

fn names_hidden() -> Finding {
    let restrict = proc::sysctl("kernel/kptr_restrict").unwrap_or(-1);
    let evidence = format!("/proc/kallsyms has no addresses; kernel.kptr_restrict is {restrict}");
    // From 2 on the kernel hides them from everybody.
    let remedy = if restrict >= 2 {
        "Set kernel.kptr_restrict to 1 and give the agent CAP_SYSLOG, or set it to 0 and kernel.perf_event_paranoid to 1 or less.".to_owned()
    } else {
        format!(
            "{} Or set kernel.kptr_restrict to 0 and kernel.perf_event_paranoid to 1 or less.",
            privileges::grant(&["CAP_SYSLOG"])
        )
    };
    Finding::new(FindingCode::KernelNamesHidden, evidence).with_remedy(remedy)
}

/// Real-time priority was refused. With the capability it is the control group that refuses it.
pub(crate) fn no_realtime(why: String) -> Finding {
    let finding = Finding::new(FindingCode::NoRealtime, why);
    if privileges::effective().contains(&"CAP_SYS_NICE") {
        return finding;
    }
    finding.with_remedy(privileges::grant(&["CAP_SYS_NICE"]))
}

/// The best scheduling that the calling thread can get, taken.
pub(crate) fn best_priority() -> (Priority, Option<String>) {
    let Err(refused) = sys::become_realtime() else {
        return (Priority::Fifo, None);
    };
    let why = format!("sched_setscheduler(SCHED_FIFO): {refused}");
    if sys::set_nice(-20).is_ok() {
        (Priority::Nice, Some(format!("{why}; running at nice -20")))
    } else {
        (
            Priority::Plain,
            Some(format!("{why}; nice -20 is refused too")),
        )
    }
}

/// Says what this engine can do here.
#[must_use]
pub fn check(config: &NativeConfig) -> NativeReport {
    let cpus = proc::online_cpus();
    let tried = std::thread::spawn(best_priority).join();
    let (priority, refused) = tried.unwrap_or((Priority::Plain, None));
    let mut findings = Vec::new();
    let mode = match permitted(config, cpus.first().copied().unwrap_or(0)) {
        Ok(permitted) => {
            findings.extend(permitted.findings);
            findings.extend(refused.map(no_realtime));
            let kernel = permitted.features.kernel;
            if kernel && KernelSymbols::is_hidden() {
                findings.push(names_hidden());
            }
            Some(Mode {
                cpu_wide: permitted.cpu_wide,
                priority,
                kernel,
            })
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    NativeReport {
        kernel: release(),
        cpus: cpus.len(),
        perf_event_paranoid: proc::sysctl("kernel/perf_event_paranoid"),
        kptr_restrict: proc::sysctl("kernel/kptr_restrict"),
        sample_rate_max: proc::sysctl("kernel/perf_event_max_sample_rate"),
        capabilities: privileges::effective(),
        mode,
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pid_namespace_than_the_host_s_is_said() {
        assert_eq!(pid_namespace(FIRST_PID_NAMESPACE), None);
        let found = pid_namespace("pid:[4026532301]").expect("a finding");
        assert_eq!(found.code, FindingCode::PidNamespace);
        assert!(found.evidence.contains("4026532301"));
    }
}
