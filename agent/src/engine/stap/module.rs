//! Built modules: what they are of, where they lie, whether one will do.
//!
//! In: folders that only root or the agent's own user can write. Out: a module's file, checked by its hash. Never: a
//! module that is loaded because of its name alone: its manifest says for which kernel, script, sizes and files.

use super::command::{self, NAME_BEGINS};
use super::probes::BuiltIn;
use super::script_module::AnyManifest;
use super::sizes::{Bounds, Demand, Sizes};
use crate::closed;
use model::{Finding, FindingCode};
use native::MappedImage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where modules lie that were built elsewhere, and where those stay that an installed agent builds.
pub(super) const FOLDER: &str = "/var/lib/fleetflame/modules";
/// Largest module that is read.
const BYTES_MAX: u64 = 256 << 20;
/// Largest manifest.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Of every manifest.
pub(super) const MANIFEST_VERSION: u32 = 1;
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
    /// Which build of this release (/proc/sys/kernel/version); empty where it was not known: the kernel's own check of
    /// symbols has to do then.
    pub build: String,
    /// Version of the stap that built it.
    pub stap: String,
    /// -D and slices.
    pub sizes: Sizes,
    /// Nanoseconds between two samples.
    pub period_ns: u64,
    /// Files whose unwind data is in it.
    pub images: Vec<ImageOf>,
    /// The file with malloc that it probes; empty of other probes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub heap: String,
    /// Hash of the module's file (BLAKE3, hex).
    pub module: String,
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

/// What a capture needs of a module.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The probe.
    pub probe: BuiltIn,
    /// The running kernel's release, and its build (/proc/sys/kernel/version), empty where it is not known.
    pub kernel: (String, String),
    /// Nanoseconds between two samples.
    pub period_ns: u64,
    /// How much will come.
    pub demand: Demand,
    /// What its sizes must keep to, after others were too small or too large.
    pub bounds: Bounds,
    /// Without the guard against overload; such a module is never taken from a folder, and has no manifest.
    pub unguarded: bool,
    /// What the targets have mapped.
    pub images: Vec<MappedImage>,
    /// Which of it has malloc, where that is probed.
    pub heap: Option<String>,
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
    /// Files of the targets without unwind data in it: their paths, and why where it is known.
    pub uncovered: BTreeMap<String, String>,
    /// Where it comes from, in words.
    pub from: String,
}

/// A module's name by what it is made of.
pub(super) fn name_of(parts: &[&[u8]]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{NAME_BEGINS}{}", &hash.finalize().to_hex()[..16])
}

impl Wanted {
    /// The name of the module that would be built for this: the same for the same script, sizes, kernel, files and stap.
    pub(super) fn name(&self, sizes: &Sizes, stap: &str, runtime: Option<&Path>) -> String {
        let mut parts = vec![
            self.probe.script(),
            self.kernel.0.clone(),
            self.kernel.1.clone(),
            stap.to_owned(),
            runtime.map_or_else(String::new, |r| r.display().to_string()),
            format!("{} {} {sizes:?}", self.period_ns, self.unguarded),
            self.heap.clone().unwrap_or_default(),
        ];
        for image in &self.images {
            let image = ImageOf::from(image);
            parts.extend([image.path, image.build_id]);
        }
        let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
        name_of(&parts)
    }

    /// Whether a module with this manifest will do: its sizes as they hold here, and which of the targets' files it has no
    /// unwind data of.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn fits(&self, manifest: &Manifest) -> Result<(Sizes, Vec<String>), String> {
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
        let version = MANIFEST_VERSION.to_string();
        want("version", &manifest.version.to_string(), &version)?;
        want("probe", &manifest.probe, self.probe.name)?;
        want("kernel", &manifest.kernel, &self.kernel.0)?;
        if !manifest.build.is_empty() && !self.kernel.1.is_empty() {
            want("kernel's build", &manifest.build, &self.kernel.1)?;
        }
        if command::parse_release(&manifest.stap).is_none_or(|v| v < command::OLDEST) {
            let (major, minor) = command::OLDEST;
            return Err(format!(
                "it is of SystemTap {}, and {major}.{minor} is the oldest that will do",
                manifest.stap
            ));
        }
        let script = blake3::hash(self.probe.script().as_bytes()).to_hex();
        want("script", &manifest.script, &script)?;
        let periods = (manifest.period_ns.to_string(), self.period_ns.to_string());
        want("period in ns", &periods.0, &periods.1)?;
        let heap = self.heap.as_deref().unwrap_or_default();
        want("file with malloc", &manifest.heap, heap)?;
        let sizes = self.demand.admits(manifest.sizes, &self.bounds)?;
        let has = |image: &&MappedImage| manifest.images.contains(&ImageOf::from(*image));
        let uncovered = self.images.iter().filter(|i| !has(i));
        let uncovered: Vec<String> = uncovered.map(|image| image.path.clone()).collect();
        if uncovered.iter().any(|path| path == heap) {
            return Err(format!("it is for another build of {heap}"));
        }
        Ok((sizes, uncovered))
    }
}

