//! What a script of the user's printed, in a report. In: the coverage of a run. Out: Markdown: histograms added up over the
//! hosts, each host's lines with their times. Never: markup or a terminal's escape from a script's text, or lines left out
//! without saying so.

use super::report::inline;
use super::table::{count, printable};
use model::Coverage;
use model::format::script_output::{Part, ScriptOutput, merge_outputs};
use model::script::output_of;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lines of one host that are shown; all of them are in its file.
const LINES_SHOWN_MAX: usize = 200;

/// The section of a report; empty where nothing was printed.
#[must_use]
pub(super) fn printed(coverage: &Coverage) -> String {
    let outputs: BTreeMap<String, ScriptOutput> = coverage
        .hosts
        .iter()
        .filter(|(_, host)| !host.stats.printed.is_empty())
        .map(|(name, host)| (name.clone(), output_of(&host.stats.printed)))
        .collect();
    let mut out = "## What the script printed\n\n".to_owned();
    if outputs.is_empty() {
        out.push_str("Nothing.\n\n");
        return out;
    }
    for (host, output) in outputs.iter().filter(|(_, output)| output.cut > 0) {
        let _ = writeln!(
            out,
            "Of {}, {} ended in the middle of a histogram: the sum has what was printed of it.\n",
            inline(host),
            count(output.cut)
        );
    }
    for histogram in merge_outputs(&outputs).histograms {
        let added = histogram.hosts.len() - histogram.unlike.len();
        let _ = writeln!(
            out,
            "### {}\n\nThe sum of {added} of {} hosts.\n",
            inline(&histogram.title),
            outputs.len()
        );
        block(&mut out, histogram.sum.to_string().lines());
        for host in &histogram.unlike {
            let _ = writeln!(out, "{} has other buckets:\n", inline(host));
            if let Some(own) = histogram.hosts.get(host) {
                block(&mut out, own.to_string().lines());
            }
        }
    }
    for (host, output) in &outputs {
        let lines: Vec<String> = output.parts.iter().filter_map(line).collect();
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(out, "### {}\n", inline(host));
        block(
            &mut out,
            lines.iter().take(LINES_SHOWN_MAX).map(String::as_str),
        );
        let more = lines.len().saturating_sub(LINES_SHOWN_MAX) as u64;
        let more = more.saturating_add(output.dropped);
        if more > 0 {
            let more = count(more);
            let _ = writeln!(
                out,
                "{more} more lines are in hosts/{}.txt.\n",
                inline(host)
            );
        }
    }
    out
}

/// A line with its time, in seconds since the start.
fn line(part: &Part) -> Option<String> {
    match part {
        Part::Line { at_ms, text } => {
            Some(format!("{:>5}.{:03}  {text}", at_ms / 1_000, at_ms % 1_000))
        }
        Part::Histogram { .. } => None,
    }
}

/// Text as it is: four blanks in front of a line leave no markup in it a meaning.
fn block<'a>(out: &mut String, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let _ = writeln!(out, "    {}", printable(line));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostCoverage;
    use model::script::Printed;

    fn host(pieces: &[(u64, &str)]) -> HostCoverage {
        let mut host = HostCoverage::default();
        host.stats.printed = pieces
            .iter()
            .map(|(at_ms, text)| Printed {
                at_ms: *at_ms,
                text: (*text).to_owned(),
            })
            .collect();
        host
    }

    #[test]
    fn histograms_are_added_and_lines_keep_their_host_and_time() {
        let histogram =
            |count| format!("Latency:\nvalue |------ count\n    1 |@ {count}\n    2 |@@ 2\n\n");
        let mut coverage = Coverage::default();
        for (name, counted) in [("a", 3), ("b", 4)] {
            let text = histogram(counted);
            let pieces = [
                (1_250, "12 calls/s\n<b>\u{1b}[31m\n"),
                (9_000, text.as_str()),
            ];
            coverage.hosts.insert(name.into(), host(&pieces));
        }
        coverage.hosts.insert("silent".into(), host(&[]));
        let text = printed(&coverage);
        for wanted in [
            "### Latency:\n\nThe sum of 2 of 2 hosts.",
            "### a\n\n        1.250  12 calls/s\n",
            "### b\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
        let sum = text.lines().find(|l| l.trim_start().starts_with("1 |"));
        assert!(sum.is_some_and(|l| l.trim_end().ends_with(" 7")), "{text}");
        assert!(
            !text.contains('\u{1b}') && !text.contains("silent"),
            "{text}"
        );
        assert!(
            text.lines()
                .all(|l| l.is_empty() || l.starts_with("    ") || !l.contains("<b>"))
        );
        let flood = "x\n".repeat(LINES_SHOWN_MAX + 7);
        let coverage = Coverage {
            hosts: [("a".to_owned(), host(&[(0, &flood)]))].into(),
            ..Coverage::default()
        };
        assert!(printed(&coverage).contains("7 more lines are in hosts/a.txt."));
        assert!(printed(&Coverage::default()).contains("Nothing."));
    }
}
