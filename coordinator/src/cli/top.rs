//! `fleetflame top`: where the samples are. In: a run or a file. Out: a table or JSON. Never: a
//! row whose shares are of something else than what the heading says.

use super::input::{self, Root};
use super::output::Output;
use super::reading::ReadArgs;
use super::{COMPLETE, NOTHING};
use crate::compare::{By, top as roll_up};
use crate::render::{count, percent, table};
use clap::Args;
use model::profile::Measure;
use serde_json::json;

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame top ./kong-cpu
  fleetflame top 01JD3K:kong-2 --by total -n 40
  fleetflame top ./kong-cpu --by plugin
  perf script | fleetflame top - --by module")]
pub struct TopArgs {
    /// A run, RUN:HOST, RUN:rest-of:HOST, RUN@SELECTION, a file in any known format, or - for stdin
    #[arg(value_name = "RUN|FILE")]
    input: String,
    /// self, total, module, kind (kernel, native, Lua), or for a gateway's Lua plugin, phase or file
    #[arg(long, default_value = "self", value_parser = By::parse)]
    by: By,
    /// How many rows
    #[arg(short = 'n', value_name = "ROWS", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn top(args: &TopArgs, output: &Output) -> anyhow::Result<u8> {
    let input = input::read(&args.input, &args.root, &args.how, output)?;
    let (shown, unit) = Measure::shown(&input.profile.measures);
    let frames = roll_up(&input.profile, |s| input.part.has(s), shown, args.by);
    let rows = &frames.rows[..frames.rows.len().min(args.rows)];
    if output.json {
        output.document(&json!({
            "input": input.name, "coverage": input.coverage, "unit": unit, "whole": frames.whole,
            "rows": rows, "findings": input.findings,
        }))?;
    } else {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|r| {
                vec![
                    percent(r.own, frames.whole),
                    count(r.own),
                    percent(r.total, frames.whole),
                    count(r.total),
                    r.name.clone(),
                ]
            })
            .collect();
        output.talk(&format!(
            "{}: {} {unit}, {}\n",
            input.name,
            count(frames.whole),
            input.coverage
        ));
        output.data(&table(
            &[">self", ">", ">total", ">", args.by.word()],
            &cells,
            output.bold(),
        ))?;
        output.talk_findings(&input.findings);
    }
    Ok(if frames.whole == 0 { NOTHING } else { COMPLETE })
}
