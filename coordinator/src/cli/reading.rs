//! Files and pipes, read piece by piece. In: a path or `-`, and how it is to be read. Out: bytes
//! for an import, a bar for people who wait, and what weakens the result as findings. Never: a
//! whole text in memory.

use super::output::{Output, usage};
use super::source_args::{self, SourceArgs};
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::format::fold::FoldLimits;
use model::format::import::{Format, Import, ImportError, ImportOptions, ImportStats, Imported};
use model::format::perf_script::PerfOptions;
use model::{Finding, FindingCode};
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::Path;

/// Bytes that are taken apart at once: what fits into a core's own cache. A pipe gives less; readers
/// are told more than a stack at a time, so that they know one that comes again.
const PIECE_BYTES: usize = 256 << 10;
/// A bar for less than this would only flicker.
const BAR_AFTER_BYTES: u64 = 16 << 20;

/// How inputs are read.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How inputs are read")]
pub struct ReadArgs {
    /// auto, stap, perf, folded, pprof, bpftrace, dtrace or ffz
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = parse_from)]
    from: From,
    /// Keep the offset of frames without a name, where the input has one
    #[arg(long)]
    keep_offsets: bool,
    /// Of `perf script` text: only samples of this event (default: of the first that is met)
    #[arg(long, value_name = "EVENT")]
    event_filter: Option<String>,
    /// Of `perf script` text: tell threads apart, not processes only
    #[arg(long)]
    tid: bool,
    /// Of `perf script` text: leave out the callers of this function; repeatable
    #[arg(long, value_name = "FUNCTION")]
    skip_after: Vec<String>,
    /// Most nodes of the call tree; stacks beyond it are counted under [pruned]
    #[arg(long, value_name = "NODES", default_value_t = FoldLimits::default().nodes_max)]
    nodes_max: usize,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Clone, Copy, Debug, Default)]
struct From(Option<Format>);

fn parse_from(word: &str) -> Result<From, String> {
    if word == "auto" {
        return Ok(From(None));
    }
    Format::by_word(word).map(|f| From(Some(f))).ok_or_else(|| {
        let words: Vec<&str> = Format::ALL.iter().map(|f| f.word()).collect();
        format!("use auto, {}", words.join(", "))
    })
}

impl Default for ReadArgs {
    fn default() -> Self {
        Self {
            from: From(None),
            keep_offsets: false,
            event_filter: None,
            tid: false,
            skip_after: Vec::new(),
            nodes_max: FoldLimits::default().nodes_max,
            source: SourceArgs::default(),
        }
    }
}

impl ReadArgs {
    /// An import of what they say; `host` is the one that stacks without a host belong to.
    pub fn import(&self, host: &str) -> anyhow::Result<Import> {
        self.source.import(self.options(host))
    }

    fn options(&self, host: &str) -> ImportOptions {
        ImportOptions {
            format: self.from.0,
            keep_offsets: self.keep_offsets,
            limits: FoldLimits {
                nodes_max: self.nodes_max.min(u32::MAX as usize / 4),
                ..FoldLimits::default()
            },
            perf: PerfOptions {
                event: self.event_filter.clone(),
                by_tid: self.tid,
                skip_after: self.skip_after.clone(),
            },
            ..ImportOptions::new(host)
        }
    }
}

impl ReadArgs {
    /// The same, with functions and lines looked up.
    pub fn with_lines(&self) -> Self {
        Self {
            source: self.source.whole(),
            ..self.clone()
        }
    }

    /// Refuses an input without addresses where something is to be looked up by them.
    pub fn refuse_source(&self, name: &str, is: &str) -> anyhow::Result<()> {
        self.source.refuse(name, is)
    }
}

/// What the imitations of FlameGraph's scripts take of it.
pub struct CompatArgs {
    /// The format; none to find it out.
    pub format: Option<Format>,
    /// The event whose samples are taken; empty for the first that is met.
    pub event_filter: String,
    /// Threads are told apart.
    pub tid: bool,
}

impl ReadArgs {
    /// The same for an imitation, or the name of an option that the scripts do not have.
    pub fn compat(&self) -> Result<CompatArgs, &'static str> {
        if self.keep_offsets {
            return Err("--keep-offsets");
        }
        if self.nodes_max != FoldLimits::default().nodes_max {
            return Err("--nodes-max");
        }
        if !self.skip_after.is_empty() {
            return Err("--skip-after");
        }
        if let Some(option) = self.source.given() {
            return Err(option);
        }
        Ok(CompatArgs {
            format: self.from.0,
            event_filter: self.event_filter.clone().unwrap_or_default(),
            tid: self.tid,
        })
    }
}

/// An input that is open.
pub struct Opened {
    name: String,
    len: Option<u64>,
    from: Box<dyn Read>,
}

