//! The report: what a person pastes into a ticket. In: a run's record and its profile. Out:
//! Markdown. Never: a number without its coverage, or markup from a name.

use super::findings::grouped;
use super::printed::printed;
use super::table::{count, percent, printable};
use crate::store::RunRecord;
use compare::{By, top};
use model::Severity;
use model::job::Probe;
use model::profile::{Measure, Profile};
use std::fmt::Write as _;

/// Sentences of rankings by other denominators.
const OTHER_SENTENCES: usize = 3;
/// Rows of the table of frames.
const TOP_ROWS: usize = 15;

/// The report of a run.
#[must_use]
pub fn report(record: &RunRecord, profile: &Profile) -> String {
    let mut out = String::new();
    let title = if record.title.is_empty() {
        "Capture"
    } else {
        &record.title
    };
    let _ = writeln!(out, "# {}\n", inline(title));
    let _ = writeln!(
        out,
        "Run {}, {}, started {}.\n",
        code(&record.id.to_string()),
        record.state,
        record.started
    );
    let _ = writeln!(out, "**Coverage:** {}.\n", inline(&record.coverage.line()));
    ranking(&mut out, record);
    hosts(&mut out, record);
    if record.job.probe == Probe::Script {
        out.push_str(&printed(&record.coverage));
    }
    if record.job.probe != Probe::Script || profile.grand_total()[0] > 0 {
        frames(&mut out, profile);
    }
    findings(&mut out, record);
    how(&mut out, record);
    out
}

fn ranking(out: &mut String, record: &RunRecord) {
    out.push_str("## Which host is unlike the others\n\n");
    let Some(ranking) = &record.ranking else {
        out.push_str("Nothing was compared.\n\n");
        return;
    };
    for sentence in ranking.sentences() {
        let _ = writeln!(out, "- {}", inline(&sentence));
    }
    for host in &ranking.without_samples {
        let _ = writeln!(
            out,
            "- {} has no samples and was not compared",
            inline(host)
        );
    }
    if !(ranking.entries.is_empty() && ranking.without_samples.is_empty()) {
        out.push('\n');
    }
    let _ = writeln!(out, "({}.)\n", inline(&ranking.note));
    for other in &record.more_rankings {
        for sentence in other.sentences().iter().take(OTHER_SENTENCES) {
            let _ = writeln!(out, "- {}", inline(sentence));
        }
        let _ = writeln!(out, "\n({}.)\n", inline(&other.note));
    }
}

fn hosts(out: &mut String, record: &RunRecord) {
    out.push_str("## Hosts\n\n");
    out.push_str(
        "| host | outcome | engine | samples | lost | processes | agent's CPU | start error |\n",
    );
    out.push_str("|---|---|---|--:|--:|--:|--:|--:|\n");
    for (name, host) in &record.coverage.hosts {
        let stats = &host.stats;
        let outcome = format!("{:?}", host.outcome).to_lowercase();
        let engine = format!("{} {}", host.engine, stats.mode);
        let lost = stats.lost.saturating_add(stats.dropped);
        let _ = writeln!(
            out,
            "| {} | {outcome} | {} | {} | {} | {} | {} ms | {} |",
            cell(name),
            cell(engine.trim()),
            count(stats.samples),
            percent(lost, stats.samples.saturating_add(lost)),
            stats.processes,
            count(stats.own_cpu_ns / 1_000_000),
            if host.captured {
                milliseconds(host.start_error_ns)
            } else {
                "-".to_owned()
            },
        );
    }
    out.push('\n');
}

fn frames(out: &mut String, profile: &Profile) {
    let (shown, unit) = Measure::shown(&profile.measures);
    let all = top(profile, |_| true, shown, By::SelfValue);
    let _ = writeln!(
        out,
        "## Top frames\n\nOf {} {unit} on all hosts together.\n",
        count(all.whole)
    );
    out.push_str("| frame | self | total |\n|---|--:|--:|\n");
    for row in all.rows.iter().take(TOP_ROWS) {
        let (own, total) = (percent(row.own, all.whole), percent(row.total, all.whole));
        let _ = writeln!(out, "| {} | {own} | {total} |", cell(&row.name));
    }
    out.push('\n');
}

fn findings(out: &mut String, record: &RunRecord) {
    out.push_str("## Findings\n\n");
    let all = record.all_findings();
    if all.is_empty() {
        out.push_str("None.\n\n");
        return;
    }
    for (finding, hosts) in grouped(&all) {
        let weight = match finding.severity() {
            Severity::Error => "**Error**",
            Severity::Warning => "**Warning**",
            Severity::Note => "Note",
        };
        let place = if hosts.is_empty() {
            String::new()
        } else {
            format!(" on {}", inline(&hosts.join(", ")))
        };
        let _ = writeln!(
            out,
            "- {weight} {}{place}: {}",
            code(finding.code.as_str()),
            finding.code.what()
        );
        if !finding.evidence.is_empty() {
            let _ = writeln!(out, "  Seen: {}.", code(&finding.evidence));
        }
        let _ = writeln!(out, "  Do: {}", inline(&finding.remedy));
    }
    out.push('\n');
}

