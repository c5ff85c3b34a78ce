//! Building a module on this host.
//!
//! In: what is wanted. Out: a module's file with its manifest, in a folder of ours. Never: a build without a deadline,
//! in anybody else's folder, or with the network asked for symbols.

use super::command::{self, Build, BuildScript};
use super::diagnose::{Ending, ReportEnd, conclude, diagnose};
use super::kernel_tree;
use super::module::{self, ImageOf, Module, Wanted};
use super::run::Said;
use super::sizes::Sizes;
use crate::closed;
use crate::process::{Processes, Stage};
use crate::stapxx::Expansion;
use model::{Finding, FindingCode};
use native::MappedImage;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Passes 1 to 4 take 10 to 80 s, by how busy the machine is.
pub(super) const BUILD: Duration = Duration::from_secs(180);

/// What builds.
#[derive(Clone, Debug)]
pub(super) struct Builder {
    /// stap.
    pub stap: PathBuf,
    /// Its version.
    pub version: String,
    /// The kernel: a release, or the folder of its build files.
    pub kernel: OsString,
    /// Another runtime than its own.
    pub runtime: Option<PathBuf>,
    /// Where the module stays.
    pub folder: PathBuf,
}

/// Builds, and writes the manifest. A module of the same name that is there already is of the same thing.
///
/// # Errors
/// What stap said, as findings.
pub(super) async fn build(
    processes: &Processes,
    builder: &Builder,
    wanted: &Wanted,
    sizes: &Sizes,
) -> Result<(Module, Vec<Finding>), Vec<Finding>> {
    let name = wanted.name(sizes, &builder.version, builder.runtime.as_deref());
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        let said = format!("{what} in {}: {e}", builder.folder.display());
        vec![Finding::new(FindingCode::StapRunFailed, said)]
    };
    let (images, uncovered) = sorted(&wanted.images);
    let work = Work::make(&builder.folder, &name).map_err(|e| {
        let mut findings = failed("making a folder", &e);
        if e.kind() == io::ErrorKind::PermissionDenied {
            let close = "Let the folder and those above it belong to root or the agent's user, and close them: chmod go-w.";
            findings = findings.into_iter().map(|f| f.with_remedy(close)).collect();
        }
        findings
    })?;
    let work = &work.0;
    let script = work.join("probe.stp");
    std::fs::write(&script, wanted.probe.script()).map_err(|e| failed("writing the script", &e))?;
    let kernel = match wanted.probe.events {
        true => kernel_tree::with_functions(&builder.kernel, work)
            .map_err(|e| failed("leading to the kernel's build files", &e))?
            .into(),
        false => builder.kernel.clone(),
    };
    if let Some(heap) = wanted.heap.as_ref().filter(|heap| !images.contains(heap)) {
        let why = uncovered.get(heap).map_or("", String::as_str);
        return Err(failed(&format!("probing malloc of {heap}"), &why));
    }
    let asked = Build {
        stap: &builder.stap,
        name: &name,
        script: &script,
        kernel: &kernel,
        runtime: builder.runtime.as_deref(),
        images: &images,
        sizes,
        period_ns: wanted.period_ns,
        heap: wanted.heap.as_deref(),
        unguarded: wanted.unguarded,
    };
    let outcome = translate(processes, &command::build(&asked), work, &str::to_owned).await;
    let kept = outcome.and_then(|findings| {
        let file = builder.folder.join(format!("{name}.ko"));
        std::fs::rename(work.join(format!("{name}.ko")), &file)
            .map_err(|e| failed("keeping the module", &e))?;
        if wanted.unguarded {
            // For this capture alone: without a manifest it is never taken again.
            return Ok((file, findings));
        }
        let covered = wanted.images.iter().filter(|i| images.contains(&i.path));
        let covered = covered.map(ImageOf::from).collect();
        module::write_manifest(
            &builder.folder,
            &name,
            wanted,
            sizes,
            &builder.version,
            covered,
        )
        .map_err(|e| failed("writing the manifest", &e))?;
        Ok((file, findings))
    });
    let (file, findings) = kept?;
    let module = Module {
        name,
        file,
        sizes: *sizes,
        uncovered,
        from: format!("built here by stap {}", builder.version),
    };
    Ok((module, findings))
}

