//! Where programs and their debug info lie.
//!
//! In: modules as texts name them, roots, files that the user gave. Out: paths, and debug files that are proven
//! to belong to their programs by build-id or checksum. Never: a path that leaves the root that was given.

use super::elf::{Bytes, Elf};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Where separate debug files lie under a root, on Debian as on Red Hat.
const DEBUG_DIR: &str = "usr/lib/debug";

/// Where files are looked for.
#[derive(Clone, Debug, Default)]
pub struct Where {
    /// What stands for the root directory of the host that the text was taken on; none: this machine's.
    pub root: Option<PathBuf>,
    /// Files in the place of those that the text names: the module (a path or its base name; none: the file's
    /// own), and the file.
    pub binaries: Vec<(Option<String>, PathBuf)>,
    /// Folders of debug files that `debuginfod-find` has fetched.
    pub fetched: Vec<PathBuf>,
}

impl Where {
    /// The usual one, with the folder where `debuginfod-find` keeps what it has fetched: see its manual.
    #[must_use]
    pub fn new(root: Option<PathBuf>, binaries: Vec<(Option<String>, PathBuf)>) -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let own = folder("DEBUGINFOD_CACHE_PATH").map(PathBuf::from);
        let cache = folder("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(folder("HOME")?).join(".cache")));
        let fetched = own.or_else(|| Some(cache?.join("debuginfod_client")));
        Self {
            root,
            binaries,
            fetched: fetched.into_iter().collect(),
        }
    }

    /// The file that a text names by `module`.
    pub fn program(&self, module: &[u8]) -> Option<PathBuf> {
        let module = module.strip_suffix(b" (deleted)").unwrap_or(module);
        let path = Path::new(OsStr::from_bytes(module));
        let given = self.binaries.iter().find(|(name, file)| {
            let name = name.as_ref().map(Path::new);
            let name = name.or_else(|| file.file_name().map(Path::new));
            name == Some(path) || name.is_some_and(|n| path.file_name() == Some(n.as_os_str()))
        });
        match given {
            Some((_, file)) => Some(file.clone()),
            None if module.starts_with(b"/") => self.under_root(path),
            None => None,
        }
    }

    /// The files that were given, for frames whose text names none.
    pub fn binaries(&self) -> Vec<PathBuf> {
        let files = self.binaries.iter().map(|(_, file)| file.clone());
        let files: BTreeSet<PathBuf> = files.collect();
        files.into_iter().collect()
    }

    /// The file with a program's debug info.
    pub fn debug_file(&self, path: &Path, program: &Elf<'_>, max: u64) -> Option<Bytes> {
        let id = program.build_id();
        let linked = program.debug_link();
        let by_id = self.by_build_id(&id).into_iter();
        let found = by_id
            .map(|path| (path, None))
            .chain(linked.iter().flat_map(|(name, crc)| {
                self.by_link(path, name)
                    .into_iter()
                    .map(|p| (p, Some(*crc)))
            }));
        for (candidate, crc) in found {
            let Ok(bytes) = Bytes::read(&candidate, max) else {
                continue;
            };
            let Ok(elf) = Elf::parse(&bytes) else {
                continue;
            };
            let same = !id.is_empty() && elf.build_id() == id;
            if elf.has_debug_info() && (same || crc == Some(bytes.crc())) {
                return Some(bytes);
            }
        }
        None
    }

    /// The file that several share debug info in (`dwz -m`).
    pub fn shared_debug_file(&self, path: &Path, file: &Elf<'_>, max: u64) -> Option<Bytes> {
        let (name, id) = file.shared_debug_link()?;
        let name = Path::new(OsStr::from_bytes(name));
        let named = if name.is_absolute() {
            self.under_root(name)
        } else {
            path.parent().map(|folder| folder.join(name))
        };
        let candidates = self.by_build_id(&id).into_iter().chain(named);
        candidates
            .filter_map(|path| Bytes::read(&path, max).ok())
            .find(|bytes| Elf::parse(bytes).is_ok_and(|elf| elf.build_id() == id))
    }

    /// `.build-id/ab/cdef….debug`, and what debuginfod has fetched. A build-id is proof enough, so that this
    /// machine's own files may stand in for another root's.
    fn by_build_id(&self, id: &str) -> Vec<PathBuf> {
        let Some((first, rest)) = id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())
        else {
            return Vec::new();
        };
        let file = format!("{DEBUG_DIR}/.build-id/{first}/{rest}.debug");
        let roots = self
            .root
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new("/")]);
        let installed = roots.map(|root| root.join(&file));
        let fetched = self.fetched.iter().map(|f| f.join(id).join("debuginfo"));
        installed.chain(fetched).collect()
    }

    /// Where a debugger looks for a file of `.gnu_debuglink`: beside the program, in `.debug` there, and in the
    /// program's folder under the debug folder.
    fn by_link(&self, program: &Path, name: &[u8]) -> Vec<PathBuf> {
        let name = Path::new(OsStr::from_bytes(name));
        let plain = name.components().count() == 1
            && matches!(name.components().next(), Some(Component::Normal(_)));
        let (true, Some(folder)) = (plain, program.parent()) else {
            return Vec::new();
        };
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let inside = folder
            .strip_prefix(root)
            .or_else(|_| folder.strip_prefix("/"));
        let mut places = vec![folder.join(name), folder.join(".debug").join(name)];
        places.extend(inside.map(|inside| root.join(DEBUG_DIR).join(inside).join(name)));
        places
    }

    /// A path of the host, on this machine.
    fn under_root(&self, path: &Path) -> Option<PathBuf> {
        let Some(root) = &self.root else {
            return Some(path.to_owned());
        };
        let inside = path.strip_prefix("/").ok()?;
        let plain = inside
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        plain.then(|| root.join(inside))
    }
}
