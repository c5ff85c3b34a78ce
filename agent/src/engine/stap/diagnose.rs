//! What SystemTap said and how it ended, as findings and a verdict. Pure.
//!
//! In: stderr, the exit code, whether the report's end came, counters. Out: findings with its own words and what to do,
//! facts for the ladder of remedies, a verdict. Never: a complaint that is dropped because nobody foresaw it
//! (`stap-warning`), or rc 0 taken for success: a report may be cut in the middle with it.

use super::messages::{ROWS, Row, USUAL, Weight};
use model::{Finding, FindingCode};
use std::collections::BTreeSet;

/// Lines of one meaning that are shown; the rest is counted.
const LINES_SHOWN_MAX: usize = 4;
/// Bytes of one line that are kept.
const LINE_BYTES_MAX: usize = 400;
/// Modules without unwind data that are remembered by name.
const MODULES_MAX: usize = 512;
/// Lines that nobody foresaw that are kept as evidence.
const UNKNOWN_LINES_MAX: usize = 4;
/// Above this share of skipped samples a profile is marked biased, in parts of a thousand. Skips come in bursts (a lock
/// that is held, a report), so what they leave out is not a fair sample.
pub(super) const SKIPPED_PER_MILLE_MAX: u64 = 20;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    /// What it means, each code once, in the order in which it was said.
    pub findings: Vec<Finding>,
    /// The gravest of it.
    pub worst: Option<Weight>,
    /// What else it tells.
    pub facts: Facts,
}

/// What the words say beside their meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Samples that were skipped, by the runtime's own count.
    pub skipped: u64,
    /// Errors of the script, by the same.
    pub errors: u64,
    /// Times that output found no room.
    pub transport_failures: u64,
    /// What the unwinder wants to be given with -d: paths, `kernel`, kernel modules.
    pub wants_unwind: BTreeSet<String>,
    /// The pass that failed, 1 to 5.
    pub failed_pass: Option<u8>,
    /// How staprun ended, where stap says it.
    pub staprun_status: Option<i32>,
    /// The codes that cut or prevented the run.
    pub causes: BTreeSet<FindingCode>,
}

/// The end of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportEnd {
    /// Nothing was to be printed: a build, a version, an unload.
    NotAsked,
    /// The script has no line that says how much it printed.
    NotKnown,
    /// It has one, and it did not come.
    Missing,
    /// It came.
    Came {
        /// Samples that the script says it printed.
        printed: u64,
        /// Samples that arrived.
        arrived: u64,
    },
}

/// How a run of stap or staprun ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Its exit code; none when it was killed.
    pub code: Option<i32>,
    /// The end of what it printed.
    pub report: ReportEnd,
    /// Samples that arrived, whatever the script says.
    pub samples: u64,
}

/// What a run is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything that was asked for.
    Complete,
    /// All of the time, but so much was skipped that shares may be wrong.
    Biased,
    /// Some of it.
    Partial,
    /// Nothing.
    Failed,
}

/// What the text means.
pub(super) fn diagnose(stderr: &str) -> Diagnosis {
    let mut reading = Reading::default();
    for line in stderr.lines() {
        reading.line(&plain(line));
    }
    reading.end()
}

#[derive(Default)]
struct Reading {
    /// By row: what was said, each line once; how many more there were.
    said: Vec<(usize, Vec<String>, usize)>,
    unknown: Vec<String>,
    last: Option<usize>,
    facts: Facts,
}

impl Reading {
    fn line(&mut self, line: &str) {
        self.facts.read(line);
        let words = line.trim();
        if words.is_empty() || words.chars().all(|c| "^|~ 0123456789".contains(c)) {
            return;
        }
        // gcc shows the code of an error below it, with its line number in front of a bar.
        let is_code = words.split_once('|').is_some_and(|(n, _)| {
            n.trim().is_empty() || n.trim().bytes().all(|b| b.is_ascii_digit())
        });
        if is_code {
            return;
        }
        let last = self.last.and_then(|at| ROWS.get(at));
        if last.is_some_and(|row| row.goes_on.iter().any(|w| line.contains(w))) {
            self.continued(words);
            return;
        }
        if let Some(at) = ROWS
            .iter()
            .position(|r| r.words.iter().all(|w| line.contains(w)))
        {
            self.last = Some(at);
            self.say(at, words);
            return;
        }
        let usual = |w: &str| match w.strip_prefix('^') {
            Some(begin) => words.starts_with(begin),
            None => words.contains(w),
        };
        if USUAL.iter().any(|w| usual(w)) {
            return;
        }
        // A script's own error() is an error as any other.
        if words.starts_with("ERROR: ")
            && let Some(at) = ROWS
                .iter()
                .position(|r| r.code == FindingCode::StapScriptFailed)
        {
            self.last = None;
            self.say(at, words);
            return;
        }
        self.last = None;
        if self.unknown.len() < UNKNOWN_LINES_MAX {
            self.unknown.push(cut(words));
        }
    }

