//! `fleetflame heat`: who was hot when. In: a run. Out: a heat map of every worker and second as SVG,
//! or JSON. Never: a second that was not captured drawn as idle.

use super::flame::refuse_terminal;
use super::input::{self, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::{COMPLETE, NOTHING};
use crate::render::heat_svg;
use clap::Args;
use compare::heat as of;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `heat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame heat 01JD3K -o heat.svg
  fleetflame heat 01JD3K:kong-2 --json
  fleetflame flame 01JD3K --above 90 -o hot.svg          then the stacks of the hot seconds
  fleetflame diff 01JD3K 01JD3K --above 90 -o hot.svg    and against the other seconds")]
pub struct HeatArgs {
    /// A run, RUN:HOST, RUN:rest-of:HOST, RUN@SELECTION or an ffz file
    #[arg(value_name = "RUN|FILE")]
    input: String,
    /// Where the SVG goes; without it, to stdout
    #[arg(short, value_name = "OUT.svg")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn heat(args: &HeatArgs, output: &Output) -> anyhow::Result<u8> {
    refuse_terminal(args.out.is_some(), output)?;
    let input = input::read_seconds(&args.input, &args.root, &args.how, output)?;
    if input.profile.cells.is_empty() && input.profile.grand_total()[0] > 0 {
        return Err(usage(format!(
            "{} has no seconds; runs and ffz files have",
            input.name
        )));
    }
    let heat = of(&input.profile, |s| input.part.has(s));
    if output.json {
        output
            .document(&json!({ "input": input.name, "coverage": input.coverage, "heat": heat }))?;
    }
    if args.out.is_some() || !output.json {
        let title = format!("{}: who was hot when", input.name);
        output.data_to(
            args.out.as_deref(),
            &heat_svg(&heat, &title, &input.coverage),
        )?;
    }
    Ok(if heat.rows.is_empty() {
        NOTHING
    } else {
        COMPLETE
    })
}
