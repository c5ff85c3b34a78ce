//! Built modules: what they are of, where they lie, whether one will do.
//!
//! In: folders that only root or the agent's own user can write. Out: a module's file, checked by its hash. Never: a
//! module that is loaded because of its name alone: its manifest says for which kernel, script, sizes and files.

use super::command::{self, NAME_BEGINS};
use super::probes::BuiltIn;
use super::sizes::{Demand, Sizes};
use native::MappedImage;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where modules lie that were built elsewhere, and where those stay that an installed agent builds.
pub(super) const FOLDER: &str = "/var/lib/fleetflame/modules";
/// Largest module that is read.
const BYTES_MAX: u64 = 256 << 20;
/// Largest manifest.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Reasons that are told.
const AGAINST_MAX: usize = 4;
/// Most modules of a folder that are looked at.
const MODULES_MAX: usize = 1_024;

/// What a module is of. Lies beside it as NAME.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// 1.
    pub version: u32,
    /// The built-in probe's name.
    pub probe: String,
    /// Hash of the whole script (BLAKE3, hex).
    pub script: String,
    /// Kernel release.
    pub kernel: String,
    /// Version of the stap that built it.
    pub stap: String,
    /// -D and slices.
    pub sizes: SizesOf,
    /// Nanoseconds between two samples.
    pub period_ns: u64,
    /// Files whose unwind data is in it.
    pub images: Vec<ImageOf>,
    /// Hash of the module's file (BLAKE3, hex).
    pub module: String,
}

/// [`Sizes`] on paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SizesOf {
    slice_ms: u64,
    rows: u64,
    depth: u64,
    string_bytes: u64,
    actions: u64,
    skipped_max: u64,
    overload_cycles: u64,
    buffer_mb: u64,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageOf {
    /// Its path, as the target sees it.
    pub path: String,
    /// Its build-id in hex; empty without one.
    pub build_id: String,
}

impl From<&MappedImage> for ImageOf {
    fn from(image: &MappedImage) -> Self {
        Self {
            path: image.path.clone(),
            build_id: image.build_id.map_or_else(String::new, |id| id.to_string()),
        }
    }
}

impl From<Sizes> for SizesOf {
    fn from(s: Sizes) -> Self {
        Self {
            slice_ms: s.slice_ms,
            rows: s.rows,
            depth: s.depth,
            string_bytes: s.string_bytes,
            actions: s.actions,
            skipped_max: s.skipped_max,
            overload_cycles: s.overload_cycles,
            buffer_mb: s.buffer_mb,
        }
    }
}

impl From<SizesOf> for Sizes {
    fn from(s: SizesOf) -> Self {
        Self {
            slice_ms: s.slice_ms,
            rows: s.rows,
            depth: s.depth,
            string_bytes: s.string_bytes,
            actions: s.actions,
            skipped_max: s.skipped_max,
            overload_cycles: s.overload_cycles,
            buffer_mb: s.buffer_mb,
        }
    }
}

/// What a capture needs of a module.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The probe.
    pub probe: BuiltIn,
    /// The running kernel's release, and its build as /proc/version has it.
    pub kernel: (String, String),
    /// Nanoseconds between two samples.
    pub period_ns: u64,
    /// How much will come.
    pub demand: Demand,
    /// Without the guard against overload; such a module is never taken from a folder.
    pub unguarded: bool,
    /// What the targets have mapped.
    pub images: Vec<MappedImage>,
}

/// A module to be loaded.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// Its name in the kernel.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its sizes.
    pub sizes: Sizes,
    /// Files of the targets without unwind data in it.
    pub uncovered: Vec<String>,
    /// Where it comes from, in words.
    pub from: String,
}

impl Wanted {
    /// The name of the module that would be built for this: the same for the same script, sizes, kernel, files and stap.
    pub(super) fn name(&self, sizes: &Sizes, stap: &str, runtime: Option<&Path>) -> String {
        let mut hash = blake3::Hasher::new();
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        add(&self.probe.script());
        add(&self.kernel.0);
        add(&self.kernel.1);
        add(stap);
        add(&runtime.map_or_else(String::new, |r| r.display().to_string()));
        add(&format!("{} {} {sizes:?}", self.period_ns, self.unguarded));
        for image in &self.images {
            let image = ImageOf::from(image);
            add(&image.path);
            add(&image.build_id);
        }
        format!("{NAME_BEGINS}{}", &hash.finalize().to_hex()[..16])
    }

    /// Whether a module with this manifest will do, and which of the targets' files it has no unwind data of.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn fits(&self, manifest: &Manifest) -> Result<Vec<String>, String> {
        if self.unguarded {
            return Err("none without the guard is taken from a folder".to_owned());
        }
        let want = |what: &str, have: &str, want: &str| {
            if have == want {
                Ok(())
            } else {
                Err(format!("its {what} is {have}, not {want}"))
            }
        };
        want("version", &manifest.version.to_string(), "1")?;
        want("probe", &manifest.probe, self.probe.name)?;
        want("kernel", &manifest.kernel, &self.kernel.0)?;
        let script = blake3::hash(self.probe.script().as_bytes()).to_hex();
        want("script", &manifest.script, &script)?;
        let periods = (manifest.period_ns.to_string(), self.period_ns.to_string());
        want("period in ns", &periods.0, &periods.1)?;
        let sizes = Sizes::from(manifest.sizes);
        let own = Sizes::of(self.demand).ok_or("nothing fits into the memory budget")?;
        let bytes = self.demand.array_bytes(sizes.rows, sizes.string_bytes);
        if bytes > (self.demand.memory_mb << 20) / 2 {
            return Err(format!("its arrays would take {} MiB here", bytes >> 20));
        }
        // A slice of the module's own length must fit into its rows.
        let needed = own.rows * sizes.slice_ms / own.slice_ms.max(1);
        if sizes.rows < needed.min(own.rows) {
            return Err(format!(
                "it has {} rows, and {needed} are needed",
                sizes.rows
            ));
        }
        let has = |image: &&MappedImage| manifest.images.contains(&ImageOf::from(*image));
        let uncovered = self.images.iter().filter(|i| !has(i));
        Ok(uncovered.map(|image| image.path.clone()).collect())
    }
}

