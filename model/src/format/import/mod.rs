//! Import: any known input becomes a profile.
//!
//! In: bytes in pieces, as they come from a file or a pipe, gzip or not. Out: a [`Profile`], what
//! format it was and why that was thought, and what of the input was no stack. Never: a line that
//! is no stack made into a frame, a format guessed wrong in silence, or memory that grows with the
//! length of the input (see [`FoldLimits`]; formats that must be read whole have a bound of their
//! own, [`WHOLE_BYTES_MAX`]).

mod detect;
mod reader;
mod stats;

pub use detect::{Detection, detect_text};
pub use reader::{ByLine, Intake, LineReader, Reader, Whole, WholeReader};
pub use stats::{Foreign, ForeignLines, ImportStats};

use super::fold::{Fold, FoldLimits, Mismatch};
use super::source::{DebugInfo, Source, SourceOptions};
use crate::profile::{MergeError, Profile};
use flate2::write::MultiGzDecoder;
use std::io::Write as _;

/// Longest input, unpacked, of a format that can only be read whole (pprof, ffz): 256 MiB.
pub const WHOLE_BYTES_MAX: usize = 256 << 20;
/// How much of the input is looked at before its format is decided.
const HEAD_BYTES: usize = 64 << 10;
/// How much packed input is unpacked at once: gzip grows at most about 1,030-fold (RFC 1951), so
/// that no more than 16 MiB stand in memory.
const PACKED_PIECE_BYTES: usize = 16 << 10;
/// Note of stacks that signed counts have cancelled out.
pub const NOTHING_LEFT: &str = "stacks whose counts add up to nothing or less, which are left out";
/// Note of samples below zero that no stack had.
pub const BELOW_ZERO: &str = "samples below zero that nothing was there to be taken from";

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `frame;frame;frame count` a line.
    Folded,
    /// SystemTap backtraces: frames a line, leaf first, then a tab and the count.
    Stap,
    /// What `perf script` prints.
    Perf,
    /// Google's `profile.proto`, gzip or not.
    Pprof,
    /// What bpftrace prints of a map keyed by stacks: `@[frames]: count`.
    Bpftrace,
    /// What DTrace prints of an aggregation keyed by stacks.
    Dtrace,
    /// fleetflame's own.
    Ffz,
}

impl Format {
    /// All of them, in the order in which they are named to users.
    pub const ALL: [Self; 7] = [
        Self::Stap,
        Self::Perf,
        Self::Folded,
        Self::Pprof,
        Self::Bpftrace,
        Self::Dtrace,
        Self::Ffz,
    ];

    /// Its word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Folded => "folded",
            Self::Stap => "stap",
            Self::Perf => "perf",
            Self::Pprof => "pprof",
            Self::Bpftrace => "bpftrace",
            Self::Dtrace => "dtrace",
            Self::Ffz => "ffz",
        }
    }

    /// The format with this word.
    #[must_use]
    pub fn by_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.word() == word)
    }

    /// Whether its frames say where their code lies.
    #[must_use]
    pub fn has_addresses(self) -> bool {
        matches!(self, Self::Stap | Self::Perf)
    }

    fn reader(self, options: &ImportOptions) -> Box<dyn Reader> {
        match self {
            Self::Folded => Box::new(ByLine::new(super::folded::FoldedReader::default())),
            Self::Stap => Box::new(ByLine::new(super::stap::StapReader::new(options))),
            Self::Perf => Box::new(ByLine::new(super::perf_script::PerfReader::new(options))),
            Self::Pprof => Box::new(Whole::new(super::pprof::PprofReader::new(options))),
            Self::Bpftrace => Box::new(ByLine::new(super::bpftrace::BpftraceReader::new(options))),
            Self::Dtrace => Box::new(ByLine::new(super::dtrace::DtraceReader::new(options))),
            Self::Ffz => Box::new(Whole::new(super::ffz::FfzReader)),
        }
    }
}

/// How an input is read.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The format; none to find it out.
    pub format: Option<Format>,
    /// The host that stacks without one belong to.
    pub host: String,
    /// Keep the offset of unnamed frames (`[module]+0xADDR`) where the input has one. It is that of
    /// the sampled instruction, so one function becomes many frames.
    pub keep_offsets: bool,
    /// Bounds of the fold.
    pub limits: FoldLimits,
    /// Which samples of `perf script` text are taken, and as what.
    pub perf: super::perf_script::PerfOptions,
}

