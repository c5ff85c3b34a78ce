//! The code of one process, by address. In: its mappings. Out: module and bias for an address.
//! Never: a scan more often than its bound, whatever the process does.

use crate::maps::{self, Maps};
use crate::modules::{Module, ModuleStore, base_name};
use foldhash::HashMap;
use std::sync::Arc;

/// Shortest time between two scans of one process.
const SCAN_GAP_NS: u64 = 100_000_000;
/// An unknown address is a reason to scan again after this long.
const RETRY_NS: u64 = 1_000_000_000;

/// What lies at an address.
#[derive(Clone, Debug)]
pub enum Code {
    /// An image.
    Module {
        /// The image.
        module: Arc<Module>,
        /// Run-time minus ELF address.
        bias: u64,
    },
    /// A file that could not be used: its base name.
    File(Arc<str>),
    /// Executable memory without a file: code made at run time.
    Anonymous,
}

#[derive(Clone, Debug)]
struct Region {
    start: u64,
    end: u64,
    code: Code,
}

/// One process's executable memory.
#[derive(Debug, Default)]
pub struct Space {
    regions: Vec<Region>,
    files: HashMap<(u64, u64), Option<Arc<Module>>>,
    scanned_ns: u64,
    dirty: bool,
    /// Whether some mappings were left out.
    pub cut: bool,
    /// Mappings of any kind at the last scan.
    pub seen: usize,
}

impl Space {
    /// The mappings may have changed.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// A new program runs: nothing of the old one holds.
    pub fn forget(&mut self) {
        *self = Self {
            dirty: true,
            ..Self::default()
        };
    }

    /// Scans if there is reason to and the last scan is long enough ago. Returns whether it did.
    pub fn refresh(&mut self, pid: u32, now_ns: u64, store: &mut ModuleStore) -> bool {
        let age = now_ns.saturating_sub(self.scanned_ns);
        let due = self.scanned_ns == 0 || (self.dirty && age >= SCAN_GAP_NS);
        if due {
            self.scan(pid, now_ns, store);
        }
        due
    }

    /// An address was not found: scan again, but not for each one.
    pub fn refresh_for_unknown(&mut self, pid: u32, now_ns: u64, store: &mut ModuleStore) -> bool {
        let due = now_ns.saturating_sub(self.scanned_ns) >= RETRY_NS;
        if due {
            self.scan(pid, now_ns, store);
        }
        due
    }

    fn scan(&mut self, pid: u32, now_ns: u64, store: &mut ModuleStore) {
        self.scanned_ns = now_ns.max(1);
        self.dirty = false;
        // The process may be gone: what was known of it is still the best there is.
        if let Ok(maps) = maps::read(pid)
            && !maps.rows.is_empty()
        {
            self.take(pid, &maps, store);
        }
    }

    fn take(&mut self, pid: u32, maps: &Maps, store: &mut ModuleStore) {
        self.cut = maps.cut;
        self.seen = maps.seen;
        self.regions.clear();
        for mapping in &maps.rows {
            let code = if mapping.ino != 0 {
                let module = self
                    .files
                    .entry((mapping.dev, mapping.ino))
                    .or_insert_with(|| store.load(pid, mapping))
                    .clone();
                let length = mapping.end - mapping.start;
                let placed = module.and_then(|module| {
                    let bias = module.elf.bias(mapping.start, mapping.offset, length)?;
                    Some(Code::Module { module, bias })
                });
                placed.unwrap_or_else(|| Code::File(base_name(&mapping.path).into()))
            } else if mapping.path == "[vdso]" {
                match store.load_vdso(pid, mapping) {
                    Some(module) => {
                        let first = module.elf.loads.first().map_or(0, |l| l.address);
                        Code::Module {
                            module,
                            bias: mapping.start.wrapping_sub(first),
                        }
                    }
                    None => Code::File("[vdso]".into()),
                }
            } else if mapping.path == "[vsyscall]" {
                Code::File("[vsyscall]".into())
            } else {
                Code::Anonymous
            };
            self.regions.push(Region {
                start: mapping.start,
                end: mapping.end,
                code,
            });
        }
    }

    /// Executable memory in order of address: start, end, and the image with its bias.
    pub fn executable(&self) -> impl Iterator<Item = (u64, u64, Option<(&Module, u64)>)> {
        self.regions.iter().map(|region| {
            let module = match &region.code {
                Code::Module { module, bias } => Some((&**module, *bias)),
                Code::File(_) | Code::Anonymous => None,
            };
            (region.start, region.end, module)
        })
    }

    /// Where this process keeps nginx's pointer to its number of requests.
    #[must_use]
    pub fn request_pointer(&self) -> Option<u64> {
        self.regions.iter().find_map(|region| match &region.code {
            Code::Module { module, bias } => Some(module.elf.request_pointer?.wrapping_add(*bias)),
            _ => None,
        })
    }

    /// What lies at a run-time address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Code> {
        let after = self.regions.partition_point(|r| r.start <= address);
        let region = self.regions.get(after.checked_sub(1)?)?;
        (address < region.end).then_some(&region.code)
    }
}
