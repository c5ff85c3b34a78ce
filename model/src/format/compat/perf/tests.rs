//! Tests against outputs of the real script (`testdata/perf/README.md`).

use super::*;
use proptest::prelude::*;

macro_rules! golden {
    ($($name:literal),*) => {
        [$((
            $name,
            include_bytes!(concat!("../../../../testdata/perf/", $name, ".txt")).as_slice(),
            include_bytes!(concat!("../../../../testdata/perf/perl/", $name, ".collapsed")).as_slice(),
        )),*]
    };
}

const GOLDEN: [(&str, &[u8], &[u8]); 12] = golden![
    "default",
    "pid-tid-cpu",
    "inlined",
    "two-events",
    "node",
    "lost",
    "no-callchain",
    "no-time",
    "srcline",
    "generated",
    "odd",
    "bytes"
];

fn options(words: &str) -> CompatPerfOptions {
    let mut options = CompatPerfOptions::default();
    for word in words.split_whitespace() {
        match word.strip_prefix("--").unwrap_or_default() {
            "pid" => options.pid = true,
            "tid" => options.tid = true,
            "kernel" => options.kernel = true,
            "jit" => options.jit = true,
            "all" => (options.kernel, options.jit) = (true, true),
            "addrs" => options.addrs = true,
            other => {
                let event = other.strip_prefix("event-filter=");
                options.event_filter = event.expect(words).to_owned();
            }
        }
    }
    options
}

fn collapse(text: &[u8], options: CompatPerfOptions, piece: usize) -> Vec<u8> {
    let mut compat = CompatPerf::new(options);
    text.chunks(piece).for_each(|piece| compat.feed(piece));
    compat.finish()
}

/// The script's outputs by its options.
fn outputs(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut outputs: Vec<(String, Vec<u8>)> = Vec::new();
    for line in file.split_inclusive(|b| *b == b'\n') {
        match (line.strip_prefix(b"== "), outputs.last_mut()) {
            (Some(words), _) => {
                outputs.push((String::from_utf8_lossy(words).trim().to_owned(), Vec::new()))
            }
            (None, Some((_, output))) => output.extend_from_slice(line),
            (None, None) => panic!("no options"),
        }
    }
    outputs
}

#[test]
fn the_bytes_are_those_of_the_script_with_each_set_of_options() {
    for (name, text, expected) in GOLDEN {
        let outputs = outputs(expected);
        assert_eq!(outputs.len(), 9, "{name}");
        for (words, output) in outputs {
            for piece in [usize::MAX, 7] {
                let ours = collapse(text, options(&words), piece);
                assert_eq!(
                    String::from_utf8_lossy(&ours),
                    String::from_utf8_lossy(&output),
                    "{name} {words}"
                );
                assert_eq!(ours, output, "{name} {words}");
            }
        }
    }
}

#[test]
fn lines_that_the_script_warns_of_are_counted() {
    let mut compat = CompatPerf::new(CompatPerfOptions::default());
    compat.feed(include_bytes!("../../../../testdata/perf/odd.txt"));
    // `no frame`: the sample on one line and the LOST record are headers to the script.
    assert_eq!(compat.unrecognized(), 1);
}

#[test]
fn over_the_budget_stacks_are_counted_in_one_line() {
    let mut folding = Folding::new(CompatPerfOptions::default(), 40);
    let mut lines = Lines::default();
    for i in 0..100 {
        let text = format!("app 12 1.5: 3 c: \n  401136 function_{i} (/bin/app)\n\n");
        lines.feed(text.as_bytes(), |line| folding.line(line));
    }
    let counts: Vec<u64> = folding.counts.values().copied().collect();
    assert_eq!(counts.iter().sum::<u64>(), 300);
    assert_eq!(folding.counts[PRUNED], 300 - 3 * (counts.len() as u64 - 1));
    assert!(folding.bytes <= 40 && counts.len() < 5);
    // One stack that is too long.
    let compat = |frames: usize| {
        let frame = format!("  401136 {} (/bin/app)\n", "f".repeat(1 << 19));
        let text = format!("app 12 1.5: 3 c: \n{}\n", frame.repeat(frames));
        String::from_utf8(collapse(
            text.as_bytes(),
            CompatPerfOptions::default(),
            usize::MAX,
        ))
        .unwrap()
    };
    assert!(compat(4).starts_with("app;fff"));
    assert_eq!(compat(40), "[pruned] 3\n");
}

