//! `fleetflame merge`: the sum of many inputs. In: files, runs, stdin. Out: folded text, or ffz and
//! pprof with one series for each file. Never: a sum of different measures.

use super::export::{self, ExportFormat};
use super::fold::folded;
use super::gather::in_words;
use super::input::{self, Input, Named, Root};
use super::output::Output;
use super::reading::{self, ReadArgs, unreadable};
use super::{COMPLETE, NOTHING};
use clap::Args;
use model::Finding;
use model::format::ffz::Want;
use model::format::import::{Import, ImportError};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame merge kong-*.folded -o all.folded
  fleetflame merge kong-*.folded -o all.ffz       keeps one series for each file
  fleetflame merge monday-run tuesday.pb.gz -o both.pb.gz
  fleetflame merge kong-*.bt | fleetflame flame -o all.svg

The format of OUT is told by its ending: .ffz, .pb.gz or .pprof, .speedscope.json; else folded.")]
pub struct MergeArgs {
    /// Files in any known format, gzip or not; runs; - for stdin
    #[arg(value_name = "FILE", required = true)]
    inputs: Vec<String>,
    /// Where the sum goes; without it, folded to stdout
    #[arg(short, value_name = "OUT")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn merge(args: &MergeArgs, output: &Output) -> anyhow::Result<u8> {
    let format = args
        .out
        .as_deref()
        .map_or(ExportFormat::Folded, ExportFormat::of);
    if format == ExportFormat::Folded {
        let sources = (args.inputs.as_slice(), &args.how, &args.root);
        return folded(sources, args.out.as_deref(), None, output);
    }
    let mut import = args.how.import("")?;
    let mut coverage = Vec::new();
    let mut findings = Vec::new();
    for word in &args.inputs {
        let name = if word == "-" { "stdin" } else { word };
        match input::find(word, &args.root, Want::Totals)? {
            Named::Run(one) => {
                args.how.refuse_source(word, "a run")?;
                add(*one, &mut import, &mut findings, &mut coverage)
                    .map_err(|e| unreadable(name, e))?;
            }
            Named::Ffz(_) => {
                args.how.refuse_source(word, "an ffz file")?;
                let one = input::from_ffz(word, Want::Totals)?;
                add(one, &mut import, &mut findings, &mut coverage)
                    .map_err(|e| unreadable(name, e))?;
            }
            Named::Stacks(opened) => {
                let host = reading::stem(name);
                import.next_input(&host).map_err(|e| unreadable(name, e))?;
                opened.feed(&mut import, output)?;
            }
        }
    }
    let together = in_words(&args.inputs);
    let imported = import.finish().map_err(|e| unreadable(&together, e))?;
    input::refuse_foreign(&together, &imported)?;
    findings.extend(reading::findings(&together, &imported));
    coverage.push(reading::coverage(&together, &imported.stats));
    let profile = &imported.profile;
    export::write(profile, &together, format, args.out.as_deref(), output)?;
    let total = profile.grand_total()[0];
    if output.json {
        output.document(&json!({
            "out": args.out, "format": format.word(), "total": total, "hosts": profile.hosts(),
            "stats": imported.stats, "coverage": coverage, "findings": findings,
        }))?;
    } else {
        output.talk_findings(&findings);
    }
    Ok(if total == 0 { NOTHING } else { COMPLETE })
}

fn add(
    one: Input,
    import: &mut Import,
    findings: &mut Vec<Finding>,
    coverage: &mut Vec<String>,
) -> Result<(), ImportError> {
    findings.extend(one.findings.iter().cloned());
    coverage.push(one.coverage.clone());
    import.add(one.wanted())
}