    fn say(&mut self, at: usize, words: &str) {
        let code = ROWS[at].code;
        let words = cut(words);
        let known = self
            .said
            .iter_mut()
            .find(|(row, ..)| ROWS[*row].code == code);
        match known {
            Some((_, lines, _)) if lines.contains(&words) => {}
            Some((row, lines, more)) => {
                if ROWS[at].weight > ROWS[*row].weight {
                    *row = at;
                }
                if lines.len() < LINES_SHOWN_MAX {
                    lines.push(words);
                } else {
                    *more += 1;
                }
            }
            None => self.said.push((at, vec![words], 0)),
        }
    }

    fn continued(&mut self, words: &str) {
        let Some(code) = self.last.map(|at| ROWS[at].code) else {
            return;
        };
        let known = self
            .said
            .iter_mut()
            .find(|(row, ..)| ROWS[*row].code == code);
        if let Some(line) = known.and_then(|(_, lines, _)| lines.last_mut())
            && line.len() + words.len() < LINE_BYTES_MAX
            && !line.contains(words)
        {
            line.push(' ');
            line.push_str(words);
        }
    }

    fn end(mut self) -> Diagnosis {
        // How it ended says nothing where it is known why.
        let explained = self.said.iter().any(|(row, ..)| {
            ROWS[*row].weight >= Weight::Cuts && ROWS[*row].code != FindingCode::StapRunFailed
        });
        if explained {
            self.said
                .retain(|(row, ..)| ROWS[*row].code != FindingCode::StapRunFailed);
        }
        let mut diagnosis = Diagnosis {
            worst: self.said.iter().map(|(row, ..)| ROWS[*row].weight).max(),
            ..Diagnosis::default()
        };
        for (at, lines, more) in self.said {
            let row = &ROWS[at];
            if row.weight >= Weight::Cuts {
                self.facts.causes.insert(row.code);
            }
            diagnosis.findings.push(finding(row, &lines, more));
        }
        if !self.unknown.is_empty() {
            let said = format!("stap: {}", self.unknown.join(" · "));
            diagnosis
                .findings
                .push(Finding::new(FindingCode::StapWarning, said));
        }
        diagnosis.facts = self.facts;
        diagnosis
    }
}

fn finding(row: &Row, lines: &[String], more: usize) -> Finding {
    let mut said = format!("stap: {}", lines.join(" · "));
    if more > 0 {
        said.push_str(&format!(" · and {more} more"));
    }
    let finding = Finding::new(row.code, said);
    if row.remedy.is_empty() {
        finding
    } else {
        finding.with_remedy(row.remedy)
    }
}

impl Facts {
    fn read(&mut self, line: &str) {
        let after = |words: &str| line.split_once(words).map(|(_, rest)| rest);
        if let Some(rest) = after("Number of errors: ") {
            self.errors = self.errors.max(number(rest));
            if let Some((_, rest)) = rest.split_once("skipped probes: ") {
                self.skipped = self.skipped.max(number(rest));
            }
        } else if let Some(rest) = after("There were ")
            && rest.contains(" transport failures")
        {
            self.transport_failures = self.transport_failures.saturating_add(number(rest));
        } else if let Some(rest) = after("Missing unwind data for")
            && let Some((_, name)) = rest.split_once("'stap -d ")
            && let Some((name, _)) = name.rsplit_once('\'')
            && !name.starts_with("(unknown")
            && self.wants_unwind.len() < MODULES_MAX
        {
            self.wants_unwind.insert(name.to_owned());
        } else if let Some(rest) = after("staprun exited with status: ") {
            self.staprun_status = i32::try_from(number(rest)).ok();
        } else if let Some(rest) = line.strip_prefix("Pass ")
            && line.contains(" failed.")
        {
            self.failed_pass = u8::try_from(number(rest)).ok();
        }
    }
}

/// The number that a text begins with; 0 without one.
fn number(text: &str) -> u64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().unwrap_or(0)
}

