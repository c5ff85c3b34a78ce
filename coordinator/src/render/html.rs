//! The report as one page: what a person opens from a ticket. In: a run's record, its profile and its
//! pictures. Out: HTML that needs nothing beside it. Never: markup from a name, a request to anywhere.

use super::dress::{escape, quoted};
use super::findings::grouped;
use super::printed::printed;
use super::table::{count, percent};
use crate::store::RunRecord;
use compare::{By, Ranking, top};
use model::job::Probe;
use model::profile::{Measure, Profile};
use std::fmt::Write as _;

/// Rows of the table of frames.
const TOP_ROWS: usize = 20;
/// Sentences that are shown of a ranking.
const SENTENCES: usize = 8;

/// A picture of the page.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// The SVG.
    pub svg: String,
    /// Its height in the page, in pixels.
    pub height: usize,
}

impl Picture {
    /// A picture that is as high as its SVG says.
    #[must_use]
    pub fn new(title: impl Into<String>, svg: impl Into<String>) -> Self {
        let (title, svg) = (title.into(), svg.into());
        let digits = |text: &str| -> Option<usize> {
            let end = text.find(|c: char| !c.is_ascii_digit())?;
            text[..end].parse().ok()
        };
        let height = svg
            .split_once(" height=\"")
            .and_then(|(_, rest)| digits(rest));
        Self {
            title,
            svg,
            height: height.unwrap_or(400).clamp(90, 4_000),
        }
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:24px auto;padding:0 16px;color:#222}\
h1{font-size:24px;margin-bottom:4px}h2{font-size:18px;margin:32px 0 8px}\
table{border-collapse:collapse;font-size:13px}td,th{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #eee;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:12.5px;overflow-wrap:anywhere}\
.odd{font-weight:600}.soft{color:#666}iframe{width:100%;border:1px solid #ddd;background:#fff}\
.error{border-left:4px solid #c33}.warning{border-left:4px solid #e0a020}.note{border-left:4px solid #bbb}\
.finding{padding:2px 0 2px 12px;margin:8px 0}";

/// The page.
#[must_use]
pub fn report_html(record: &RunRecord, profile: &Profile, pictures: &[Picture]) -> String {
    let title = if record.title.is_empty() {
        "Capture"
    } else {
        &record.title
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\n\
         <h1>{0}</h1>\n<p class=\"soft\">Run <code>{1}</code>, {2}, started {3}</p>\n<p><b>Coverage:</b> {4}.</p>\n",
        escape(title),
        record.id,
        record.state,
        escape(&record.started),
        escape(&record.coverage.line())
    );
    out.push_str("<h2>Which host is unlike the others</h2>\n");
    match &record.ranking {
        Some(ranking) => rank(&mut out, ranking),
        None => out.push_str("<p>Nothing was compared.</p>\n"),
    }
    record.more_rankings.iter().for_each(|r| rank(&mut out, r));
    for picture in pictures {
        let _ = writeln!(
            out,
            "<h2>{0}</h2>\n<iframe title=\"{0}\" height=\"{1}\" sandbox=\"allow-scripts\" srcdoc=\"{2}\"></iframe>",
            escape(&picture.title),
            picture.height + 24,
            quoted(&inline_svg(&picture.svg))
        );
    }
    hosts(&mut out, record);
    if record.job.probe == Probe::Script {
        let text = printed(&record.coverage);
        let lines: Vec<String> = text.lines().map(escape).collect();
        let _ = writeln!(out, "<pre>{}</pre>", lines.join("\n"));
    }
    if record.job.probe != Probe::Script || profile.grand_total()[0] > 0 {
        frames(&mut out, profile);
    }
    findings(&mut out, record);
    out.push_str("</body></html>\n");
    out
}

/// An SVG as the body of a page of its own: without its XML head.
fn inline_svg(svg: &str) -> String {
    let begin = svg.find("<svg").unwrap_or(0);
    // A flame graph's script takes its width away, and in a page it would be 300 pixels then.
    format!(
        "<style>body{{margin:0}}svg{{width:100%}}</style>{}",
        &svg[begin..]
    )
}

fn rank(out: &mut String, ranking: &Ranking) {
    out.push_str("<ul>\n");
    let said = ranking.sentences();
    for (sentence, entry) in said.iter().zip(&ranking.entries).take(SENTENCES) {
        let class = if entry.odd { " class=\"odd\"" } else { "" };
        let _ = writeln!(out, "<li{class}>{}</li>", escape(sentence));
    }
    for host in &ranking.without_samples {
        let _ = writeln!(
            out,
            "<li>{} has no samples and was not compared</li>",
            escape(host)
        );
    }
    out.push_str("</ul>\n");
    let more = said.len().saturating_sub(SENTENCES);
    let more = if more > 0 {
        format!("{more} more hosts in report.md; ")
    } else {
        String::new()
    };
    let _ = writeln!(out, "<p class=\"soft\">{more}{}</p>", escape(&ranking.note));
}

fn hosts(out: &mut String, record: &RunRecord) {
    out.push_str(
        "<h2>Hosts</h2>\n<table><tr><th>host<th>outcome<th>engine<th class=\"n\">samples<th class=\"n\">lost<th class=\"n\">processes</tr>\n",
    );
    for (name, host) in &record.coverage.hosts {
        let stats = &host.stats;
        let lost = stats.lost.saturating_add(stats.dropped);
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            escape(name),
            format!("{:?}", host.outcome).to_lowercase(),
            escape(format!("{} {}", host.engine, stats.mode).trim()),
            count(stats.samples),
            percent(lost, stats.samples.saturating_add(lost)),
            stats.processes
        );
    }
    out.push_str("</table>\n");
}

fn frames(out: &mut String, profile: &Profile) {
    let (shown, unit) = Measure::shown(&profile.measures);
    let all = top(profile, |_| true, shown, By::SelfValue);
    let _ = writeln!(
        out,
        "<h2>Top frames of {} {}</h2>\n<table><tr><th class=\"n\">self<th class=\"n\">total<th>frame</tr>",
        count(all.whole),
        escape(&unit)
    );
    for row in all.rows.iter().take(TOP_ROWS) {
        let _ = writeln!(
            out,
            "<tr><td class=\"n\">{}<td class=\"n\">{}<td><code>{}</code></tr>",
            percent(row.own, all.whole),
            percent(row.total, all.whole),
            escape(&row.name)
        );
    }
    out.push_str("</table>\n");
}

fn findings(out: &mut String, record: &RunRecord) {
    out.push_str("<h2>Findings</h2>\n");
    let all = record.all_findings();
    if all.is_empty() {
        out.push_str("<p>None.</p>\n");
    }
    for (finding, hosts) in grouped(&all) {
        let class = finding.severity().word();
        let place = if hosts.is_empty() {
            String::new()
        } else {
            format!(" on {}", hosts.join(", "))
        };
        let _ = writeln!(
            out,
            "<div class=\"finding {class}\"><b><code>{}</code>{}</b>: {}<br><span class=\"soft\">{}</span><br>Do: {}</div>",
            finding.code,
            escape(&place),
            escape(finding.code.what()),
            escape(&finding.evidence),
            escape(&finding.remedy)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::record_of;
    use compare::{Per, rank as ranked};
    use model::format::folded;

    #[test]
    fn the_page_has_everything_and_no_markup_from_a_name() {
        let mut profile = Profile::default();
        for (host, text) in [
            ("a", "main;<script>x 900\nm;y 100\n"),
            ("b", "main;z 1000\n"),
            ("<idle>", "main 0\n"),
        ] {
            profile
                .merge(&folded::parse(text.as_bytes(), host).0)
                .unwrap();
        }
        let mut record = record_of(&["a", "b"]);
        record.title = "<b>all</b>".into();
        record.ranking = Some(ranked(&profile, Per::Share, 1));
        let svg =
            "<?xml version=\"1.0\"?>\n<svg width=\"10\" height=\"77\"><text>\"q\"</text></svg>";
        let pictures = [Picture::new("Overview", svg)];
        assert_eq!(pictures[0].height, 90);
        let page = report_html(&record, &profile, &pictures);
        for wanted in [
            "<h1>&lt;b&gt;all&lt;/b&gt;</h1>",
            "a differs from the other host",
            "&lt;script&gt;x",
            "&lt;/style&gt;&lt;svg width=&quot;10&quot;",
            "ranking-few-hosts",
            "<li>&lt;idle&gt; has no samples and was not compared</li>",
            "Top frames of 2,000 samples",
        ] {
            assert!(page.contains(wanted), "{wanted} is missing in\n{page}");
        }
        assert!(
            !page.contains("<script") && !page.contains("http"),
            "nothing is fetched or run"
        );
    }

    #[test]
    fn waits_are_shown_by_their_length() {
        let mut profile = Profile::new("off-cpu", Measure::off_cpu());
        let series = profile.series.intern(&Default::default());
        for (name, events, ns) in [("often", 900, 1_000), ("long", 1, 9_000)] {
            let frame = model::profile::Frame::marker(name);
            let frame = profile.frames.intern(&frame);
            profile.add_stack(series, &[frame], &[events, ns, 0]);
        }
        let page = report_html(&record_of(&["a"]), &profile, &[]);
        for wanted in [
            "Top frames of 10,000 ns blocked</h2>",
            "<tr><td class=\"n\">90.00 %<td class=\"n\">90.00 %<td><code>long</code></tr>",
        ] {
            assert!(page.contains(wanted), "{wanted} is missing in\n{page}");
        }
    }
}