/// The first module of `folders` that will do: of several the one that covers most files, and of those the one with the
/// smallest tables.
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
                    let rank = |m: &Module| (m.uncovered.len(), m.sizes.rows);
                    if best.as_ref().is_none_or(|b| rank(&module) < rank(b)) {
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

/// The modules of ours in a folder, in order.
pub(super) fn names(folder: &Path) -> Vec<String> {
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
            match AnyManifest::read(folder, &name) {
                Ok(manifest) if manifest.kernel() == kernel => count += 1,
                Ok(manifest) => against.push(format!("{name} is for {}", manifest.kernel())),
                Err(why) => against.push(format!("{name}: {why}")),
            }
        }
    }
    against.truncate(AGAINST_MAX);
    (count, against)
}

fn take(folder: &Path, name: &str, wanted: &Wanted) -> Result<Module, String> {
    let manifest = match AnyManifest::read(folder, name)? {
        AnyManifest::BuiltIn(manifest) => manifest,
        AnyManifest::Script(of) => return Err(format!("it is of the script {}", of.file)),
    };
    let (sizes, uncovered) = wanted.fits(&manifest)?;
    let file = folder.join(format!("{name}.ko"));
    if hash_of_file(&file)? != manifest.module {
        return Err("its file is not what its manifest says".to_owned());
    }
    Ok(Module {
        name: name.to_owned(),
        file,
        sizes,
        uncovered: uncovered.into_iter().map(|p| (p, String::new())).collect(),
        from: format!("built by stap {}", manifest.stap),
    })
}

/// A file of at most so many bytes.
///
/// # Errors
/// What the system says, or that it is larger.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
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

/// The hash of a module's file (BLAKE3, hex).
///
/// # Errors
/// As [`read`].
pub(super) fn hash_of_file(file: &Path) -> Result<String, String> {
    Ok(blake3::hash(&read(file, BYTES_MAX)?).to_hex().to_string())
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
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        probe: wanted.probe.name.to_owned(),
        script: blake3::hash(wanted.probe.script().as_bytes())
            .to_hex()
            .to_string(),
        kernel: wanted.kernel.0.clone(),
        build: wanted.kernel.1.clone(),
        stap: stap.to_owned(),
        sizes: *sizes,
        period_ns: wanted.period_ns,
        images,
        heap: wanted.heap.clone().unwrap_or_default(),
        module: hash_of_file(&folder.join(format!("{name}.ko")))?,
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| e.to_string())?;
    fs::write(folder.join(format!("{name}.json")), text).map_err(|e| e.to_string())
}

/// Checks that nobody but root and our own user can put a module, or a runtime's code, into `folder`, or another folder
/// in its place: who can do so can run what he likes in the kernel.
///
/// # Errors
/// Who can, or that it is no folder.
pub(super) fn require_closed(folder: &Path) -> io::Result<()> {
    closed::require_closed(folder).map_err(no_kernel_code)
}

/// What it means that a folder is not closed.
pub(super) fn no_kernel_code(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let said = format!("{error}, so nothing of it goes into the kernel");
            io::Error::new(error.kind(), said)
        }
        _ => error,
    }
}

/// What of a module weakens the capture before it begins.
pub(super) fn told_of(module: &Module) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !module.uncovered.is_empty() {
        let with_reason = |(path, why): (&String, &String)| match why.is_empty() {
            true => path.clone(),
            false => format!("{path}: {why}"),
        };
        let some = module.uncovered.iter().take(4).map(with_reason);
        let some: Vec<String> = some.collect();
        let said = format!(
            "{} files of the targets are not in the module: {}",
            module.uncovered.len(),
            some.join("; ")
        );
        findings.push(Finding::new(FindingCode::StapUnwindMissing, said));
    }
    let smaller = module.sizes.smaller();
    findings.extend(smaller.map(|said| Finding::new(FindingCode::StapSmaller, said)));
    findings
}

#[cfg(test)]
#[path = "module_tests.rs"]
mod tests;
