//! What a script prints, any bytes, in two pieces: no line is dropped uncounted, pieces do not show,
//! and what is added up is the sum.
#![no_main]

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::format::histogram::{Histogram, HistogramReader};
use model::format::script_output::{OutputReader, Part, ScriptOutput, merge_outputs};
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let cut = usize::from(input.byte()) * 4;
    let text = input.rest();
    let (head, tail) = text.split_at(cut.min(text.len()));
    let whole = read(&[text]);
    assert_eq!(whole, read(&[head, tail]));
    for part in &whole.parts {
        if let Part::Histogram { histogram, .. } = part {
            written_and_read(histogram);
        }
    }
    let outputs: BTreeMap<String, ScriptOutput> = [("a", whole), ("b", read(&[tail]))]
        .map(|(host, output)| (host.to_owned(), output))
        .into();
    for merged in merge_outputs(&outputs).histograms {
        let summed = merged
            .hosts
            .iter()
            .filter(|(host, _)| !merged.unlike.contains(host))
            .fold(0_u64, |sum, (_, h)| sum.saturating_add(h.total()));
        assert_eq!(merged.sum.total(), summed);
    }
});

fn read(pieces: &[&[u8]]) -> ScriptOutput {
    let mut reader = OutputReader::default();
    for piece in pieces {
        reader.feed(piece, 1);
    }
    reader.end(1)
}

/// Its text is read as the same counts, less the empty rows that are left out.
fn written_and_read(histogram: &Histogram) {
    let text = histogram.to_string();
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(HistogramReader::is_head), "{text}");
    let mut reader = HistogramReader::default();
    for line in lines {
        assert_eq!(reader.line(line), model::format::histogram::Taken::Yes, "{line}");
    }
    let full = |h: &Histogram| -> Vec<_> {
        h.counts.iter().filter(|(_, n)| **n > 0).map(|(b, n)| (*b, *n)).collect()
    };
    assert_eq!(reader.end().map_or_else(Vec::new, |h| full(&h)), full(histogram));
}
