//! `fleetflame show`: one run. In: a run. Out: coverage, ranking, top frames and findings, or
//! JSON. Never: frames without the coverage above them.

use super::COMPLETE;
use super::input::{self, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use crate::render::{count, findings_text, percent, printable, table};
use crate::store::RunRecord;
use clap::Args;
use compare::{By, top};
use model::profile::Measure;
use serde_json::json;
use std::fmt::Write as _;

/// Hosts of the ranking that are shown; `fleetflame rank` shows more.
const RANKED_HOSTS: usize = 5;

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame show ./kong-cpu
  fleetflame show 01JD3K
  fleetflame show 01JD3K --json | jq '.run.coverage'")]
pub struct ShowArgs {
    /// A run's directory, its id or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    root: Root,
}

pub fn show(args: &ShowArgs, output: &Output) -> anyhow::Result<u8> {
    let input = input::read(&args.run, &args.root, &ReadArgs::default(), output)?;
    let Some(record) = &input.record else {
        return Err(usage(format!(
            "{} is a file, not a run; `fleetflame top` shows its frames",
            args.run
        )));
    };
    let (shown, _) = Measure::shown(&input.profile.measures);
    let frames = top(&input.profile, |s| input.part.has(s), shown, By::SelfValue);
    if output.json {
        let rows = &frames.rows[..frames.rows.len().min(20)];
        output.document(&json!({ "run": record, "samples": frames.whole, "top": rows }))?;
        return Ok(COMPLETE);
    }
    let mut text = heading(record);
    text.push_str(&hosts(record, output.bold()));
    if let Some(ranking) = &record.ranking {
        text.push('\n');
        text.push_str(&super::rank::sentences(ranking, RANKED_HOSTS));
    }
    let rows: Vec<Vec<String>> = frames
        .rows
        .iter()
        .take(10)
        .map(|r| {
            vec![
                percent(r.own, frames.whole),
                percent(r.total, frames.whole),
                r.name.clone(),
            ]
        })
        .collect();
    let _ = writeln!(text, "\nTop frames of {} samples", count(frames.whole));
    text.push_str(&table(&[">self", ">total", "frame"], &rows, output.bold()));
    if !input.findings.is_empty() {
        let _ = write!(text, "\nFindings\n{}", findings_text(&input.findings));
    }
    if record.unread_findings > 0 {
        let _ = writeln!(
            text,
            "{} findings of a newer fleetflame are not shown",
            record.unread_findings
        );
    }
    output.data(&text)?;
    Ok(COMPLETE)
}

fn heading(record: &RunRecord) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        printable(if record.title.is_empty() {
            "(no title)"
        } else {
            &record.title
        })
    );
    let _ = write!(
        text,
        "run {}, {}, started {}",
        record.id,
        record.state,
        printable(&record.started)
    );
    if let Some(ended) = &record.ended {
        let _ = write!(text, ", ended {}", printable(ended));
    }
    let _ = writeln!(text, "\n{}\n", printable(&record.coverage.line()));
    text
}

fn hosts(record: &RunRecord, bold: bool) -> String {
    let rows: Vec<Vec<String>> = record
        .coverage
        .hosts
        .iter()
        .map(|(name, host)| {
            let lost = host.stats.lost.saturating_add(host.stats.dropped);
            vec![
                name.clone(),
                format!("{:?}", host.outcome).to_lowercase(),
                format!("{} {}", host.engine, host.stats.mode)
                    .trim()
                    .to_owned(),
                count(host.stats.samples),
                percent(lost, host.stats.samples.saturating_add(lost)),
            ]
        })
        .collect();
    table(
        &["host", "outcome", "engine", ">samples", ">lost"],
        &rows,
        bold,
    )
}
