//! Stacks among what a script prints, told apart from the rest.
//!
//! In: bytes in pieces, as SystemTap's scripts print them. Out: stacks with their counts, and every other byte as it came.
//! Never: a byte that is in neither, or a line that nothing but its looks makes a frame: lines of frames are a stack when
//! a tab and a count follow them at once; else they are text, as a single backtrace in a log is. So is a stack whose count
//! is not above zero: it cannot be drawn.
//!
//! The shapes of frames are those of [`super::stap`].

use super::fold::{base_name, clean};
use super::stap::{self, FrameText};
use crate::profile::{Frame, FrameKind};

/// Most bytes of lines that may become a stack; 4,096 frames of usual length.
const HELD_BYTES_MAX: usize = 512 << 10;
/// Longest line that is a frame, in bytes.
const FRAME_BYTES_MAX: usize = 4_096;

/// Who takes the two.
pub trait Hears {
    /// Bytes that are no stack.
    fn text(&mut self, bytes: &[u8]);
    /// A stack: its lines, leaf first, without their ends; none where SystemTap had no stack. The count is above zero.
    fn stack(&mut self, leaf_first: &[&[u8]], count: u64);
}

/// See the module.
#[derive(Debug, Default)]
pub struct StackSplitter {
    /// A line whose end has not come.
    carry: Vec<u8>,
    /// What comes up to the next line's end belongs to a line that was too long.
    is_rest: bool,
    /// Whole lines that are a stack if a count follows.
    held: Vec<u8>,
    state: State,
}

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing.
    #[default]
    Text,
    /// Nothing, and the line before was a stack's count.
    AfterStack,
    /// An empty line, which `ubacktrace()` is where there is no stack.
    Blank,
    /// A lone word: the leaf of a Lua stack, if a frame of one follows.
    Word,
    /// Frames.
    Frames,
    /// Frames, too many of them, which have become text.
    TooMany,
}

impl StackSplitter {
    /// The next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], to: &mut impl Hears) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.carry.is_empty() {
                self.line(line, to);
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.line(&whole, to);
                whole.clear();
                self.carry = whole;
            }
        }
        self.carry.extend_from_slice(bytes);
        if self.carry.len() > FRAME_BYTES_MAX {
            self.release(to);
            to.text(&self.carry);
            self.carry.clear();
            self.is_rest = true;
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self, to: &mut impl Hears) {
        let last = std::mem::take(&mut self.carry);
        if !last.is_empty() {
            // A count whose digits were cut off would be another number: without its end no line is one.
            self.release(to);
            to.text(&last);
        }
        self.release(to);
    }

    fn line(&mut self, line: &[u8], to: &mut impl Hears) {
        if std::mem::take(&mut self.is_rest) || line.len() > FRAME_BYTES_MAX {
            return self.text(line, to);
        }
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        if let Some((digits, negative)) = stap::count(bare) {
            return self.count(line, digits, negative, to);
        }
        if let Some((addresses, digits)) = stap::raw(bare) {
            let leaf_first = addresses.split(|b| *b == b' ').filter(|w| !w.is_empty());
            let leaf_first: Vec<&[u8]> = leaf_first.collect();
            self.release(to);
            return match number(digits) {
                0 => to.text(line),
                count => {
                    to.stack(&leaf_first, count);
                    self.state = State::AfterStack;
                }
            };
        }
        let next = if bare.is_empty() {
            State::Blank
        } else if stap::is_debug(bare) {
            return self.text(line, to);
        } else if stap::frame(bare).is_some() {
            State::Frames
        } else if stap::is_symbol(bare) {
            State::Word
        } else {
            return self.text(line, to);
        };
        let goes_on = match (self.state, next) {
            (State::Frames, State::Frames) => true,
            (State::TooMany, State::Frames) => return to.text(line),
            (State::Word, State::Frames) => stap::is_lua(bare),
            _ => false,
        };
        if !goes_on {
            self.release(to);
        }
        self.held.extend_from_slice(line);
        self.state = next;
        if self.held.len() > HELD_BYTES_MAX {
            self.release(to);
            self.state = State::TooMany;
        }
    }

    fn count(&mut self, line: &[u8], digits: &[u8], negative: bool, to: &mut impl Hears) {
        let is_stack = matches!(self.state, State::Frames | State::Blank | State::AfterStack);
        let count = if negative { 0 } else { number(digits) };
        if !is_stack || count == 0 {
            return self.text(line, to);
        }
        let lines = self.held.split(|b| *b == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let leaf_first: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        to.stack(&leaf_first, count);
        self.held.clear();
        self.state = State::AfterStack;
    }

    fn text(&mut self, line: &[u8], to: &mut impl Hears) {
        self.release(to);
        to.text(line);
    }

    fn release(&mut self, to: &mut impl Hears) {
        if !self.held.is_empty() {
            to.text(&self.held);
            self.held.clear();
        }
        self.state = State::Text;
    }
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })
}

