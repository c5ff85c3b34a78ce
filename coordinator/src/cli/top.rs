//! `fleetflame top`: where the samples are. In: a run or a file. Out: a table or JSON. Never: a
//! row whose shares are of something else than what the heading says.

use super::input::{self, Input, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::{COMPLETE, NOTHING};
use crate::render::{count, percent, table};
use clap::Args;
use compare::{By, TopRow, lines_of, top as roll_up};
use model::profile::Measure;
use serde_json::json;

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame top ./kong-cpu
  fleetflame top 01JD3K:kong-2 --by total -n 40
  fleetflame top ./kong-cpu --by plugin
  fleetflame capture --fleet fleet.yaml --uri --out ./kong-cpu && fleetflame top ./kong-cpu --by uri
  perf script | fleetflame top - --by module
  fleetflame top sample.bt --inlines                            functions that were inlined, by their own samples
  fleetflame top sample.bt --by line --of ngx_http_core_run_phases --symfs ./kong-1-root")]
pub struct TopArgs {
    /// A run, RUN:HOST, RUN:rest-of:HOST, RUN@SELECTION, a file in any known format, or - for stdin
    #[arg(value_name = "RUN|FILE")]
    input: String,
    /// self, total, module, kind (kernel, native, Lua), for a gateway's Lua plugin, phase, file, or uri where the
    /// capture was asked for paths of requests, or line (source lines, of stap and perf script text, by debug info)
    #[arg(long, default_value = "self", value_parser = By::parse)]
    by: By,
    /// With --by line: only lines of this function, with what was inlined into it
    #[arg(long, value_name = "FUNCTION")]
    of: Option<String>,
    /// How many rows
    #[arg(short = 'n', value_name = "ROWS", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn top(args: &TopArgs, output: &Output) -> anyhow::Result<u8> {
    let input = if args.by == By::Line {
        input::read(&args.input, &args.root, &args.how.with_lines(), output)?
    } else if args.of.is_some() {
        return Err(usage(
            "--of FUNCTION chooses source lines: say also --by line",
        ));
    } else {
        input::read(&args.input, &args.root, &args.how, output)?
    };
    if let Some(function) = &args.of {
        return lines(args, function, &input, output);
    }
    let (shown, unit) = Measure::shown(&input.profile.measures);
    let frames = roll_up(&input.profile, |s| input.part.has(s), shown, args.by);
    let rows = &frames.rows[..frames.rows.len().min(args.rows)];
    if output.json {
        output.document(&json!({
            "input": input.name, "coverage": input.coverage, "unit": unit, "whole": frames.whole,
            "rows": rows, "findings": input.findings,
        }))?;
    } else {
        output.talk(&format!(
            "{}: {} {unit}, {}\n",
            input.name,
            count(frames.whole),
            input.coverage
        ));
        output.data(&rows_in_words(
            rows,
            frames.whole,
            frames.whole,
            args.by,
            output,
        ))?;
        output.talk_findings(&input.findings);
    }
    Ok(if frames.whole == 0 { NOTHING } else { COMPLETE })
}

/// Lines of one function: their shares of its own samples, and of those with what it calls.
fn lines(args: &TopArgs, function: &str, input: &Input, output: &Output) -> anyhow::Result<u8> {
    let (shown, unit) = Measure::shown(&input.profile.measures);
    let lines = lines_of(&input.profile, |s| input.part.has(s), shown, function);
    let rows = &lines.rows[..lines.rows.len().min(args.rows)];
    if output.json {
        output.document(&json!({
            "input": input.name, "coverage": input.coverage, "unit": unit, "function": function, "all": lines.all,
            "whole": lines.whole, "self": lines.own, "rows": rows, "findings": input.findings,
        }))?;
    } else {
        output.talk(&format!(
            "{}: {} {unit} in {function} itself, {} with what it calls, of {}, {}\n",
            input.name,
            count(lines.own),
            count(lines.whole),
            count(lines.all),
            input.coverage
        ));
        output.data(&rows_in_words(
            rows,
            lines.own,
            lines.whole,
            args.by,
            output,
        ))?;
        output.talk_findings(&input.findings);
    }
    Ok(if lines.whole == 0 { NOTHING } else { COMPLETE })
}

fn rows_in_words(rows: &[TopRow], own: u64, whole: u64, by: By, output: &Output) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                percent(r.own, own),
                count(r.own),
                percent(r.total, whole),
                count(r.total),
                r.name.clone(),
            ]
        })
        .collect();
    table(
        &[">self", ">", ">total", ">", by.word()],
        &cells,
        output.bold(),
    )
}
