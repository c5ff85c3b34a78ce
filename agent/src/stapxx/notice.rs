//! What an expansion says beside its text: stap++'s own words where it has some.
//!
//! In: a place and a sentence. Out: lines as stap++ writes them. Never: a judgement that changes
//! the expansion; `--strict` is [`Notice::is_mistake`] made an error by the caller.

use super::line_map::Place;
use std::fmt;

/// Why an expansion failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    /// Where.
    pub place: Place,
    /// What, as stap++ says it, without the place.
    pub said: String,
    /// Whether stap++ names the place.
    with_place: bool,
}

impl ExpandError {
    pub(super) fn new(place: Place, said: impl fmt::Display) -> Self {
        Self {
            place,
            said: said.to_string(),
            with_place: true,
        }
    }

    /// An error in which stap++ names no place.
    pub(super) fn bare(place: Place, said: &str) -> Self {
        Self {
            place,
            said: said.to_owned(),
            with_place: false,
        }
    }
}

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.with_place {
            write!(
                f,
                "{}: line {}: {}",
                self.place.file, self.place.line, self.said
            )
        } else {
            f.write_str(&self.said)
        }
    }
}

impl std::error::Error for ExpandError {}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A library was found by its name.
    LibraryFound,
    /// No library has the name; its code is looked for in the program itself.
    LibraryAssumed,
    /// Several libraries begin with the name.
    LibraryAmbiguous,
    /// The library that was found has the name and a number, and is probably another one.
    LibraryOther,
    /// A value was given for an argument that the script does not have.
    ArgumentUnused,
    /// A default stands behind another default of the same argument.
    DefaultShadowed,
    /// A default with a parenthesis in it was cut there.
    DefaultCut,
}

/// Something worth knowing about an expansion that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// Where; none when it is about the command line.
    pub place: Option<Place>,
    /// The sentence.
    pub said: String,
}

impl Notice {
    pub(super) fn new(kind: NoticeKind, place: Place, said: String) -> Self {
        Self {
            kind,
            place: Some(place),
            said,
        }
    }

    pub(super) fn unused(name: &str, value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value);
        Self {
            kind: NoticeKind::ArgumentUnused,
            place: None,
            said: format!(
                "WARNING: $^arg_{name} is defined by \"--arg {name}={value}\", but never used."
            ),
        }
    }

    /// Whether it is almost surely a mistake: what `--strict` refuses.
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        match self.kind {
            NoticeKind::LibraryFound | NoticeKind::LibraryAssumed => false,
            NoticeKind::LibraryAmbiguous
            | NoticeKind::LibraryOther
            | NoticeKind::ArgumentUnused
            | NoticeKind::DefaultShadowed
            | NoticeKind::DefaultCut => true,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.kind) {
            // Without a place in stap++ too.
            (None, _) | (_, NoticeKind::LibraryFound | NoticeKind::LibraryAmbiguous) => {
                f.write_str(&self.said)
            }
            (Some(place), _) => {
                write!(f, "{}: line {}: {}", place.file, place.line, self.said)
            }
        }
    }
}
