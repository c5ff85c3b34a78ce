//! What verbs read: runs, parts of runs, files, stdin. In: a word from the command line. Out: a
//! profile, which part of it is meant, and how far it can be trusted. Never: a format guessed
//! wrong in silence.

use super::output::usage;
use crate::store::{
    DEFAULT_ROOT, DirStore, PROFILE_FILE, RunDir, RunRecord, RunStore as _, SpoolReader,
    rebuild_from_spool,
};
use anyhow::Context as _;
use clap::Args;
use model::format::ffz::{Limits, Want, decode_profile, decode_segment};
use model::format::folded;
use model::profile::{Profile, Series};
use model::{Finding, FindingCode};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where runs are looked for.
#[derive(Clone, Debug, Args)]
pub struct Root {
    /// Directory of stored runs, where RUN may be the beginning of an id
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub runs: PathBuf,
}

impl Root {
    /// The store there.
    pub fn store(&self) -> DirStore {
        DirStore::new(&self.runs)
    }
}

/// Which part of a profile is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// One host.
    Host(String),
    /// All hosts but one.
    RestOf(String),
}

impl Part {
    /// Whether a series belongs to it.
    pub fn has(&self, series: &Series) -> bool {
        match self {
            Self::Whole => true,
            Self::Host(host) => series.host == *host,
            Self::RestOf(host) => series.host != *host,
        }
    }
}

/// Something that was read.
#[derive(Debug)]
pub struct Input {
    /// A short name for pictures.
    pub name: String,
    /// The stacks.
    pub profile: Profile,
    /// The part that is meant.
    pub part: Part,
    /// The line that says how far it can be trusted.
    pub coverage: String,
    /// What weakens it.
    pub findings: Vec<Finding>,
    /// The run's record, when it is a run.
    pub record: Option<RunRecord>,
}

/// Reads what `word` names: `-`, a file, a run, `RUN:HOST` or `RUN:rest-of:HOST`.
pub fn read(word: &str, root: &Root) -> anyhow::Result<Input> {
    if word == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("failed to read stdin")?;
        return from_bytes(&bytes, "stdin", "stdin");
    }
    let path = Path::new(word);
    if path.is_file() {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {word}"))?;
        let stem = path
            .file_stem()
            .map_or_else(|| word.into(), |s| s.to_string_lossy());
        return from_bytes(&bytes, word, &stem);
    }
    let (run, part) = if path.is_dir() {
        (word, Part::Whole)
    } else {
        split(word)?
    };
    if part == Part::Whole && !Path::new(run).exists() && looks_like_path(run) {
        return Err(usage(format!(
            "{word} is no file and no run; give a file of folded stacks or ffz, a run's directory or id, \
             RUN:HOST, RUN:rest-of:HOST, or - for stdin"
        )));
    }
    let run = root.store().open(run)?;
    from_run(&run, part)
}

/// A run's word and the part of it that is meant.
fn split(word: &str) -> anyhow::Result<(&str, Part)> {
    if let Some((run, label)) = word.rsplit_once('@')
        && label.contains('=')
    {
        return Err(usage(format!(
            "{word}: parts by label are not there yet; {run}, {run}:HOST and {run}:rest-of:HOST are"
        )));
    }
    if let Some((run, host)) = word.rsplit_once(":rest-of:") {
        return Ok((run, Part::RestOf(host.to_owned())));
    }
    Ok(word
        .rsplit_once(':')
        .map_or((word, Part::Whole), |(run, host)| {
            (run, Part::Host(host.to_owned()))
        }))
}

fn looks_like_path(word: &str) -> bool {
    word.contains(['/', '.'])
}

