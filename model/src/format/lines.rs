//! Lines of a stream that comes in pieces.
//!
//! In: bytes in pieces of any size. Out: each line once, without its end (`\n` or `\r\n`), with its
//! number. Never: more than [`LINE_BYTES_MAX`] bytes kept of a line: a longer one is given cut, and
//! marked.

/// Longest line that is kept whole, in bytes. A folded stack of 4,096 frames fits.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, without the end of the line.
    pub bytes: &'a [u8],
    /// Its number, from 1.
    pub number: u64,
    /// How long it was. More than `bytes` has when it was cut.
    pub len: usize,
}

impl Line<'_> {
    /// Whether it was longer than [`LINE_BYTES_MAX`], so that its end is missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.len > LINE_BYTES_MAX
    }
}

/// Hears of lines.
pub trait Hears {
    /// One line.
    fn line(&mut self, line: Line<'_>);

    /// What comes next, before it is taken apart: whole lines or not. Out: how much of it is done
    /// with.
    #[inline]
    fn ahead(&mut self, _rest: &[u8]) -> Option<Ahead> {
        None
    }
}

struct Each<F>(F);

impl<F: FnMut(Line<'_>)> Hears for Each<F> {
    #[inline]
    fn line(&mut self, line: Line<'_>) {
        (self.0)(line);
    }
}

/// Whole lines that need not be given one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Their bytes, with the end of the last one.
    pub bytes: usize,
    /// How many they are.
    pub lines: u64,
}

/// Puts lines together again. See the module.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet; never more than [`LINE_BYTES_MAX`].
    carry: Vec<u8>,
    /// How long that line is so far.
    carried: usize,
    number: u64,
}

impl Lines {
    /// Takes the next piece and gives every line that ends in it.
    pub fn feed(&mut self, piece: &[u8], each: impl FnMut(Line<'_>)) {
        self.feed_to(piece, &mut Each(each));
    }

    /// The same for an ear that looks ahead.
    pub fn feed_to(&mut self, piece: &[u8], ear: &mut impl Hears) {
        let mut rest = piece;
        if self.carried > 0 {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.keep(rest);
                return;
            };
            self.keep(&rest[..end]);
            rest = &rest[end + 1..];
            let carry = std::mem::take(&mut self.carry);
            let len = std::mem::take(&mut self.carried);
            self.give(&carry, len, ear);
            self.carry = carry;
            self.carry.clear();
        }
        loop {
            if let Some(ahead) = ear.ahead(rest) {
                self.number += ahead.lines;
                rest = &rest[ahead.bytes..];
            } else if let Some(end) = memchr::memchr(b'\n', rest) {
                self.give(&rest[..end], end, ear);
                rest = &rest[end + 1..];
            } else {
                break;
            }
        }
        self.keep(rest);
    }

    /// Gives the last line when the stream ended without a line end.
    pub fn end(&mut self, each: impl FnMut(Line<'_>)) {
        if self.carried > 0 {
            let carry = std::mem::take(&mut self.carry);
            let len = std::mem::take(&mut self.carried);
            self.give(&carry, len, &mut Each(each));
        }
    }

    /// Lines given so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.number
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.carry.len();
        self.carry
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.carried += bytes.len();
    }

    #[inline]
    fn give(&mut self, line: &[u8], len: usize, ear: &mut impl Hears) {
        self.number += 1;
        let bytes = if line.len() > LINE_BYTES_MAX {
            &line[..LINE_BYTES_MAX]
        } else {
            line.strip_suffix(b"\r").unwrap_or(line)
        };
        ear.line(Line {
            bytes,
            number: self.number,
            len,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64, usize)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut take = |l: Line<'_>| out.push((l.bytes.to_vec(), l.number, l.len));
        for piece in pieces {
            lines.feed(piece, &mut take);
        }
        lines.end(&mut take);
        out
    }

    #[test]
    fn a_long_line_is_cut_and_said() {
        let long = vec![b'a'; 3 * LINE_BYTES_MAX];
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in long.chunks(70_000) {
            lines.feed(piece, |l| seen.push((l.len, l.is_cut())));
        }
        lines.feed(b"\nok\n", |l| seen.push((l.len, l.is_cut())));
        assert!(lines.carry.capacity() <= 2 * LINE_BYTES_MAX);
        assert_eq!(seen, [(3 * LINE_BYTES_MAX, true), (2, false)]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_show(text in "[ab\r\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..5)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(all(&pieces), all(&[bytes]));
            let whole: Vec<&str> = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
            let seen = all(&[bytes]);
            let ended = text.is_empty() || text.ends_with('\n');
            prop_assert_eq!(seen.len(), whole.len() - usize::from(ended));
        }
    }
}
