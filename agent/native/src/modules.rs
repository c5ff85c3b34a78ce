//! Images that targets have mapped, each parsed once. In: a process and one of its mappings. Out:
//! the parsed image, shared by all processes. Never: a file that is not the mapped one (inode or
//! build-id must agree), a panic of a parser passed on.

use crate::elf::{self, Elf, Want};
use crate::file::{DEBUG_FILE_BYTES_MAX, FILE_BYTES_MAX, FileKey, TargetFile};
use crate::luajit;
use crate::maps::Mapping;
use crate::sys;
use foldhash::HashMap;
use model::finding::{Finding, FindingCode};
use model::profile::BuildId;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Most images that are kept.
const MODULES_MAX: usize = 8192;
/// Most findings about files; beyond it they would only repeat.
const FINDINGS_MAX: usize = 32;
/// Bytes of tables that are kept of all images: a hostile file may state 256 MiB of each kind.
const TABLE_BYTES_MAX: usize = 512 << 20;
/// CPU time that the parsing of all images may take; a thousand libraries take one second.
const PARSING_MAX_NS: u64 = 20_000_000_000;
/// A vdso is one or two pages.
const VDSO_BYTES_MAX: u64 = 64 << 10;

/// One image.
#[derive(Debug)]
pub struct Module {
    /// Number of this image, for caches.
    pub id: u32,
    /// Base name.
    pub name: String,
    /// What was parsed.
    pub elf: Elf,
    /// ELF address and length of LuaJIT's interpreter, if it is in here.
    pub interpreter: Option<(u64, u64)>,
}

/// All images that were seen.
#[derive(Debug, Default)]
pub struct ModuleStore {
    by_key: HashMap<FileKey, Option<Arc<Module>>>,
    vdso: Option<Option<Arc<Module>>>,
    next_id: u32,
    table_bytes: usize,
    parsing_ns: u64,
    findings: Vec<Finding>,
}

impl ModuleStore {
    /// The image behind a mapping with a file; none when it cannot be used (a finding says why).
    pub fn load(&mut self, pid: u32, mapping: &Mapping) -> Option<Arc<Module>> {
        let file = match guarded(|| open(pid, mapping)) {
            Ok(file) => file,
            Err(why) => {
                // A process that ended is not worth a finding.
                if Path::new(&format!("/proc/{pid}/exe"))
                    .symlink_metadata()
                    .is_ok()
                {
                    self.report(format!("{}: {why}", mapping.path));
                }
                return None;
            }
        };
        let key = file.key();
        if let Some(known) = self.by_key.get(&key) {
            return known.clone();
        }
        if self.by_key.len() >= MODULES_MAX {
            return None;
        }
        let module = self.adopt(base_name(&mapping.path), || {
            let mut elf = elf::parse(&file, Want::All).map_err(str::to_owned)?;
            if !elf.has_symtab
                && let Some(symbols) = debug_symbols(pid, &mapping.path, &elf)
            {
                elf.symbols = symbols.symbols;
                elf.has_symtab = true;
            }
            if file.has_changed() {
                return Err("it was written to while it was read".to_owned());
            }
            if !matches_memory(pid, mapping, &elf) {
                return Err("its build-id is not the one in the target's memory".to_owned());
            }
            Ok(elf)
        });
        let module = match module {
            Ok(module) => Some(module),
            Err(why) => {
                self.report(format!("{}: {why}", mapping.path));
                None
            }
        };
        self.by_key.insert(key, module.clone());
        module
    }

    /// The vdso, read from the memory of a process; it is the same in all 64-bit processes.
    pub fn load_vdso(&mut self, pid: u32, mapping: &Mapping) -> Option<Arc<Module>> {
        if let Some(known) = &self.vdso {
            return known.clone();
        }
        let length = (mapping.end - mapping.start).min(VDSO_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            let got = sys::read_process(pid, mapping.start + filled as u64, &mut bytes[filled..]);
            if got == 0 {
                return None;
            }
            filled += got;
        }
        let parse = || elf::parse(&bytes, Want::All).map_err(str::to_owned);
        let module = self.adopt("[vdso]", parse).ok();
        self.vdso = Some(module.clone());
        module
    }

    /// Keeps what `parse` makes of an image, within what all images may cost.
    fn adopt(
        &mut self,
        name: &str,
        parse: impl FnOnce() -> Result<Elf, String>,
    ) -> Result<Arc<Module>, String> {
        if self.parsing_ns >= PARSING_MAX_NS {
            return Err(
                "the files of the targets took 20 s to parse, so this one is not".to_owned(),
            );
        }
        let begin = sys::thread_cpu_ns();
        let parsed = guarded(|| {
            let elf = parse()?;
            let machine = &luajit::layout::HERE;
            let interpreter = elf.cfi.function_with_fixed_frame(
                luajit::layout::INTERPRETER_BYTES_MIN,
                machine.cfa,
                machine.table,
            );
            Ok((elf, interpreter))
        });
        self.parsing_ns += sys::thread_cpu_ns().saturating_sub(begin);
        let (elf, interpreter) = parsed?;
        let bytes = self.table_bytes.saturating_add(elf.bytes());
        if bytes > TABLE_BYTES_MAX {
            return Err("the tables of all files would take more than 512 MiB".to_owned());
        }
        self.table_bytes = bytes;
        self.next_id += 1;
        Ok(Arc::new(Module {
            interpreter,
            id: self.next_id,
            name: name.to_owned(),
            elf,
        }))
    }

