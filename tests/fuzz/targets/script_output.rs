//! What a script prints, any bytes, in two pieces: no line is dropped uncounted, pieces do not show,
//! what is added up is the sum, and a byte that is in no stack is in the text.
#![no_main]

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::format::histogram::{Histogram, HistogramReader};
use model::format::script_output::{OutputReader, Part, ScriptOutput, merge_outputs};
use model::format::script_stacks::{Hears, StackSplitter, frame_of};
use std::collections::BTreeMap;

/// What the splitter gives: bytes of text, stacks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    text: Vec<u8>,
    stacks: Vec<(Vec<Vec<u8>>, u64)>,
}

impl Hears for Heard {
    fn text(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    fn stack(&mut self, leaf_first: &[&[u8]], count: u64) {
        assert!(count > 0);
        for line in leaf_first {
            let known = frame_of(line);
            assert!(!known.frame.name.contains(char::is_control));
            assert!(known.address.is_none() || known.frame.name.is_empty());
        }
        self.stacks.push((leaf_first.iter().map(|l| l.to_vec()).collect(), count));
    }
}

fn split(pieces: &[&[u8]]) -> Heard {
    let (mut heard, mut splitter) = (Heard::default(), StackSplitter::default());
    pieces.iter().for_each(|piece| splitter.feed(piece, &mut heard));
    splitter.end(&mut heard);
    heard
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let cut = usize::from(input.byte()) * 4;
    let text = input.rest();
    let (head, tail) = text.split_at(cut.min(text.len()));
    let whole = read(&[text]);
    assert_eq!(whole, read(&[head, tail]));
    let heard = split(&[text]);
    assert_eq!(heard, split(&[head, tail]));
    let of_stacks: usize = heard.stacks.iter().flat_map(|(lines, _)| lines).map(Vec::len).sum();
    assert!(heard.text.len() + of_stacks + 2 * heard.stacks.len() <= text.len());
    if heard.stacks.is_empty() {
        assert_eq!(heard.text, text);
    }
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
