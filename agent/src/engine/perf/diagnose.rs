//! What perf says on stderr, as findings. Pure: a table.
//!
//! In: the text. Out: findings with perf's own words and what to do. Never: a complaint that is
//! dropped because nobody foresaw it (`perf-warning`).
//!
//! The words are those of perf 5.10 to 6.x (Linux, tools/perf: builtin-record.c, builtin-script.c,
//! util/evsel.c, util/mmap.c, util/session.c); those that could be made to happen are recorded in
//! agent/testdata/perf.

use model::{Finding, FindingCode};

/// One thing that perf says.
struct Row {
    /// Words of its first line, all of which are in it.
    begins: &'static [&'static str],
    /// Words of the other lines that belong to it.
    goes_on: &'static [&'static str],
    /// What it means.
    code: FindingCode,
    /// What to do, where the code's own remedy is too general.
    remedy: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        begins: &["Access to performance monitoring and observability operations is limited"],
        goes_on: &["perf_event_paranoid setting is"],
        code: FindingCode::PerfNotPermitted,
        remedy: "",
    },
    Row {
        begins: &["You may not have permission to collect"],
        goes_on: &["perf_event_paranoid", "The current value is"],
        code: FindingCode::PerfNotPermitted,
        remedy: "",
    },
    Row {
        begins: &[
            "sys_perf_event_open() syscall returned with",
            "(Operation not permitted)",
        ],
        goes_on: &[],
        code: FindingCode::PerfNotPermitted,
        remedy: "A seccomp filter (of the container or the unit) may forbid perf_event_open: allow it.",
    },
    Row {
        begins: &["No permission to enable"],
        goes_on: &[],
        code: FindingCode::PerfNotPermitted,
        remedy: "",
    },
    Row {
        begins: &["Permission error mapping pages"],
        goes_on: &["(current value:"],
        code: FindingCode::ResourceLimit,
        remedy: "Give the agent CAP_IPC_LOCK, or raise kernel.perf_event_mlock_kb (LimitMEMLOCK= in the unit).",
    },
    Row {
        begins: &["Too many events are opened"],
        goes_on: &[],
        code: FindingCode::ResourceLimit,
        remedy: "Raise LimitNOFILE= in the agent's unit, or name fewer processes (--pick busiest:N).",
    },
    Row {
        begins: &["failed to mmap with 12 (Cannot allocate memory)"],
        goes_on: &[],
        code: FindingCode::ResourceLimit,
        remedy: "Lower memory_mb_max in the job, so that the rings are smaller.",
    },
    Row {
        begins: &["Couldn't create thread/CPU maps: No such process"],
        goes_on: &[],
        code: FindingCode::TargetNotFound,
        remedy: "The process ended before perf could attach; capture again.",
    },
    Row {
        begins: &["Kernel address maps (/proc/{kallsyms,modules}) are restricted"],
        goes_on: &[
            "check /proc/sys/kernel/kptr_restrict",
            "Couldn't record kernel reference relocation symbol",
        ],
        code: FindingCode::KernelNamesHidden,
        remedy: "",
    },
    Row {
        begins: &["Processed", "lost", "%!"],
        goes_on: &[],
        code: FindingCode::SamplesLost,
        remedy: "",
    },
    Row {
        begins: &["Processed", "lost", "chunks!"],
        goes_on: &["Check IO/CPU overload"],
        code: FindingCode::SamplesLost,
        remedy: "",
    },
    Row {
        begins: &["Maximum frequency rate", "exceeded"],
        goes_on: &["The limit can be raised via"],
        code: FindingCode::SamplesLost,
        remedy: "Lower --hz, or raise kernel.perf_event_max_sample_rate: the kernel takes fewer samples than asked.",
    },
    Row {
        begins: &["Failed to open", "continuing without symbols"],
        goes_on: &[],
        code: FindingCode::TargetFile,
        remedy: "",
    },
    Row {
        begins: &["Error: unknown option"],
        goes_on: &[],
        code: FindingCode::PerfVersion,
        remedy: "",
    },
    Row {
        begins: &["Error: unknown switch"],
        goes_on: &[],
        code: FindingCode::PerfVersion,
        remedy: "",
    },
    Row {
        begins: &["Invalid field requested"],
        goes_on: &[],
        code: FindingCode::PerfVersion,
        remedy: "",
    },
    Row {
        begins: &["unknown clockid"],
        goes_on: &[],
        code: FindingCode::PerfVersion,
        remedy: "",
    },
    Row {
        begins: &["incompatible file format"],
        goes_on: &[],
        code: FindingCode::PerfVersion,
        remedy: "Two versions of perf are mixed on this host: install one, or use --engine native.",
    },
    Row {
        begins: &["perf not found for kernel"],
        goes_on: &["linux-tools-"],
        code: FindingCode::PerfVersion,
        remedy: "Install the linux-tools package of the running kernel.",
    },
    Row {
        begins: &["event syntax error"],
        goes_on: &["\\___"],
        code: FindingCode::PerfVersion,
        remedy: "Use --event cpu-clock.",
    },
    Row {
        begins: &["event is not supported"],
        goes_on: &[],
        code: FindingCode::EngineUnavailable,
        remedy: "Use --event cpu-clock: this machine has no such counter (virtual machines often have none).",
    },
    Row {
        begins: &["No space left on device"],
        goes_on: &[],
        code: FindingCode::DiskFull,
        remedy: "",
    },
];

