//! Texts through an import. In: a format and bytes. Out: nothing, or a panic with what went wrong.

use crate::Guess;
use model::format::folded;
use model::format::import::{BELOW_ZERO, Format, Import, ImportOptions, Imported, NOTHING_LEFT};
use model::profile::Profile;

fn import<'a>(
    format: Format,
    keep_offsets: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Imported {
    let options = ImportOptions {
        format: Some(format),
        keep_offsets,
        ..ImportOptions::new("h")
    };
    let mut import = Import::new(options);
    for piece in pieces {
        import.feed(piece).expect("a text can always be read");
    }
    import.finish().expect("a text can always be read")
}

fn written(profile: &Profile) -> String {
    folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
}

/// Reads `data` and asserts what must hold of any text: its numbers agree, what is counted is
/// written and read back, and how it is cut into pieces does not show.
pub fn read_text(format: Format, data: &[u8]) {
    if data.starts_with(&[0x1f, 0x8b]) {
        return; // gzip
    }
    let whole = import(format, false, std::iter::once(data));
    let stats = &whole.stats;
    let lines = data.split(|b| *b == b'\n').count() as u64;
    assert!(stats.lines <= lines && stats.stacks <= lines && stats.foreign.lines() <= lines);
    assert_eq!(whole.profile.grand_total()[0], stats.samples);
    assert!(stats.pruned.saturating_add(stats.deeper) <= stats.samples);
    let text = written(&whole.profile);
    let (back, read) = folded::parse(text.as_bytes(), "h");
    assert_eq!(
        read.skipped, 0,
        "own output was not read: {:?}",
        read.examples
    );
    assert_eq!(
        back.grand_total()[0],
        stats.samples,
        "counts were lost in {text:?}"
    );
    if format.has_addresses() {
        // What is looked up changes names, and nothing else.
        let options = ImportOptions {
            format: Some(format),
            ..ImportOptions::new("h")
        };
        let mut import = Import::new(options).with_source(Box::new(Guess), Guess::BOTH);
        import.feed(data).expect("a text can always be read");
        let mut named = import.finish().expect("a text can always be read");
        assert!(named.stats.source.take().is_some());
        let numbers = |i: &Imported| (i.stats.stacks, i.stats.lines, i.stats.foreign.clone());
        assert_eq!(numbers(&named), numbers(&whole));
        // Counts below zero take away from stacks of the same names.
        if !data.windows(2).any(|two| two == b"\t-") {
            assert_eq!(named.stats.samples, stats.samples);
        }
    }
    let pieces = import(format, false, data.chunks(data.len() / 3 + 1));
    assert_eq!(written(&pieces.profile), text);
    assert_eq!(
        (&pieces.stats.foreign, &pieces.stats.notes),
        (&stats.foreign, &stats.notes)
    );
    let kept = import(format, true, std::iter::once(data));
    // What a count below zero takes away depends on which stacks are the same, and offsets tell
    // them apart.
    let all_positive = |imported: &Imported| {
        let mut notes = imported.stats.notes.keys();
        !notes.any(|note| *note == NOTHING_LEFT || *note == BELOW_ZERO)
    };
    if all_positive(&whole) && all_positive(&kept) {
        assert_eq!(kept.stats.samples, stats.samples);
    }
}