impl ImportOptions {
    /// The usual way for a host.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self {
            format: None,
            host: host.to_owned(),
            keep_offsets: false,
            limits: FoldLimits::default(),
            perf: super::perf_script::PerfOptions::default(),
        }
    }
}

/// What came of one or several inputs.
#[derive(Debug)]
pub struct Imported {
    /// The stacks of all inputs together.
    pub profile: Profile,
    /// What each input was.
    pub detections: Vec<Detection>,
    /// What was read, and what was no stack.
    pub stats: ImportStats,
}

/// Why an input cannot be read. Lower-case fragments that fit after "failed to read FILE:".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    /// Its format is none that is known.
    #[error("{0}")]
    Unknown(String),
    /// It is damaged.
    #[error("{format} at byte {at}: {what}")]
    Damaged {
        /// The format's word.
        format: &'static str,
        /// Where.
        at: u64,
        /// What.
        what: String,
    },
    /// Frames were to get their source, and it has no addresses.
    #[error("its frames have no addresses, read as {0}")]
    NoAddresses(&'static str),
    /// The gzip stream is damaged.
    #[error("the gzip stream is damaged after {unpacked} unpacked bytes: {what}")]
    Gzip {
        /// How much could be unpacked.
        unpacked: u64,
        /// The unpacker's words.
        what: String,
    },
    /// Two inputs measure different things.
    #[error("the inputs cannot be added")]
    Merge(#[from] MergeError),
    /// A format that must be read whole is too long.
    #[error("{format} input is longer than {max} bytes unpacked")]
    TooLong {
        /// The format's word.
        format: &'static str,
        /// The bound.
        max: usize,
    },
}

enum Stage {
    /// The beginning is collected.
    Head(Vec<u8>),
    /// The format is known.
    Read(Box<dyn Reader>),
}

/// Reads inputs, one after the other, into one fold. See the module.
pub struct Import {
    options: ImportOptions,
    stage: Stage,
    unpack: Option<MultiGzDecoder<Vec<u8>>>,
    begun: bool,
    intake: Intake,
    detections: Vec<Detection>,
    /// The sum of the inputs that have profiles of their own.
    others: Option<Profile>,
}

impl Import {
    /// An import that has read nothing yet.
    #[must_use]
    pub fn new(options: ImportOptions) -> Self {
        let word = options.format.map_or("", Format::word);
        let intake = Intake {
            fold: Fold::new(&options.host, word, options.limits),
            stats: ImportStats::default(),
            source: None,
        };
        Self {
            options,
            stage: Stage::Head(Vec::new()),
            unpack: None,
            begun: false,
            intake,
            detections: Vec::new(),
            others: None,
        }
    }

    /// The same, whose frames get their source from somebody who knows it. Only texts with addresses can be
    /// read then.
    #[must_use]
    pub fn with_source(mut self, info: Box<dyn DebugInfo>, options: SourceOptions) -> Self {
        self.intake.source = Some(Box::new(Source::new(info, options)));
        self
    }

    /// Ends the input that was fed, if any, and begins another, whose stacks belong to `host`.
    ///
    /// # Errors
    /// [`ImportError`] about the input that ends.
    pub fn next_input(&mut self, host: &str) -> Result<(), ImportError> {
        if self.begun {
            self.end_input()?;
        }
        host.clone_into(&mut self.options.host);
        self.intake.fold.of_host(host);
        Ok(())
    }

    /// Adds a profile that was read elsewhere.
    ///
    /// # Errors
    /// [`ImportError::Merge`] when it measures something else.
    pub fn add(&mut self, profile: Profile) -> Result<(), ImportError> {
        match &mut self.others {
            Some(sum) => sum.merge(&profile)?,
            none => *none = Some(profile),
        }
        Ok(())
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ImportError`] when the input cannot be read at all. A foreign line is no error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.intake.stats.bytes += bytes.len() as u64;
        if !self.begun && !bytes.is_empty() {
            // A first piece of one byte would be taken for text; callers read more than that.
            self.begun = true;
            if bytes.starts_with(&[0x1f, 0x8b]) {
                self.unpack = Some(MultiGzDecoder::new(Vec::new()));
            }
        }
        let Some(mut unpack) = self.unpack.take() else {
            return self.unpacked(bytes);
        };
        for piece in bytes.chunks(PACKED_PIECE_BYTES) {
            let written = unpack.write_all(piece);
            let plain = std::mem::take(unpack.get_mut());
            self.unpacked(&plain)?;
            written.map_err(|e| self.gzip_error(&e))?;
            let mut plain = plain;
            plain.clear();
            *unpack.get_mut() = plain;
        }
        self.unpack = Some(unpack);
        Ok(())
    }

    fn gzip_error(&self, e: &std::io::Error) -> ImportError {
        ImportError::Gzip {
            unpacked: self.intake.stats.unpacked_bytes,
            what: e.to_string(),
        }
    }

    fn unpacked(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.intake.stats.unpacked_bytes += bytes.len() as u64;
        let head = match &mut self.stage {
            Stage::Read(reader) => return reader.feed(bytes, &mut self.intake),
            Stage::Head(head) if head.is_empty() && bytes.len() >= HEAD_BYTES => None,
            Stage::Head(head) => {
                head.extend_from_slice(bytes);
                if head.len() < HEAD_BYTES {
                    return Ok(());
                }
                Some(std::mem::take(head))
            }
        };
        match head {
            Some(head) => self.begin(&head),
            None => self.begin(bytes),
        }
    }

    /// Decides the format by `head` and reads it.
    fn begin(&mut self, head: &[u8]) -> Result<(), ImportError> {
        let packed = self.unpack.is_some();
        let detection = match self.options.format {
            Some(format) => Detection::told(format),
            None => detect::detect(&head[..head.len().min(HEAD_BYTES)], packed)?,
        };
        if self.intake.source.is_some() && !detection.format.has_addresses() {
            return Err(ImportError::NoAddresses(detection.format.word()));
        }
        let mut reader = detection.format.reader(&self.options);
        self.intake.fold.from_engine(detection.format.word());
        let fed = reader.feed(head, &mut self.intake);
        self.stage = Stage::Read(reader);
        self.detections.push(detection);
        fed
    }

    /// Unpacked bytes and nodes so far, for a progress display.
    #[must_use]
    pub fn progress(&self) -> (u64, usize) {
        (self.intake.stats.unpacked_bytes, self.intake.fold.nodes())
    }

    fn end_input(&mut self) -> Result<(), ImportError> {
        if let Some(mut unpack) = self.unpack.take() {
            let ended = unpack.try_finish();
            let plain = std::mem::take(unpack.get_mut());
            self.unpacked(&plain)?;
            ended.map_err(|e| self.gzip_error(&e))?;
        }
        if let Stage::Head(head) = &mut self.stage {
            let head = std::mem::take(head);
            self.begin(&head)?;
        }
        self.begun = false;
        let stage = std::mem::replace(&mut self.stage, Stage::Head(Vec::new()));
        let Stage::Read(mut reader) = stage else {
            return Ok(());
        };
        if let Some(profile) = reader.end(&mut self.intake)? {
            return self.add(profile);
        }
        self.intake.fold.end_input();
        match self.intake.fold.mismatch().clone() {
            Mismatch::Whole(ours, theirs) => Err(MergeError::Measures { ours, theirs }.into()),
            Mismatch::Extra | Mismatch::None => Ok(()),
        }
    }

    /// The end of the last input, and the sum of all.
    ///
    /// # Errors
    /// [`ImportError`], as [`Import::feed`].
    pub fn finish(mut self) -> Result<Imported, ImportError> {
        if self.begun || (self.others.is_none() && self.detections.is_empty()) {
            self.end_input()?;
        }
        let Intake {
            mut fold,
            mut stats,
            source,
        } = self.intake;
        stats.source = source.map(|source| source.stats());
        let (gone, missing) = fold.settle();
        if gone > 0 {
            stats.notes.insert(NOTHING_LEFT, gone);
        }
        if missing > 0 {
            stats.notes.insert(BELOW_ZERO, missing);
        }
        stats.pruned += fold.pruned()[0];
        stats.deeper += fold.deeper()[0];
        if *fold.mismatch() == Mismatch::Extra {
            stats.note("not all inputs have a time or a period; only samples are counted");
        }
        let mut profile = fold.into_profile();
        if let Some(others) = self.others {
            if profile.totals.is_empty() {
                profile = others;
            } else {
                profile.merge(&others)?;
            }
        }
        stats.samples = profile.grand_total()[0];
        stats.nodes = profile.tree.len() - 1;
        stats.frames = profile.frames.len();
        Ok(Imported {
            profile,
            detections: self.detections,
            stats,
        })
    }
}

/// Reads an input that is in memory.
///
/// # Errors
/// [`ImportError`].
pub fn import(bytes: &[u8], options: ImportOptions) -> Result<Imported, ImportError> {
    let mut import = Import::new(options);
    import.feed(bytes)?;
    import.finish()
}

#[cfg(test)]
mod tests;