    fn report(&mut self, evidence: String) {
        let finding = Finding::new(FindingCode::TargetFile, evidence);
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// What went wrong so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// What `parse` says of a file. The parsers, our own and foreign ones, are written not to panic; a file
/// of a target must not be the proof: it would end the thread that unwinds all targets.
fn guarded<T>(parse: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|_| Err("its tables could not be parsed".to_owned()))
}

/// The last part of a path, without the kernel's remark that the file was deleted.
#[must_use]
pub fn base_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// The mapped file: first what the kernel itself holds, then the executable, then by path, where
/// the inode must be the mapping's.
fn open(pid: u32, mapping: &Mapping) -> Result<TargetFile, String> {
    if let Ok(file) = TargetFile::open_mapped(pid, mapping.start, mapping.end) {
        return Ok(file);
    }
    if let Ok(file) = TargetFile::open_exe(pid)
        && file.key().ino == mapping.ino
    {
        return Ok(file);
    }
    if mapping.path.ends_with(" (deleted)") {
        return Err("it was deleted, and /proc/PID/map_files needs CAP_CHECKPOINT_RESTORE".into());
    }
    let file = TargetFile::open_in_root_of(pid, &mapping.path, false, FILE_BYTES_MAX)
        .map_err(|e| e.to_string())?;
    if file.key().ino == mapping.ino || build_id_in_memory(pid, mapping).is_some() {
        return Ok(file);
    }
    Err("another file is now at this path".into())
}

/// Overwriting a mapped file changes what its tables say about code that is already running. The
/// note with the build-id usually lies in the first page, which is mapped too.
fn matches_memory(pid: u32, mapping: &Mapping, elf: &Elf) -> bool {
    match (build_id_in_memory(pid, mapping), elf.build_id) {
        (Some(memory), Some(file)) => memory == file,
        _ => true,
    }
}

/// The build-id in the mapping that begins at the same file's offset 0. A mapping of code tells
/// how far before it that is only when segments lie side by side, as all linkers place them.
fn build_id_in_memory(pid: u32, mapping: &Mapping) -> Option<BuildId> {
    let start = mapping.start.checked_sub(mapping.offset)?;
    let mut head = vec![0; 16 << 10];
    let got = sys::read_process(pid, start, &mut head);
    head.truncate(got);
    elf::parse(&head, Want::Identity).ok()?.build_id
}

/// Separate debug symbols of the same build: by build-id, then by `.gnu_debuglink`; below the
/// target's root, then on our own system.
fn debug_symbols(pid: u32, path: &str, elf: &Elf) -> Option<Elf> {
    let id = elf.build_id?;
    let mut hex = String::new();
    for byte in id.as_bytes() {
        let _ = write!(hex, "{byte:02x}");
    }
    let (head, tail) = hex.split_at_checked(2)?;
    let mut candidates = vec![format!("/usr/lib/debug/.build-id/{head}/{tail}.debug")];
    if let Some(link) = &elf.debug_link
        && let Some((directory, _)) = path.rsplit_once('/')
    {
        candidates.push(format!("{directory}/.debug/{link}"));
        candidates.push(format!("{directory}/{link}"));
        candidates.push(format!("/usr/lib/debug{directory}/{link}"));
    }
    candidates.iter().find_map(|candidate| {
        let theirs = TargetFile::open_in_root_of(pid, candidate, true, DEBUG_FILE_BYTES_MAX);
        let file =
            theirs.or_else(|_| TargetFile::open_own(Path::new(candidate), DEBUG_FILE_BYTES_MAX));
        let symbols = elf::parse(&file.ok()?, Want::Symbols).ok()?;
        (symbols.build_id == Some(id) && symbols.has_symtab).then_some(symbols)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_that_panics_costs_its_file_and_nothing_else() {
        let mut store = ModuleStore::default();
        let why = store
            .adopt("a.so", || panic!("a hostile file"))
            .unwrap_err();
        assert_eq!(why, "its tables could not be parsed");
        assert!(store.adopt("b.so", || Ok(Elf::default())).is_ok());
    }

    #[test]
    fn all_files_together_have_a_bound_in_time_and_in_bytes() {
        let mut store = ModuleStore {
            table_bytes: TABLE_BYTES_MAX,
            ..ModuleStore::default()
        };
        let parse =
            || elf::parse(&std::fs::read("/bin/true").unwrap(), Want::All).map_err(str::to_owned);
        assert!(store.adopt("a.so", parse).unwrap_err().contains("512 MiB"));
        store.table_bytes = 0;
        assert!(
            store.adopt("a.so", parse).is_ok() && store.table_bytes > 0 && store.parsing_ns > 0
        );
        store.parsing_ns = PARSING_MAX_NS;
        assert!(store.adopt("b.so", parse).unwrap_err().contains("20 s"));
    }
}