fn how(out: &mut String, record: &RunRecord) {
    let job = &record.job;
    out.push_str("## How it was taken\n\n");
    let targets: Vec<String> = job.targets.iter().map(|t| code(&t.to_string())).collect();
    let _ = writeln!(
        out,
        "- {} by {} at {} Hz for {} s, {} of {}{}",
        job.probe,
        job.event,
        job.sample_hz,
        seconds(job.duration_ms),
        job.pick,
        if targets.is_empty() {
            "each host's own targets".to_owned()
        } else {
            targets.join(", ")
        },
        if job.kernel {
            ", kernel frames too"
        } else {
            ""
        },
    );
    for (host, plan) in &record.plan {
        let reason = if plan.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", inline(&plan.reason))
        };
        let _ = writeln!(out, "- {}: {}{reason}", inline(host), inline(&plan.engine));
    }
    if let Some(ended) = &record.ended {
        let _ = writeln!(out, "- from {} to {ended}", record.started);
    }
    if !record.timings_ms.is_empty() {
        let parts: Vec<String> = record
            .timings_ms
            .iter()
            .map(|(part, ms)| format!("{} {ms} ms", inline(part)))
            .collect();
        let _ = writeln!(out, "- {}", parts.join(", "));
    }
    let versions = &record.versions;
    let _ = writeln!(
        out,
        "- fleetflame {}, ffz {}",
        inline(&versions.fleetflame),
        versions.ffz
    );
}

fn milliseconds(ns: i64) -> String {
    format!(
        "{}{}.{:01} ms",
        if ns < 0 { "-" } else { "" },
        ns.unsigned_abs() / 1_000_000,
        ns.unsigned_abs() / 100_000 % 10
    )
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        (ms / 1_000).to_string()
    } else {
        format!("{}.{:03}", ms / 1_000, ms % 1_000)
    }
}

/// Text as code: no Markdown in it has a meaning.
fn code(text: &str) -> String {
    format!("`{}`", printable(text).replace('`', "'"))
}

/// Code within a table: a bar would end the cell.
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

/// Running text from outside: what Markdown or HTML would obey is escaped.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::record_of;
    use compare::{Per, rank};
    use model::format::folded;
    use model::{Finding, FindingCode, HostCoverage};

    #[test]
    fn a_report_has_everything_a_ticket_needs() {
        let mut profile = Profile::default();
        for (host, text) in [
            ("a", "main;route 90\nmain;rate_limit 10\n"),
            ("b", "main;route 40\nmain;rate_limit 60\n"),
        ] {
            profile
                .merge(&folded::parse(text.as_bytes(), host).0)
                .unwrap();
        }
        let mut record = record_of(&["a", "b"]);
        record.title = "<b>all</b> | nodes".into();
        for host in ["a", "b"] {
            let mut coverage = HostCoverage {
                captured: true,
                engine: "native".into(),
                ..Default::default()
            };
            coverage.stats.samples = 100;
            coverage.stats.mode = "B".into();
            coverage.start_error_ns = -1_250_000;
            record.coverage.hosts.insert(host.into(), coverage);
        }
        record.ranking = Some(rank(&profile, Per::Share, 1));
        record
            .findings
            .push(Finding::new(FindingCode::HostLost, "`rm -rf`").on("b"));
        let text = report(&record, &profile);
        for wanted in [
            "# \\<b\\>all\\</b\\> \\| nodes",
            "**Coverage:** 2 of 2 hosts, 0 % of samples lost, by native B.",
            "- a differs from the other host: main → route is in 90.0 % of its samples, 40.0 % elsewhere (+50.0 ± ",
            "| `a` | failed | `native B` | 100 | 0.00 % | 0 | 0 ms | -1.2 ms |",
            "| `route` | 65.00 % | 65.00 % |",
            "- **Error** `host-lost` on b: The host fell silent",
            "Seen: `'rm -rf'`.",
            "`ranking-few-hosts`",
            "- on-cpu by cpu-clock at 99 Hz for 30 s, all of `nginx`, kernel frames too",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }
    #[test]
    fn a_scripts_report_has_its_text_and_its_stacks_in_their_unit() {
        let mut record = record_of(&["a"]);
        record.job.probe = Probe::Script;
        let mut coverage = HostCoverage::default();
        coverage.stats.printed.push(model::script::Printed {
            at_ms: 1_250,
            text: "rate 5\n".into(),
        });
        record.coverage.hosts.insert("a".into(), coverage);
        let without = report(&record, &Profile::default());
        assert!(without.contains("    1.250  rate 5") && !without.contains("## Top frames"));
        let mut profile = folded::parse(b"main;route 7000\n", "a").0;
        profile.measures = vec![Measure::new("time", "ns")];
        let text = report(&record, &profile);
        for wanted in [
            "    1.250  rate 5",
            "Of 7,000 ns time on all hosts together.",
            "| `route` | 100",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }
}
