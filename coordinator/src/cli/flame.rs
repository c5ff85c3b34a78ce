//! `fleetflame flame`: a flame graph. In: runs, files, stdin. Out: an SVG. Never: a picture
//! without the coverage of what it was drawn from.

use super::gather::{gather, in_words};
use super::input::{Input, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::seconds::SecondArgs;
use super::{COMPLETE, NOTHING};
use crate::render::{FlameOptions, flame as draw};
use clap::Args;
use model::profile::Measure;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `flame`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame flame ./kong-cpu -o kong.svg
  fleetflame flame 01JD3K:kong-2 --icicle -o kong-2.svg
  fleetflame flame 01JD3K --above 90 -o hot.svg          the seconds with a worker over 90 % of a CPU
  fleetflame flame a.folded b.folded -o both.svg
  fleetflame flame sample.bt -o sample.svg       SystemTap, perf script, pprof, bpftrace, DTrace too
  perf script | fleetflame flame > perf.svg")]
pub struct FlameArgs {
    /// Runs, RUN:HOST, files in any known format; - or nothing for stdin
    #[arg(value_name = "RUN|FILE")]
    inputs: Vec<String>,
    /// Where the SVG goes; without it, to stdout
    #[arg(short, value_name = "OUT.svg")]
    out: Option<PathBuf>,
    /// Narrowest frame that is drawn, in percent of the width
    #[arg(long, value_name = "PCT", default_value = "0.01", value_parser = parse_percent)]
    min_width: f64,
    /// Root at the top
    #[arg(long)]
    icicle: bool,
    /// From the running function to its callers
    #[arg(long)]
    reverse: bool,
    /// Title of the picture
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    seconds: SecondArgs,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("use 0 to 100, such as 0.1".to_owned()),
    }
}

pub fn flame(args: &FlameArgs, output: &Output) -> anyhow::Result<u8> {
    refuse_terminal(args.out.is_some(), output)?;
    let gathered = gather(
        &args.inputs,
        args.reverse,
        &args.root,
        &args.how,
        &args.seconds,
        output,
    )?;
    let options = FlameOptions {
        title: args
            .title
            .clone()
            .unwrap_or_else(|| in_words(&gathered.names)),
        coverage: gathered.coverage.clone(),
        unit: gathered.unit.clone(),
        width_min: args.min_width,
        icicle: args.icicle,
        ..FlameOptions::default()
    };
    let view = &gathered.view;
    let picture = draw(view, &options)?;
    let whole = view.difference.left_total;
    if output.json {
        let document = json!({
            "out": args.out, "total": whole, "frames": picture.frames, "hidden_frames": picture.hidden_frames,
            "bytes": picture.svg.len(), "coverage": options.coverage, "inputs": gathered.document(),
        });
        output.data_to(
            args.out.as_deref(),
            if args.out.is_some() { &picture.svg } else { "" },
        )?;
        output.document(&document)?;
    } else {
        output.data_to(args.out.as_deref(), &picture.svg)?;
    }
    if !output.json {
        output.talk_findings(&gathered.findings);
    }
    Ok(if whole == 0 { NOTHING } else { COMPLETE })
}

/// An SVG on a terminal helps nobody.
pub(super) fn refuse_terminal(has_out: bool, output: &Output) -> anyhow::Result<()> {
    if has_out || output.json || !output.is_terminal() {
        return Ok(());
    }
    Err(usage(
        "an SVG would go to the terminal; give -o OUT.svg or redirect stdout",
    ))
}

/// The unit of the measure that is drawn, which must be the same in all inputs.
pub(super) fn same_unit(inputs: &[Input]) -> anyhow::Result<String> {
    let unit = |i: &Input| {
        let measures = &i.profile.measures;
        (!measures.is_empty()).then(|| Measure::shown(measures).1)
    };
    let mut units: Vec<String> = inputs.iter().filter_map(unit).collect();
    units.dedup();
    match units.as_slice() {
        [] => Ok("samples".to_owned()),
        [one] => Ok(one.clone()),
        many => Err(usage(format!(
            "the inputs measure different things: {}",
            many.join(", ")
        ))),
    }
}