fn cut(words: &str) -> String {
    let mut end = words.len().min(LINE_BYTES_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words[..end].to_owned()
}

/// A line without colours: on a terminal staprun writes `ESC[01;31m ESC[K ERROR: ESC[m ESC[K`.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len().min(LINE_BYTES_MAX));
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            for c in chars.by_ref() {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        } else if !c.is_control() {
            out.push(c);
        } else if c == '\t' {
            out.push(' ');
        }
    }
    out
}

/// What a run is worth, from everything that is known of it, with the findings that say so; each code once.
pub(super) fn conclude(ending: &Ending, diagnosis: Diagnosis) -> (Verdict, Vec<Finding>) {
    let (verdict, more) = judge(ending, &diagnosis);
    let mut findings = diagnosis.findings;
    for finding in more {
        match findings.iter_mut().find(|f| f.code == finding.code) {
            Some(known) => {
                let said = format!("{}; {}", finding.evidence, known.evidence);
                *known = Finding::new(finding.code, said).with_remedy(known.remedy.clone());
            }
            None => findings.push(finding),
        }
    }
    (verdict, findings)
}

fn judge(ending: &Ending, diagnosis: &Diagnosis) -> (Verdict, Vec<Finding>) {
    let mut findings = Vec::new();
    let facts = &diagnosis.facts;
    let mut verdict = match diagnosis.worst {
        Some(Weight::Prevents) => Verdict::Failed,
        Some(Weight::Cuts) => Verdict::Partial,
        _ => Verdict::Complete,
    };
    let cut = |said: String| Finding::new(FindingCode::StapOutputCut, said);
    match ending.report {
        ReportEnd::Missing if verdict != Verdict::Failed => {
            let said = format!(
                "the final count is missing after {} samples",
                ending.samples
            );
            findings.push(cut(said));
            verdict = verdict.at_best(Verdict::Partial);
        }
        ReportEnd::Came { printed, arrived } if printed != arrived => {
            let said = format!("{printed} samples were printed, {arrived} arrived");
            findings.push(cut(said));
            verdict = verdict.at_best(Verdict::Partial);
        }
        // Nothing came, and nothing says that this is all: rc 0 is no proof.
        ReportEnd::NotKnown if ending.samples == 0 => verdict = verdict.at_best(Verdict::Partial),
        _ => {}
    }
    if facts.errors > 0 {
        if diagnosis.worst < Some(Weight::Cuts) {
            let said = format!("{} errors of the script, without their words", facts.errors);
            findings.push(Finding::new(FindingCode::StapScriptFailed, said));
        }
        verdict = verdict.at_best(Verdict::Partial);
    }
    if ending.code != Some(0) {
        // Killed while it loads a module it may have said that the kernel does not fit: its own part of the loading is missing.
        if diagnosis.worst < Some(Weight::Cuts) || ending.code.is_none() {
            let how = match ending.code {
                Some(code) => format!("exit code {code}"),
                None => "SystemTap's program was killed".to_owned(),
            };
            let said = match facts.failed_pass {
                Some(pass) => format!("{how}, pass {pass} failed"),
                None => how,
            };
            findings.push(Finding::new(FindingCode::StapRunFailed, said));
        }
        verdict = verdict.at_best(Verdict::Partial);
    }
    let stacks_expected = matches!(ending.report, ReportEnd::Missing | ReportEnd::Came { .. });
    if verdict == Verdict::Partial && ending.samples == 0 && stacks_expected {
        verdict = Verdict::Failed;
    }
    if facts.skipped > 0 {
        let all = facts.skipped.saturating_add(ending.samples);
        let per_mille = u128::from(facts.skipped) * 1_000 / u128::from(all);
        let (whole, tenth) = (per_mille / 10, per_mille % 10);
        if ending.samples == 0 {
            // Without samples there is no ratio to judge by.
            let said = format!("{} probes were skipped", facts.skipped);
            findings.push(Finding::new(FindingCode::StapSkipped, said));
        } else {
            let said = format!(
                "{} of {all} samples were skipped ({whole}.{tenth} %)",
                facts.skipped
            );
            let is_biased = u128::from(facts.skipped) * 1_000
                > u128::from(all) * u128::from(SKIPPED_PER_MILLE_MAX);
            if is_biased {
                verdict = verdict.at_best(Verdict::Biased);
                findings.push(Finding::new(FindingCode::StapBiased, said.clone()));
            }
            findings.push(Finding::new(FindingCode::StapSkipped, said));
        }
    }
    (verdict, findings)
}

impl Verdict {
    /// The worse of two.
    fn at_best(self, other: Self) -> Self {
        let rank = |v: Self| match v {
            Verdict::Complete => 0,
            Verdict::Biased => 1,
            Verdict::Partial => 2,
            Verdict::Failed => 3,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
