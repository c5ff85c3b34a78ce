//! Stacks to rows of the recorder. In: kernel addresses and user frames, leaf first. Out: frame
//! ids, root first. Never: a run-time address in a frame.

use crate::kallsyms::KernelSymbols;
use crate::modules::Module;
use crate::unwind::{Pc, Stack};
use foldhash::HashMap;
use model::demangle::demangle;
use model::profile::{Frame, FrameId, FrameKind, Recorder};

/// Ids that are remembered before the cache is emptied.
const CACHE_MAX: usize = 1 << 20;

/// Turns frames into ids and remembers them.
#[derive(Debug, Default)]
pub struct Folder {
    /// With whether a function is known there.
    code: HashMap<(u32, u64), (FrameId, bool)>,
    kernel: HashMap<u64, FrameId>,
    other: HashMap<String, FrameId>,
    symbols: KernelSymbols,
    unknown_frames: u64,
}

impl Folder {
    /// A folder with the kernel's names (an empty table leaves kernel frames unnamed).
    #[must_use]
    pub fn new(symbols: KernelSymbols) -> Self {
        Self {
            symbols,
            ..Self::default()
        }
    }

    /// The kernel's names.
    #[must_use]
    pub fn symbols(&self) -> &KernelSymbols {
        &self.symbols
    }

    /// User frames of the last stack whose function is not known.
    #[must_use]
    pub fn unknown_frames(&self) -> u64 {
        self.unknown_frames
    }

    /// Ids of one stack, root first, into `out`.
    pub fn fold(
        &mut self,
        recorder: &mut Recorder,
        kernel_leaf_first: impl Iterator<Item = u64>,
        stack: &Stack,
        out: &mut Vec<FrameId>,
    ) {
        out.clear();
        self.unknown_frames = 0;
        for (depth, address) in kernel_leaf_first.enumerate() {
            // All but the leaf are return addresses.
            let id = self.kernel_frame(recorder, address.wrapping_sub(u64::from(depth > 0)));
            out.push(id);
        }
        for pc in &stack.frames {
            self.unknown_frames += u64::from(matches!(pc, Pc::File(_) | Pc::Unknown));
            let id = match pc {
                Pc::Module(module, address) => self.code_frame(recorder, module, *address),
                Pc::File(name) => self.remembered(recorder, name, || {
                    Frame::unnamed(FrameKind::User, &**name, None, 0)
                }),
                Pc::Jit => self.remembered(recorder, "[jit]", || {
                    Frame::named(FrameKind::Jit, "[jit]", "")
                }),
                Pc::Unknown => self.remembered(recorder, "", || {
                    Frame::unnamed(FrameKind::User, "", None, 0)
                }),
                Pc::Given(frame) => recorder.frame(frame),
            };
            out.push(id);
        }
        if stack.truncated {
            out.push(self.remembered(recorder, "[truncated]", || Frame::marker("[truncated]")));
        }
        out.reverse();
    }

    fn remembered(
        &mut self,
        recorder: &mut Recorder,
        key: &str,
        make: impl FnOnce() -> Frame,
    ) -> FrameId {
        if let Some(&id) = self.other.get(key) {
            return id;
        }
        let id = recorder.frame(&make());
        self.other.insert(key.to_owned(), id);
        id
    }

    fn code_frame(&mut self, recorder: &mut Recorder, module: &Module, address: u64) -> FrameId {
        let key = (module.id, address);
        if let Some(&(id, is_known)) = self.code.get(&key) {
            self.unknown_frames += u64::from(!is_known);
            return id;
        }
        let function = module.elf.function(address);
        let name = function.name.map(demangle).unwrap_or_default();
        let frame = Frame {
            name,
            ..Frame::unnamed(
                FrameKind::User,
                module.name.as_str(),
                module.elf.build_id,
                function.start,
            )
        };
        let id = recorder.frame(&frame);
        if self.code.len() >= CACHE_MAX {
            self.code.clear();
        }
        let is_known = function.start != 0;
        self.unknown_frames += u64::from(!is_known);
        self.code.insert(key, (id, is_known));
        id
    }

    fn kernel_frame(&mut self, recorder: &mut Recorder, address: u64) -> FrameId {
        if let Some(&id) = self.kernel.get(&address) {
            return id;
        }
        let frame = match self.symbols.find(address) {
            Some((name, module)) => Frame::named(FrameKind::Kernel, name, module),
            None => Frame::unnamed(FrameKind::Kernel, "kernel", None, 0),
        };
        let id = recorder.frame(&frame);
        if self.kernel.len() >= CACHE_MAX {
            self.kernel.clear();
        }
        self.kernel.insert(address, id);
        id
    }
}
