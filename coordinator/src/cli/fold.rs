//! `fleetflame fold`: any known input as folded stacks. In: files, stdin, runs. Out: folded text, and
//! numbers about what was read. Never: a line that is no stack made into one.

use super::compat::{PerlOptions, compat};
use super::gather::{Gathered, gather};
use super::input::Root;
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::seconds::SecondArgs;
use super::{COMPLETE, NOTHING, PARTIAL};
use anyhow::Context as _;
use clap::Args;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Arguments of `fold`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame fold sample.bt -o sample.folded
  perf script | fleetflame fold > perf.folded
  fleetflame fold profile.pb.gz --stats json > profile.folded
  fleetflame fold sample.bt --inlines --lines --symfs ./kong-1-root > lines.folded
  fleetflame fold --from stap --compat-flamegraph sample.bt | flamegraph.pl > old-pipeline.svg
  perf script | fleetflame fold --from perf --compat-flamegraph --all > old-pipeline.folded

--compat-flamegraph gives, after sorting, the very bytes of stackcollapse-stap.pl and
stackcollapse-perf.pl, their faults included.")]
pub struct FoldArgs {
    /// Files in any known format, gzip or not; runs; - or nothing for stdin
    #[arg(value_name = "FILE")]
    inputs: Vec<String>,
    /// Where the folded stacks go; without it, to stdout
    #[arg(short, value_name = "OUT")]
    out: Option<PathBuf>,
    /// The same bytes as FlameGraph's Perl scripts, for --from stap and perf
    #[arg(long)]
    compat_flamegraph: bool,
    /// Numbers about what was read, on stderr: json or text
    #[arg(long, value_name = "HOW", value_parser = ["json", "text"])]
    stats: Option<String>,
    #[command(flatten)]
    perl: PerlOptions,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn fold(args: &FoldArgs, output: &Output) -> anyhow::Result<u8> {
    if args.compat_flamegraph {
        if output.json || args.stats.is_some() {
            return Err(usage(
                "--compat-flamegraph has no statistics: it does what the Perl scripts do; leave out --json and --stats",
            ));
        }
        return compat(
            &args.inputs,
            args.out.as_deref(),
            &args.how,
            args.perl,
            output,
        );
    }
    let sources = (args.inputs.as_slice(), &args.how, &args.root);
    folded(sources, args.out.as_deref(), args.stats.as_deref(), output)
}

/// Writes the sum of some inputs as folded stacks, says what was read, and gives the exit code.
pub(super) fn folded(
    (inputs, how, root): (&[String], &ReadArgs, &Root),
    out: Option<&Path>,
    stats: Option<&str>,
    output: &Output,
) -> anyhow::Result<u8> {
    let gathered = gather(inputs, false, root, how, &SecondArgs::default(), output)?;
    write_folded(&gathered, out, output)?;
    tell(&gathered, stats, output)
}

/// Writes the folded stacks of `gathered` to a file or to stdout.
fn write_folded(gathered: &Gathered, out: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    if output.json && out.is_none() {
        return Ok(()); // stdout is for the document
    }
    to(out, |sink| {
        let mut written = Ok(());
        gathered.view.each_folded(|stack, count| {
            if written.is_ok() {
                written = writeln!(sink, "{stack} {count}");
            }
        });
        written
    })
}

/// Opens `out` (stdout for none and `-`), lets `write` write, and flushes.
pub(super) fn to(
    out: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    match out.filter(|o| *o != Path::new("-")) {
        None => {
            let mut sink = BufWriter::new(io::stdout().lock());
            write(&mut sink)
                .and_then(|()| sink.flush())
                .context("failed to write to stdout")
        }
        Some(out) => {
            let name = out.display();
            let file = File::create(out).with_context(|| format!("failed to create {name}"))?;
            let mut sink = BufWriter::new(file);
            let written = write(&mut sink).and_then(|()| sink.flush());
            written.with_context(|| format!("failed to write {name}"))
        }
    }
}

/// Says what was read, and gives the exit code.
fn tell(gathered: &Gathered, stats: Option<&str>, output: &Output) -> anyhow::Result<u8> {
    let document = gathered.document();
    if output.json {
        output.document(&document)?;
    } else {
        match stats {
            Some("json") => {
                let text =
                    serde_json::to_string_pretty(&document).context("failed to write JSON")?;
                let _ = writeln!(io::stderr().lock(), "{text}");
            }
            Some(_) => output.talk(&in_words(gathered)),
            None => {}
        }
        if stats != Some("json") {
            for (name, detection) in gathered.detections.iter().take(4) {
                output.talk(&format!(
                    "{name}: read as {}, because {}\n",
                    detection.format.word(),
                    detection.because
                ));
            }
            output.talk_findings(&gathered.findings);
        }
    }
    let whole = gathered.view.difference.left_total;
    let cut = gathered.stats.pruned + gathered.stats.deeper;
    Ok(match (whole, cut) {
        (0, _) => NOTHING,
        (_, 0) => COMPLETE,
        _ => PARTIAL,
    })
}

fn in_words(gathered: &Gathered) -> String {
    let stats = &gathered.stats;
    format!(
        "{} bytes, {} lines, {} stacks, {} {}, {} frames in {} nodes, {} pruned, {} foreign lines\n",
        stats.unpacked_bytes,
        stats.lines,
        stats.stacks,
        stats.samples,
        gathered.unit,
        stats.frames,
        stats.nodes,
        stats.pruned + stats.deeper,
        stats.foreign.lines(),
    )
}
