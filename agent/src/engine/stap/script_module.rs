//! Modules of users' scripts that were built elsewhere: what one is of, whether it will do here.
//!
//! In: a script with what its macros stand for on this host, folders that only root or the agent's user can write. Out: a
//! module's file and the parameters that it is loaded with; or what is missing, with the command that builds it. Never: a
//! module of another text, of another build of a file that it probes, or for fewer processes.

use super::command;
use super::module::{
    FOLDER, ImageOf, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, hash_of_file, names, read,
    require_closed,
};
use crate::stapxx::{
    Bindings, PROCESSES_MAX, expand_script_ahead, hash_of, parameters_for,
    require_no_process_number, shell_words,
};
use model::script::Script;
use model::{Finding, FindingCode};
use native::MappedImage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Reasons that are told.
const AGAINST_MAX: usize = 4;

/// What a script's module is of. Lies beside it as NAME.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptManifest {
    /// 1.
    pub version: u32,
    /// The script's file, for people.
    pub file: String,
    /// The hash by which policies name the script and its modules.
    pub script: String,
    /// Values of its arguments; others have their defaults.
    pub arguments: BTreeMap<String, String>,
    /// Hash of all that stap was given (BLAKE3, hex).
    pub expanded: String,
    /// How many processes it can be told.
    pub processes: u32,
    /// The program: `$^exec_path`.
    pub exec: ImageOf,
    /// Libraries that the script names: `$^libNAME_path`.
    pub libraries: Vec<ImageOf>,
    /// Files whose symbols and unwind data are in it.
    pub images: Vec<ImageOf>,
    /// Kernel release.
    pub kernel: String,
    /// Which build of this release; empty where it was not known.
    pub build: String,
    /// Version of the stap that built it.
    pub stap: String,
    /// Hash of the module's file (BLAKE3, hex).
    pub module: String,
}

/// What lies beside a module: of a built-in probe, or of a script.
#[derive(Debug)]
pub(super) enum AnyManifest {
    /// Of a built-in probe.
    BuiltIn(Manifest),
    /// Of a script.
    Script(ScriptManifest),
}

impl AnyManifest {
    /// The manifest of a module by its name.
    ///
    /// # Errors
    /// It cannot be read, or is no manifest.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Self, String> {
        let bytes = read(&folder.join(format!("{name}.json")), MANIFEST_BYTES_MAX)?;
        let said = |e: serde_json::Error| format!("its manifest: {e}");
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(said)?;
        // Told apart by what only a script has, so that what is wrong in one is said of the right kind.
        if value.get("expanded").is_some() {
            return serde_json::from_value(value)
                .map(Self::Script)
                .map_err(said);
        }
        serde_json::from_value(value)
            .map(Self::BuiltIn)
            .map_err(said)
    }

    /// The kernel that it is for.
    pub(super) fn kernel(&self) -> &str {
        match self {
            Self::BuiltIn(manifest) => &manifest.kernel,
            Self::Script(manifest) => &manifest.kernel,
        }
    }
}

/// What a run of a script needs of a module.
#[derive(Clone, Debug)]
pub(super) struct WantedScript {
    /// The script and its arguments.
    pub script: Script,
    /// Program, libraries, arguments.
    pub bindings: Bindings,
    /// Who is captured.
    pub pids: Vec<u32>,
    /// The running kernel's release, and its build, empty where it is not known.
    pub kernel: (String, String),
}

/// A module to be loaded.
#[derive(Clone, Debug)]
pub(super) struct FoundModule {
    /// Its name in the kernel.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Whether it stays for later runs.
    pub is_kept: bool,
    /// What staprun is to tell it: `NAME=VALUE`.
    pub parameters: Vec<String>,
    /// Files of the target without unwind data in it.
    pub uncovered: Vec<String>,
}

