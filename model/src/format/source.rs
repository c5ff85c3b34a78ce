//! Frames of text with their source: functions that a compiler inlined become frames of their own, and
//! frames are told apart by their lines.
//!
//! In: where a frame's code lies, as its line says it, and somebody who knows the debug info of programs.
//! Out: the frames that stand in the place of the one; what could not be told, by file and reason. Never:
//! a file that is read here (who knows the debug info is brought by the caller), a frame that is left out
//! (what cannot be told stays as it is), memory that grows with the input.

use super::fold::Fold;
use crate::profile::{FrameId, FrameKind};
use foldhash::HashMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Most functions that are taken of one address: the innermost, and the one that was not inlined.
const CHAIN_MAX: usize = 64;
/// Bytes of lines whose frames are kept; then they are asked for anew.
const KNOWN_BYTES_MAX: usize = 64 << 20;
/// What a kept line takes beside its bytes.
const KNOWN_BYTES_EACH: usize = 64;
/// Longest place that is looked at, in bytes: a path has 4,096 at most, a name 1,024.
const PLACE_BYTES_MAX: usize = 8 << 10;
/// Files whose frames that could not be told are counted by name.
const FILES_MAX: usize = 64;

/// Where the code of a frame lies, as its line says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodePlace<'a> {
    /// The file, as printed; empty where the line has none.
    pub module: &'a [u8],
    /// The symbol; empty where the line has none.
    pub symbol: &'a [u8],
    /// Bytes from the symbol's begin.
    pub offset: Option<u64>,
    /// Bytes of the symbol as printed. SystemTap means those up to the next symbol.
    pub size: Option<u64>,
    /// The address in the process.
    pub address: Option<u64>,
    /// Bytes from where the file is mapped, and bytes of the mapping (SystemTap).
    pub mapped: Option<(u64, Option<u64>)>,
    /// Byte of the file (perf's `dsoff`).
    pub in_file: Option<u64>,
    /// It is where a call returns to, so that the call stands before it.
    pub is_return: bool,
}

/// A function and a line in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFrame {
    /// The function; empty where the name that the line has is the right one.
    pub function: String,
    /// Name of the file without its folders; empty when unknown.
    pub file: String,
    /// The line; 0 when unknown.
    pub line: u32,
}

/// Why a frame's source could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Untold {
    /// The line names no file, or none that is here.
    NoFile,
    /// The file has no debug info for this code, and none was found beside it.
    NoDebugInfo,
    /// Symbol and address do not fit the file: it is another build.
    OtherBuild,
    /// The file has no such symbol, or no code where the line says.
    NoSymbol,
    /// Several functions have this name, and nothing tells which is meant.
    Ambiguous,
    /// File or debug info are damaged, or larger than is read.
    Damaged,
}

impl Untold {
    /// In words that fit after a number of frames.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoFile => "whose file is not here",
            Self::NoDebugInfo => "without debug info",
            Self::OtherBuild => "that do not fit the file (another build of it)",
            Self::NoSymbol => "whose symbol is not in the file",
            Self::Ambiguous => "whose name several functions have",
            Self::Damaged => "whose debug info cannot be read",
        }
    }
}

/// Knows the debug info of programs.
pub trait DebugInfo: fmt::Debug {
    /// The function whose code lies there, and before it those that were inlined into it there, innermost
    /// first: never empty.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn frames(&mut self, place: &CodePlace<'_>) -> Result<Vec<SourceFrame>, Untold>;

    /// The build-id of a module that was asked for, in hex digits.
    fn build_id(&self, module: &[u8]) -> Option<String>;
}

/// What frames get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Inlined functions are frames of their own.
    pub inlines: bool,
    /// Names have their lines: `function(file.c:12)`.
    pub lines: bool,
}

/// Frames whose source could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UntoldFrames {
    /// The file as the input names it; empty where it names none.
    pub file: String,
    /// Why.
    pub why: Untold,
    /// Its build-id, where the file is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// How many lines of the input.
    pub frames: u64,
}

/// How much could be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceStats {
    /// Lines of the input whose source was told.
    pub told: u64,
    /// The others, by file and reason.
    pub untold: Vec<UntoldFrames>,
}

/// What a line led to.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// Frames from here on, and how many.
    Told(u32, u32),
    Untold(Untold),
}

/// Puts frames with their source in the place of others. See the module.
#[derive(Debug)]
pub struct Source {
    info: Box<dyn DebugInfo>,
    options: SourceOptions,
    known: HashMap<Box<[u8]>, Known>,
    known_bytes: usize,
    ids: Vec<FrameId>,
    key: Vec<u8>,
    told: u64,
    untold: BTreeMap<(Untold, String), u64>,
}

impl Source {
    /// By somebody who knows.
    #[must_use]
    pub fn new(info: Box<dyn DebugInfo>, options: SourceOptions) -> Self {
        Self {
            info,
            options,
            known: HashMap::default(),
            known_bytes: 0,
            ids: Vec::new(),
            key: Vec::new(),
            told: 0,
            untold: BTreeMap::new(),
        }
    }

