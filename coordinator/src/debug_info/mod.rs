//! Debug info of programs: which functions were inlined at an address, and which source line it is.
//!
//! In: places of code as texts name them, and where files are looked for. Out: functions and lines. Never:
//! a file that is mapped or executed, a symbolic guess (what several functions could be stays as it is), an
//! end because a file is missing, damaged or hostile: work and memory have bounds ([`dwarf`], [`elf`]).
//!
//! The crates gimli, addr2line and object are named in this folder only.

mod address;
mod dwarf;
mod elf;
mod find;
mod metered;
mod symbols;
#[cfg(test)]
mod tests;

use address::{Found, Layout};
use dwarf::Dwarf;
use elf::{Bytes, Elf};
pub use find::Where;
use model::format::source::{CodePlace, DebugInfo, SourceFrame, Untold};
use std::collections::HashMap;
use std::path::Path;
use symbols::Symbols;

/// Files that are kept open in memory at once are at most this many bytes, packed sections unpacked.
const LOADED_BYTES_MAX: u64 = 4 << 30;
/// Modules that are remembered; a text with more is no text of a gateway.
const MODULES_MAX: usize = 4_096;

/// A program or library that was read.
#[derive(Debug)]
struct Program {
    layout: Layout,
    symbols: Symbols,
    dwarf: Result<Dwarf, Untold>,
    build_id: String,
}

impl Program {
    /// Where the code of a place lies in it. Without debug info that is of no use, and its symbols may be
    /// in the same file that is missing.
    fn found(&self, place: &CodePlace<'_>) -> Result<Found, Untold> {
        self.dwarf.as_ref().map_err(|why| *why)?;
        address::found(place, &self.layout, &self.symbols)
    }
}

/// Programs and their debug info, read when they are first asked for.
#[derive(Debug)]
pub struct DebugFiles {
    place: Where,
    /// Places in `programs` by the module's text.
    modules: HashMap<Vec<u8>, Result<usize, Untold>>,
    programs: Vec<Program>,
    /// The files of `--binary`, once a frame without a file asked for them.
    named: Option<Vec<Result<usize, Untold>>>,
    loaded_bytes: u64,
}

impl DebugFiles {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(place: Where) -> Self {
        Self {
            place,
            modules: HashMap::new(),
            programs: Vec::new(),
            named: None,
            loaded_bytes: 0,
        }
    }

    /// The program that a text names by `module`.
    fn program(&mut self, module: &[u8]) -> Result<usize, Untold> {
        if let Some(known) = self.modules.get(module) {
            return *known;
        }
        let found = match self.place.program(module) {
            Some(path) if self.modules.len() < MODULES_MAX => self.load(&path),
            _ => Err(Untold::NoFile),
        };
        if self.modules.len() < MODULES_MAX {
            self.modules.insert(module.to_vec(), found);
        }
        found
    }

    fn load(&mut self, path: &Path) -> Result<usize, Untold> {
        let left = LOADED_BYTES_MAX.saturating_sub(self.loaded_bytes);
        let bytes = Bytes::read(path, left)?;
        let program = Elf::parse(&bytes)?;
        let separate = if program.has_debug_info() {
            None
        } else {
            self.place.debug_file(path, &program, left)
        };
        let debug = separate.as_ref().unwrap_or(&bytes);
        let debug_elf = Elf::parse(debug)?;
        let mut symbols = Symbols::default();
        program.each_symbol(|name, symbol| symbols.add(name, symbol));
        if separate.is_some() {
            debug_elf.each_symbol(|name, symbol| symbols.add(name, symbol));
        }
        symbols.sort();
        let shared = self.place.shared_debug_file(path, &debug_elf, left);
        let dwarf = if debug_elf.has_debug_info() {
            Dwarf::load(debug, shared.as_ref(), left)
        } else {
            Err(Untold::NoDebugInfo)
        };
        let read = separate.as_ref().map_or(0, Bytes::len) + shared.as_ref().map_or(0, Bytes::len);
        let unpacked = dwarf.as_ref().map_or(0, Dwarf::unpacked_bytes);
        self.loaded_bytes += bytes.len() + read + unpacked;
        self.programs.push(Program {
            layout: program.layout(),
            build_id: program.build_id(),
            symbols,
            dwarf,
        });
        Ok(self.programs.len() - 1)
    }

    /// Where the code of a place lies: in which program, and at which of its addresses.
    fn found(&mut self, place: &CodePlace<'_>) -> Result<(usize, Found), Untold> {
        if !place.module.is_empty() {
            let at = self.program(place.module)?;
            return Ok((at, self.programs[at].found(place)?));
        }
        // Without a file in the text it can be any that was given; but only one of them.
        let named = match self.named.take() {
            Some(named) => named,
            None => {
                let paths = self.place.binaries();
                paths.iter().map(|path| self.load(path)).collect()
            }
        };
        let (mut only, mut why) = (None, Untold::NoFile);
        for at in &named {
            match at.and_then(|at| Ok((at, self.programs[at].found(place)?))) {
                Ok(found) if only.is_none() => only = Some(found),
                Ok(_) => {
                    (only, why) = (None, Untold::Ambiguous);
                    break;
                }
                Err(other) => why = other,
            }
        }
        self.named = Some(named);
        only.ok_or(why)
    }
}

impl DebugInfo for DebugFiles {
    fn frames(&mut self, place: &CodePlace<'_>) -> Result<Vec<SourceFrame>, Untold> {
        let (at, found) = self.found(place)?;
        let dwarf = self.programs[at].dwarf.as_ref().map_err(|why| *why)?;
        let call = found.address.wrapping_sub(u64::from(place.is_return));
        let mut frames = dwarf.frames(call)?;
        if let Some(outer) = frames.last_mut()
            && found.is_named
        {
            outer.function.clear(); // the text's own name, such as of one of the compiler's clones
        }
        Ok(frames)
    }

    fn build_id(&self, module: &[u8]) -> Option<String> {
        let at = self.modules.get(module)?.ok()?;
        let id = &self.programs.get(at)?.build_id;
        (!id.is_empty()).then(|| id.clone())
    }
}
