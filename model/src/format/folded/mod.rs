//! Folded stacks: `frame;frame;frame count` a line, root first. The field's exchange format.
//!
//! In: text in any encoding, CRLF or not. Out: a profile without time, and how many lines were
//! none; and back. Never: a line that is no stack made into a frame, or the difference of two
//! profiles taken for one.

mod write;

pub use write::{each_stack, write};

use super::fold::{Fold, FoldLimits};
use super::import::{ByLine, ImportStats, Intake, LineReader, Reader as _};
use super::lines::Line;
use crate::profile::{Frame, FrameId, FrameKind, Profile, SeriesId};

/// Deepest stack that is taken.
pub const DEPTH_MAX: usize = 4_096;

/// The part of a count behind the point, in billionths.
const ONE: u32 = 1_000_000_000;

/// What was read beside the stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoldedStats {
    /// Lines with a stack.
    pub stacks: u64,
    /// Lines that are none.
    pub skipped: u64,
    /// The first few of them, with line numbers, cut short.
    pub examples: Vec<String>,
}

/// Reads folded text that is in memory. `host` names the series that the stacks are put in.
#[must_use]
pub fn parse(bytes: &[u8], host: &str) -> (Profile, FoldedStats) {
    let mut into = Intake {
        source: None,
        fold: Fold::new(host, "folded", FoldLimits::default()),
        stats: ImportStats::default(),
    };
    let mut reader = ByLine::new(FoldedReader::default());
    // A line that is no stack is no error, and there are no others.
    let _ = reader.feed(bytes, &mut into);
    let _ = reader.end(&mut into);
    let foreign = &into.stats.foreign;
    let stats = FoldedStats {
        stacks: into.stats.stacks,
        skipped: foreign.lines(),
        examples: foreign
            .kinds()
            .flat_map(|(_, l)| l.examples.clone())
            .collect(),
    };
    (into.fold.into_profile(), stats)
}

/// Reads folded text line by line.
#[derive(Debug)]
pub struct FoldedReader {
    /// Whether the first line with a count has two of them; none before it.
    difference: Option<bool>,
    /// What is left over of fractions, in billionths, and a half for rounding.
    left_over: u32,
    series: Option<SeriesId>,
    /// The frames of the last line, and where each ends in it.
    stack: Vec<(FrameId, usize)>,
    last: Vec<u8>,
    ids: Vec<FrameId>,
}

impl Default for FoldedReader {
    fn default() -> Self {
        Self {
            difference: None,
            left_over: ONE / 2,
            series: None,
            stack: Vec::new(),
            last: Vec::new(),
            ids: Vec::new(),
        }
    }
}

impl LineReader for FoldedReader {
    fn line(&mut self, line: Line<'_>, into: &mut Intake) {
        if line.bytes.trim_ascii().is_empty() || line.bytes.starts_with(b"#") {
            return;
        }
        let split = if line.is_cut() {
            None
        } else {
            split_count(line.bytes)
        };
        let Some((frames, (whole, fraction))) = split else {
            into.stats
                .foreign
                .add("lines without a stack and a count", line);
            return;
        };
        if self.difference != Some(false) {
            let two = ends_in_number(frames);
            if *self.difference.get_or_insert(two) && two {
                into.stats.foreign.add(
                    "lines with two counts, the difference of two profiles",
                    line,
                );
                return;
            }
        }
        let count = self.count(whole, fraction, into);
        let fold = &mut into.fold;
        let series = *self.series.get_or_insert_with(|| fold.whole());
        // Neighbours share most of their way from the root: those labels are not looked up again.
        let same = same_bytes(&self.last, frames);
        let whole = self.stack.partition_point(|(_, end)| *end < same);
        self.stack.truncate(whole);
        self.ids.truncate(whole);
        let mut from = self.stack.last().map_or(0, |(_, end)| end + 1);
        let rest = &frames[from..];
        let first = from;
        for end in memchr::memchr_iter(b';', rest).chain([rest.len()]) {
            let end = first + end;
            let frame = fold.label(&frames[from..end]);
            self.stack.push((frame, end));
            self.ids.push(frame);
            from = end + 1;
        }
        self.last.clear();
        self.last.extend_from_slice(frames);
        fold.add_root_first(series, &self.ids, &[count, 0, 0]);
        into.stats.stacks += 1;
    }

    fn end(&mut self, _: &mut Intake) {}
}

impl FoldedReader {
    /// A whole count. What is left over of a fraction goes to the next one.
    fn count(&mut self, whole: u64, fraction: u32, into: &mut Intake) -> u64 {
        if fraction == 0 {
            return whole;
        }
        into.stats
            .note("counts with a fraction; what is left over of one goes to the next");
        self.left_over += fraction; // both below one
        let carried = self.left_over / ONE;
        self.left_over %= ONE;
        whole.saturating_add(u64::from(carried))
    }
}

