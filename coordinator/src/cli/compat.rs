//! `fleetflame fold --compat-flamegraph`: the bytes of FlameGraph's Perl scripts. In: files and
//! stdin, as text. Out: what stackcollapse-stap.pl or stackcollapse-perf.pl writes, its faults
//! included, and one line about what it would warn of. Never: a finding or a total of our own.

use super::fold::to;
use super::output::{Output, usage};
use super::reading::{Opened, ReadArgs, unreadable};
use super::{COMPLETE, NOTHING};
use clap::Args;
use model::format::compat::perf::{CompatPerf, CompatPerfOptions};
use model::format::compat::stap::CompatStap;
use model::format::import::{Format, detect_text};
use std::path::Path;

/// Bytes by which the format is found out.
const HEAD_BYTES: usize = 64 << 10;

/// Options that stackcollapse-perf.pl has and our own reading does not need.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Options of stackcollapse-perf.pl, with --compat-flamegraph")]
pub struct PerlOptions {
    /// The process id behind the comm
    #[arg(long, requires = "compat_flamegraph")]
    pid: bool,
    /// _[k] behind kernel functions
    #[arg(long, requires = "compat_flamegraph")]
    kernel: bool,
    /// _[j] behind functions of a JIT compiler
    #[arg(long, requires = "compat_flamegraph")]
    jit: bool,
    /// --kernel and --jit
    #[arg(long, requires = "compat_flamegraph")]
    all: bool,
    /// The address beside the module of functions without a name
    #[arg(long, requires = "compat_flamegraph")]
    addrs: bool,
}

/// One of the scripts.
enum Script {
    Stap(CompatStap),
    Perf(CompatPerf),
}

impl Script {
    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Stap(script) => script.feed(bytes),
            Self::Perf(script) => script.feed(bytes),
        }
    }

    fn end_file(&mut self) {
        match self {
            Self::Stap(script) => script.end_file(),
            Self::Perf(script) => script.end_file(),
        }
    }
}

/// Folds `words` as the Perl scripts do; nothing named is stdin. Several files are one input, as
/// for Perl.
pub(super) fn compat(
    words: &[String],
    out: Option<&Path>,
    how: &ReadArgs,
    perl: PerlOptions,
    output: &Output,
) -> anyhow::Result<u8> {
    let how = how.compat().map_err(|option| {
        usage(format!(
            "--compat-flamegraph does what the Perl scripts do, which have no {option}; leave one of the two out"
        ))
    })?;
    let begin = |format, name: &str| match format {
        Format::Stap => Ok(Script::Stap(CompatStap::default())),
        Format::Perf => Ok(Script::Perf(CompatPerf::new(CompatPerfOptions {
            kernel: perl.kernel || perl.all,
            jit: perl.jit || perl.all,
            pid: perl.pid,
            tid: how.tid,
            addrs: perl.addrs,
            event_filter: how.event_filter.clone(),
        }))),
        other => Err(usage(format!(
            "{name}: --compat-flamegraph is for stap and perf, and this is {}; leave the option out, or say --from stap",
            other.word()
        ))),
    };
    let mut script = None;
    if let Some(format) = how.format {
        script = Some(begin(format, "--from")?);
    }
    let stdin = ["-".to_owned()];
    let words = if words.is_empty() { &stdin } else { words };
    if words.iter().filter(|w| *w == "-").count() > 1 {
        return Err(usage("stdin (-) can be read once only"));
    }
    for word in words {
        let input = Opened::open(word)?;
        let name = input.name().to_owned();
        let (mut head, mut first) = (Vec::new(), true);
        let decide = |head: &[u8]| -> anyhow::Result<Script> {
            let detection = detect_text(&head[..head.len().min(HEAD_BYTES)]);
            let detection = detection.map_err(|e| unreadable(&name, e))?;
            let mut script = begin(detection.format, &name)?;
            script.feed(head);
            Ok(script)
        };
        input.each_piece(output, |piece| {
            if std::mem::take(&mut first) && piece.starts_with(&[0x1f, 0x8b]) {
                return Err(usage(format!(
                    "{name} is gzip, which the Perl scripts cannot read; give them `gzip -dc {name}`"
                )));
            }
            if let Some(script) = &mut script {
                script.feed(piece);
                return Ok(());
            }
            head.extend_from_slice(piece);
            if head.len() >= HEAD_BYTES {
                script = Some(decide(&head)?);
            }
            Ok(())
        })?;
        if script.is_none() && !head.is_empty() {
            script = Some(decide(&head)?);
        }
        if let Some(script) = &mut script {
            script.end_file();
        }
    }
    let (text, warnings) = match script {
        Some(Script::Stap(script)) => {
            let written = script.finish();
            let warnings = (written.warnings > 0).then(|| {
                format!(
                    "stackcollapse-stap.pl would warn {} times that it takes % in a name for a format\n",
                    written.warnings
                )
            });
            (written.text, warnings)
        }
        Some(Script::Perf(mut script)) => {
            script.end_file();
            let lines = script.unrecognized();
            let warnings = (lines > 0).then(|| {
                format!("stackcollapse-perf.pl would warn of {lines} unrecognized lines\n")
            });
            (script.finish(), warnings)
        }
        None => (Vec::new(), None),
    };
    to(out, |sink| sink.write_all(&text))?;
    if let Some(warnings) = warnings {
        output.talk(&warnings);
    }
    Ok(if text.is_empty() { NOTHING } else { COMPLETE })
}
