//! `make bench`: fleetflame beside the tools of the field, on the same work, in one run.
//!
//! In: built binaries, made-up inputs, the tools that are there. Out: a table of medians, ratios and
//! verdicts; exit 1 when a limit is missed, 3 when a tool is missing. Never: a number from elsewhere, a
//! peer that is left out in silence, or a verdict by wall clock.

mod equal;
mod inputs;
mod measure;
mod parts;
mod peers;
mod setting;
mod table;

use anyhow::Context as _;
use clap::Parser;
use parts::PARTS;
use serde_json::json;
use setting::Setting;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to measure, and how.
#[derive(Clone, Debug, Parser)]
#[command(after_help = "\
Parts: fold, picture, merge, wire, stream, browser, sampler, compare, rank; all when none is named.

Exit codes: 0 all limits kept; 1 a limit missed or something of ours failed; 3 a tool to compare with is missing.
FLAMEGRAPH_DIR names a checkout of github.com/brendangregg/FlameGraph.")]
pub struct Arguments {
    /// Only these parts
    #[arg(value_name = "PART", value_parser = PARTS.iter().map(|p| p.0).collect::<Vec<_>>())]
    parts: Vec<String>,
    /// Inputs of 40 MB instead of 400; limits are shown and nothing is held against them
    #[arg(long)]
    quick: bool,
    /// Without what takes gigabytes of memory and disk
    #[arg(long)]
    no_large: bool,
    /// Interleaved rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pairs: usize,
    /// Seconds of each capture of the part `sampler`
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u32,
    /// Keep inputs and outputs
    #[arg(long)]
    keep: bool,
    /// Write all figures here
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    /// Write the table here, ready to be pasted into docs/performance.md
    #[arg(long, value_name = "OUT.md")]
    markdown: Option<PathBuf>,
}

impl Arguments {
    fn large(&self) -> bool {
        !self.quick && !self.no_large
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(measure::LAUNCHER) {
        return measure::launcher(&words.next().unwrap_or_default());
    }
    match bench(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("fleetflame-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn bench(arguments: Arguments) -> anyhow::Result<u8> {
    let mut setting = Setting::new(arguments)?;
    let head = setting.head()?;
    let (parts, json, markdown) = {
        let a = &setting.arguments;
        (a.parts.clone(), a.json.clone(), a.markdown.clone())
    };
    for (name, measure) in PARTS {
        if parts.is_empty() || parts.iter().any(|p| p == name) {
            setting.attempt(name, "the whole part", measure);
        }
    }
    setting.done();
    setting.clean();
    let text = format!("{head}\n{}", setting.report.markdown());
    println!("{text}");
    if let Some(out) = markdown {
        std::fs::write(&out, &text).with_context(|| format!("writing {}", out.display()))?;
    }
    if let Some(out) = json {
        let document = json!({ "about": head, "report": setting.report.json() });
        std::fs::write(&out, serde_json::to_vec_pretty(&document)?)
            .with_context(|| format!("writing {}", out.display()))?;
    }
    Ok(setting.report.exit_code())
}
