//! Many inputs as one view. In: words from the command line. Out: the sum of what they name, with
//! one line about how far it can be trusted. Never: more than one input's own profile in memory.

use super::input::{self, Input, Named, Root};
use super::output::{Output, usage};
use super::reading::{self, ReadArgs, unreadable};
use crate::render::{Side, View, ViewBuilder};
use model::Finding;
use model::format::import::{Detection, Import, ImportStats};
use serde_json::json;

/// The sum of some inputs.
pub struct Gathered {
    /// Stacks and values.
    pub view: View,
    /// Short names of the inputs.
    pub names: Vec<String>,
    /// How far it can be trusted.
    pub coverage: String,
    /// What weakens it.
    pub findings: Vec<Finding>,
    /// Name of the measure.
    pub unit: String,
    /// What was read of texts.
    pub stats: ImportStats,
    /// Format of each text.
    pub detections: Vec<(String, Detection)>,
}

impl Gathered {
    /// The numbers for machines.
    pub fn document(&self) -> serde_json::Value {
        let inputs: Vec<serde_json::Value> = self
            .detections
            .iter()
            .map(|(name, d)| json!({ "input": name, "format": d.format, "because": d.because }))
            .collect();
        json!({
            "inputs": inputs, "stats": self.stats, "total": self.view.difference.left_total,
            "unit": self.unit, "coverage": self.coverage, "findings": self.findings,
        })
    }
}

/// Adds up what `words` name; nothing named is stdin.
pub fn gather(
    words: &[String],
    reverse: bool,
    root: &Root,
    how: &ReadArgs,
    output: &Output,
) -> anyhow::Result<Gathered> {
    let stdin = ["-".to_owned()];
    let words = if words.is_empty() { &stdin } else { words };
    if words.iter().filter(|w| *w == "-").count() > 1 {
        return Err(usage("stdin can be named once only"));
    }
    let mut builder = ViewBuilder::reversed(reverse);
    let mut import: Option<Import> = None;
    let (mut texts, mut names, mut units) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lines, mut findings) = (Vec::new(), Vec::new());
    for word in words {
        match input::find(word, root)? {
            Named::Profile(one) => {
                let Input {
                    name,
                    profile,
                    part,
                    coverage,
                    findings: more,
                    ..
                } = *one;
                builder.add(&profile, |s| part.has(s), 0, Side::Left);
                units.extend(profile.measures.first().map(|m| m.name.clone()));
                names.push(name);
                lines.push(coverage);
                findings.extend(more);
            }
            Named::Stacks(opened) => {
                let name = if word == "-" { "stdin" } else { word };
                // No host: what is only added up need not be told apart.
                let import = import.get_or_insert_with(|| Import::new(how.options("")));
                import.next_input("").map_err(|e| previous(&texts, e))?;
                opened.feed(import, output)?;
                texts.push(name.to_owned());
                names.push(reading::stem(name));
            }
        }
    }
    let (mut stats, mut detections) = (ImportStats::default(), Vec::new());
    if let Some(import) = import {
        let imported = import.finish().map_err(|e| previous(&texts, e))?;
        let together = in_words(&texts);
        input::refuse_foreign(&together, &imported)?;
        builder.add(&imported.profile, |_| true, 0, Side::Left);
        units.extend(imported.profile.measures.first().map(|m| m.name.clone()));
        findings.extend(reading::findings(&together, &imported));
        lines.push(reading::coverage(&together, &imported.stats));
        stats = imported.stats;
        detections = texts.into_iter().zip(imported.detections).collect();
    }
    units.sort_unstable();
    units.dedup();
    if units.len() > 1 {
        return Err(usage(format!(
            "the inputs measure different things: {}",
            units.join(", ")
        )));
    }
    Ok(Gathered {
        view: builder.build(),
        names,
        coverage: in_words(&lines),
        findings,
        unit: units.pop().unwrap_or_else(|| "samples".to_owned()),
        stats,
        detections,
    })
}

/// An import's error concerns the input that was fed last.
fn previous(texts: &[String], error: model::format::import::ImportError) -> anyhow::Error {
    unreadable(texts.last().map_or("the input", String::as_str), error)
}

/// A few names as they are, many as a number.
pub fn in_words(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        some if some.len() <= 4 => some.join(", "),
        [first, .., last] => format!("{first} … {last} ({} inputs)", names.len()),
        [one] => one.clone(),
    }
}