/// Builds a script of the user's. What stap says of it has the places of the file as it was written.
///
/// # Errors
/// What stap said, as findings.
pub(super) async fn build_script(
    processes: &Processes,
    folder: &Path,
    asked: &BuildScript<'_>,
) -> Result<(PathBuf, Vec<Finding>), Vec<Finding>> {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        let said = format!("{what} in {}: {e}", folder.display());
        vec![Finding::new(FindingCode::StapRunFailed, said)]
    };
    let work = Work::make(folder, asked.name).map_err(|e| failed("making a folder", &e))?;
    let work = &work.0;
    let path = work.join("script.stp");
    let modules = work.join("modules");
    let written = std::fs::write(&path, &asked.script.script.text)
        .and_then(|()| std::fs::create_dir(&modules))
        .and_then(|()| write_modules(&modules, asked.script));
    written.map_err(|e| failed("writing the script", &e))?;
    let (name, folder_name) = (path.display().to_string(), modules.display().to_string());
    let with_places = |said: &str| asked.script.map_back(said, &name, &folder_name);
    let argv = command::build_script(asked, &path, &modules);
    let findings = translate(processes, &argv, work, &with_places).await?;
    let file = folder.join(format!("{}.ko", asked.name));
    std::fs::rename(work.join(format!("{}.ko", asked.name)), &file)
        .map_err(|e| failed("keeping the module", &e))?;
    Ok((file, findings))
}

/// Names of modules have no slash, and are no `.` or `..`.
fn write_modules(folder: &Path, script: &Expansion) -> io::Result<()> {
    let mut modules = script.modules.iter();
    modules.try_for_each(|(name, m)| std::fs::write(folder.join(format!("{name}.stp")), &m.text))
}

/// A folder that stap works in, which is gone when the building is over, however it ends.
struct Work(PathBuf);

impl Work {
    /// Makes it in `folder`, which is made if need be. stap runs there, maybe as root, and what it leaves goes into the
    /// kernel: so nobody else may be able to put anything there.
    fn make(folder: &Path, name: &str) -> io::Result<Self> {
        closed::make_closed(folder).map_err(module::no_kernel_code)?;
        let work = folder.join(format!("{name}.work"));
        let _ = std::fs::remove_dir_all(&work);
        // Not one that is there already: it would be as whoever made it wants it.
        DirBuilder::new().mode(0o700).create(&work)?;
        Ok(Self(work))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The files whose unwind data can go into a module, and those whose cannot, with why. Blocks: it reads their build-ids.
pub(super) fn sorted(wanted: &[MappedImage]) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut images, mut uncovered) = (Vec::new(), BTreeMap::new());
    for image in wanted {
        match readable(image) {
            Ok(()) => images.push(image.path.clone()),
            Err(why) => _ = uncovered.insert(image.path.clone(), why),
        }
    }
    (images, uncovered)
}

/// The module with the reasons why it lacks some files, if a new one would lack them too; else as it is. Without this a
/// file that cannot be in any module would have one built for every capture.
pub(super) async fn as_good_as_any(
    mut module: Module,
    images: &[MappedImage],
) -> Result<Module, Module> {
    if module.uncovered.is_empty() {
        return Ok(module);
    }
    let images = images.to_vec();
    let sorted = tokio::task::spawn_blocking(move || sorted(&images)).await;
    let (_, never) = sorted.unwrap_or_default();
    let mut could_have = false;
    for (path, why) in &mut module.uncovered {
        match never.get(path) {
            Some(reason) => why.clone_from(reason),
            None => could_have = true,
        }
    }
    if could_have { Err(module) } else { Ok(module) }
}

