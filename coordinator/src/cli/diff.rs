//! `fleetflame diff`: two sides. In: two runs, parts of runs or files. Out: a differential SVG,
//! folded text, a table or JSON. Never: sides that were taken differently, compared in silence.

use super::flame::{parse_percent, same_unit};
use super::folded_difference;
use super::input::{self, Input, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::seconds::SecondArgs;
use super::{COMPLETE, NOTHING};
use crate::render::{
    Difference, DifferenceLook, FlameOptions, Side, View, ViewBuilder, flame_difference, table,
};
use clap::Args;
use compare::{
    self, By, Circumstances, Compared, FrameDifference, NotCompared, Per, Told, comparable,
    denominator_missing, grouped,
};
use model::profile::Series;
use model::{Finding, FindingCode, Severity};
use serde_json::json;
use std::path::PathBuf;

/// Resampling begins here: the same inputs give the same intervals.
const SEED: u64 = 1;
/// Rows of the table.
const ROWS: usize = 16;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame diff before.folded after.folded -o diff.svg
  fleetflame diff 01JD3K:rest-of:kong-2 01JD3K:kong-2 -o kong-2.svg
  fleetflame diff 01JD3K@dc=bj 01JD3K@dc=sh --by per-1k   by labels of the fleet file
  fleetflame diff monday-run tuesday-run --by per-1k --json
  fleetflame diff monday-run tuesday-run --by per-1k --roll-up plugin
  fleetflame diff 01JD3K 01JD3K --above 90              the seconds with a worker over 90 %, against the others
  fleetflame diff before.folded after.folded --folded -n > both.folded")]
pub struct DiffArgs {
    /// The side it is taken against: FILE, RUN, RUN:HOST, RUN:rest-of:HOST or RUN@SELECTION
    #[arg(value_name = "A")]
    pub(super) left: String,
    /// The side in question
    #[arg(value_name = "B")]
    pub(super) right: String,
    /// Where the result goes; without it, to stdout
    #[arg(short, value_name = "OUT.svg")]
    pub(super) out: Option<PathBuf>,
    /// share (of each side's samples), cpu (CPU time per second) or per-1k (CPU time per 1,000 requests)
    #[arg(long, default_value = "share", value_parser = Per::parse)]
    by: Per,
    /// Groups in the place of functions: module, kind (kernel, native, Lua), plugin, phase, uri or file
    #[arg(long, value_name = "GROUP", value_parser = By::parse_group, conflicts_with_all = ["normalize", "strip_hex"])]
    roll_up: Option<By>,
    /// Folded text with both counts instead of a picture
    #[arg(long)]
    folded: bool,
    /// With --folded: scale A's counts to B's total
    #[arg(short = 'n', long, requires = "folded")]
    pub(super) normalize: bool,
    /// With --folded: hexadecimal numbers in names become 0x...
    #[arg(short = 's', long, requires = "folded")]
    pub(super) strip_hex: bool,
    /// Narrowest frame that is drawn, in percent of the width
    #[arg(long, value_name = "PCT", default_value = "0.01", value_parser = parse_percent)]
    min_width: f64,
    #[command(flatten)]
    seconds: SecondArgs,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn diff(args: &DiffArgs, output: &Output) -> anyhow::Result<u8> {
    if args.left == "-" && args.right == "-" {
        return Err(usage("stdin can be one side only"));
    }
    if args.folded
        && !output.json
        && args.roll_up.is_none()
        && let Some(code) = folded_difference::of_texts(args, output)?
    {
        return Ok(code);
    }
    let read = |word: &str| input::read_seconds(word, &args.root, &args.how, output);
    let mut sides = [read(&args.left)?, read(&args.right)?];
    same_unit(&sides)?;
    args.seconds.choose(&mut sides, args.left == args.right)?;
    let circumstances = sides.each_ref().map(circumstances);
    if let Some(by) = args.roll_up {
        for side in &mut sides {
            side.profile = grouped(&side.profile, by);
        }
    }
    let [left, right] = &sides;
    let mut findings: Vec<Finding> = sides.iter().flat_map(|s| s.findings.clone()).collect();
    let between = comparable(&circumstances[0], &circumstances[1]);
    if let Some(refused) = between.iter().find(|f| f.severity() == Severity::Error) {
        return Err(usage(refused.to_string()));
    }
    findings.extend(between);
    let (left_name, right_name) = names(left, right, args);
    let (left_has, right_has) = (|s: &_| left.part.has(s), |s: &_| right.part.has(s));
    let compared = compare::compared(
        &compare::Side {
            profile: &left.profile,
            series: &left_has,
            picked: args.seconds.some(),
        },
        &compare::Side {
            profile: &right.profile,
            series: &right_has,
            picked: args.seconds.some(),
        },
        args.by,
        SEED,
    );
    let compared = match compared {
        Ok(compared) => compared,
        Err(NotCompared::Missing) => {
            let missing = if args.by.measure(&left.profile).is_none() {
                left
            } else {
                right
            };
            let finding = denominator_missing(&missing.name, args.by);
            return Err(usage(format!("{}; use --by share", finding.evidence)));
        }
        Err(error @ NotCompared::Measures(_)) => return Err(error.into()),
    };
    findings.extend(compared.findings.iter().cloned());
    findings.sort();
    findings.dedup();
    if compared.hosts.0.is_empty() || compared.hosts.1.is_empty() {
        refuse_undivided(&compared, &sides)?;
    }
    let view = view(&sides, &compared, args.by);
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
        let look = DifferenceLook {
            left: left_name.clone(),
            right: right_name.clone(),
            scale: scale(args.by, compared.units),
            told: Some(&compared.places),
        };
        let picture = flame_difference(&view, &look, &options)?;
        output.data_to(args.out.as_deref(), &picture.svg)?;
    }
    let whole = &view.difference;
    if output.json {
        output.document(&json!({
            "by": args.by, "unit": args.by.unit(), "unit_of_difference": args.by.unit_of_difference(),
            "left": { "name": left_name, "total": whole.left_total, "hosts": compared.hosts.0.len(), "coverage": left.coverage },
            "right": { "name": right_name, "total": whole.right_total, "hosts": compared.hosts.1.len(), "coverage": right.coverage },
            "out": args.out, "whole": compared.whole, "frames": compared.frames, "findings": findings,
        }))?;
    } else {
        let text = differences(
            &compared,
            args.by,
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
    let nothing = whole.left_total == 0 || whole.right_total == 0;
    Ok(if nothing { NOTHING } else { COMPLETE })
}

/// How a side was taken.
fn circumstances(input: &Input) -> Circumstances {
    let mut found = Circumstances::of(&input.profile, |s| input.part.has(s));
    let hosts = input.record.iter().flat_map(|r| &r.coverage.hosts);
    for (name, host) in hosts.filter(|(_, h)| !h.config_hash.is_empty()) {
        let series = input.profile.series.as_slice();
        if series.iter().any(|s| s.host == *name && input.part.has(s)) {
            found.configs.insert(host.config_hash.clone());
        }
    }
    found
}

/// A side on which no host has what values are to be divided by is no side.
fn refuse_undivided(compared: &Compared, sides: &[Input; 2]) -> anyhow::Result<()> {
    let missing = |f: &&Finding| f.code == FindingCode::DenominatorMissing;
    let lacking = compared.findings.iter().filter(missing);
    let told: Vec<&str> = lacking.map(|f| f.evidence.as_str()).collect();
    if told.is_empty() {
        return Ok(()); // a side without a sample; that is said by the exit code
    }
    let timed = sides.iter().all(|s| !s.profile.cells.is_empty());
    let instead = if timed { "share or cpu" } else { "share" };
    Err(usage(format!("{}; use --by {instead}", told.join("; "))))
}

/// Both sides in one tree, by the measure that is compared, of the hosts that were compared.
fn view([left, right]: &[Input; 2], compared: &Compared, by: Per) -> View {
    let mut builder = ViewBuilder::default();
    let (was, is) = &compared.hosts;
    for (input, hosts, side) in [(left, was, Side::Left), (right, is, Side::Right)] {
        let measure = by.measure(&input.profile).map_or(0, |m| m.0);
        let wanted = |s: &Series| input.part.has(s) && hosts.contains(&s.host);
        builder.add(&input.profile, wanted, measure, side);
    }
    builder.build()
}

/// What the picture's widths are: values divided by what the comparison divided them by.
fn scale(by: Per, (left, right): (f64, f64)) -> Difference {
    match by {
        Per::Share => Difference::Shares,
        Per::Cpu | Per::Requests => Difference::Per {
            left,
            right,
            unit: by.unit(),
        },
    }
}

/// What the sides are called; by their words on the command line where their names are the same.
fn names(left: &Input, right: &Input, args: &DiffArgs) -> (String, String) {
    if args.left == args.right {
        let [left, right] = args.seconds.names();
        (left, right)
    } else if left.name == right.name {
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
fn differences(compared: &Compared, by: Per, left: &str, right: &str, bold: bool) -> String {
    let digits = |value: f64| match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let signed = |value: f64| {
        let text = digits(value);
        if value < 0.0 {
            text
        } else {
            format!("+{text}")
        }
    };
    let row = |f: &FrameDifference| {
        vec![
            signed(f.delta),
            format!("{} … {}", signed(f.low), signed(f.high)),
            f.relative
                .map_or("-".to_owned(), |r| format!("{:+.0} %", r * 100.0)),
            f.told.word().to_owned(),
            digits(f.left),
            digits(f.right),
            f.kind.to_owned(),
            f.frame.clone(),
        ]
    };
    let mut rows: Vec<Vec<String>> = compared.whole.iter().map(row).collect();
    // What is told stands first; of the rest only as much as there is room for.
    let (told, unsure): (Vec<_>, Vec<_>) =
        compared.frames.iter().partition(|f| f.told != Told::Unsure);
    let told_count = told.len();
    rows.extend(told.into_iter().chain(unsure).take(ROWS).map(row));
    let mut text = table(
        &[
            &format!(">{}", by.unit_of_difference()),
            ">95 %",
            ">relative",
            "verdict",
            &format!(">{left}"),
            &format!(">{right}"),
            "",
            "frame",
        ],
        &rows,
        bold,
    );
    text.push_str(&format!(
        "{told_count} of {} frames are told from chance; at most 5 % of those wrongly\n",
        compared.frames.len()
    ));
    text
}