/// What a line of a stack says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintedFrame {
    /// The frame as SystemTap knows it.
    pub frame: Frame,
    /// Of one in user space without a name: where it ran, a run-time address.
    pub address: Option<u64>,
}

/// A line of a stack as [`StackSplitter`] gives it.
#[must_use]
pub fn frame_of(line: &[u8]) -> PrintedFrame {
    let word = FrameText::named(FrameKind::User, line, b"");
    let text = stap::frame(line).unwrap_or(word);
    let (name, module) = (clean(text.name), clean(base_name(text.module)));
    if !name.is_empty() {
        let frame = Frame::named(text.kind, name, module);
        let address = None;
        return PrintedFrame { frame, address };
    }
    let digits = line.trim_ascii_start().strip_prefix(b"0x");
    let address = digits.filter(|_| text.kind == FrameKind::User).map(|hex| {
        let end = hex.iter().position(|b| !b.is_ascii_hexdigit());
        &hex[..end.unwrap_or(hex.len())]
    });
    PrintedFrame {
        frame: Frame::unnamed(text.kind, module, None, 0),
        address: address.and_then(stap::hex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Heard {
        text: String,
        stacks: Vec<(Vec<String>, u64)>,
    }

    impl Hears for Heard {
        fn text(&mut self, bytes: &[u8]) {
            self.text.push_str(&String::from_utf8_lossy(bytes));
        }

        fn stack(&mut self, leaf_first: &[&[u8]], count: u64) {
            let line = |line: &&[u8]| String::from_utf8_lossy(line).into_owned();
            self.stacks
                .push((leaf_first.iter().map(line).collect(), count));
        }
    }

    fn split(pieces: &[&[u8]]) -> Heard {
        let mut heard = Heard::default();
        let mut splitter = StackSplitter::default();
        for piece in pieces {
            splitter.feed(piece, &mut heard);
        }
        splitter.end(&mut heard);
        heard
    }

    fn counted(heard: &Heard) -> Vec<(usize, u64)> {
        let one = |(lines, count): &(Vec<String>, u64)| (lines.len(), *count);
        heard.stacks.iter().map(one).collect()
    }

    #[test]
    fn stacks_are_taken_out_and_the_rest_stays_as_it_was() {
        let heard = split(&[b"Tracing 7\n\
            \x200x401136 : seventy+0x6/0x20 [/bin/split]\n 0x7f01 [/lib/libc.so.6+0x1234/0x2000]\n\t70\n\
            lj_str_new\n@/usr/lib/a.lua:12\nT:@/usr/lib/a.lua:30\nC:0x55aa\n\t5\n\
            0x401136 0x401200 \t3\n\
            \n\t2\n\t1\n\
            rate 5\n\t9\nfree+0x1/0x2 [/bin/a]\n\t-64\nvalue |--- count\n    1 |@ 2\n\nWord\nend\n"]);
        assert_eq!(counted(&heard), [(2, 70), (4, 5), (2, 3), (0, 2), (0, 1)]);
        assert_eq!(
            heard.text,
            "Tracing 7\nrate 5\n\t9\nfree+0x1/0x2 [/bin/a]\n\t-64\nvalue |--- count\n    1 |@ 2\n\nWord\nend\n"
        );
    }

    #[test]
    fn what_no_count_follows_is_text() {
        for text in [
            " 0x401136 : main+0x6/0x20 [/bin/split]\n 0x401200 : start+0x6/0x20 [/bin/split]\n",
            "@/a.lua:1\nand so on\n\t5\n",
            "word\n\t5\n",
            "\t5\n",
            "@/a.lua:1\n\t0\n",
            "@/a.lua:1\n\t5",
            "0x1 0x2 \t0\n",
            "\n\n\nx\n",
        ] {
            let heard = split(&[text.as_bytes()]);
            assert_eq!((heard.text.as_str(), heard.stacks.len()), (text, 0));
        }
    }

    #[test]
    fn what_is_too_long_is_text_and_bounded() {
        let frames = " 0x401136 : main+0x6/0x20 [/bin/split]\n".repeat(20_000);
        let long = "x".repeat(3 * FRAME_BYTES_MAX);
        let text = format!("{frames}\t5\n{long}\n@/a.lua:1{long}\n\t6\n");
        let mut heard = Heard::default();
        let mut splitter = StackSplitter::default();
        for piece in text.as_bytes().chunks(1_000) {
            splitter.feed(piece, &mut heard);
            assert!(
                splitter.held.len() <= HELD_BYTES_MAX && splitter.carry.len() <= FRAME_BYTES_MAX
            );
        }
        splitter.end(&mut heard);
        assert_eq!(heard.text, text);
        assert!(heard.stacks.is_empty());
    }

    #[test]
    fn frames_say_what_systemtap_knew() {
        let said = |line: &[u8]| {
            let PrintedFrame { frame, address } = frame_of(line);
            (frame.kind, frame.name, frame.module, address)
        };
        let of = |kind, name: &str, module: &str, address| {
            (kind, name.to_owned(), module.to_owned(), address)
        };
        let user = FrameKind::User;
        assert_eq!(
            said(b" 0x401136 : main+0x6/0x20 [/usr/sbin/nginx]"),
            of(user, "main", "nginx", None)
        );
        assert_eq!(
            said(b" 0x7f01 [/lib/libc.so.6+0x1234/0x2000]"),
            of(user, "", "libc.so.6", Some(0x7f01))
        );
        assert_eq!(said(b"0x7f01"), of(user, "", "", Some(0x7f01)));
        assert_eq!(
            said(b" 0xffffffff81000000 : schedule+0x1/0x2 [kernel]"),
            of(FrameKind::Kernel, "schedule", "vmlinux", None)
        );
        assert_eq!(
            said(b" 0xffffffff81000000"),
            of(FrameKind::Kernel, "", "", None)
        );
        assert_eq!(
            said(b"resty.core:connect"),
            of(FrameKind::Lua, "resty.core:connect", "", None)
        );
        assert_eq!(said(b"lj_str_new"), of(user, "lj_str_new", "", None));
    }

    proptest! {
        #[test]
        fn pieces_do_not_show_and_no_line_is_lost(
            text in "((0x1|@a:1|\t-?[0-9]|w|a b|0x1 0x2 \t3| 0x1 : f\\+0x1/0x2 \\[m\\])?\r?\n){0,16}",
            at in 0_usize..200,
        ) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let whole = split(&[bytes]);
            prop_assert_eq!(&split(&[head, tail]), &whole);
            let lines = |text: &str| text.lines().filter(|l| !l.is_empty()).count();
            // Two addresses and a count on one line.
            let of_stacks: usize = whole.stacks.iter().map(|(frames, _)| match &frames[..] {
                [first, second] if first == "0x1" && second == "0x2" => 1,
                frames => frames.len() + 1,
            }).sum();
            prop_assert_eq!(lines(&whole.text) + of_stacks, lines(&text));
        }
    }
}
