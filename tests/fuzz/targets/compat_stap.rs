//! The imitation of stackcollapse-stap.pl against a second one that is as simple as the script: the
//! same bytes, as long as no name is a format of printf and no count needs a float.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::format::compat::stap::CompatStap;
use std::collections::BTreeMap;

fn imitate<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut compat = CompatStap::default();
    pieces.for_each(|piece| compat.feed(piece));
    compat.finish().text
}

/// The script, line by line.
fn simple(data: &[u8]) -> Option<Vec<u8>> {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t'..=b'\r');
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut stack: Vec<&[u8]> = Vec::new();
    for line in data.split(|b| *b == b'\n') {
        let Some(start) = line.iter().position(|b| !is_space(b)) else {
            continue;
        };
        let mut frame = &line[start..];
        if frame.iter().all(u8::is_ascii_digit) {
            let count: u64 = std::str::from_utf8(frame).ok()?.parse().ok()?;
            let sum = counts.entry(stack.join(&b';')).or_default();
            *sum = sum.checked_add(count)?;
            stack.clear();
            continue;
        }
        if let Some(plus) = frame.iter().rposition(|b| *b == b'+') {
            frame = &frame[..plus];
        }
        if let Some(at) = frame.windows(3).rposition(|w| w == b" : ") {
            frame = &frame[at + 3..];
        }
        stack.insert(0, if frame.is_empty() { b"-" } else { frame });
    }
    let mut out = Vec::new();
    for (stack, count) in counts {
        out.extend_from_slice(&stack);
        out.extend_from_slice(format!(" {count}\n").as_bytes());
    }
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let whole = imitate(std::iter::once(data));
    let middle = data.len() / 2;
    assert_eq!(
        imitate([&data[..middle], &data[middle..]].into_iter()),
        whole
    );
    if !data.contains(&b'%')
        && let Some(due) = simple(data)
    {
        assert_eq!(whole, due);
    }
});
