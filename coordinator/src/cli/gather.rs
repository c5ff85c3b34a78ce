//! Many inputs as one view. In: words from the command line. Out: the sum of what they name, with
//! one line about how far it can be trusted. Never: more than one input's own profile in memory.

use super::input::{self, Input, Named, Root};
use super::output::{Output, usage};
use super::reading::{self, ReadArgs, unreadable};
use super::seconds::SecondArgs;
use crate::render::{Side, View, ViewBuilder};
use anyhow::Context as _;
use model::Finding;
use model::format::ffz::{AddError, Known, Limits, Want, add_rows, decode_head};
use model::format::import::{Detection, Import, ImportStats};
use model::profile::{Measure, NodeId, Process, Profile, Series, SeriesId, Values, add_values};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

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
    seconds: &SecondArgs,
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
    let mut files = Files::default();
    let want = if seconds.some() {
        Want::Cells
    } else {
        Want::Totals
    };
    for word in words {
        match input::find(word, root, want)? {
            Named::Run(mut one) => {
                how.refuse_source(word, "a run")?;
                seconds.take(&mut one, true)?;
                let Input {
                    name,
                    profile,
                    part,
                    coverage,
                    findings: more,
                    ..
                } = *one;
                let (shown, unit) = Measure::shown(&profile.measures);
                builder.add(&profile, |s| part.has(s), shown, Side::Left);
                units.push(unit);
                names.push(name);
                lines.push(coverage);
                findings.extend(more);
            }
            Named::Ffz(_) | Named::Stacks(_) if seconds.some() => {
                return Err(usage(format!("{word}: seconds can be chosen of runs only")));
            }
            Named::Ffz(path) => {
                how.refuse_source(word, "an ffz file")?;
                files.add(&path)?;
                names.push(reading::stem(word));
            }
            Named::Stacks(opened) => {
                let name = if word == "-" { "stdin" } else { word };
                // No host: what is only added up need not be told apart.
                let import = match &mut import {
                    Some(import) => import,
                    none => none.insert(how.import("")?),
                };
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
        let (shown, unit) = Measure::shown(&imported.profile.measures);
        builder.add(&imported.profile, |_| true, shown, Side::Left);
        units.push(unit);
        findings.extend(reading::findings(&together, &imported));
        lines.push(reading::coverage(&together, &imported.stats));
        stats = imported.stats;
        detections = texts.into_iter().zip(imported.detections).collect();
    }
    for Sum { profile, lists, .. } in files.sums {
        let (shown, unit) = Measure::shown(&profile.measures);
        units.push(unit);
        builder.add_sum(profile, &lists, shown, Side::Left);
    }
    if !files.names.is_empty() {
        lines.push(input::without_coverage(
            files.hosts.len(),
            &in_words(&files.names),
        ));
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

/// ffz files that lie by themselves: their totals go into one sum for each set of measures.
#[derive(Default)]
struct Files {
    sums: Vec<Sum>,
    hosts: BTreeSet<String>,
    names: Vec<String>,
}

/// More process groups than this are kept in tables: a list for each would be as long as the tree.
const LISTS_MAX: usize = 64;

#[derive(Default)]
struct Sum {
    /// The dictionary, and the totals of groups beyond [`LISTS_MAX`].
    profile: Profile,
    /// Texts and frames that it has already.
    known: Known,
    /// For each process group the measure that is drawn, by node number: most nodes of many hosts have a
    /// value in the end, and a list is found faster than an entry.
    lists: Vec<Vec<u64>>,
}

impl Sum {
    fn add(
        &mut self,
        bytes: &[u8],
        shown: usize,
        group: impl FnMut(&Series) -> Series,
    ) -> Result<(), AddError> {
        let Self {
            profile,
            known,
            lists,
        } = self;
        let mut tables = std::mem::take(&mut profile.totals);
        let row = |series: SeriesId, node: NodeId, values: &Values| {
            let (list, at) = (series.0 as usize, node.0 as usize);
            if list >= LISTS_MAX {
                let totals = tables.entry(series).or_default();
                add_values(totals.entry(node).or_default(), values);
                return;
            }
            if lists.len() <= list {
                lists.resize(list + 1, Vec::new());
            }
            let list = &mut lists[list];
            if list.len() <= at {
                list.resize(at + 1, 0);
            }
            list[at] = list[at].saturating_add(values[shown]);
        };
        let added = add_rows(profile, known, bytes, Limits::FILE, shown + 1, group, row);
        profile.totals = tables;
        added
    }
}

impl Files {
    fn add(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display();
        let what = || format!("failed to read {name}");
        let bytes = std::fs::read(path).with_context(what)?;
        let (head, _) = decode_head(&bytes, Limits::FILE).with_context(what)?;
        let (shown, _) = Measure::shown(&head.measures);
        let same = |s: &Sum| s.profile.probe == head.probe && s.profile.measures == head.measures;
        let at = self.sums.iter().position(same);
        let at = at.unwrap_or_else(|| {
            self.sums.push(Sum::default());
            self.sums.len() - 1
        });
        let hosts = &mut self.hosts;
        // Only the process group shows in a picture.
        let group = |series: &Series| {
            if !hosts.contains(&series.host) {
                hosts.insert(series.host.clone());
            }
            let process = Process {
                role: series.process.role.clone(),
                comm: series.process.comm.clone(),
                ..Process::default()
            };
            Series {
                process,
                ..Series::default()
            }
        };
        self.sums[at].add(&bytes, shown, group).with_context(what)?;
        self.names.push(name.to_string());
        Ok(())
    }
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
