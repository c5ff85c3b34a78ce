//! What verbs read: runs, parts of runs, files, stdin. In: a word from the command line. Out: a
//! profile, which part of it is meant, and how far it can be trusted. Never: a format guessed
//! wrong in silence.

use super::output::{Output, usage};
use super::reading::{self, Opened, ReadArgs, unreadable};
use crate::fleet::inventory::{InventoryHost, Selection};
use crate::store::{
    DEFAULT_ROOT, DirStore, PROFILE_FILE, RunDir, RunRecord, RunStore as _, SpoolReader,
    rebuild_from_spool,
};
use anyhow::Context as _;
use clap::Args;
use model::format::ffz::{Limits, Want, decode_profile, decode_segment};
use model::format::import::Imported;
use model::job::{JobHost, Labels};
use model::profile::{Profile, Series};
use model::{Finding, FindingCode};
use std::collections::BTreeSet;
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
    /// The hosts that an expression selects by name and labels.
    Fits {
        /// The expression.
        expression: String,
        /// Those hosts; nobody yet where the run has not been looked at.
        hosts: BTreeSet<String>,
    },
}

impl Part {
    /// Whether a series belongs to it.
    pub fn has(&self, series: &Series) -> bool {
        self.has_host(&series.host)
    }

    /// Whether a host's series belong to it.
    pub fn has_host(&self, name: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Host(host) => name == host,
            Self::RestOf(host) => name != host,
            Self::Fits { hosts, .. } => hosts.contains(name),
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
    /// Its directory.
    pub dir: Option<RunDir>,
}

impl Input {
    /// The part that is meant, as a profile of its own.
    pub fn wanted(self) -> Profile {
        match self.part {
            Part::Whole => self.profile,
            ref part => self.profile.part(|s| part.has(s)),
        }
    }
}

/// Something named on the command line.
pub enum Named {
    /// A file of stacks, or stdin.
    Stacks(Opened),
    /// An ffz file that lies by itself.
    Ffz(PathBuf),
    /// A run or a part of one.
    Run(Box<Input>),
}

/// Finds what `word` names: `-`, a file, a run, `RUN:HOST`, `RUN:rest-of:HOST` or `RUN@SELECTION`.
pub fn find(word: &str, root: &Root, want: Want) -> anyhow::Result<Named> {
    if word == "-" {
        return Ok(Named::Stacks(Opened::open(word)?));
    }
    let path = Path::new(word);
    if path.exists() && !path.is_dir() {
        if is_ffz(path) {
            return Ok(Named::Ffz(path.to_owned()));
        }
        return Ok(Named::Stacks(Opened::open(word)?));
    }
    let (run, part) = if path.is_dir() {
        (word, Part::Whole)
    } else {
        split(word)
    };
    if part == Part::Whole && !Path::new(run).exists() && looks_like_path(run) {
        return Err(usage(format!(
            "{word} is no file and no run; give a file of stacks, a run's directory or id, RUN:HOST, \
             RUN:rest-of:HOST, RUN@SELECTION, or - for stdin"
        )));
    }
    let run = root.store().open(run)?;
    Ok(Named::Run(Box::new(from_run(&run, part, want)?)))
}

/// Reads what `word` names as one profile.
pub fn read(word: &str, root: &Root, how: &ReadArgs, output: &Output) -> anyhow::Result<Input> {
    read_as(word, root, how, output, Want::Totals)
}

/// The same with its seconds, where it has any.
pub fn read_seconds(
    word: &str,
    root: &Root,
    how: &ReadArgs,
    output: &Output,
) -> anyhow::Result<Input> {
    read_as(word, root, how, output, Want::Cells)
}

fn read_as(
    word: &str,
    root: &Root,
    how: &ReadArgs,
    output: &Output,
    want: Want,
) -> anyhow::Result<Input> {
    let opened = match find(word, root, want)? {
        Named::Run(input) => {
            how.refuse_source(word, "a run")?;
            return Ok(*input);
        }
        Named::Ffz(_) => {
            how.refuse_source(word, "an ffz file")?;
            return from_ffz(word, want);
        }
        Named::Stacks(opened) => opened,
    };
    let name = if word == "-" { "stdin" } else { word };
    let short = reading::stem(name);
    let mut import = how.import(&short)?;
    opened.feed(&mut import, output)?;
    let imported = import.finish().map_err(|e| unreadable(name, e))?;
    refuse_foreign(name, &imported)?;
    Ok(Input {
        name: short,
        coverage: reading::coverage(name, &imported.stats),
        findings: reading::findings(name, &imported),
        profile: imported.profile,
        part: Part::Whole,
        record: None,
        dir: None,
    })
}

/// Lines without a single stack are more likely something else than an empty profile.
pub fn refuse_foreign(name: &str, imported: &Imported) -> anyhow::Result<()> {
    let stats = &imported.stats;
    if stats.stacks > 0 || stats.samples > 0 || stats.foreign.lines() == 0 {
        return Ok(());
    }
    let formats: Vec<&str> = imported
        .detections
        .iter()
        .map(|d| d.format.word())
        .collect();
    let examples: Vec<String> = stats
        .foreign
        .kinds()
        .map(|(kind, l)| format!("{} {kind}: {}", l.lines, l.examples.join("; ")))
        .collect();
    Err(usage(format!(
        "{name} has no stacks, read as {}; {}",
        formats.join(", "),
        examples.join(". ")
    )))
}

/// Only of a regular file: what is read of a pipe is gone.
fn is_ffz(path: &Path) -> bool {
    let mut head = [0; 3];
    path.is_file()
        && std::fs::File::open(path)
            .is_ok_and(|mut f| f.read_exact(&mut head).is_ok() && head == *b"ffz")
}

/// The line under a picture of files that lie by themselves.
pub fn without_coverage(hosts: usize, files: &str) -> String {
    let plural = if hosts == 1 { "" } else { "s" };
    format!("{hosts} host{plural}, from {files} without the coverage of a run")
}

/// Reads an ffz file that lies by itself.
pub fn from_ffz(word: &str, want: Want) -> anyhow::Result<Input> {
    let bytes = std::fs::read(word).with_context(|| format!("failed to read {word}"))?;
    let profile = decode_profile(&bytes, Limits::FILE, want)
        .with_context(|| format!("failed to read {word}"))?;
    let hosts = profile.hosts().len();
    Ok(Input {
        name: reading::stem(word),
        profile,
        part: Part::Whole,
        coverage: without_coverage(hosts, word),
        findings: Vec::new(),
        record: None,
        dir: None,
    })
}

/// A run's word and the part of it that is meant.
fn split(word: &str) -> (&str, Part) {
    // A folder's name may have one, too.
    let is_run = |run: &str| !run.contains('/') || Path::new(run).is_dir();
    let mut parts = word
        .match_indices('@')
        .map(|(at, _)| (&word[..at], &word[at + 1..]));
    if let Some((run, expression)) = parts.find(|(run, _)| is_run(run)) {
        let part = Part::Fits {
            expression: expression.to_owned(),
            hosts: BTreeSet::new(),
        };
        return (run, part);
    }
    if let Some((run, host)) = word.rsplit_once(":rest-of:") {
        return (run, Part::RestOf(host.to_owned()));
    }
    word.rsplit_once(':')
        .map_or((word, Part::Whole), |(run, host)| {
            (run, Part::Host(host.to_owned()))
        })
}

fn looks_like_path(word: &str) -> bool {
    word.contains(['/', '.'])
}

fn from_run(run: &RunDir, mut part: Part, want: Want) -> anyhow::Result<Input> {
    let record = run.record()?;
    let (profile, mut findings) = run_profile(run, want)?;
    let hosts = profile.hosts();
    let title = if record.title.is_empty() {
        record.id.to_string()
    } else {
        record.title.clone()
    };
    if let Part::Fits { expression, hosts } = &mut part {
        *hosts = select(expression, &record.job.hosts)?;
    }
    let name = match &part {
        Part::Whole => title,
        Part::Fits { expression, .. } => expression.clone(),
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
        dir: Some(run.clone()),
    })
}

