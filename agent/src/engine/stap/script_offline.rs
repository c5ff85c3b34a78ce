//! Building a script's module for hosts that cannot build one.
//!
//! In: a script with its arguments, the program that it is for, a kernel's build files. Out: `NAME.ko` and `NAME.json`, to
//! be put into /var/lib/fleetflame/modules of every host with this kernel and this program. Never: a process id in it; a
//! file that it probes and that another build could not be told from.

use super::build::{self, Builder};
use super::command::{self, BuildScript};
use super::module::{self, ImageOf, MANIFEST_VERSION};
use super::offline::{kernel_of, release};
use super::script_module::{AnyManifest, ScriptManifest, image_of, write_manifest};
use super::tool;
use crate::host::program::libraries_of_program;
use crate::process::Processes;
use crate::stapxx::{Bindings, check_path, check_value, expand_script_ahead, hash_of};
use model::script::Script;
use model::{Finding, FindingCode};
use std::path::{Path, PathBuf};

/// What is to be built.
#[derive(Clone, Debug)]
pub struct OfflineScript {
    /// The script, its modules and the values of its arguments.
    pub script: Script,
    /// The program: `$^exec_path`, under the path that targets have it under.
    pub exec: String,
    /// The libraries that targets have mapped; if none are named, those that the loader takes for the program here.
    pub images: Vec<String>,
    /// Most processes that it is loaded for at once.
    pub processes: u32,
    /// The kernel: a release, or the folder of its build files.
    pub kernel: PathBuf,
    /// Another runtime than stap's own.
    pub runtime: Option<PathBuf>,
    /// Where the module goes.
    pub out: PathBuf,
}

/// Builds it; gives its file and what stap said.
///
/// # Errors
/// Why not.
pub async fn build_script_offline(
    processes: &Processes,
    asked: &OfflineScript,
) -> Result<(PathBuf, Vec<Finding>), Vec<Finding>> {
    let one = |code, said: String| vec![Finding::new(code, said)];
    let script = &asked.script;
    for (name, value) in &script.arguments {
        check_value(name, value.as_bytes()).map_err(|f| vec![f])?;
    }
    let bindings = bindings(asked)?;
    let (stap, (major, minor)) = tool::translator().map_err(|f| vec![f])?;
    let version = format!("{major}.{minor}");
    let kernel = kernel_of(&asked.kernel).map_err(|e| one(FindingCode::StapKernelFiles, e))?;
    let release = release(&kernel).map_err(|e| one(FindingCode::StapKernelFiles, e))?;
    let ahead = expand_script_ahead(script, &bindings, asked.processes).map_err(|f| vec![f])?;
    let probed = |path: &str| {
        let image = image_of(path).map_err(|e| one(FindingCode::TargetFile, e))?;
        if image.build_id.is_empty() {
            let said = format!(
                "{path} has no build-id, so a host could not tell it from another build, and probes would hit other instructions"
            );
            return Err(one(FindingCode::TargetFile, said));
        }
        Ok(image)
    };
    let exec = probed(&asked.exec)?;
    let libraries: Result<Vec<ImageOf>, _> = ahead
        .expansion
        .library_paths
        .iter()
        .map(|path| probed(path))
        .collect();
    let libraries = libraries?;
    let files = bindings.exec_path.iter().chain(&bindings.libraries);
    let paths: Vec<String> = files
        .filter(|path| command::unwindable(path).is_ok() && image_of(path).is_ok())
        .cloned()
        .collect();
    let images: Vec<ImageOf> = paths.iter().flat_map(|path| image_of(path)).collect();
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|e| {
            one(
                FindingCode::StapRunFailed,
                format!("{}: {e}", path.display()),
            )
        })
    };
    let builder = Builder {
        stap,
        version: version.clone(),
        kernel: kernel.into(),
        runtime: asked.runtime.as_deref().map(absolute).transpose()?,
        folder: absolute(&asked.out)?,
    };
    let mut manifest = ScriptManifest {
        version: MANIFEST_VERSION,
        file: script.file.clone(),
        script: hash_of(script),
        arguments: script.arguments.clone(),
        expanded: ahead.hash(),
        processes: ahead.processes,
        exec,
        libraries,
        images,
        kernel: release,
        build: String::new(),
        stap: version,
        module: String::new(),
    };
    let runtime = builder.runtime.as_deref().map(Path::to_string_lossy);
    let described = serde_json::to_vec(&manifest).unwrap_or_default();
    let name = module::name_of(&[&described, runtime.unwrap_or_default().as_bytes()]);
    if let Some(file) = built_before(&builder.folder, &name, &manifest) {
        return Ok((file, Vec::new()));
    }
    let build = BuildScript {
        stap: &builder.stap,
        name: &name,
        kernel: &builder.kernel,
        runtime: builder.runtime.as_deref(),
        images: &paths,
        script: &ahead.expansion,
    };
    let (file, mut findings) = build::build_script(processes, &builder.folder, &build).await?;
    let notices = ahead.expansion.notices.iter();
    let mistakes: Vec<String> = notices
        .filter(|notice| notice.is_mistake())
        .map(ToString::to_string)
        .collect();
    if !mistakes.is_empty() {
        let said = mistakes.join("; ");
        findings.push(Finding::new(FindingCode::ScriptSuspicious, said));
    }
    manifest.module =
        module::hash_of_file(&file).map_err(|e| one(FindingCode::StapRunFailed, e))?;
    write_manifest(&builder.folder, &name, &manifest).map_err(|e| {
        one(
            FindingCode::StapRunFailed,
            format!("writing the manifest: {e}"),
        )
    })?;
    Ok((file, findings))
}

/// The module, where it lies there already, as it was built by the same stap of the same.
fn built_before(folder: &Path, name: &str, wanted: &ScriptManifest) -> Option<PathBuf> {
    module::require_closed(folder).ok()?;
    let Ok(AnyManifest::Script(mut found)) = AnyManifest::read(folder, name) else {
        return None;
    };
    let file = folder.join(format!("{name}.ko"));
    let is_whole = module::hash_of_file(&file).ok()? == std::mem::take(&mut found.module);
    (is_whole && found == *wanted).then_some(file)
}

/// What macros stand for that are of no process.
fn bindings(asked: &OfflineScript) -> Result<Bindings, Vec<Finding>> {
    let target_file = |said: String| vec![Finding::new(FindingCode::TargetFile, said)];
    for path in std::iter::once(&asked.exec).chain(&asked.images) {
        if !path.starts_with('/') {
            let said =
                format!("{path}: write the whole path that targets have it under, from / on");
            return Err(target_file(said));
        }
    }
    let libraries = match asked.images.is_empty() {
        false => asked.images.iter().cloned().collect(),
        // /proc/PID/maps has paths without links.
        true => libraries_of_program(Path::new(&asked.exec))
            .map_err(target_file)?
            .into_iter()
            .map(|path| match Path::new(&path).canonicalize() {
                Ok(whole) => whole.to_string_lossy().into_owned(),
                Err(_) => path,
            })
            .collect(),
    };
    let bindings = Bindings {
        exec_path: Some(asked.exec.clone()),
        libraries,
        arguments: asked
            .script
            .arguments
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect(),
        ..Bindings::default()
    };
    for path in bindings.exec_path.iter().chain(&bindings.libraries) {
        check_path(path).map_err(|f| vec![f])?;
    }
    Ok(bindings)
}
