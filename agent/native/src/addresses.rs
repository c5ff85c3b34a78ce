//! Names for stacks that another tool has unwound. In: a process and code addresses, leaf first. Out: frame ids as the
//! sampler itself would have made them. Never: a run-time address in a frame, or a mapped file that is read unchecked.

use crate::copied::Copies;
use crate::elf::{self, Want};
use crate::file::{FILE_BYTES_MAX, TargetFile};
use crate::fold::Folder;
use crate::kallsyms::KernelSymbols;
use crate::maps;
use crate::modules::ModuleStore;
use crate::space::{Code, Space};
use crate::unwind::{DEPTH_MAX, Pc, Stack};
use foldhash::HashMap;
use model::finding::Finding;
use model::profile::{BuildId, FrameId, Recorder};
use std::path::Path;

/// Processes whose mappings are remembered; then the oldest knowledge is given up as a whole.
const PROCESSES_MAX: usize = 4_096;

/// One file that a process has mapped as code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappedImage {
    /// Its path as the process sees it, with the kernel's ` (deleted)` where it is.
    pub path: String,
    /// Its build-id, where it has one.
    pub build_id: Option<BuildId>,
}

/// Names addresses, and remembers what it read for it.
#[derive(Debug, Default)]
pub struct AddressNames {
    pub(crate) store: ModuleStore,
    pub(crate) spaces: HashMap<u32, Space>,
    pub(crate) folder: Folder,
    pub(crate) stack: Stack,
    pub(crate) copies: Copies,
}

impl MappedImage {
    /// A file of our own system, as a process that maps it under this path would have it.
    ///
    /// # Errors
    /// Why it is no image.
    pub fn of_file(path: &str) -> Result<Self, String> {
        let said = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let file = TargetFile::open_own(Path::new(path), FILE_BYTES_MAX).map_err(|e| said(&e))?;
        let elf = elf::parse(&file, Want::Identity).map_err(|e| said(&e))?;
        Ok(Self {
            path: path.to_owned(),
            build_id: elf.build_id,
        })
    }

    /// Whether our own system's file of this path has a function of this name in its symbols. Blocks.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        let file = TargetFile::open_own(Path::new(&self.path), FILE_BYTES_MAX).ok();
        let elf = file.and_then(|file| elf::parse(&file, Want::Symbols).ok());
        elf.is_some_and(|elf| elf.symbols.has(name))
    }
}

impl AddressNames {
    /// With the kernel's names if `kernel`, which reads /proc/kallsyms. Blocks for some milliseconds.
    #[must_use]
    pub fn new(kernel: bool) -> Self {
        let symbols = if kernel {
            KernelSymbols::load().unwrap_or_default()
        } else {
            KernelSymbols::default()
        };
        Self {
            folder: Folder::new(symbols),
            ..Self::default()
        }
    }

    /// Reads what `pid` has mapped, so that its stacks can be named after its end too. Blocks.
    pub fn learn(&mut self, pid: u32, now_ns: u64) {
        self.make_room(pid);
        self.spaces.entry(pid).or_default().mark_dirty();
        self.refresh(pid, now_ns);
    }

    pub(crate) fn make_room(&mut self, pid: u32) {
        if self.spaces.len() >= PROCESSES_MAX && !self.spaces.contains_key(&pid) {
            self.spaces.clear();
            self.forget_all_vms();
        }
    }

    /// The pid belongs to another process now.
    pub fn forget(&mut self, pid: u32) {
        self.spaces.remove(&pid);
        self.forget_vms(pid);
    }

    /// Ids of one stack, root first, into `out`. All user addresses but the leaf's are return addresses, and `truncated`
    /// says that the stack did not reach its root.
    #[expect(
        clippy::too_many_arguments,
        reason = "one stack, where it goes, and when"
    )]
    pub fn fold(
        &mut self,
        recorder: &mut Recorder,
        pid: u32,
        kernel_leaf_first: &[u64],
        user_leaf_first: &[u64],
        truncated: bool,
        now_ns: u64,
        out: &mut Vec<FrameId>,
    ) {
        self.stack.frames.clear();
        self.stack.truncated = truncated;
        self.make_room(pid);
        let space = self.spaces.entry(pid).or_default();
        space.refresh(pid, now_ns, &mut self.store);
        for (depth, address) in user_leaf_first.iter().take(DEPTH_MAX).enumerate() {
            let address = address.wrapping_sub(u64::from(depth > 0));
            if space.find(address).is_none() {
                space.refresh_for_unknown(pid, now_ns, &mut self.store);
            }
            self.stack.frames.push(match space.find(address) {
                Some(Code::Module { module, bias }) => {
                    Pc::Module(module.clone(), address.wrapping_sub(*bias))
                }
                Some(Code::File(name)) => Pc::File(name.clone()),
                Some(Code::Anonymous) => Pc::Jit,
                None => Pc::Unknown,
            });
        }
        let kernel = kernel_leaf_first.iter().take(DEPTH_MAX).copied();
        self.folder.fold(recorder, kernel, &self.stack, out);
    }

    /// What `pid` has mapped as code: each file once, by path. Blocks.
    pub fn images(&mut self, pid: u32) -> Vec<MappedImage> {
        let Ok(maps) = maps::read(pid) else {
            return Vec::new();
        };
        let files = maps.rows.iter().filter(|m| m.ino != 0);
        let mut images: Vec<MappedImage> = files
            .map(|mapping| MappedImage {
                path: mapping.path.clone(),
                build_id: self.store.load(pid, mapping).and_then(|m| m.elf.build_id),
            })
            .collect();
        images.sort();
        images.dedup_by(|a, b| a.path == b.path);
        images
    }

    /// What went wrong with files so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        self.store.findings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::{Measure, RecorderLimits, Series};

    #[inline(never)]
    fn a_function_of_ours() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn an_address_gets_the_name_that_the_sampler_would_give_it() {
        let me = std::process::id();
        let mut names = AddressNames::new(false);
        names.learn(me, 1);
        let images = names.images(me);
        let own = std::env::current_exe().expect("exe");
        assert!(images.iter().any(|i| Some(i.path.as_str()) == own.to_str()));
        let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
        let address = a_function_of_ours as *const () as usize as u64;
        let mut ids = Vec::new();
        // The second is a return address into the same function; the third is nowhere.
        names.fold(
            &mut recorder,
            me,
            &[],
            &[address, address + 1, 16],
            true,
            1,
            &mut ids,
        );
        let series = recorder.series(&Series::default());
        recorder.add_stack(series, 0, &ids, &[1, 0, 0]);
        let segment = recorder.take(usize::MAX);
        let names: Vec<&str> = ids
            .iter()
            .map(|id| segment.frames[id.0 as usize].name.as_str())
            .collect();
        let own = "fleetflame_native::addresses::tests::a_function_of_ours";
        assert_eq!(names, ["[truncated]", "", own, own]);
        assert_eq!(a_function_of_ours(), 7);
    }

    #[test]
    fn no_more_processes_are_remembered_than_there_may_be() {
        let mut names = AddressNames::new(false);
        let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
        let mut ids = Vec::new();
        // Beyond any pid that there can be.
        for pid in (1 << 23)..(1 << 23) + PROCESSES_MAX as u32 + 10 {
            names.fold(&mut recorder, pid, &[], &[16], false, 1, &mut ids);
        }
        assert_eq!(names.spaces.len(), 10);
    }
}