/// How many bytes two texts share from their beginning.
fn same_bytes(a: &[u8], b: &[u8]) -> usize {
    // As numbers: slices would be compared by a call for each eight bytes.
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let words = words.map(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b));
    let same = 8 * words.take_while(|same| *same).count();
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

/// Stack and count of a line; none when it is no folded stack.
fn split_count(line: &[u8]) -> Option<(&[u8], (u64, u32))> {
    // One more than frames: a stack that was cut has `[deeper]` behind them.
    if line.len() > DEPTH_MAX && memchr::memchr_iter(b';', line).count() > DEPTH_MAX {
        return None;
    }
    let at = memchr::memrchr(b' ', line)?;
    let frames = line[..at].trim_ascii();
    if frames.is_empty() {
        return None;
    }
    Some((frames, number(&line[at + 1..])?))
}

/// A count: whole, and billionths. Digits with or without a point; saturates beyond 64 bits.
fn number(text: &[u8]) -> Option<(u64, u32)> {
    let point = memchr::memchr(b'.', text).unwrap_or(text.len());
    let (whole, behind) = (&text[..point], text.get(point + 1..).unwrap_or_default());
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if whole.len() + behind.len() == 0 || !digits(whole) || !digits(behind) {
        return None;
    }
    let whole = whole.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    let billionths = (0..9).fold(0_u32, |sum, at| {
        sum * 10 + behind.get(at).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Some((whole, billionths))
}

/// Whether a text ends in a blank and what would be read as a count.
fn ends_in_number(text: &[u8]) -> bool {
    memchr::memrchr(b' ', text).is_some_and(|at| number(&text[at + 1..]).is_some())
}

/// The frame that a label stands for: the inverse of [`Frame::label`] as far as text allows.
pub(in crate::format) fn frame(label: &str) -> Frame {
    let clean: String;
    let label = if label.contains(char::is_control) {
        clean = label.replace(char::is_control, " ");
        clean.trim()
    } else {
        label.trim()
    };
    let (kind, name) = [
        ("_[k]", FrameKind::Kernel),
        ("_[j]", FrameKind::Jit),
        ("_[i]", FrameKind::Inline),
    ]
    .into_iter()
    .find_map(|(suffix, kind)| label.strip_suffix(suffix).map(|name| (kind, name.trim())))
    .unwrap_or((FrameKind::User, label));
    if name == "[unknown]" || name.is_empty() {
        return Frame::unnamed(kind, "", None, 0);
    }
    if name == "[pruned]" || name == "[deeper]" {
        return Frame::marker(name);
    }
    if let Some(module) = name.strip_prefix('[') {
        if let Some((module, address)) = module.split_once("]+0x")
            && let Ok(address) = u64::from_str_radix(address, 16)
            && !module.contains(['[', ']'])
        {
            return Frame::unnamed(kind, module, None, address);
        }
        if let Some(module) = module.strip_suffix(']')
            && !module.contains(['[', ']'])
        {
            return Frame::unnamed(kind, module, None, 0);
        }
    }
    Frame::named(kind, name, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roundtrip(text: &str) -> (String, FoldedStats) {
        let (profile, stats) = parse(text.as_bytes(), "h");
        (
            write(&profile.tree, &profile.frames, &profile.select(|_| true), 0),
            stats,
        )
    }

    #[test]
    fn reads_what_the_field_writes() {
        let (out, stats) = roundtrip("a;b;c 3\r\na;b 1.6\n\n# comment\na;b;c 2\n");
        assert_eq!(out, "a;b 2\na;b;c 5\n");
        assert_eq!((stats.stacks, stats.skipped), (3, 0));
        let (out, stats) = roundtrip("nonsense\na b;c x\nx -1\n 5\nmain;do work(int, char) 7\n");
        assert_eq!(out, "main;do work(int, char) 7\n");
        assert_eq!((stats.stacks, stats.skipped), (1, 4));
        assert!(stats.examples[0].starts_with("line 1: nonsense"));
    }

    #[test]
    fn fractions_are_shared_out_so_that_their_sum_stays() {
        let (out, stats) = roundtrip("a 0.4\nb 0.4\nc 0.4\nd 5.\ne .5\n");
        assert_eq!(out, "b 1\nd 5\ne 1\n");
        assert_eq!((stats.stacks, stats.skipped), (5, 0));
        let thousand = "a;b 0.001\n".repeat(1_000);
        assert_eq!(roundtrip(&thousand).0, "a;b 1\n");
        assert_eq!(roundtrip("a 2.999999999999\n").0, "a 3\n");
        assert_eq!(
            roundtrip("a 99999999999999999999\n").0,
            "a 18446744073709551615\n"
        );
        for none in [
            "a .\n",
            "a 1.2.3\n",
            "a 1e5\n",
            "a 0x5\n",
            "a 1,5\n",
            "a +5\n",
            "a -5\n",
            "a;b\n",
            "a;b \n",
            "7\n",
        ] {
            let (out, stats) = roundtrip(none);
            assert_eq!((out.as_str(), stats.skipped), ("", 1), "{none}");
        }
    }

    #[test]
    fn the_difference_of_two_profiles_is_no_profile() {
        let (out, stats) = roundtrip("# x\na;b 10 20\na;c 1 0\nd 5\n");
        assert_eq!((out.as_str(), stats.skipped), ("d 5\n", 2));
        assert!(stats.examples[0].starts_with("line 2: a;b 10 20"));
        // A name may end in a number; it is written so that no reader takes it for a count.
        let (out, stats) = roundtrip("a;b 3\na;worker 10 20\nworker 10;x 1.5 4\n");
        assert_eq!(out, "a;b 3\na;worker_10 20\nworker_10;x_1.5 4\n");
        assert_eq!(stats.skipped, 0);
        assert_eq!(roundtrip(&out).0, out);
    }

    #[test]
    fn any_encoding_is_read_and_no_count_is_lost() {
        let (profile, stats) = parse(b"caf\xe9;a 1\r\ncaf\xc3\xa9;a 2\r\n\xff\xfe 3\r\n", "h");
        assert_eq!((stats.skipped, profile.grand_total()[0]), (0, 6));
        let names: Vec<&str> = profile
            .frames
            .as_slice()
            .iter()
            .map(|f| f.name.as_str())
            .collect();
        assert_eq!(names, ["caf\u{fffd}", "a", "caf\u{e9}", "\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn unnamed_and_kernel_frames_keep_their_meaning() {
        let text = "[nginx]+0x1a2b;[nginx];[unknown];do_syscall_64_[k];[pruned] 4\n";
        let (profile, _) = parse(text.as_bytes(), "h");
        let kinds: Vec<_> = profile.frames.as_slice().iter().map(|f| f.kind).collect();
        assert_eq!(kinds[3], FrameKind::Kernel);
        assert_eq!(kinds[4], FrameKind::Marker);
        assert_eq!(profile.frames.as_slice()[0].address, 0x1a2b);
        assert_eq!(roundtrip(text).0, text);
    }

    #[test]
    fn hostile_lines_are_counted_not_kept() {
        let deep = format!("{} 1\n", "a;".repeat(DEPTH_MAX + 1));
        let long = format!(
            "{} 1\n",
            "a".repeat(super::super::lines::LINE_BYTES_MAX + 1)
        );
        let (out, stats) = roundtrip(&(deep + &long + "ok 1\n"));
        assert_eq!((out.as_str(), stats.skipped), ("ok 1\n", 2));
    }

    /// Each was found by the fuzz target `folded`.
    #[test]
    fn odd_names_are_written_so_that_they_are_read_back() {
        for (text, written) in [
            ("\u{1}a 1\n", "a 1\n"),
            ("\u{1} 1\nb 2\n", "[unknown] 1\nb 2\n"),
            (" #a;b 3\n", " #a;b 3\n"),
            ("\u{1}#a 3\n", " #a 3\n"),
            ("[[]+0x0 4\n", "[[]+0x0 4\n"),
            ("a\u{85};b\u{9b}2J 5\n", "a;b 2J 5\n"),
            ("b 1\na\u{1}7 5\n", "a_7 5\nb 1\n"),
        ] {
            let (once, _) = roundtrip(text);
            assert_eq!(once, written, "{text:?}");
            assert_eq!(roundtrip(&once).0, once, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_profile_and_writing_is_stable(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (profile, _) = parse(&bytes, "h");
            let once = write(&profile.tree, &profile.frames, &profile.select(|_| true), 0);
            let (twice, _) = roundtrip(&once);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn counts_are_conserved(lines in prop::collection::vec(("[a-z]{1,3}(;[a-z]{1,3}){0,5}", 0_u64..1000), 0..30)) {
            let text: String = lines.iter().map(|(s, c)| format!("{s} {c}\n")).collect();
            let (profile, stats) = parse(text.as_bytes(), "h");
            prop_assert_eq!(profile.grand_total()[0], lines.iter().map(|l| l.1).sum::<u64>());
            prop_assert_eq!(stats.stacks, lines.len() as u64);
        }
    }
}