impl FoundModule {
    /// What of it weakens the run.
    pub(super) fn told_of(&self) -> Vec<Finding> {
        if self.uncovered.is_empty() {
            return Vec::new();
        }
        let some: Vec<&str> = self.uncovered.iter().take(4).map(String::as_str).collect();
        let said = format!(
            "{} files of the targets are not in the module: {}",
            self.uncovered.len(),
            some.join("; ")
        );
        vec![Finding::new(FindingCode::StapUnwindMissing, said)]
    }
}

impl WantedScript {
    /// The first module of `folders` that will do. Blocks: it reads build-ids.
    ///
    /// # Errors
    /// `stap-script-module`: there is none, what was wanted and how it is built.
    pub(super) fn find(&self, folders: &[PathBuf], none: &str) -> Result<FoundModule, Finding> {
        let mut against = Vec::new();
        for folder in folders {
            if let Err(why) = require_closed(folder) {
                if why.kind() != io::ErrorKind::NotFound {
                    against.push((0, why.to_string()));
                }
                continue;
            }
            for name in names(folder) {
                match self.take(folder, &name) {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err((rank, why))) => against.push((rank, format!("{name}: {why}"))),
                    // Of a built-in probe.
                    Err(()) => {}
                }
            }
        }
        Err(self.missing(against, none))
    }

    /// The module if it will do; else why not, and how far it is from that. An error for one of a built-in probe.
    fn take(&self, folder: &Path, name: &str) -> Result<Result<FoundModule, (u8, String)>, ()> {
        let manifest = match AnyManifest::read(folder, name) {
            Ok(AnyManifest::Script(manifest)) => manifest,
            Ok(AnyManifest::BuiltIn(_)) => return Err(()),
            Err(why) => return Ok(Err((2, why))),
        };
        let fits = self.fits(&manifest).and_then(|parameters| {
            let file = folder.join(format!("{name}.ko"));
            let hash = hash_of_file(&file).map_err(|e| (0, e))?;
            if hash != manifest.module {
                return Err((0, "its file is not what its manifest says".to_owned()));
            }
            let has = |path: &&String| {
                let image = image_of(path);
                image.is_ok_and(|image| manifest.images.contains(&image))
            };
            let uncovered = match self.script.takes_stacks() {
                true => self.files().filter(|path| !has(path)).cloned().collect(),
                false => Vec::new(),
            };
            Ok(FoundModule {
                name: name.to_owned(),
                file,
                is_kept: true,
                parameters,
                uncovered,
            })
        });
        Ok(fits)
    }

    /// Program and libraries.
    fn files(&self) -> impl Iterator<Item = &String> {
        let bindings = &self.bindings;
        bindings.exec_path.iter().chain(&bindings.libraries)
    }

    /// Whether a module with this manifest will do: the parameters that it is loaded with.
    ///
    /// # Errors
    /// Why not, behind a number that is smaller the nearer it is.
    fn fits(&self, manifest: &ScriptManifest) -> Result<Vec<String>, (u8, String)> {
        let want = |rank: u8, what: &str, have: &str, want: &str| {
            if have == want {
                Ok(())
            } else {
                Err((rank, format!("its {what} is {have}, not {want}")))
            }
        };
        let version = MANIFEST_VERSION.to_string();
        want(2, "version", &manifest.version.to_string(), &version)?;
        let hash = hash_of(&self.script);
        if manifest.script != hash {
            return Err((2, format!("it is of another script, {}", manifest.file)));
        }
        want(1, "kernel", &manifest.kernel, &self.kernel.0)?;
        if !manifest.build.is_empty() && !self.kernel.1.is_empty() {
            want(1, "kernel's build", &manifest.build, &self.kernel.1)?;
        }
        if command::parse_release(&manifest.stap).is_none_or(|v| v < command::OLDEST) {
            let (major, minor) = command::OLDEST;
            let said = format!(
                "it is of SystemTap {}, and {major}.{minor} is the oldest that will do",
                manifest.stap
            );
            return Err((1, said));
        }
        let exec_path = self.bindings.exec_path.as_deref().unwrap_or_default();
        want(1, "program", &manifest.exec.path, exec_path)?;
        let ahead = expand_script_ahead(&self.script, &self.bindings, manifest.processes)
            .map_err(|finding| (0, finding.evidence))?;
        if ahead.hash() != manifest.expanded {
            let own = &self.script.arguments;
            // With the same text otherwise, libraries were found under other paths.
            let said = match manifest.arguments == *own {
                true => "its libraries, or the defaults of the language, are others".to_owned(),
                false => format!(
                    "it was built with {}, not with {}",
                    words(&manifest.arguments),
                    words(own)
                ),
            };
            return Err((0, said));
        }
        for probed in std::iter::once(&manifest.exec).chain(&manifest.libraries) {
            let here = image_of(&probed.path).map_err(|e| (0, e))?;
            if here != *probed {
                let said = format!(
                    "it probes {} of the build {}, and here is the build {}",
                    probed.path, probed.build_id, here.build_id
                );
                return Err((0, said));
            }
        }
        let parameters = parameters_for(ahead.filter, &self.pids);
        let room = usize::try_from(ahead.processes).unwrap_or(usize::MAX);
        if parameters.len() > room {
            let said = format!("it is for {room} processes, not for {}", parameters.len());
            return Err((0, said));
        }
        Ok(parameters)
    }

    fn missing(&self, mut against: Vec<(u8, String)>, none: &str) -> Finding {
        if let Err(never) = require_no_process_number(&self.script) {
            return never;
        }
        against.sort();
        let against: Vec<String> = against.into_iter().map(|(_, why)| why).collect();
        let against = match against.get(..AGAINST_MAX).unwrap_or(&against) {
            [] => format!("no script's module lies in {FOLDER}"),
            some => some.join("; "),
        };
        let exec_path = self.bindings.exec_path.as_deref().unwrap_or_default();
        let build = image_of(exec_path).map(|image| image.build_id);
        let said = format!(
            "{none}; wanted is {} {} with {} for {exec_path} of the build {} and the kernel {}: {against}",
            self.script.file,
            hash_of(&self.script),
            words(&self.script.arguments),
            build.unwrap_or_default(),
            self.kernel.0,
        );
        let remedy = format!(
            "Run `{}` where stap, the build files of this kernel and these files are, and put both files that it makes into {FOLDER} of this host.",
            shell_words(&self.build_command())
        );
        Finding::new(FindingCode::StapScriptModule, said).with_remedy(remedy)
    }

    /// What builds it.
    fn build_command(&self) -> Vec<String> {
        let mut argv = vec!["fleetflame-agent".to_owned(), "build-module".to_owned()];
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        option("--script", self.script.file.clone());
        for (name, value) in &self.script.arguments {
            option("--arg", format!("{name}={value}"));
        }
        if let Some(path) = &self.bindings.exec_path {
            option("--exec", path.clone());
        }
        for path in &self.bindings.libraries {
            option("--image", path.clone());
        }
        let processes = self.pids.len().clamp(1, PROCESSES_MAX as usize);
        option("--processes", processes.to_string());
        option("--kernel", self.kernel.0.clone());
        option("--out", "./modules".to_owned());
        argv
    }
}

/// A file as it lies here.
///
/// # Errors
/// It cannot be read, or is no ELF file.
pub(super) fn image_of(path: &str) -> Result<ImageOf, String> {
    MappedImage::of_file(path).map(|image| ImageOf::from(&image))
}

/// Arguments for people.
fn words(arguments: &BTreeMap<String, String>) -> String {
    if arguments.is_empty() {
        return "no arguments".to_owned();
    }
    let pairs = arguments
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Writes the manifest of a script's module that was just built beside it.
///
/// # Errors
/// What writing says.
pub(super) fn write_manifest(folder: &Path, name: &str, of: &ScriptManifest) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(of).map_err(|e| e.to_string())?;
    fs::write(folder.join(format!("{name}.json")), text).map_err(|e| e.to_string())
}

#[cfg(test)]
#[path = "script_module_tests.rs"]
mod tests;
