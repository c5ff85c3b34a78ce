//! What every reader offers: bytes in, stacks into the fold, the rest into the stats.
//!
//! In: pieces. Out: nothing but what it adds to the [`Intake`]. Never: a buffer without a bound.

use super::{ImportError, ImportStats, WHOLE_BYTES_MAX};
use crate::format::fold::Fold;
use crate::format::lines::{Ahead, Hears, Line, Lines};
use crate::format::source::Source;
use crate::profile::Profile;

/// Where a reader puts what it finds.
#[derive(Debug)]
pub struct Intake {
    /// Stacks.
    pub fold: Fold,
    /// Everything else.
    pub stats: ImportStats,
    /// Where frames are to get their source: who gives it.
    pub source: Option<Box<Source>>,
}

/// Reads one format from pieces.
pub trait Reader {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ImportError`] when the rest cannot be read either.
    fn feed(&mut self, bytes: &[u8], into: &mut Intake) -> Result<(), ImportError>;

    /// The end of the input. Some formats have a profile of their own, which then takes the place
    /// of the fold's.
    ///
    /// # Errors
    /// [`ImportError`].
    fn end(&mut self, into: &mut Intake) -> Result<Option<Profile>, ImportError>;
}

/// Reads a text format line by line.
pub trait LineReader {
    /// One line.
    fn line(&mut self, line: Line<'_>, into: &mut Intake);

    /// See [`Hears::ahead`].
    #[inline]
    fn ahead(&mut self, _rest: &[u8]) -> Option<Ahead> {
        None
    }

    /// The end: what was begun and not ended.
    fn end(&mut self, into: &mut Intake);
}

/// A [`Reader`] of lines.
#[derive(Debug)]
pub struct ByLine<R> {
    lines: Lines,
    reader: R,
}

impl<R> ByLine<R> {
    /// Over `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            lines: Lines::default(),
            reader,
        }
    }
}

/// A reader, and where it puts things.
struct Reading<'a, R> {
    reader: &'a mut R,
    into: &'a mut Intake,
}

impl<R: LineReader> Hears for Reading<'_, R> {
    #[inline]
    fn line(&mut self, line: Line<'_>) {
        self.reader.line(line, self.into);
    }

    #[inline]
    fn ahead(&mut self, rest: &[u8]) -> Option<Ahead> {
        self.reader.ahead(rest)
    }
}

impl<R: LineReader> Reader for ByLine<R> {
    fn feed(&mut self, bytes: &[u8], into: &mut Intake) -> Result<(), ImportError> {
        let reader = &mut self.reader;
        self.lines.feed_to(bytes, &mut Reading { reader, into });
        Ok(())
    }

    fn end(&mut self, into: &mut Intake) -> Result<Option<Profile>, ImportError> {
        let reader = &mut self.reader;
        self.lines.end(|line| reader.line(line, into));
        into.stats.lines += self.lines.count();
        self.reader.end(into);
        Ok(None)
    }
}

/// Reads a format that can only be read whole.
pub trait WholeReader {
    /// The format's word, for errors.
    const WORD: &'static str;

    /// Reads all of it.
    ///
    /// # Errors
    /// [`ImportError`].
    fn read(&self, bytes: &[u8], into: &mut Intake) -> Result<Option<Profile>, ImportError>;
}

/// A [`Reader`] that collects the input, up to [`WHOLE_BYTES_MAX`].
#[derive(Debug)]
pub struct Whole<R> {
    bytes: Vec<u8>,
    reader: R,
}

impl<R> Whole<R> {
    /// Over `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            bytes: Vec::new(),
            reader,
        }
    }
}

impl<R: WholeReader> Reader for Whole<R> {
    fn feed(&mut self, bytes: &[u8], _: &mut Intake) -> Result<(), ImportError> {
        if self.bytes.len() + bytes.len() > WHOLE_BYTES_MAX {
            return Err(ImportError::TooLong {
                format: R::WORD,
                max: WHOLE_BYTES_MAX,
            });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, into: &mut Intake) -> Result<Option<Profile>, ImportError> {
        self.reader.read(&self.bytes, into)
    }
}
