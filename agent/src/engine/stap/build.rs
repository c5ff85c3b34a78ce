//! Building a module on this host.
//!
//! In: what is wanted. Out: a module's file with its manifest, in a folder of ours. Never: a build without a deadline,
//! in anybody else's folder, or with the network asked for symbols.

use super::command::{self, Build};
use super::diagnose::{Ending, ReportEnd, conclude, diagnose};
use super::module::{self, ImageOf, Module, Wanted};
use super::run::Said;
use super::sizes::Sizes;
use crate::process::{Processes, Stage};
use model::{Finding, FindingCode};
use std::ffi::OsString;
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
    let (images, uncovered) = sorted(wanted);
    let work = builder.folder.join(format!("{name}.work"));
    let _ = std::fs::remove_dir_all(&work);
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&work);
    made.map_err(|e| failed("making a folder", &e))?;
    let script = work.join("probe.stp");
    std::fs::write(&script, wanted.probe.script()).map_err(|e| failed("writing the script", &e))?;
    let asked = Build {
        stap: &builder.stap,
        name: &name,
        script: &script,
        kernel: &builder.kernel,
        runtime: builder.runtime.as_deref(),
        images: &images,
        sizes,
        period_ns: wanted.period_ns,
        unguarded: wanted.unguarded,
    };
    let outcome = translate(processes, &command::build(&asked), &work).await;
    let kept = outcome.and_then(|findings| {
        let file = builder.folder.join(format!("{name}.ko"));
        std::fs::rename(work.join(format!("{name}.ko")), &file)
            .map_err(|e| failed("keeping the module", &e))?;
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
    let _ = std::fs::remove_dir_all(&work);
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

/// The files whose unwind data can go into a module, and those whose cannot, with why.
fn sorted(wanted: &Wanted) -> (Vec<String>, Vec<String>) {
    let (mut images, mut uncovered) = (Vec::new(), Vec::new());
    for image in &wanted.images {
        match command::unwindable(&image.path) {
            Ok(()) => images.push(image.path.clone()),
            Err(why) => uncovered.push(format!("{}: {why}", image.path)),
        }
    }
    (images, uncovered)
}

async fn translate(
    processes: &Processes,
    argv: &[OsString],
    work: &Path,
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
    let (_, mut findings) = conclude(&ending, diagnose(&said.text().await));
    if code == Some(0) {
        return Ok(findings);
    }
    if status.is_none() {
        let said = format!("the module was not built in {} s", BUILD.as_secs());
        findings.push(Finding::new(FindingCode::StapRunFailed, said));
    }
    Err(findings)
}
