//! Building a module for hosts that cannot build one: of another kernel, without a compiler or headers.
//!
//! In: a kernel's build files, the files that the targets have mapped there. Out: `NAME.ko` and `NAME.json`, to be put
//! into /var/lib/fleetflame/modules of every host with this kernel. Never: a module that says less than what it is of.

use super::build::{self, Builder};
use super::heap;
use super::module::{Wanted, told_of};
use super::probes::{ALL, BuiltIn};
use super::remedy::Settings;
use super::sizes::{Bounds, Demand, Sizes};
use super::tool;
use crate::process::Processes;
use model::{Finding, FindingCode};
use native::MappedImage;
use std::path::{Path, PathBuf};

/// What is to be built.
#[derive(Clone, Debug)]
pub struct OfflineBuild {
    /// The built-in probe's name, such as `oncpu-user`.
    pub probe: String,
    /// Samples a second and CPU.
    pub sample_hz: u32,
    /// The shortest wait that counts, in microseconds, of probes that measure waits.
    pub min_wait_us: u32,
    /// CPUs of the largest host that it is for.
    pub cpus: u32,
    /// The memory budget of the orders that it is for, in MiB.
    pub memory_mb: u32,
    /// The kernel: a release, or the folder of its build files.
    pub kernel: PathBuf,
    /// Another runtime than stap's own.
    pub runtime: Option<PathBuf>,
    /// The files that targets have mapped, under the paths that they have there.
    pub images: Vec<String>,
    /// Where the module goes.
    pub out: PathBuf,
}

/// Builds it; gives its file and what stap said.
///
/// # Errors
/// Why not.
pub async fn build_offline(
    processes: &Processes,
    asked: &OfflineBuild,
) -> Result<(PathBuf, Vec<Finding>), Vec<Finding>> {
    let probe = BuiltIn::named(&asked.probe).ok_or_else(|| {
        let names = ALL.map(|p| p.name).join(", ");
        let said = format!("{} is no built-in probe; they are {names}", asked.probe);
        vec![Finding::new(FindingCode::ProbeUnavailable, said)]
    })?;
    let (stap, (major, minor)) = tool::translator().map_err(|f| vec![f])?;
    let kernel_files = |said| vec![Finding::new(FindingCode::StapKernelFiles, said)];
    let kernel = kernel_of(&asked.kernel).map_err(kernel_files)?;
    let release = release(&kernel).map_err(kernel_files)?;
    // What is copied needs no unwind data: its module is of no files.
    let images = asked.images.iter().filter(|_| !probe.copies);
    let images: Result<Vec<_>, String> = images.map(|i| image(i)).collect();
    let images = images.map_err(|said| vec![Finding::new(FindingCode::TargetFile, said)])?;
    let period_ns = probe.period_ns(asked.sample_hz, asked.min_wait_us);
    let settings = Settings::first(period_ns, probe.waits, probe.heap);
    let demand = settings.demand(Demand {
        per_second: 0,
        duration_ms: 300_000,
        cpus: u64::from(asked.cpus.max(1)),
        running: u64::from(asked.cpus.max(1)),
        kernel: probe.kernel,
        waits: false,
        copies: probe.copies,
        memory_mb: u64::from(asked.memory_mb),
        cpu_pct: 10,
    });
    let sizes = Sizes::of(demand, &Bounds::NONE).ok_or_else(|| {
        let said = format!(
            "{} MiB are too little for {} CPUs",
            asked.memory_mb, asked.cpus
        );
        vec![Finding::new(FindingCode::ResourceLimit, said)]
    })?;
    let wanted = Wanted {
        probe,
        kernel: (release, String::new()),
        period_ns,
        demand,
        bounds: Bounds::NONE,
        unguarded: false,
        heap: probe.heap.then(|| heap::of(&images)).flatten(),
        images,
    };
    if probe.heap && wanted.heap.is_none() {
        return Err(heap::none());
    }
    // stap runs in a folder of its own.
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|e| {
            let said = format!("{}: {e}", path.display());
            vec![Finding::new(FindingCode::StapRunFailed, said)]
        })
    };
    let builder = Builder {
        stap,
        version: format!("{major}.{minor}"),
        kernel: kernel.into(),
        runtime: asked.runtime.as_deref().map(absolute).transpose()?,
        folder: absolute(&asked.out)?,
    };
    let (module, mut findings) = build::build(processes, &builder, &wanted, &sizes).await?;
    findings.extend(told_of(&module));
    Ok((module.file, findings))
}

/// A file under the path that the targets have it under.
fn image(path: &str) -> Result<MappedImage, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "{path}: write the whole path that the targets have mapped, from / on"
        ));
    }
    MappedImage::of_file(path)
}

/// A release as it is; a folder of build files by its whole path.
pub(super) fn kernel_of(kernel: &Path) -> Result<PathBuf, String> {
    // A word alone is a release, also where a folder of this name is.
    if kernel.components().count() > 1 || kernel.starts_with(".") {
        return std::path::absolute(kernel).map_err(|e| format!("{}: {e}", kernel.display()));
    }
    Ok(kernel.to_path_buf())
}

/// The release of a kernel that is given by its build files or by name.
pub(super) fn release(kernel: &Path) -> Result<String, String> {
    let name = kernel
        .to_str()
        .ok_or("the kernel is named by bytes that are no text")?;
    if !name.contains('/') {
        return Ok(name.to_owned());
    }
    // Not include/config/kernel.release: Debian's says 6.1.192 where the kernel says 6.1.0-56-amd64.
    let file = kernel.join("include/generated/utsrelease.h");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let release = text
        .split_once("UTS_RELEASE")
        .and_then(|(_, rest)| rest.split('"').nth(1));
    release
        .map(str::to_owned)
        .ok_or_else(|| format!("{} names no release", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_from_the_current_folder_is_found_from_any() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(kernel_of(Path::new("./headers")), Ok(here.join("headers")));
        assert_eq!(kernel_of(Path::new("a/b")), Ok(here.join("a/b")));
        assert_eq!(kernel_of(Path::new("/a/b")), Ok("/a/b".into()));
        assert_eq!(
            kernel_of(Path::new("6.1.0-56-amd64")),
            Ok("6.1.0-56-amd64".into())
        );
        assert!(image("nginx").unwrap_err().contains("from / on"));
    }

    #[test]
    fn a_kernel_is_named_or_its_build_files_name_it() {
        assert_eq!(
            release(Path::new("6.1.0-56-amd64")).unwrap(),
            "6.1.0-56-amd64"
        );
        let stage = tempfile::tempdir().unwrap();
        let missing = release(stage.path()).unwrap_err();
        assert!(missing.contains("utsrelease.h"), "{missing}");
        let folder = stage.path().join("include/generated");
        std::fs::create_dir_all(&folder).unwrap();
        let header = folder.join("utsrelease.h");
        std::fs::write(&header, "#define UTS_RELEASE \"5.14.0-70.el9.x86_64\"\n").unwrap();
        assert_eq!(release(stage.path()).unwrap(), "5.14.0-70.el9.x86_64");
    }
}
