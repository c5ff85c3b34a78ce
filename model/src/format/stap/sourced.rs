//! Frames of SystemTap's backtraces with their source.
//!
//! In: lines. Out: the frames that stand in the place of each. Never: a frame of the kernel or of Lua
//! looked up.

use super::frame::{self, FrameText};
use super::{INEXACT, StapReader, foreign};
use crate::format::import::Intake;
use crate::format::lines::Line;
use crate::format::source::{CodePlace, Source};
use crate::profile::FrameKind;

impl StapReader {
    /// Takes a line whose source is known. False where the line is taken as it is.
    #[inline(never)]
    pub(super) fn with_source(&mut self, line: Line<'_>, into: &mut Intake) -> bool {
        let Some(mut source) = into.source.take() else {
            return false;
        };
        let told = !line.is_cut() && self.take(line.bytes, &mut source, into);
        into.source = Some(source);
        told
    }

    fn take(&mut self, line: &[u8], source: &mut Source, into: &mut Intake) -> bool {
        if frame::count(line).is_some() || foreign::is_debug(line) {
            return false;
        }
        let Some(text) = frame::usual(line).or_else(|| frame::any(line)) else {
            return match frame::raw(line) {
                Some((addresses, count)) => {
                    self.raw(addresses, count, source, into);
                    true
                }
                None => false,
            };
        };
        if text.kind != FrameKind::User {
            return false;
        }
        let is_return = std::mem::replace(&mut self.callers, true);
        let place = CodePlace {
            is_return,
            ..frame::place(line, &text)
        };
        let Some(ids) = source.frames(&place, false, &mut into.fold) else {
            return false;
        };
        self.release(false, into);
        if text.inexact {
            into.stats.note(INEXACT);
        }
        for id in ids {
            self.push_frame(*id);
        }
        true
    }

    /// A stack of bare addresses, leaf first.
    fn raw(&mut self, addresses: &[u8], count: &[u8], source: &mut Source, into: &mut Intake) {
        self.release(false, into);
        for address in addresses.split(|b| *b == b' ').filter(|a| !a.is_empty()) {
            let text = FrameText::at(&address[2..]);
            let place = CodePlace {
                address: frame::hex(&address[2..]),
                is_return: self.callers,
                ..CodePlace::default()
            };
            let ids = if text.kind == FrameKind::User {
                self.callers = true;
                source.frames(&place, false, &mut into.fold)
            } else {
                None
            };
            match ids {
                Some(ids) => ids.iter().for_each(|id| self.push_frame(*id)),
                None => {
                    self.push(&text, into);
                }
            }
        }
        self.count(count, false, into);
    }
}