/// The hosts of a run that an expression selects by their names and the labels of their inventory.
fn select(expression: &str, hosts: &[JobHost]) -> anyhow::Result<BTreeSet<String>> {
    let selection: Selection = expression.parse().map_err(|e: String| usage(e))?;
    let known = hosts.iter().cloned().map(InventoryHost::from).collect();
    let chosen = selection.apply(known);
    if chosen.is_empty() {
        let mut labels = Labels::new();
        for (key, values) in hosts.iter().flat_map(|h| &h.labels) {
            labels
                .entry(key.clone())
                .or_default()
                .extend(values.iter().cloned());
        }
        let one = |(key, values): (&String, &BTreeSet<String>)| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            format!("{key} ({})", values.join(", "))
        };
        let labels: Vec<String> = labels.iter().map(one).collect();
        let has = if labels.is_empty() {
            "its hosts have no labels, which come from a fleet file".to_owned()
        } else {
            format!("its labels are {}", labels.join(", "))
        };
        return Err(usage(format!(
            "no host of the run fits {expression}; {has}"
        )));
    }
    let names = chosen.into_iter().map(|h| h.host.name.to_string());
    Ok(names.collect())
}

/// The profile of a run; of one that never ended, from what was spooled.
fn run_profile(run: &RunDir, want: Want) -> anyhow::Result<(Profile, Vec<Finding>)> {
    let hosts = run.spooled_hosts()?;
    if run.path().join(PROFILE_FILE).exists() || hosts.is_empty() {
        return Ok((run.profile(want)?, Vec::new()));
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
