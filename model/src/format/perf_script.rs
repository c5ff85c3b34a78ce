//! `perf script` text: a header line a sample, then its frames, leaf first, then an empty line.
//!
//! In: lines. Out: samples to whoever wants them ([`Samples`]), and a [`LineReader`] that folds
//! them. Never: a line that is neither header nor frame made into one.

use super::import::{ImportOptions, Intake, LineReader};
use super::lines::Line;

/// Which samples are taken, and as what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerfOptions {
    /// Only samples of this event; else of the first that is met.
    pub event: Option<String>,
    /// Tell threads apart.
    pub by_tid: bool,
}

/// The header of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The thread's name.
    pub comm: &'a [u8],
    /// The process, where it is printed.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// Nanoseconds on perf's clock, where the time is printed.
    pub time_ns: Option<u64>,
    /// The event's period, where it is printed.
    pub period: Option<u64>,
    /// The event's name; empty where it is not printed.
    pub event: &'a [u8],
}

/// One frame of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameText<'a> {
    /// The address, in hex digits as printed.
    pub address: &'a [u8],
    /// The function's name without `+0x…`; empty where perf says `[unknown]`.
    pub name: &'a [u8],
    /// What stands in the last parentheses: a path, `[kernel.kallsyms]`, `inlined`; empty for `[unknown]`.
    pub module: &'a [u8],
}

/// Hears of samples.
pub trait Samples {
    /// A sample begins.
    fn begin(&mut self, header: &Header<'_>);
    /// A frame of it; leaf first.
    fn frame(&mut self, frame: &FrameText<'_>);
    /// The sample is whole.
    fn end(&mut self);
    /// A line that is no part of a sample.
    fn foreign(&mut self, kind: &'static str, line: Line<'_>);
}

/// Takes lines apart. Feeds a [`Samples`].
#[derive(Debug, Default)]
pub struct Parser {}

impl Parser {
    /// One line.
    pub fn line(&mut self, _: Line<'_>, _: &mut impl Samples) {}

    /// The end of the text.
    pub fn end(&mut self, _: &mut impl Samples) {}
}

/// Folds `perf script` text.
#[derive(Debug)]
pub struct PerfReader {}

impl PerfReader {
    /// A reader.
    #[must_use]
    pub fn new(_: &ImportOptions) -> Self {
        Self {}
    }
}

impl LineReader for PerfReader {
    fn line(&mut self, _: Line<'_>, _: &mut Intake) {}
    fn end(&mut self, _: &mut Intake) {}
}
