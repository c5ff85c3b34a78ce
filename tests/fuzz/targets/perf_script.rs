//! `perf script` text, any bytes, in two pieces: each sample that begins ends, every sample is in
//! the sum or counted by its event, and where the text is cut into pieces does not show.
#![no_main]

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::format::import::{Format, Import, ImportOptions, Imported};
use model::format::lines::{Line, Lines};
use model::format::perf_script::{FrameText, Header, Parser, Samples};

/// Counts what the parser says, and holds it to the order of the calls.
#[derive(Default)]
struct Ear {
    open: bool,
    samples: u64,
    foreign: u64,
    lost: u64,
}

impl Samples for Ear {
    fn begin(&mut self, _: &Header<'_>) {
        assert!(!self.open, "a sample begins in another");
        (self.open, self.samples) = (true, self.samples + 1);
    }

    fn frame(&mut self, _: &FrameText<'_>) {
        assert!(self.open, "a frame outside of a sample");
    }

    fn end(&mut self) {
        assert!(self.open, "an end without a beginning");
        self.open = false;
    }

    fn foreign(&mut self, _: &'static str, _: Line<'_>) {
        self.foreign += 1;
    }

    fn lost(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (choices, cut) = (input.byte(), usize::from(input.word()));
    let text = input.rest();
    let mut options = ImportOptions {
        format: Some(Format::Perf),
        keep_offsets: choices & 1 != 0,
        ..ImportOptions::new("h")
    };
    options.perf.by_tid = choices & 2 != 0;
    if choices & 4 != 0 {
        options.perf.event = Some("cycles".to_owned());
    }
    if choices & 8 != 0 {
        options.perf.skip_after = vec!["main".to_owned()];
        options.limits.depth_max = 8;
        options.limits.nodes_max = 64;
        options.limits.series_max = 3;
        options.limits.text_bytes_max = 4096;
    }
    let read = |pieces: &[&[u8]]| -> Imported {
        let mut import = Import::new(options.clone());
        for piece in pieces {
            import.feed(piece).expect("perf text is never damaged");
        }
        import.finish().expect("perf text is never damaged")
    };
    // A first piece that looks like gzip is unpacked.
    if text.starts_with(&[0x1f, 0x8b]) {
        return;
    }
    let whole = read(&[text]);
    let (mut parser, mut ear, mut lines) = (Parser::default(), Ear::default(), Lines::default());
    lines.feed(text, |line| parser.line(line, &mut ear));
    lines.end(|line| parser.line(line, &mut ear));
    parser.end(&mut ear);
    assert!(!ear.open, "a sample without an end");
    let others: u64 = whole.stats.other_events.values().sum();
    assert_eq!(
        whole.stats.samples + others,
        ear.samples,
        "samples were lost or made up"
    );
    assert_eq!(whole.stats.foreign.lines(), ear.foreign);
    assert_eq!(whole.stats.lost_samples, ear.lost);
    let (first, second) = text.split_at(cut.min(text.len()));
    if first.len() > 1 {
        let pieces = read(&[first, second]);
        assert_eq!(pieces.stats, whole.stats);
        assert_eq!(pieces.profile.canonical(), whole.profile.canonical());
    }
});
