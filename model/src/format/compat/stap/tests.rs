//! Tests against outputs of the real script, in `testdata/compat`.

use super::{CompatStap, Folding, Number, PRUNED, STACK_BYTES_MAX};
use crate::format::lines::Lines;
use proptest::prelude::*;

fn folder() -> String {
    format!("{}/testdata", env!("CARGO_MANIFEST_DIR"))
}

fn imitate(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut compat = CompatStap::default();
    for piece in pieces {
        compat.feed(piece);
    }
    let written = compat.finish();
    (written.text, written.warnings)
}

fn sorted(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// Every `compat/stap/NAME.folded` is what the script wrote for `compat/stap/NAME.txt`, or for the
/// recording `stap/NAME.txt` where there is no such file.
#[test]
fn the_scripts_bytes_come_out() {
    let folder = folder();
    let mut seen = 0;
    for entry in std::fs::read_dir(format!("{folder}/compat/stap")).unwrap() {
        let golden = entry.unwrap().path();
        if golden.extension().is_none_or(|e| e != "folded") {
            continue;
        }
        let name = golden.file_stem().unwrap().to_str().unwrap();
        let input = std::fs::read(golden.with_extension("txt"))
            .or_else(|_| std::fs::read(format!("{folder}/stap/{name}.txt")))
            .unwrap();
        let due = std::fs::read(&golden).unwrap();
        let (out, _) = imitate(&[&input]);
        assert_eq!(sorted(&out), sorted(&due), "{name}");
        assert_eq!(out, due, "{name}: the order is the script's too");
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn warnings_are_counted() {
    assert_eq!(imitate(&[b"a%db%;c\n1\n"]), (b"a0b%;c 1\n".to_vec(), 2));
    assert_eq!(imitate(&[b"a%%b\n1\n"]), (b"a%b 1\n".to_vec(), 0));
}

#[test]
fn a_stack_goes_on_in_the_next_file_and_a_line_does_not() {
    let mut compat = CompatStap::default();
    compat.feed(b"a\nb");
    compat.end_file();
    compat.feed(b"c\n 3\n");
    assert_eq!(compat.finish().text, b"c;b;a 3\n");
}

#[test]
fn memory_is_bounded_and_counts_are_kept() {
    let mut compat = CompatStap::default();
    let line = [&[b'a'; 1 << 16][..], b"\n"].concat();
    for _ in 0..STACK_BYTES_MAX / (1 << 16) + 2 {
        compat.feed(&line);
    }
    assert!(compat.folding.frames.len() <= STACK_BYTES_MAX);
    compat.feed(b"7\nb\n2\n");
    assert_eq!(compat.finish().text, b"[pruned] 7\nb 2\n");
    let (mut folding, mut lines) = (Folding::new(10), Lines::default());
    for i in 0..100 {
        lines.feed(format!("f{i}\n2\n").as_bytes(), |line| folding.line(line));
    }
    assert!(folding.counts.len() <= 6);
    assert!(matches!(folding.counts[PRUNED], Number::Whole(190..200)));
}

proptest! {
    #[test]
    fn any_bytes_end_and_pieces_do_not_show(text in "[a%0-9+ :\\-\\.#*$vdscx\t\r\n]{0,80}", cut in 0_usize..80) {
        let bytes = text.as_bytes();
        let (a, b) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(imitate(&[a, b]), imitate(&[bytes]));
    }
}