impl Opened {
    /// Opens a file, or stdin for `-`.
    pub fn open(word: &str) -> anyhow::Result<Self> {
        if word == "-" {
            if std::io::stdin().is_terminal() {
                return Err(usage(
                    "stdin is a terminal; name a file or pipe stacks in (such as `perf script | fleetflame …`)",
                ));
            }
            return Ok(Self {
                name: "stdin".to_owned(),
                len: None,
                from: Box::new(std::io::stdin().lock()),
            });
        }
        let file = File::open(word).with_context(|| format!("failed to open {word}"))?;
        let about = file.metadata().ok().filter(std::fs::Metadata::is_file);
        Ok(Self {
            name: word.to_owned(),
            len: about.map(|m| m.len()),
            from: Box::new(file),
        })
    }

    /// Reads all of it into `import`.
    pub fn feed(self, import: &mut Import, output: &Output) -> anyhow::Result<()> {
        let name = self.name.clone();
        self.each_piece(output, |piece| {
            import.feed(piece).map_err(|e| unreadable(&name, e))
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads all of it, piece by piece.
    pub fn each_piece(
        mut self,
        output: &Output,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let shown = std::io::stderr().is_terminal() && !output.is_quiet();
        let bar = self.bar();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let got = fill(&mut self.from, &mut piece);
            let got = got.with_context(|| format!("failed to read {}", self.name))?;
            if got == 0 {
                break;
            }
            take(&piece[..got])?;
            let before = bar.position();
            bar.inc(got as u64);
            if before < BAR_AFTER_BYTES && bar.position() >= BAR_AFTER_BYTES && shown {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A bar that is not shown yet.
    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.len {
            Some(len) => (
                ProgressBar::new(len),
                "{prefix} [{bar:32}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
            ),
            None => (
                ProgressBar::no_length(),
                "{prefix} {spinner} {bytes}, {bytes_per_sec}",
            ),
        };
        bar.set_draw_target(ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(self.name.clone());
        bar
    }
}

/// Reads until the piece is full or the input ends.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// An input that cannot be read, with its name. A format that is none is the user's to know.
pub fn unreadable(name: &str, error: ImportError) -> anyhow::Error {
    match error {
        ImportError::Unknown(what) => usage(format!("{name}: {what}")),
        error @ ImportError::NoAddresses(_) => usage(format!(
            "{name}: {error}, so that nothing can be looked up in debug info; give the text that stap or `perf script` \
             printed, or leave out --inlines and --lines"
        )),
        error => anyhow::Error::new(error).context(format!("failed to read {name}")),
    }
}

/// What an input is called without its folders and its endings, such as `.folded`, `.pb.gz`.
pub fn stem(word: &str) -> String {
    let name = Path::new(word).file_name();
    let name = name.map_or_else(|| word.to_owned(), |n| n.to_string_lossy().into_owned());
    let mut stem = name.as_str();
    for ending in [
        ".gz", ".txt", ".folded", ".ffz", ".pb", ".pprof", ".perf", ".bt", ".stap", ".out",
    ] {
        stem = stem
            .strip_suffix(ending)
            .filter(|s| !s.is_empty())
            .unwrap_or(stem);
    }
    stem.to_owned()
}

/// What weakens what was read, for people and machines.
pub fn findings(name: &str, imported: &Imported) -> Vec<Finding> {
    let stats = &imported.stats;
    let mut findings = Vec::new();
    for (kind, lines) in stats.foreign.kinds() {
        let said = format!(
            "{} lines ({}) of {name} are {kind}; {}",
            lines.lines,
            bytes_in_words(lines.bytes),
            lines.examples.join("; ")
        );
        findings.push(Finding::new(FindingCode::InputSkipped, said));
    }
    for (note, times) in &stats.notes {
        let said = format!("{name}: {note} ({times} times)");
        findings.push(Finding::new(FindingCode::InputWeak, said));
    }
    if let Some(source) = &stats.source {
        findings.extend(source_args::findings(name, source));
    }
    if stats.pruned > 0 || stats.deeper > 0 {
        let said = format!(
            "{} of {} samples of {name} stand under [pruned] and {} under [deeper]",
            stats.pruned, stats.samples, stats.deeper
        );
        findings.push(Finding::new(FindingCode::InputPruned, said));
    }
    findings
}

/// The line under a picture about what was read.
pub fn coverage(name: &str, stats: &ImportStats) -> String {
    let mut line = format!("from {name}");
    if stats.foreign.lines() > 0 {
        let (lines, bytes) = (stats.foreign.lines(), stats.foreign.bytes());
        line.push_str(&format!(
            ", {lines} lines ({}) were no stacks",
            bytes_in_words(bytes)
        ));
    }
    if stats.pruned + stats.deeper > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let share = (stats.pruned + stats.deeper) as f64 * 100.0 / stats.samples.max(1) as f64;
        line.push_str(&format!(", {share:.2} % of samples pruned"));
    }
    line
}

/// Bytes as people say them: 999 B, 1.2 kB, 399 MB.
fn bytes_in_words(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_endings() {
        for (word, name) in [
            ("/tmp/kong-1.folded", "kong-1"),
            ("kong-1.pb.gz", "kong-1"),
            ("a.b.out", "a.b"),
            (".folded", ".folded"),
        ] {
            assert_eq!(stem(word), name);
        }
    }
}