fn from_run(run: &RunDir, part: Part) -> anyhow::Result<Input> {
    let record = run.record()?;
    let (profile, mut findings) = run_profile(run)?;
    let hosts = profile.hosts();
    let title = if record.title.is_empty() {
        record.id.to_string()
    } else {
        record.title.clone()
    };
    let name = match &part {
        Part::Whole => title,
        Part::Host(host) | Part::RestOf(host) if !hosts.contains(host) => {
            return Err(usage(format!(
                "the run has no host {host}; it has {}",
                hosts.join(", ")
            )));
        }
        Part::Host(host) => host.clone(),
        Part::RestOf(host) => format!("the rest of {host}"),
    };
    findings.extend(record.all_findings());
    Ok(Input {
        name,
        profile,
        part,
        coverage: record.coverage.line(),
        findings,
        record: Some(record),
    })
}

/// The profile of a run; of one that never ended, from what was spooled.
fn run_profile(run: &RunDir) -> anyhow::Result<(Profile, Vec<Finding>)> {
    let hosts = run.spooled_hosts()?;
    if run.path().join(PROFILE_FILE).exists() || hosts.is_empty() {
        return Ok((run.profile(Want::Totals)?, Vec::new()));
    }
    for host in &hosts {
        let Some(first) = SpoolReader::open(&run.spool_path(host))?.next() else {
            continue;
        };
        let (head, _) = decode_segment(&first?.payload, Limits::BATCH)
            .with_context(|| format!("failed to read the spool of {host}"))?;
        let (live, mut findings) = rebuild_from_spool(run, &head.probe, &head.measures, &hosts)?;
        let said = "the run never ended; this is what had arrived";
        findings.push(Finding::new(FindingCode::Interrupted, said));
        return Ok((live.into_profile(), findings));
    }
    Ok((Profile::default(), Vec::new()))
}

/// Reads a file by what it begins with.
fn from_bytes(bytes: &[u8], source: &str, name: &str) -> anyhow::Result<Input> {
    let input = |profile: Profile, coverage, findings| Input {
        name: name.to_owned(),
        profile,
        part: Part::Whole,
        coverage,
        findings,
        record: None,
    };
    if bytes.starts_with(b"ffz") {
        let profile = decode_profile(bytes, Limits::FILE, Want::Totals)
            .with_context(|| format!("failed to read {source}"))?;
        let hosts = profile.hosts().len();
        let plural = if hosts == 1 { "" } else { "s" };
        return Ok(input(
            profile,
            format!("{hosts} host{plural}, from {source} without its run's coverage"),
            Vec::new(),
        ));
    }
    let (profile, stats) = folded::parse(bytes, name);
    if stats.stacks == 0 && (stats.skipped > 0 || bytes.contains(&0)) {
        return Err(usage(format!(
            "{source} is neither folded stacks (frame;frame;frame count) nor ffz, which are what can be read; {}",
            foreign(bytes)
        )));
    }
    let mut findings = Vec::new();
    let mut coverage = format!("from {source}");
    if stats.skipped > 0 {
        coverage.push_str(&format!(", {} lines skipped", stats.skipped));
        let said = format!(
            "{} of {} lines of {source}: {}",
            stats.skipped,
            stats.skipped + stats.stacks,
            stats.examples.join("; ")
        );
        findings.push(Finding::new(FindingCode::InputSkipped, said));
    }
    Ok(input(profile, coverage, findings))
}

/// What a foreign file probably is, and what to do with it.
fn foreign(bytes: &[u8]) -> &'static str {
    let head = &bytes[..bytes.len().min(4_096)];
    let has = |mark: &[u8]| head.windows(mark.len()).any(|w| w == mark);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        "it is gzip: unpack it first (a pprof file cannot be read yet)"
    } else if bytes.starts_with(b"PERFILE2") {
        "it is perf.data: run `perf script | inferno-collapse-perf` (or stackcollapse-perf.pl) first"
    } else if has(b"cpu-clock:") || has(b"cycles:") || has(b"([kernel.kallsyms])") {
        "it looks like `perf script` output: fold it first with inferno-collapse-perf or stackcollapse-perf.pl"
    } else if bytes.starts_with(b"{") || bytes.starts_with(b"[") {
        "it looks like JSON (speedscope cannot be read yet)"
    } else if bytes.contains(&0) {
        "it is binary"
    } else {
        "fold it first"
    }
}
