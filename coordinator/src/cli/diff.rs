//! `fleetflame diff`: two sides. In: two runs, parts of runs or files. Out: a differential SVG,
//! folded text, a table or JSON. Never: sides that were taken differently, compared in silence.

use super::flame::{parse_percent, same_unit};
use super::input::{self, Input, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::{COMPLETE, NOTHING};
use crate::compare::{FrameShare, compared, unlike_sides};
use crate::render::{Difference, FlameOptions, Side, ViewBuilder, flame_difference, table};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame diff before.folded after.folded -o diff.svg
  fleetflame diff 01JD3K:rest-of:kong-2 01JD3K:kong-2 -o kong-2.svg
  fleetflame diff monday-run tuesday-run --folded > both.folded
  fleetflame diff monday-run tuesday-run --by cpu --json")]
pub struct DiffArgs {
    /// The side it is taken against: FILE, RUN, RUN:HOST or RUN:rest-of:HOST
    #[arg(value_name = "A")]
    left: String,
    /// The side in question
    #[arg(value_name = "B")]
    right: String,
    /// Where the result goes; without it, to stdout
    #[arg(short, value_name = "OUT.svg")]
    out: Option<PathBuf>,
    /// share (of each side's samples) or cpu (seconds)
    #[arg(long, default_value = "share", value_parser = parse_by)]
    by: Difference,
    /// Folded text with both counts instead of a picture
    #[arg(long)]
    folded: bool,
    /// Narrowest frame that is drawn, in percent of the width
    #[arg(long, value_name = "PCT", default_value = "0.01", value_parser = parse_percent)]
    min_width: f64,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

fn parse_by(text: &str) -> Result<Difference, String> {
    match text {
        "share" => Ok(Difference::Shares),
        "cpu" => Ok(Difference::Seconds),
        "per-1k" | "per-1k-requests" => {
            Err("CPU per 1,000 requests is not there yet; share and cpu are".to_owned())
        }
        _ => Err("use share or cpu".to_owned()),
    }
}

pub fn diff(args: &DiffArgs, output: &Output) -> anyhow::Result<u8> {
    if args.left == "-" && args.right == "-" {
        return Err(usage("stdin can be one side only"));
    }
    let sides = [
        input::read(&args.left, &args.root, &args.how, output)?,
        input::read(&args.right, &args.root, &args.how, output)?,
    ];
    same_unit(&sides)?;
    let [left, right] = &sides;
    let mut builder = ViewBuilder::default();
    for (input, side) in [(left, Side::Left), (right, Side::Right)] {
        let measure = measure(input, args.by)?;
        builder.add(&input.profile, |s| input.part.has(s), measure, side);
    }
    let view = builder.build();
    let mut findings: Vec<_> = sides.iter().flat_map(|s| s.findings.clone()).collect();
    findings.extend(unlike_sides(
        (&left.profile, &|s| left.part.has(s)),
        (&right.profile, &|s| right.part.has(s)),
    ));
    findings.sort();
    findings.dedup();
    let (left_name, right_name) = names(left, right, args);
    let frames = compared(&view.tree, &view.frames, &view.difference);

    let to_terminal = args.out.is_none() && output.is_terminal();
    if args.folded && !output.json {
        output.data_to(args.out.as_deref(), &view.folded_difference())?;
    } else if args.out.is_some() || !(to_terminal || output.json) {
        let options = FlameOptions {
            title: format!("{right_name} against {left_name}"),
            coverage: coverage(left, right),
            width_min: args.min_width,
            ..FlameOptions::default()
        };
        let picture = flame_difference(&view, &left_name, &right_name, args.by, &options)?;
        output.data_to(args.out.as_deref(), &picture.svg)?;
    }
    if output.json {
        output.document(&json!({
            "left": { "name": left_name, "total": view.difference.left_total, "coverage": left.coverage },
            "right": { "name": right_name, "total": view.difference.right_total, "coverage": right.coverage },
            "out": args.out, "frames": frames, "findings": findings,
        }))?;
    } else {
        let text = largest(
            &frames,
            &left_name,
            &right_name,
            to_terminal && output.bold(),
        );
        if to_terminal && !args.folded {
            output.data(&text)?
        } else {
            output.talk(&text)
        }
        output.talk_findings(&findings);
    }
    let nothing = view.difference.left_total == 0 || view.difference.right_total == 0;
    Ok(if nothing { NOTHING } else { COMPLETE })
}

/// The index of the measure that is compared.
fn measure(input: &Input, by: Difference) -> anyhow::Result<usize> {
    if by == Difference::Shares || input.profile.measures.is_empty() {
        return Ok(0);
    }
    input
        .profile
        .measures
        .iter()
        .position(|m| m.name == "cpu")
        .ok_or_else(|| {
            usage(format!(
                "{} has no CPU time (folded text carries samples only); use --by share",
                input.name
            ))
        })
}

/// What the sides are called; by their words on the command line where their names are the same.
fn names(left: &Input, right: &Input, args: &DiffArgs) -> (String, String) {
    if left.name == right.name {
        (args.left.clone(), args.right.clone())
    } else {
        (left.name.clone(), right.name.clone())
    }
}

fn coverage(left: &Input, right: &Input) -> String {
    if left.coverage == right.coverage {
        left.coverage.clone()
    } else {
        format!(
            "{}: {}; {}: {}",
            left.name, left.coverage, right.name, right.coverage
        )
    }
}

/// The largest differences as a table.
fn largest(frames: &[FrameShare], left: &str, right: &str, bold: bool) -> String {
    let rows: Vec<Vec<String>> = frames
        .iter()
        .take(12)
        .map(|f| {
            vec![
                format!("{:+.2}", f.delta_points),
                format!("{:.2} %", f.left_share * 100.0),
                format!("{:.2} %", f.right_share * 100.0),
                f.frame.clone(),
            ]
        })
        .collect();
    table(
        &[
            ">points",
            &format!(">{left}"),
            &format!(">{right}"),
            "frame (with what it calls)",
        ],
        &rows,
        bold,
    )
}
