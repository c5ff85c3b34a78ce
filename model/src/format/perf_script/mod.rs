//! `perf script` text: a header line a sample, then its frames, leaf first, then an empty line.
//!
//! In: lines. Out: samples to whoever wants them ([`Samples`]), and a [`LineReader`] that folds
//! them. Never: a line that is neither header nor frame made into one.
//!
//! The forms are those of perf 3.x to 6.x with any list of `-F` fields that has the stack in it;
//! see `tools/perf/builtin-script.c` and `tools/perf/util/evsel_fprintf.c` in Linux. The forms that
//! are read stand in docs/formats.md.
//!
//! [`LineReader`]: super::import::LineReader

mod frame;
mod header;
mod modules;
mod parser;
mod reader;
mod sourced;

pub use frame::{kind_of, module_of};
pub use parser::Parser;
pub use reader::PerfReader;

use super::lines::Line;

/// Which samples are taken, and as what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerfOptions {
    /// Only samples of this event; else of the first that is met. Modifiers may be left out:
    /// `cycles` is also `cycles:ppp`.
    pub event: Option<String>,
    /// Tell threads apart.
    pub by_tid: bool,
    /// Functions whose callers are left out.
    pub skip_after: Vec<String>,
}

/// The header of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// The thread's name.
    pub comm: &'a [u8],
    /// The process, where it is printed.
    pub pid: Option<u32>,
    /// The thread. A lone number is taken for the thread, as perf prints it by default.
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
    /// Hex digits of the `+0x…` behind the name; empty without one.
    pub offset: &'a [u8],
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
    /// perf lost this many records (`PERF_RECORD_LOST`, `PERF_RECORD_LOST_SAMPLES`). The line is
    /// not given to [`Samples::foreign`].
    fn lost(&mut self, _count: u64) {}
    /// The text ended and no empty line had ended its last sample, as perf does.
    fn cut(&mut self) {}
}

#[cfg(test)]
mod tests;
