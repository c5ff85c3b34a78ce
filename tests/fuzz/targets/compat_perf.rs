//! The imitation of stackcollapse-perf.pl, any bytes in pieces: where they are cut does not show,
//! lines are sorted and each stands once, and options that only add marks change no sum.
#![no_main]

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::format::compat::perf::{CompatPerf, CompatPerfOptions};

fn collapse(pieces: &[&[u8]], options: &CompatPerfOptions) -> (Vec<u8>, u64) {
    let mut compat = CompatPerf::new(options.clone());
    pieces.iter().for_each(|piece| compat.feed(piece));
    let unrecognized = compat.unrecognized();
    (compat.finish(), unrecognized)
}

/// The stacks and their sum.
fn rows(out: &[u8]) -> (Vec<&[u8]>, u64) {
    let mut sum = 0_u64;
    let stacks = out.split_inclusive(|b| *b == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").expect("a line without an end");
        let at = line
            .iter()
            .rposition(|b| *b == b' ')
            .expect("a line without a count");
        let count = std::str::from_utf8(&line[at + 1..])
            .ok()
            .and_then(|c| c.parse().ok());
        sum = sum.saturating_add(count.expect("a count that is no number"));
        &line[..at]
    });
    (stacks.collect(), sum)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (choices, cut) = (input.byte(), usize::from(input.word()));
    let text = input.rest();
    let plain = CompatPerfOptions {
        pid: choices & 1 != 0,
        tid: choices & 2 != 0,
        event_filter: if choices & 4 != 0 { "cycles" } else { "" }.to_owned(),
        ..CompatPerfOptions::default()
    };
    let marked = CompatPerfOptions {
        kernel: true,
        jit: true,
        addrs: true,
        ..plain.clone()
    };
    let (first, second) = text.split_at(cut.min(text.len()));
    let (whole, unrecognized) = collapse(&[text], &marked);
    let (pieces, _) = collapse(&[first, second], &marked);
    assert_eq!(pieces, whole);
    let (stacks, sum) = rows(&whole);
    assert!(
        stacks.is_sorted_by(|a, b| a < b),
        "a stack stands twice, or not in order"
    );
    assert!(unrecognized <= text.split(|b| *b == b'\n').count() as u64);
    let (unmarked, _) = collapse(&[text], &plain);
    assert_eq!(rows(&unmarked).1, sum);
});