    /// The frames that stand in the place of one of user space, leaf first; none where it stays as it is.
    /// `outer_only`: the text has the inlined functions of this place already.
    pub(super) fn frames(
        &mut self,
        place: &CodePlace<'_>,
        outer_only: bool,
        fold: &mut Fold,
    ) -> Option<&[FrameId]> {
        // Memory that is no file, such as `[vdso]`.
        let bytes = place.module.len() + place.symbol.len();
        if place.module.starts_with(b"[") || bytes > PLACE_BYTES_MAX {
            return None;
        }
        self.set_key(place, outer_only);
        let known = match self.known.get(&*self.key) {
            Some(known) => *known,
            None => self.ask(place, outer_only, fold),
        };
        match known {
            Known::Told(from, count) => {
                self.told += 1;
                let from = from as usize;
                self.ids.get(from..from + count as usize)
            }
            Known::Untold(why) => {
                self.count(why, place.module);
                None
            }
        }
    }

    /// All of a place and of what it is taken for.
    fn set_key(&mut self, place: &CodePlace<'_>, outer_only: bool) {
        let key = &mut self.key;
        key.clear();
        key.push(u8::from(place.is_return) | u8::from(outer_only) << 1);
        for number in [
            place.offset,
            place.size,
            place.address,
            place.mapped.map(|(at, _)| at),
            place.mapped.and_then(|(_, size)| size),
            place.in_file,
        ] {
            key.push(u8::from(number.is_some()));
            key.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
        }
        key.extend_from_slice(place.symbol);
        key.push(0);
        key.extend_from_slice(place.module);
    }

    #[inline(never)]
    fn ask(&mut self, place: &CodePlace<'_>, outer_only: bool, fold: &mut Fold) -> Known {
        if self.known_bytes > KNOWN_BYTES_MAX {
            self.known.clear();
            self.ids.clear();
            self.known_bytes = 0;
        }
        let known = match self.info.frames(place) {
            Ok(mut chain) => {
                if chain.len() > CHAIN_MAX {
                    chain.drain(CHAIN_MAX - 1..chain.len() - 1);
                }
                self.intern(place, &chain, outer_only, fold)
            }
            Err(why) => Known::Untold(why),
        };
        let frames = match known {
            Known::Told(_, count) => count as usize,
            Known::Untold(_) => 0,
        };
        self.known_bytes += self.key.len() + KNOWN_BYTES_EACH + frames * size_of::<FrameId>();
        self.known.insert(self.key.as_slice().into(), known);
        known
    }

    fn intern(
        &mut self,
        place: &CodePlace<'_>,
        chain: &[SourceFrame],
        outer_only: bool,
        fold: &mut Fold,
    ) -> Known {
        let Some((outer, inlined)) = chain.split_last() else {
            return Known::Untold(Untold::NoDebugInfo);
        };
        let own = String::from_utf8_lossy(place.symbol);
        let name = if outer.function.is_empty() {
            &own
        } else {
            outer.function.as_str()
        };
        if name.trim().is_empty() {
            return Known::Untold(Untold::NoDebugInfo);
        }
        let from = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        if self.options.inlines && !outer_only {
            for frame in inlined.iter().filter(|f| !f.function.is_empty()) {
                let name = self.name(&frame.function, frame);
                let id = fold.frame(FrameKind::Inline, name.as_bytes(), b"");
                self.ids.push(id);
            }
        }
        let name = self.name(name, outer);
        let module = place.module.strip_suffix(b" (deleted)");
        let module = module.unwrap_or(place.module);
        self.ids
            .push(fold.frame(FrameKind::User, name.as_bytes(), module));
        let count = self.ids.len().saturating_sub(from as usize);
        Known::Told(from, u32::try_from(count).unwrap_or(0))
    }

    fn name(&self, function: &str, at: &SourceFrame) -> String {
        if self.options.lines && at.line > 0 && !at.file.is_empty() {
            format!("{function}({}:{})", at.file, at.line)
        } else {
            function.to_owned()
        }
    }

    fn count(&mut self, why: Untold, module: &[u8]) {
        let mut file = String::from_utf8_lossy(module).replace(char::is_control, " ");
        if self.untold.len() >= FILES_MAX && !self.untold.contains_key(&(why, file.clone())) {
            "[other]".clone_into(&mut file);
        }
        *self.untold.entry((why, file)).or_default() += 1;
    }

    /// How much could be told so far.
    #[must_use]
    pub(super) fn stats(&self) -> SourceStats {
        let untold = self.untold.iter();
        let untold = untold.map(|((why, file), frames)| UntoldFrames {
            file: file.clone(),
            why: *why,
            build_id: self.info.build_id(file.as_bytes()),
            frames: *frames,
        });
        SourceStats {
            told: self.told,
            untold: untold.collect(),
        }
    }
}

/// Function, file and line of a name that has its line: `function(file.c:12)`.
#[must_use]
pub fn split_line(name: &str) -> Option<(&str, &str, u32)> {
    let (function, place) = name.strip_suffix(')')?.rsplit_once('(')?;
    let (file, line) = place.rsplit_once(':')?;
    let line = line.parse().ok().filter(|line| *line > 0)?;
    (!function.is_empty() && !file.is_empty()).then_some((function, file, line))
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