/// What perf says when all is well, or beside a message that the table knows.
const USUAL: &[&str] = &[
    "[ perf record:",
    "Events enabled",
    "Events disabled",
    "ack",
    "Error:",
    "Warning:",
    "perf version ",
];

/// Lines of one message that nobody foresaw that are kept as evidence.
const UNKNOWN_LINES_MAX: usize = 4;

/// What the text means, each thing once, in the order in which it was said.
pub(super) fn diagnose(stderr: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    let mut known_until_blank = false;
    let mut row: Option<&Row> = None;
    for line in stderr.lines() {
        let line = line.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        if line.is_empty() {
            known_until_blank = false;
            continue;
        }
        let begins = |r: &&Row| r.begins.iter().all(|words| line.contains(words));
        if let Some(found) = ROWS.iter().find(begins) {
            (row, known_until_blank) = (Some(found), true);
            if findings.iter().all(|f| f.evidence != line) {
                findings.push(finding(found, line));
            }
        } else if let Some(known) = row.filter(|r| r.goes_on.iter().any(|w| line.contains(w))) {
            let last = findings.iter_mut().rev().find(|f| f.code == known.code);
            if let Some(last) = last {
                *last = finding(known, &format!("{} {line}", last.evidence));
            }
        } else if !known_until_blank && !USUAL.iter().any(|usual| line.starts_with(usual)) {
            // What stands in the lines below a message belongs to it, as far as the next blank one.
            unknown.push(line);
        }
    }
    if findings.is_empty() && !unknown.is_empty() {
        unknown.truncate(UNKNOWN_LINES_MAX);
        findings.push(Finding::new(FindingCode::PerfWarning, unknown.join(" ")));
    }
    findings
}

/// How many samples perf script says were lost: `Processed 93 samples and lost 18.28%!`. It knows
/// of more than the records of loss that it prints, and says so above 5 %.
pub(super) fn lost_samples(stderr: &str) -> u64 {
    let said = |line: &str| {
        let rest = line.trim().strip_prefix("Processed ")?;
        let (processed, rest) = rest.split_once(" samples and lost ")?;
        let share: f64 = rest.strip_suffix("%!")?.parse().ok()?;
        let processed: u32 = processed.parse().ok()?;
        let lost = (f64::from(processed) * share / 100.0).round();
        (0.0..=f64::from(processed))
            .contains(&lost)
            .then_some(lost as u64)
    };
    stderr.lines().find_map(said).unwrap_or(0)
}

/// Why perf ended although it should not have, in at least one finding that is an error. `what` is
/// the part of perf and how it ended.
pub(super) fn failure(what: &str, stderr: &str) -> Vec<Finding> {
    let mut findings = diagnose(stderr);
    findings.retain(|f| f.code != FindingCode::PerfWarning);
    if !findings
        .iter()
        .any(|f| f.severity() == model::Severity::Error)
    {
        let words: Vec<&str> = stderr
            .lines()
            .map(|l| l.trim_matches(|c: char| c.is_whitespace() || c.is_control()))
            .filter(|l| !l.is_empty() && !USUAL.contains(l))
            .take(UNKNOWN_LINES_MAX)
            .collect();
        let said = if words.is_empty() {
            format!("{what}, without a word")
        } else {
            format!("{what}: {}", words.join(" "))
        };
        findings.insert(0, Finding::new(FindingCode::EngineFailed, said));
    }
    findings
}