/// Whether stap, which reads the host's files, would read the one that the target has mapped: one in a container, or one
/// that was replaced, may have another under the same path.
fn readable(image: &MappedImage) -> Result<(), String> {
    command::unwindable(&image.path)?;
    let here = MappedImage::of_file(&image.path)
        .map_err(|e| e.replace(&format!("{}: ", image.path), "the host's file: "))?;
    if here.build_id == image.build_id {
        return Ok(());
    }
    Err("the host's file of this path is not known to be the one that the target has mapped".into())
}

async fn translate(
    processes: &Processes,
    argv: &[OsString],
    work: &Path,
    with_places: &(dyn Fn(&str) -> String + Sync),
) -> Result<Vec<Finding>, Vec<Finding>> {
    let home = work.display().to_string();
    // stap keeps its cache and temporary files below these; there is no DEBUGINFOD_URLS, so no network.
    let environment = [
        ("LC_ALL", "C"),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", &*home),
        ("SYSTEMTAP_DIR", &*home),
        ("TMPDIR", &*home),
    ];
    let stage = Stage {
        argv,
        environment: &environment,
        folder: work,
        stdin: Stdio::null(),
        stdout: Stdio::null(),
    };
    let mut child = processes.spawn_stage(stage).await.map_err(|e| {
        let said = format!("stap could not be started: {e}");
        vec![Finding::new(FindingCode::EngineUnavailable, said)]
    })?;
    let (_, _, errors) = child.pipes();
    let mut said = Said::listen(errors);
    let status = child.ended_within(BUILD).await;
    let code = status.and_then(|s| s.code());
    child.kill().await;
    let ending = Ending {
        code,
        report: ReportEnd::NotAsked,
        samples: 0,
    };
    let (_, mut findings) = conclude(&ending, diagnose(&with_places(&said.text().await)));
    if code == Some(0) {
        return Ok(findings);
    }
    if status.is_none() {
        let said = format!("the module was not built in {} s", BUILD.as_secs());
        findings.push(Finding::new(FindingCode::StapRunFailed, said));
    }
    Err(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::BuildId;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn stap_works_only_where_nobody_else_can_put_anything() {
        let stage = tempfile::tempdir().unwrap();
        let folder = stage.path().join("lib/modules");
        let work = Work::make(&folder, "ff_0").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&work.0)), (0o700, 0o700));
        let path = work.0.clone();
        drop(work);
        assert!(!path.exists());
        // A link in its place is not followed.
        let other = stage.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let work = Work::make(&folder, "ff_0").unwrap();
        assert!(work.0.symlink_metadata().unwrap().is_dir() && other.exists());
        drop(work);
        set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let error = Work::make(&folder, "ff_0").err().unwrap();
        assert!(error.to_string().contains("written by others"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_another_one_for_the_target_is_not_read_for_it() {
        let own = std::env::current_exe().unwrap().display().to_string();
        let image = MappedImage::of_file(&own).unwrap();
        assert!(image.build_id.is_some());
        let of = |path: &str, build_id| MappedImage {
            path: path.to_owned(),
            build_id,
        };
        assert_eq!(sorted(std::slice::from_ref(&image)).0, [own.as_str()]);
        let (images, uncovered) = sorted(&[
            of(&own, BuildId::new(&[7; 20])),
            of("/no/such/file.so", image.build_id),
            of("/bin/x (deleted)", None),
        ]);
        assert!(images.is_empty(), "{images:?}");
        let why = |path: &str| uncovered[path].as_str();
        assert!(
            why(&own).contains("not known to be the one"),
            "{uncovered:?}"
        );
        assert!(why("/no/such/file.so").starts_with("the host's file: "));
        assert_eq!(why("/bin/x (deleted)"), "it was deleted");
    }
}