/// The script's patterns with their backtracking, tried from every place, slow and plain.
mod slow {
    fn space(b: u8) -> bool {
        b" \t\n\x0b\x0c\r".contains(&b)
    }

    fn word(b: u8) -> bool {
        b.is_ascii_alphanumeric() || b == b'_'
    }

    /// `^(\S.+?)\s+(\d+)\/*(\d+)*\s+`
    pub fn owner(l: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
        let n = l.len();
        if n == 0 || space(l[0]) {
            return None;
        }
        for comm in 2..n {
            let mut blank = comm;
            while blank < n && space(l[blank]) {
                blank += 1;
                let mut first = blank;
                while first < n && l[first].is_ascii_digit() {
                    first += 1;
                }
                let mut slash = first;
                while slash < n && l[slash] == b'/' {
                    slash += 1;
                }
                let mut second = slash;
                while second < n && l[second].is_ascii_digit() {
                    second += 1;
                }
                if first > blank && second < n && space(l[second]) {
                    return Some((&l[..comm], &l[blank..first], &l[slash..second]));
                }
            }
        }
        None
    }

    /// `^\s*(\w+)\s*(.+) \((.*)\)`, the longest of each first.
    pub fn frame(l: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
        let n = l.len();
        let lead = (0..n).take_while(|i| space(l[*i])).count();
        for start in (0..=lead).rev() {
            let longest = (start..n).take_while(|i| word(l[*i])).count();
            for pc in (1..=longest).rev() {
                let end = start + pc;
                let blanks = (end..n).take_while(|i| space(l[*i])).count();
                for skip in (0..=blanks).rev() {
                    let name = end + skip;
                    for open in (name + 1..n).rev() {
                        if l[open..].starts_with(b" (")
                            && let Some(close) = l[open + 2..].iter().rposition(|b| *b == b')')
                        {
                            return Some((
                                &l[start..end],
                                &l[name..open],
                                &l[open + 2..open + 2 + close],
                            ));
                        }
                    }
                }
            }
        }
        None
    }

    /// `:\s*(\d+)*\s+(\S+):\s*$`
    pub fn event(l: &[u8]) -> Option<(&[u8], &[u8])> {
        let n = l.len();
        let end = n - l.iter().rev().take_while(|b| space(**b)).count();
        for colon in (0..n).filter(|i| l[*i] == b':') {
            let blanks = (colon + 1..n).take_while(|i| space(l[*i])).count();
            for skip in (0..=blanks).rev() {
                let period = colon + 1 + skip;
                let digits = (period..n).take_while(|i| l[*i].is_ascii_digit()).count();
                for len in (0..=digits).rev() {
                    let after = period + len;
                    let gap = (after..n).take_while(|i| space(l[*i])).count();
                    let event = after + gap;
                    let ends = end > event + 1
                        && l[end - 1] == b':'
                        && !l[event..end].iter().any(|b| space(*b));
                    if gap > 0 && ends {
                        return Some((&l[period..after], &l[event..end - 1]));
                    }
                }
            }
        }
        None
    }
}

proptest! {
    #[test]
    fn lines_are_taken_apart_as_the_patterns_do(line in "[ab1/:() \t]{0,14}") {
        let line = line.as_bytes();
        prop_assert_eq!(owner_of(line), slow::owner(line));
        prop_assert_eq!(frame_of(line), slow::frame(line));
        prop_assert_eq!(event_of(line), slow::event(line));
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let options = CompatPerfOptions { kernel: true, jit: true, tid: true, addrs: true, ..CompatPerfOptions::default() };
        prop_assert_eq!(collapse(&bytes, options.clone(), piece), collapse(&bytes, options, usize::MAX));
    }
}
