//! `fleetflame flame`: a flame graph. In: runs, files, stdin. Out: an SVG. Never: a picture
//! without the coverage of what it was drawn from.

use super::input::{self, Input, Root};
use super::output::{Output, usage};
use super::{COMPLETE, NOTHING};
use crate::render::{FlameOptions, Side, ViewBuilder, flame as draw};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `flame`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame flame ./kong-cpu -o kong.svg
  fleetflame flame 01JD3K:kong-2 --icicle -o kong-2.svg
  fleetflame flame a.folded b.folded -o both.svg
  perf script | inferno-collapse-perf | fleetflame flame > perf.svg")]
pub struct FlameArgs {
    /// Runs, RUN:HOST, files of folded stacks or ffz; - or nothing for stdin
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
    let words: Vec<&str> = match args.inputs.as_slice() {
        [] => vec!["-"],
        some => some.iter().map(String::as_str).collect(),
    };
    let inputs: Vec<Input> = words
        .iter()
        .map(|w| input::read(w, &args.root))
        .collect::<anyhow::Result<_>>()?;
    let unit = same_unit(&inputs)?;
    let mut builder = ViewBuilder::reversed(args.reverse);
    for input in &inputs {
        builder.add(&input.profile, |s| input.part.has(s), 0, Side::Left);
    }
    let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    let coverage: Vec<&str> = inputs.iter().map(|i| i.coverage.as_str()).collect();
    let options = FlameOptions {
        title: args.title.clone().unwrap_or_else(|| names.join(" and ")),
        coverage: coverage.join("; "),
        unit,
        width_min: args.min_width,
        icicle: args.icicle,
        ..FlameOptions::default()
    };
    let view = builder.build();
    let picture = draw(&view, &options)?;
    let whole = view.difference.left_total;
    if output.json {
        let document = json!({
            "out": args.out, "total": whole, "frames": picture.frames, "hidden_frames": picture.hidden_frames,
            "bytes": picture.svg.len(), "coverage": options.coverage,
        });
        output.data_to(
            args.out.as_deref(),
            if args.out.is_some() { &picture.svg } else { "" },
        )?;
        output.document(&document)?;
    } else {
        output.data_to(args.out.as_deref(), &picture.svg)?;
    }
    for input in &inputs {
        output.talk_findings(&input.findings);
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

/// The unit of the first measure, which must be the same in all inputs.
pub(super) fn same_unit(inputs: &[Input]) -> anyhow::Result<String> {
    let unit = |i: &Input| i.profile.measures.first().map(|m| m.name.clone());
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
