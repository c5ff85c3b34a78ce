//! The six macro forms as they stand in a line: where one begins, where it ends, what it names.
//!
//! In: the bytes of a line. Out: ranges and names. Never: a meaning; that is `expand`'s.
//!
//! A name is `[A-Za-z0-9_]+` and a blank is one of blank, tab, line end, form feed, vertical tab and
//! carriage return: a script is bytes, and nothing beyond ASCII is a letter in it.

use std::ops::Range;

/// A form of macro, in the order in which they are replaced in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    /// `$^arg_NAME` with an optional `:TRAIT(TEXT)`.
    Argument,
    /// `@pfunc(NAME)`.
    Function,
    /// `$^NAME` with an optional `:TRAIT(TEXT)`.
    Variable,
    /// `$*NAME := @cast(…)`, `@var(…)`, with an optional `&` before and `[N]` behind.
    Definition,
    /// `$*NAME`.
    Use,
    /// `@use NAME[, NAME…]`.
    Modules,
}

/// What a macro says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An argument or a variable by its whole name (`arg_time`), its trait's name and text.
    Variable {
        name: &'a [u8],
        with: Option<(&'a [u8], &'a [u8])>,
    },
    /// The name of a function.
    Function(&'a [u8]),
    /// A name and the text that it stands for from now on.
    Definition { name: &'a [u8], text: &'a [u8] },
    /// A name that was defined before.
    Use(&'a [u8]),
    /// Names of modules, as written.
    Modules(Vec<&'a [u8]>),
}

impl Macro {
    fn opening(self) -> &'static [u8] {
        match self {
            Self::Argument => b"$^arg_",
            Self::Variable => b"$^",
            Self::Function => b"@pfunc",
            Self::Definition | Self::Use => b"$*",
            Self::Modules => b"@use",
        }
    }

    /// The range of the first macro of this form at or after `from`.
    pub(super) fn find(self, line: &[u8], from: usize) -> Option<Range<usize>> {
        let opening = self.opening();
        let mut at = from;
        while let Some(offset) = line.get(at..)?.iter().position(|b| *b == opening[0]) {
            at += offset;
            if let Some((_, end)) = self.read(line, at) {
                return Some(at..end);
            }
            at += 1;
        }
        None
    }

    /// The macro of this form that begins at `at`.
    pub(super) fn parse(self, line: &[u8], at: usize) -> Option<Found<'_>> {
        self.read(line, at).map(|(found, _)| found)
    }

    fn read(self, line: &[u8], at: usize) -> Option<(Found<'_>, usize)> {
        let rest = line.get(at..)?;
        if !rest.starts_with(self.opening()) {
            return None;
        }
        let mut cursor = Cursor {
            line,
            at: at + self.opening().len(),
        };
        let found = match self {
            Self::Argument => {
                cursor.word()?;
                cursor.variable(at)
            }
            Self::Variable => {
                cursor.word()?;
                cursor.variable(at)
            }
            Self::Function => {
                cursor.blanks();
                cursor.take(b"(")?;
                cursor.blanks();
                let name = cursor.word()?;
                cursor.blanks();
                cursor.take(b")")?;
                Found::Function(name)
            }
            Self::Definition => {
                let name = cursor.word()?;
                cursor.blanks();
                cursor.take(b":=")?;
                cursor.blanks();
                let text = cursor.access()?;
                Found::Definition { name, text }
            }
            Self::Use => Found::Use(cursor.word()?),
            Self::Modules => {
                let before = cursor.at;
                cursor.blanks();
                if cursor.at == before {
                    return None;
                }
                Found::Modules(cursor.modules()?)
            }
        };
        Some((found, cursor.at))
    }
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    fn while_is(&mut self, is: fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().position(|b| !is(*b)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn blanks(&mut self) {
        self.while_is(is_blank);
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        Some(self.while_is(is_word)).filter(|w| !w.is_empty())
    }

    fn take(&mut self, what: &[u8]) -> Option<()> {
        self.rest().starts_with(what).then(|| self.at += what.len())
    }

    /// Text up to the first `)` of the line, which is passed: parentheses do not nest.
    fn closing(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let end = rest.iter().position(|b| matches!(b, b')' | b'\n'))?;
        if rest[end] == b'\n' {
            return None;
        }
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// A variable whose name begins behind the `$^` at `at` and ends here, with its trait if it has
    /// one that is whole.
    fn variable(&mut self, at: usize) -> Found<'a> {
        let name = &self.line[at + 2..self.at];
        let mut ahead = *self;
        let with = ahead.named_text();
        if with.is_some() {
            *self = ahead;
        }
        Found::Variable { name, with }
    }

    fn named_text(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        self.blanks();
        self.take(b":")?;
        let name = self.word()?;
        self.blanks();
        self.take(b"(")?;
        Some((name, self.closing()?))
    }

    /// `&@cast(…)[N]` and its shorter forms.
    fn access(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        let _ = self.take(b"&");
        self.take(b"@cast(").or_else(|| self.take(b"@var("))?;
        self.closing()?;
        let mut ahead = *self;
        if ahead.index().is_some() {
            *self = ahead;
        }
        Some(&self.line[begin..self.at])
    }

    fn index(&mut self) -> Option<()> {
        self.take(b"[")?;
        if self.while_is(|b| b.is_ascii_digit()).is_empty() {
            return None;
        }
        self.take(b"]")
    }

    fn modules(&mut self) -> Option<Vec<&'a [u8]>> {
        let mut names = vec![self.dotted()?];
        loop {
            let mut ahead = *self;
            ahead.blanks();
            if ahead.take(b",").is_none() {
                return Some(names);
            }
            ahead.blanks();
            let Some(name) = ahead.dotted() else {
                return Some(names);
            };
            names.push(name);
            *self = ahead;
        }
    }

    fn dotted(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        self.word()?;
        loop {
            let mut ahead = *self;
            if ahead.take(b".").is_none() || ahead.word().is_none() {
                return Some(&self.line[begin..self.at]);
            }
            *self = ahead;
        }
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r')
}
