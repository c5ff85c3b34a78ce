//! What a script printed that is no stack: histograms, tables, rates, lines of a log.
//!
//! In: text of one host, in pieces. Out: its parts in order; then the parts of many hosts together:
//! histograms added, lines with the host that said them. Never: a line that is dropped without being
//! counted.

use super::histogram::{Histogram, HistogramReader, Taken};
use super::lines::Lines;
use serde::Serialize;
use std::collections::BTreeMap;

/// Most lines kept of one host; a rate a second for a day has 86,400.
const LINES_MAX: usize = 100_000;
/// Longest line kept, in bytes.
const LINE_BYTES_MAX: usize = 4_096;

/// One part of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A line, and when it came.
    Line {
        /// Milliseconds since the common start.
        at_ms: u64,
        /// The line.
        text: String,
    },
    /// A histogram.
    Histogram {
        /// The last line before it that is not empty.
        title: String,
        /// Its counts.
        histogram: Histogram,
    },
}

/// What one host printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScriptOutput {
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// Lines beyond the bound.
    pub dropped: u64,
    /// Histograms whose end is missing: the script was stopped, or something else was printed into it.
    pub cut: u64,
}

/// Reads what one host prints.
#[derive(Debug, Default)]
pub struct OutputReader {
    lines: Lines,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    output: ScriptOutput,
    open: Option<HistogramReader>,
    /// The last line that is not empty.
    title: String,
    kept: usize,
}

impl OutputReader {
    /// Takes the next piece, which came `at_ms` after the start.
    pub fn feed(&mut self, piece: &[u8], at_ms: u64) {
        let state = &mut self.state;
        self.lines.feed(piece, |line| state.line(line.bytes, at_ms));
    }

    /// The output, when nothing more comes.
    #[must_use]
    pub fn end(mut self, at_ms: u64) -> ScriptOutput {
        let state = &mut self.state;
        self.lines.end(|line| state.line(line.bytes, at_ms));
        self.state.close(true);
        self.state.output
    }
}

impl State {
    fn line(&mut self, bytes: &[u8], at_ms: u64) {
        let bytes = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
        let text = String::from_utf8_lossy(bytes);
        if let Some(reader) = &mut self.open {
            match reader.line(&text) {
                Taken::Yes => return,
                Taken::End => return self.close(false),
                Taken::No => self.close(true),
            }
        }
        if HistogramReader::is_head(&text) {
            self.open = Some(HistogramReader::default());
            return;
        }
        if !text.trim().is_empty() {
            text.trim().clone_into(&mut self.title);
        }
        if self.kept == LINES_MAX {
            self.output.dropped += 1;
            return;
        }
        self.kept += 1;
        let text = text.into_owned();
        self.output.parts.push(Part::Line { at_ms, text });
    }

    fn close(&mut self, is_cut: bool) {
        let Some(reader) = self.open.take() else {
            return;
        };
        self.output.cut += u64::from(is_cut);
        if self.kept == LINES_MAX {
            self.output.dropped += 1;
        } else if let Some(histogram) = reader.end() {
            self.kept += 1;
            let title = self.title.clone();
            self.output.parts.push(Part::Histogram { title, histogram });
        }
    }
}

/// A histogram of several hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MergedHistogram {
    /// Its title; numbers, which differ from host to host, are `#` where they differ.
    pub title: String,
    /// The sum.
    pub sum: Histogram,
    /// Each host's own.
    pub hosts: BTreeMap<String, Histogram>,
    /// Hosts whose buckets are others, so that theirs is not in the sum.
    pub unlike: Vec<String>,
}

/// A line and who said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostLine {
    /// Milliseconds since the common start.
    pub at_ms: u64,
    /// The host.
    pub host: String,
    /// What it said.
    pub text: String,
}

/// What all hosts printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergedOutput {
    /// Histograms, in the order in which the first host has them.
    pub histograms: Vec<MergedHistogram>,
    /// Lines in the order of their times; those of one host keep their order.
    pub lines: Vec<HostLine>,
}