/// The first module of `folders` that will do: of several the one that covers most files.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn find(folders: &[PathBuf], wanted: &Wanted) -> Result<Module, String> {
    let mut best: Option<Module> = None;
    let mut against = Vec::new();
    for folder in folders {
        if let Err(why) = require_closed(folder) {
            if why.kind() != io::ErrorKind::NotFound {
                against.push(why.to_string());
            }
            continue;
        }
        for name in names(folder) {
            match take(folder, &name, wanted) {
                Ok(module) => {
                    let better = best
                        .as_ref()
                        .is_none_or(|b| module.uncovered.len() < b.uncovered.len());
                    if better {
                        best = Some(module);
                    }
                }
                Err(why) => against.push(format!("{name}: {why}")),
            }
        }
    }
    against.truncate(AGAINST_MAX);
    best.ok_or_else(|| match against.is_empty() {
        true => format!("no module lies in {FOLDER}"),
        false => against.join("; "),
    })
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    let names = names.filter_map(|n| n.strip_suffix(".ko").map(str::to_owned));
    let mut names: Vec<String> = names
        .filter(|n| command::is_ours(n))
        .take(MODULES_MAX)
        .collect();
    names.sort();
    names
}

/// How many modules lie in `folders` for this kernel, and why others do not count.
pub(super) fn count(folders: &[PathBuf], kernel: &str) -> (usize, Vec<String>) {
    let (mut count, mut against) = (0, Vec::new());
    for folder in folders {
        match require_closed(folder) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => {
                against.push(why.to_string());
                continue;
            }
        }
        for name in names(folder) {
            match manifest(folder, &name) {
                Ok(manifest) if manifest.kernel == kernel => count += 1,
                Ok(manifest) => against.push(format!("{name} is for {}", manifest.kernel)),
                Err(why) => against.push(format!("{name}: {why}")),
            }
        }
    }
    against.truncate(AGAINST_MAX);
    (count, against)
}

fn manifest(folder: &Path, name: &str) -> Result<Manifest, String> {
    let bytes = read(&folder.join(format!("{name}.json")), MANIFEST_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|e| format!("its manifest: {e}"))
}

fn take(folder: &Path, name: &str, wanted: &Wanted) -> Result<Module, String> {
    let manifest = manifest(folder, name)?;
    let uncovered = wanted.fits(&manifest)?;
    let file = folder.join(format!("{name}.ko"));
    let hash = blake3::hash(&read(&file, BYTES_MAX)?).to_hex();
    if *hash != *manifest.module {
        return Err("its file is not what its manifest says".to_owned());
    }
    Ok(Module {
        name: name.to_owned(),
        file,
        sizes: manifest.sizes.into(),
        uncovered,
        from: format!("built by stap {}", manifest.stap),
    })
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let said = |e: io::Error| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(said)?;
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(said)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{} is too large", path.display()));
    }
    Ok(bytes)
}

/// Writes the manifest of a module that was just built beside it.
///
/// # Errors
/// What reading and writing say.
pub(super) fn write_manifest(
    folder: &Path,
    name: &str,
    wanted: &Wanted,
    sizes: &Sizes,
    stap: &str,
    images: Vec<ImageOf>,
) -> Result<(), String> {
    let module = read(&folder.join(format!("{name}.ko")), BYTES_MAX)?;
    let manifest = Manifest {
        version: 1,
        probe: wanted.probe.name.to_owned(),
        script: blake3::hash(wanted.probe.script().as_bytes())
            .to_hex()
            .to_string(),
        kernel: wanted.kernel.0.clone(),
        stap: stap.to_owned(),
        sizes: (*sizes).into(),
        period_ns: wanted.period_ns,
        images,
        module: blake3::hash(&module).to_hex().to_string(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| e.to_string())?;
    fs::write(folder.join(format!("{name}.json")), text).map_err(|e| e.to_string())
}

/// Checks that nobody but root and our own user can put a module, or a runtime's code, into `folder` or the folders above
/// it: who can write there can run what he likes in the kernel.
///
/// # Errors
/// Who can, or that it is no folder.
pub(super) fn require_closed(folder: &Path) -> io::Result<()> {
    let me = nix::unistd::geteuid().as_raw();
    for above in folder.ancestors() {
        let meta = fs::metadata(above)?;
        let sticky = meta.mode() & 0o1000 != 0 && above != folder;
        if !meta.is_dir()
            || (meta.uid() != 0 && meta.uid() != me)
            || (meta.mode() & 0o022 != 0 && !sticky)
        {
            let said = format!(
                "{} can be written by others, so nothing of it goes into the kernel",
                above.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "module_tests.rs"]
mod tests;
