//! Frames of `perf script` with their source.
//!
//! In: frames by their text, in a stack. Out: the frames that stand in the place of each. Never: a frame
//! of the kernel, of a JIT compiler, or one that perf has marked as inlined looked up.

use super::frame::{hex, split_offset};
use super::reader::Folding;
use super::{FrameText, kind_of};
use crate::format::source::CodePlace;
use crate::profile::FrameKind;

/// Where a frame stands in its stack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    /// Behind a frame of user space: it is where a call returns to.
    caller: bool,
    /// Behind one that perf has marked as inlined: the text has the functions of this address.
    inlined: bool,
}

impl Folding<'_> {
    /// Takes a frame whose source is known. False where the frame is taken as it is.
    #[inline(never)]
    pub(super) fn with_source(&mut self, frame: &FrameText<'_>) -> bool {
        let (path, in_file) = split_offset(frame.module);
        let text = FrameText {
            module: path,
            ..*frame
        };
        let inlined = match kind_of(&text) {
            FrameKind::Inline => {
                self.state.at.inlined = true;
                return false;
            }
            FrameKind::User => std::mem::take(&mut self.state.at.inlined),
            _ => return false,
        };
        let place = CodePlace {
            module: path,
            symbol: frame.name,
            offset: hex(frame.offset),
            address: hex(frame.address),
            in_file: hex(in_file),
            is_return: std::mem::replace(&mut self.state.at.caller, true),
            ..CodePlace::default()
        };
        let Some(mut source) = self.into.source.take() else {
            return false;
        };
        let found = source.frames(&place, inlined, &mut self.into.fold);
        for id in found.into_iter().flatten() {
            self.state.push(*id);
        }
        let told = found.is_some();
        self.into.source = Some(source);
        told
    }
}