fn finding(row: &Row, evidence: &str) -> Finding {
    let finding = Finding::new(
        row.code,
        format!("perf: {}", evidence.trim_start_matches("perf: ")),
    );
    if row.remedy.is_empty() {
        finding
    } else {
        finding.with_remedy(row.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FindingCode as Code;

    /// Recordings of the real perf (see their README), and what each must come to.
    const RECORDED: &[(&str, &str, &[Code], &str)] = &[
        (
            "record-not-permitted",
            include_str!("../../../testdata/perf/record-not-permitted.stderr"),
            &[Code::PerfNotPermitted],
            "perf_event_paranoid setting is 2",
        ),
        (
            "record-capabilities-dropped",
            include_str!("../../../testdata/perf/record-capabilities-dropped.stderr"),
            &[Code::PerfNotPermitted],
            "is limited",
        ),
        (
            "record-no-process",
            include_str!("../../../testdata/perf/record-no-process.stderr"),
            &[Code::TargetNotFound],
            "No such process",
        ),
        (
            "record-mlock",
            include_str!("../../../testdata/perf/record-mlock.stderr"),
            &[Code::ResourceLimit],
            "current value: 4096,0",
        ),
        (
            "record-nofile",
            include_str!("../../../testdata/perf/record-nofile.stderr"),
            &[Code::ResourceLimit],
            "Too many events",
        ),
        (
            "record-kernel-names",
            include_str!("../../../testdata/perf/record-kernel-names.stderr"),
            &[Code::KernelNamesHidden],
            "kptr_restrict",
        ),
        (
            "record-rate",
            include_str!("../../../testdata/perf/record-rate.stderr"),
            &[Code::SamplesLost],
            "throttling from 200000 Hz to",
        ),
        (
            "record-unknown-option",
            include_str!("../../../testdata/perf/record-unknown-option.stderr"),
            &[Code::PerfVersion],
            "no-such-option",
        ),
        (
            "record-unknown-event",
            include_str!("../../../testdata/perf/record-unknown-event.stderr"),
            &[Code::PerfVersion],
            "no-such-event",
        ),
        (
            "record-unknown-clock",
            include_str!("../../../testdata/perf/record-unknown-clock.stderr"),
            &[Code::PerfVersion],
            "CLOCK_NONE",
        ),
        (
            "script-unknown-field",
            include_str!("../../../testdata/perf/script-unknown-field.stderr"),
            &[Code::PerfVersion],
            "Invalid field",
        ),
        (
            "script-not-perf",
            include_str!("../../../testdata/perf/script-not-perf.stderr"),
            &[Code::PerfVersion],
            "incompatible file format",
        ),
        (
            "script-lost",
            include_str!("../../../testdata/perf/script-lost.stderr"),
            &[Code::SamplesLost],
            "lost ",
        ),
        (
            "record-well",
            include_str!("../../../testdata/perf/record-well.stderr"),
            &[],
            "",
        ),
    ];

    #[test]
    fn every_recording_comes_to_its_finding_in_perf_s_own_words() {
        for (name, text, codes, words) in RECORDED {
            let findings = diagnose(text);
            let found: Vec<Code> = findings.iter().map(|f| f.code).collect();
            assert_eq!(found, *codes, "{name}: {findings:?}");
            if let Some(first) = findings.first() {
                assert!(first.evidence.contains(words), "{name}: {}", first.evidence);
                assert!(first.evidence.len() < 400, "{name}: {}", first.evidence);
            }
        }
    }

    #[test]
    fn the_share_of_lost_samples_becomes_their_number() {
        let recorded = include_str!("../../../testdata/perf/script-lost.stderr");
        assert_eq!(lost_samples(recorded), 17);
        assert_eq!(lost_samples("Processed 5 samples and lost 900%!"), 0);
        assert_eq!(lost_samples("Processed 5 events and lost 1 chunks!"), 0);
    }

    #[test]
    fn what_was_not_foreseen_is_shown() {
        let odd = "some line of a later perf\nand another\n[ perf record: Woken up 1 times ]\n";
        let found = diagnose(odd);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].code, Code::PerfWarning);
        assert_eq!(found[0].evidence, "some line of a later perf and another");
        let failed = failure("perf record ended with exit status: 3", odd);
        assert_eq!(failed[0].code, Code::EngineFailed);
        assert!(failed[0].evidence.contains("some line of a later perf"));
        let silent = failure("perf script was killed", "");
        assert!(silent[0].evidence.contains("without a word"));
    }

    #[test]
    fn a_failure_that_is_known_needs_no_general_one() {
        let text = "Error: unknown option `control'\n\n Usage: perf record\n    -a, --all\n";
        let failed = failure("perf record ended with exit status: 129", text);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].code, Code::PerfVersion);
    }

    #[test]
    fn words_of_other_versions_are_known_too() {
        for (text, code) in [
            (
                "WARNING: perf not found for kernel 5.15.0-91\n\n  You may need to install the \
                 following packages for this specific kernel:\n    linux-tools-5.15.0-91-generic\n",
                Code::PerfVersion,
            ),
            (
                "Processed 900 events and lost 3 chunks!\n\nCheck IO/CPU overload!\n",
                Code::SamplesLost,
            ),
            (
                "Failed to open /tmp/a, continuing without symbols\n",
                Code::TargetFile,
            ),
            (
                "Error:\nThe cycles event is not supported.\n",
                Code::EngineUnavailable,
            ),
            (
                "You may not have permission to collect stats.\n\nConsider tweaking \
                 /proc/sys/kernel/perf_event_paranoid,\n",
                Code::PerfNotPermitted,
            ),
            (
                "failed to write perf data, error: No space left on device\n",
                Code::DiskFull,
            ),
        ] {
            let found = diagnose(text);
            assert_eq!(found[0].code, code, "{text}: {found:?}");
        }
    }
}
