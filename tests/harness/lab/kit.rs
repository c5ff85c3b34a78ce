//! What all labs of a build share: kernel, headers, fitted runtime, compiled modules, in `lab` of cargo's
//! target folder.
//!
//! In: nothing but this machine and apt. Out: paths. Never: a second fetch: what is there is taken, so only
//! the first start needs a network. Test processes that come at the same time wait for one another.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::kernel::Kernel;
use super::runtime;
use crate::process::Child;
use crate::requirements;
use crate::target_dir::TargetDir;

const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct Kit {
    /// The guests' kernel.
    pub kernel: Kernel,
    /// What `stap -R` takes.
    pub runtime: PathBuf,
    /// `stap --version`, its first line.
    pub stap_version: String,
    folder: PathBuf,
}

impl Kit {
    /// Finds it; makes it first, once for this build.
    pub fn find() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Kit, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| Self::make().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("the lab cannot be made ready: {error}"))
    }

    fn make() -> Result<Self> {
        for command in [
            "stap",
            "staprun",
            "busybox",
            "qemu-system-x86_64",
            "make",
            "gcc",
        ] {
            requirements::command(command)?;
        }
        let folder = TargetDir::current()?.root.join("lab");
        fs::create_dir_all(&folder)?;
        let _turn = lock(&folder.join("kit.lock"))?;
        let kernel = Kernel::in_folder(&folder)?;
        let stap_version = stap_version()?;
        // The runtime is fitted by what the kernel's headers have.
        let fitted_by = format!("{stap_version}\n{}\n{}", kernel.release, runtime::edition());
        let edition = blake3::hash(fitted_by.as_bytes());
        let runtime = folder.join(format!("runtime-{}", &edition.to_hex()[..16]));
        if !runtime.is_dir() {
            let scratch = tempfile::tempdir_in(&folder)?;
            let fitted = scratch.path().join("runtime");
            runtime::fit(Path::new(runtime::INSTALLED), &fitted, &includes(&kernel)?)?;
            fs::rename(fitted, &runtime)?;
        }
        Ok(Self {
            kernel,
            runtime,
            stap_version,
            folder,
        })
    }

    /// A folder of the kit, made when it is not there.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Waits for the lock that `path` is; it is let go when the value is dropped, or the process ends.
pub(super) fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking {}", path.display()))
}

/// The headers that all flavours of a kernel share.
fn includes(kernel: &Kernel) -> Result<PathBuf> {
    let headers = kernel.headers();
    let sources = headers.parent().context("headers lie in usr/src")?;
    let common = fs::read_dir(sources)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with("-common"));
    let common = common.with_context(|| format!("no common headers in {}", sources.display()))?;
    Ok(common.path().join("include"))
}

fn stap_version() -> Result<String> {
    let mut command = Command::new(requirements::command("stap")?);
    command.arg("--version");
    let done = Child::spawn(command)?.finish(VERSION_DEADLINE)?;
    // Older ones say it on stderr.
    let said = format!("{}{}", done.stdout, done.stderr);
    ensure!(done.status.success(), "stap --version failed: {said}");
    Ok(said.lines().next().unwrap_or_default().to_owned())
}