/// Puts the outputs of hosts together. The same hosts in another order give the same result.
///
/// Histograms belong together that have the same title but for its numbers, and the same place among
/// those of that title.
#[must_use]
pub fn merge_outputs(outputs: &BTreeMap<String, ScriptOutput>) -> MergedOutput {
    let mut merged = MergedOutput::default();
    let mut places: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for (host, output) in outputs {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for part in &output.parts {
            match part {
                Part::Line { at_ms, text } => merged.lines.push(HostLine {
                    at_ms: *at_ms,
                    host: host.clone(),
                    text: text.clone(),
                }),
                Part::Histogram { title, histogram } => {
                    let general = without_numbers(title);
                    let nth = seen.entry(general.clone()).or_default();
                    let key = (general.clone(), *nth);
                    *nth += 1;
                    let place = *places.entry(key).or_insert_with(|| {
                        merged.histograms.push(MergedHistogram {
                            title: title.clone(),
                            sum: Histogram::default(),
                            hosts: BTreeMap::new(),
                            unlike: Vec::new(),
                        });
                        merged.histograms.len() - 1
                    });
                    merged.histograms[place].add(host, title, &general, histogram);
                }
            }
        }
    }
    merged.lines.sort_by_key(|line| line.at_ms);
    merged
}

impl MergedHistogram {
    fn add(&mut self, host: &str, title: &str, general: &str, histogram: &Histogram) {
        if self.title != title {
            general.clone_into(&mut self.title);
        }
        if self.sum.add(histogram).is_err() {
            self.unlike.push(host.to_owned());
        }
        self.hosts.insert(host.to_owned(), histogram.clone());
    }
}

/// Each number as one `#`.
fn without_numbers(title: &str) -> String {
    let mut out = String::with_capacity(title.len());
    for c in title.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, step: usize) -> ScriptOutput {
        let mut reader = OutputReader::default();
        for piece in text.as_bytes().chunks(step) {
            reader.feed(piece, 7);
        }
        reader.end(9)
    }

    fn text(count: u64) -> String {
        format!(
            "Tracing 12 (nginx)\n\nLatency of {count} requests:\nvalue |------ count\n    1 |@ {count}\n    \
             2 |@@ 2\n\nrate: 5\nvalue |------ count\n    0 |@ 1\n"
        )
    }

    #[test]
    fn parts_are_told_apart_and_pieces_do_not_show() {
        let whole = output(&text(3), usize::MAX);
        for step in 1..40 {
            let mut pieces = output(&text(3), step);
            // The time of a line is that of its last piece.
            for part in &mut pieces.parts {
                if let Part::Line { at_ms, .. } = part {
                    *at_ms = 7;
                }
            }
            assert_eq!(pieces, whole, "{step}");
        }
        let kinds: String = whole
            .parts
            .iter()
            .map(|part| match part {
                Part::Line { .. } => 'l',
                Part::Histogram { .. } => 'h',
            })
            .collect();
        assert_eq!((kinds.as_str(), whole.cut), ("lllhlh", 1));
        assert!(
            matches!(&whole.parts[3], Part::Histogram { title, .. } if title == "Latency of 3 requests:")
        );
    }

    #[test]
    fn the_sum_is_that_of_the_hosts_in_any_order() {
        let outputs: BTreeMap<String, ScriptOutput> = [("b", 4), ("a", 3), ("c", 3)]
            .map(|(host, count)| (host.to_owned(), output(&text(count), 9)))
            .into();
        let merged = merge_outputs(&outputs);
        assert_eq!(merged.histograms.len(), 2);
        assert_eq!(merged.histograms[0].title, "Latency of # requests:");
        for histogram in &merged.histograms {
            let parts: u64 = histogram.hosts.values().map(Histogram::total).sum();
            assert_eq!((histogram.sum.total(), histogram.unlike.len()), (parts, 0));
            assert_eq!(histogram.hosts.len(), 3);
        }
        assert_eq!(merged.lines.len(), 12);
        assert!(
            merged
                .lines
                .iter()
                .any(|l| l.host == "b" && l.text == "rate: 5")
        );
        let json = serde_json::to_string(&merged).unwrap();
        assert!(
            json.contains(r#"{"at_ms":7,"host":"b","text":"rate: 5"}"#),
            "{json}"
        );
    }

    #[test]
    fn other_buckets_stand_beside_the_sum() {
        let other = text(4).replace("    1 |@ 4", "    7 |@ 4");
        let outputs: BTreeMap<String, ScriptOutput> = [("a", text(3)), ("b", other)]
            .map(|(host, text)| (host.to_owned(), output(&text, 100)))
            .into();
        let merged = merge_outputs(&outputs);
        assert_eq!(merged.histograms[0].unlike, ["b"]);
        assert_eq!(merged.histograms[0].sum.total(), 5);
        assert_eq!(merged.histograms[0].hosts["b"].total(), 6);
    }

    #[test]
    fn a_flood_is_counted() {
        let many = "x\n".repeat(LINES_MAX + 5);
        let output = output(&many, 1 << 16);
        assert_eq!((output.parts.len(), output.dropped), (LINES_MAX, 5));
    }
}
