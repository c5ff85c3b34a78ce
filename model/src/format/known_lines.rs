//! Lines that come again word for word, as most frames of a profile do: known by their whole text, so
//! that they are taken apart once.
//!
//! In: what comes next of an input. Out: the frame that the same line led to before, and how long it
//! is, so that not even its end must be searched. Never: a line of another text taken for it (all
//! bytes are compared), or time spent on an input without repetition.
//!
//! A frame's address stands at the beginning of its line, and lines with one address are nearly
//! always one line. So the beginning chooses the only place where a line can be kept, as in a
//! direct-mapped cache.

use super::lines::Ahead;
use crate::profile::FrameId;

/// Lines that can be kept at once; 2 MiB with their texts.
const PLACES: usize = 1 << 14;
/// Bytes that choose the place: in stap's text and in perf's they have all of the address.
const BEGIN_BYTES: usize = 24;
/// Longest line that is kept, in bytes with its end: with it a place takes two cache lines.
const TEXT_BYTES_MAX: usize = 122;

/// After so many look-ups it is asked whether they were worth it.
const TRIED: u32 = 1 << 14;
/// They were when one of so many found something.
const WORTH: u32 = 4;
/// Otherwise so many lines are read without one.
const REST: u32 = 32 * TRIED;

/// Where a line can be kept.
#[derive(Clone, Copy, Debug)]
#[repr(align(128))]
struct Place {
    text: [u8; TEXT_BYTES_MAX],
    /// Bytes of the text with the end of the line; 0 when nothing is kept.
    len: u16,
    frame: FrameId,
}

/// Lines that were met. See the module.
#[derive(Debug, Default)]
pub(super) struct KnownLines {
    /// Empty until the first line is kept.
    places: Vec<Place>,
    tried: u32,
    found: u32,
    rest: u32,
}

impl KnownLines {
    /// The frame of the line that `rest` begins with, when it is known.
    #[inline]
    pub fn find(&mut self, rest: &[u8]) -> Option<(FrameId, Ahead)> {
        if self.rest > 0 || self.places.is_empty() {
            return None;
        }
        let begin = rest.first_chunk()?;
        // Both only matter until the next line that is not known; they may begin anew.
        self.tried = self.tried.wrapping_add(1);
        let place = &self.places[place_of(begin)];
        let len = usize::from(place.len);
        if len == 0 || rest.get(..len)? != &place.text[..len] {
            return None;
        }
        self.found = self.found.wrapping_add(1);
        let ahead = Ahead {
            bytes: len,
            lines: 1,
        };
        Some((place.frame, ahead))
    }

    /// Remembers the frame of a line, which is given without its end.
    #[inline]
    pub fn learn(&mut self, line: &[u8], frame: FrameId) {
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        self.keep(line, frame);
    }

    fn keep(&mut self, line: &[u8], frame: FrameId) {
        if self.tried >= TRIED {
            if self.found < self.tried / WORTH {
                self.rest = REST;
            }
            (self.tried, self.found) = (0, 0);
        }
        let (Some(begin), true) = (line.first_chunk(), line.len() < TEXT_BYTES_MAX) else {
            return;
        };
        if self.places.is_empty() {
            let none = Place {
                text: [0; TEXT_BYTES_MAX],
                len: 0,
                frame,
            };
            self.places = vec![none; PLACES];
        }
        let place = &mut self.places[place_of(begin)];
        place.text[..line.len()].copy_from_slice(line);
        place.text[line.len()] = b'\n';
        place.len = line.len() as u16 + 1; // below TEXT_BYTES_MAX
        place.frame = frame;
    }
}

/// Multiplications with odd constants (the golden ratio and √2, √3 in 64 bits) carry what differs up
/// to the bits that are taken.
#[inline]
fn place_of(begin: &[u8; BEGIN_BYTES]) -> usize {
    let (words, _) = begin.as_chunks::<8>();
    let [a, b, c] = [words[0], words[1], words[2]].map(u64::from_le_bytes);
    let mixed = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.wrapping_mul(0x6a09_e667_f3bc_c909).rotate_left(23)
        ^ c.wrapping_mul(0xbb67_ae85_84ca_a73b).rotate_left(41);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(i: usize) -> String {
        format!(" 0x7f0c{i:08x} : f+0x1/0x2 [m]\n")
    }

    fn found(known: &mut KnownLines, text: &str) -> Option<(FrameId, usize)> {
        let (frame, ahead) = known.find(text.as_bytes())?;
        assert_eq!(ahead.lines, 1);
        Some((frame, ahead.bytes))
    }

    #[test]
    fn a_line_is_known_by_all_of_its_text() {
        let mut known = KnownLines::default();
        let text = line(7);
        assert_eq!(found(&mut known, &text), None);
        known.learn(text.trim_end_matches('\n').as_bytes(), FrameId(3));
        let len = text.len();
        assert_eq!(found(&mut known, &text), Some((FrameId(3), len)));
        assert_eq!(
            found(&mut known, &format!("{text}\t3\n")),
            Some((FrameId(3), len))
        );
        for other in [
            text.replace("[m]\n", "[m]"),
            text.replace("[m]\n", "[m]\r\n"),
            text.replace("[m]", "[n]"),
            text.replace("[m]", "[m] (inexact)"),
        ] {
            assert_eq!(found(&mut known, &other), None, "{other:?}");
        }
    }

    #[test]
    fn lines_of_any_length_may_be_offered() {
        let mut known = KnownLines::default();
        for len in 0..300 {
            let text = "x".repeat(len);
            known.learn(text.as_bytes(), FrameId(u32::try_from(len).unwrap()));
            let kept = (BEGIN_BYTES..TEXT_BYTES_MAX).contains(&len);
            assert_eq!(
                found(&mut known, &format!("{text}\n")).is_some(),
                kept,
                "{len}"
            );
            assert_eq!(
                found(&mut known, &text),
                None,
                "the end of the line has not come"
            );
        }
    }

    #[test]
    fn most_lines_of_a_profile_find_room() {
        let mut known = KnownLines::default();
        for i in 0..PLACES / 2 {
            known.learn(line(i).trim_end().as_bytes(), FrameId(0));
        }
        let kept = (0..PLACES / 2).filter(|i| found(&mut known, &line(*i)).is_some());
        // Of n lines in 2 n places chosen by lot, 79 % are alone or last: 2 (1 - exp(-1/2)).
        let kept = kept.count();
        assert!(kept * 100 > PLACES / 2 * 75, "{kept}");
    }

    #[test]
    fn an_input_without_repetition_is_left_alone_for_a_while() {
        let mut known = KnownLines::default();
        let lines = 2 * (TRIED + REST) as usize;
        let mut read = 0;
        for i in 0..lines {
            assert_eq!(found(&mut known, &line(i)), None);
            let before = known.rest;
            known.learn(line(i).trim_end().as_bytes(), FrameId(0));
            read += usize::from(before == 0);
        }
        assert!(read <= 4 * TRIED as usize, "{read}");
        // And one that begins to repeat itself is noticed.
        let mut again = 0;
        for i in 0..2 * REST as usize {
            match found(&mut known, &line(i % 64)) {
                Some(_) => again += 1,
                None => known.learn(line(i % 64).trim_end().as_bytes(), FrameId(0)),
            }
        }
        assert!(again > REST / 2, "{again}");
    }
}
