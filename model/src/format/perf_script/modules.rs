//! What was told before of a module: frames of few modules make up a text.
//!
//! In: modules as perf prints them. Out: kind of their frames and name of the module. Never: more
//! than a few short modules kept.

use super::frame::split_offset;
use super::{FrameText, kind_of, module_of};
use crate::profile::FrameKind;

/// Modules that are kept; each has one place, which it takes from the one before.
const PLACES: usize = 32;
/// Longest module that is kept.
const KEPT_BYTES_MAX: usize = 256;

/// What a module says.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The module's text, without what is printed behind the path.
    text: Vec<u8>,
    pub kind: FrameKind,
    /// Its name as the model has it.
    pub module: Vec<u8>,
    /// Where the path ends. perf 6.4 and later can print behind it where in the file the address
    /// lies (`-F +dsoff`).
    pub path_len: usize,
}

/// A few modules that were met.
#[derive(Debug)]
pub(super) struct Modules {
    places: Vec<Option<Told>>,
}

impl Default for Modules {
    fn default() -> Self {
        Self {
            places: vec![None; PLACES],
        }
    }
}

impl Modules {
    /// What is known of this module.
    #[inline]
    pub fn find(&self, module: &[u8]) -> Option<&Told> {
        let told = self.places[place(module)].as_ref()?;
        (told.text == module).then_some(told)
    }

    /// Works out what a frame's module says, and keeps it if it says the same of every frame.
    pub fn tell(&mut self, frame: &FrameText<'_>) -> Told {
        let (path, dsoff) = split_offset(frame.module);
        let text = FrameText {
            module: path,
            ..*frame
        };
        let kind = kind_of(&text);
        let told = Told {
            text: path.to_vec(),
            kind,
            module: module_of(kind, path).to_vec(),
            path_len: path.len(),
        };
        // Without a module the kind depends on the address.
        if dsoff.is_empty() && !path.is_empty() && path.len() <= KEPT_BYTES_MAX {
            self.places[place(path)] = Some(told.clone());
        }
        told
    }
}

/// By length and two letters: paths of libraries differ in their middle more than at their ends.
#[inline]
fn place(module: &[u8]) -> usize {
    let letter = |at: usize| module.get(at).map_or(0, |b| usize::from(*b));
    let len = module.len();
    (len + 7 * letter(len / 2) + 3 * letter(len.saturating_sub(3))) % PLACES
}
