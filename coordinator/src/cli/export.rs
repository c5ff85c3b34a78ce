//! `fleetflame export`: a run or a file in another format. In: one input. Out: folded, pprof,
//! speedscope, ffz or OTLP profiles. Never: a measure or a series left out that the format can hold.

use super::fold::to;
use super::input::{self, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::{COMPLETE, NOTHING};
use crate::otlp;
use crate::render::View;
use crate::store::RunRecord;
use anyhow::Context as _;
use clap::Args;
use model::format::{ffz, pprof, speedscope};
use model::profile::{Measure, Profile};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame export 01JD3K --format pprof -o kong.pb.gz      then: pprof -top kong.pb.gz
  fleetflame export 01JD3K:kong-2 --format speedscope -o kong-2.speedscope.json
  fleetflame export 01JD3K --format otlp -o kong.otlp
  perf script | fleetflame export - --format pprof > perf.pb.gz

otlp is unstable: OpenTelemetry's profiles are still v1development, and what this version writes may
be unreadable to tools that are older or newer than it.")]
pub struct ExportArgs {
    /// A run, RUN:HOST, RUN:rest-of:HOST, RUN@SELECTION, a file in any known format, or - for stdin
    #[arg(value_name = "RUN|FILE")]
    input: String,
    /// folded, pprof, speedscope, ffz or otlp (unstable); without it, by the ending of OUT
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<ExportFormat>,
    /// Where it goes; without it, to stdout
    #[arg(short, value_name = "OUT")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// `frame;frame;frame count`, the measure that is drawn.
    Folded,
    /// Google's profile.proto, gzip.
    Pprof,
    /// speedscope's JSON.
    Speedscope,
    /// fleetflame's own.
    Ffz,
    /// OpenTelemetry's profiles.
    Otlp,
}

impl ExportFormat {
    const ALL: [Self; 5] = [
        Self::Folded,
        Self::Pprof,
        Self::Speedscope,
        Self::Ffz,
        Self::Otlp,
    ];

    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Folded => "folded",
            Self::Pprof => "pprof",
            Self::Speedscope => "speedscope",
            Self::Ffz => "ffz",
            Self::Otlp => "otlp",
        }
    }

    /// The format that a file's name asks for; folded where it asks for none.
    pub fn of(out: &Path) -> Self {
        let name = out.to_string_lossy();
        let ends = |endings: &[&str]| endings.iter().any(|e| name.ends_with(e));
        if ends(&[".ffz"]) {
            Self::Ffz
        } else if ends(&[".otlp", ".otlp.pb"]) {
            Self::Otlp
        } else if ends(&[".pb.gz", ".pprof", ".pb"]) {
            Self::Pprof
        } else if ends(&[".speedscope.json", ".json"]) {
            Self::Speedscope
        } else {
            Self::Folded
        }
    }
}

fn parse_format(word: &str) -> Result<ExportFormat, String> {
    let found = ExportFormat::ALL.into_iter().find(|f| f.word() == word);
    found.ok_or_else(|| "use folded, pprof, speedscope, ffz or otlp".to_owned())
}

pub fn export(args: &ExportArgs, output: &Output) -> anyhow::Result<u8> {
    let by_name = args.out.as_deref().map(ExportFormat::of);
    let Some(format) = args.format.or(by_name) else {
        return Err(usage(
            "say --format folded, pprof, speedscope, ffz or otlp, or -o OUT with an ending that tells it",
        ));
    };
    let binary = matches!(
        format,
        ExportFormat::Pprof | ExportFormat::Ffz | ExportFormat::Otlp
    );
    if binary && args.out.is_none() && output.is_terminal() && !output.json {
        return Err(usage(format!(
            "{} is binary and would go to the terminal; give -o OUT or redirect stdout",
            format.word()
        )));
    }
    let read = match format {
        ExportFormat::Otlp => input::read_seconds,
        _ => input::read,
    };
    let input = read(&args.input, &args.root, &args.how, output)?;
    let second_zero_unix_ms = input
        .record
        .as_ref()
        .and_then(RunRecord::second_zero_unix_ms);
    let (name, coverage, findings) = (
        input.name.clone(),
        input.coverage.clone(),
        input.findings.clone(),
    );
    let profile = input.wanted();
    if format == ExportFormat::Otlp && !(output.json && args.out.is_none()) {
        let second_zero_unix_ns = second_zero_unix_ms.map(|ms| ms.saturating_mul(1_000_000));
        let bytes = otlp::write(&profile, second_zero_unix_ns).context("failed to write OTLP")?;
        to(args.out.as_deref(), |sink| sink.write_all(&bytes))?;
    } else {
        write(&profile, &name, format, args.out.as_deref(), output)?;
    }
    let total = profile.grand_total()[0];
    if output.json {
        output.document(&json!({
            "out": args.out, "format": format.word(), "total": total, "coverage": coverage,
            "findings": findings,
        }))?;
    } else {
        output.talk_findings(&findings);
    }
    Ok(if total == 0 { NOTHING } else { COMPLETE })
}

/// Writes a profile to a file or to stdout. With `--json` and no file only the document is printed.
pub(super) fn write(
    profile: &Profile,
    name: &str,
    format: ExportFormat,
    out: Option<&Path>,
    output: &Output,
) -> anyhow::Result<()> {
    if output.json && out.is_none() {
        return Ok(());
    }
    let bytes = match format {
        ExportFormat::Folded => {
            let view = View::of(profile, |_| true, Measure::shown(&profile.measures).0);
            return to(out, |sink| {
                let mut written = Ok(());
                view.each_folded(|stack, count| {
                    if written.is_ok() {
                        written = writeln!(sink, "{stack} {count}");
                    }
                });
                written
            });
        }
        ExportFormat::Pprof => pprof::write(profile),
        ExportFormat::Speedscope => {
            return to(out, |sink| speedscope::write(profile, name, sink));
        }
        ExportFormat::Otlp => otlp::write(profile, None).context("failed to write OTLP")?,
        ExportFormat::Ffz => ffz::encode_profile(profile).context("failed to write ffz")?,
    };
    to(out, |sink| sink.write_all(&bytes))
}
