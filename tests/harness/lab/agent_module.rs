//! Modules of our built-in probes: built on this machine by the agent's own verb, loaded in guests.
//!
//! In: a probe, the files that its targets have mapped. Out: `NAME.ko` beside `NAME.json`, here and in a guest. Never: a
//! module for another kernel than the guests'.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Guest, Kit};
use crate::binaries::Binaries;
use crate::process::Child;

const BUILD: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_secs(30);
/// Where an agent looks for modules that were built elsewhere.
pub const MODULES: &str = "/var/lib/fleetflame/modules";

/// Builds one with `fleetflame-agent build-module`; `options` are more of its flags.
pub fn build_module(
    kit: &Kit,
    program: Option<&Path>,
    probe: &str,
    options: &[&str],
) -> Result<PathBuf> {
    let out = kit.folder("agent-modules")?;
    let mut command = Binaries::find()?.agent();
    command.args(["build-module", "--probe", probe, "--cpus", "2"]);
    command.args(options);
    command.arg("--kernel").arg(kit.kernel.headers());
    command.arg("--runtime").arg(&kit.runtime);
    if let Some(program) = program {
        command.arg("--image").arg(program);
    }
    command.arg("--out").arg(out);
    let done = Child::spawn(command)?.finish(BUILD)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(PathBuf::from(done.stdout.trim()))
}

/// The file that has malloc.
pub fn libc() -> Result<PathBuf> {
    let path = format!("/lib/{}-linux-gnu/libc.so.6", std::env::consts::ARCH);
    Path::new(&path).canonicalize().context(path)
}

/// Puts one where the agent of a guest looks for it.
pub fn install_module(guest: &Guest, module: &Path) -> Result<()> {
    for file in [module.to_owned(), module.with_extension("json")] {
        let name = file.file_name().context("a module has a name")?;
        guest.put_file(&file, &format!("{MODULES}/{}", name.to_string_lossy()))?;
    }
    let close = "chown -R 0:0 /var/lib/fleetflame && chmod -R go= /var/lib/fleetflame";
    guest.sh(close, SOON).map(drop)
}
