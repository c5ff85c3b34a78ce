//! SystemTap modules for the guests, compiled on this machine.
//!
//! In: a script, its options, the programs whose stacks it unwinds. Out: a module, kept under a hash of
//! everything that went into it. Never: passes 1 to 4 twice for the same input.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::image;
use super::kit::{Kit, lock};
use crate::process::Child;
use crate::requirements;

/// 10 to 30 s on a quiet machine; a busy one takes several times that.
const COMPILE_DEADLINE: Duration = Duration::from_mins(4);

/// A script that becomes a module.
#[derive(Clone, Debug)]
pub struct Script {
    /// The module's name, as `/proc/modules` will show it.
    pub name: String,
    /// The script.
    pub text: String,
    /// More arguments of stap: `-DMAXBACKTRACE=60`, …
    pub options: Vec<String>,
    /// Programs and libraries whose stacks are unwound, by the paths that a process in the guest has mapped,
    /// which must be the same here.
    pub unwound: Vec<PathBuf>,
}

impl Script {
    /// A script without options.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
            options: Vec::new(),
            unwound: Vec::new(),
        }
    }

    /// With one more option.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// With the unwind data and symbols of a program and of its libraries.
    pub fn unwinding(mut self, program: &Path) -> Result<Self> {
        self.unwound.push(program.to_owned());
        for library in image::libraries(std::iter::once(program))? {
            self.unwound.push(library.canonicalize()?);
        }
        Ok(self)
    }

    /// The compiled module.
    pub fn compile(&self, kit: &Kit) -> Result<PathBuf> {
        let folder = kit.folder("modules")?;
        let kept = folder
            .join(self.key(kit)?)
            .join(format!("{}.ko", self.name));
        // Compiling takes a CPU for itself: one at a time, so that none waits in vain.
        let _turn = lock(&folder.join("compile.lock"))?;
        if kept.is_file() {
            return Ok(kept);
        }
        let scratch = tempfile::tempdir_in(&folder)?;
        let script = scratch.path().join(format!("{}.stp", self.name));
        fs::write(&script, &self.text)?;
        let mut stap = Command::new(requirements::command("stap")?);
        stap.current_dir(scratch.path())
            .env("SYSTEMTAP_DIR", kit.folder("stap")?)
            .args(["-p4", "-m", &self.name, "-r"])
            .arg(kit.kernel.headers())
            .arg("-R")
            .arg(&kit.runtime)
            .args(&self.options);
        for file in &self.unwound {
            stap.arg("-d").arg(file);
        }
        stap.arg(&script);
        let done = Child::spawn(stap)?.finish(COMPILE_DEADLINE)?;
        let module = scratch.path().join(format!("{}.ko", self.name));
        ensure!(
            done.status.success() && module.is_file(),
            "stap cannot compile {}: {}{}",
            self.name,
            done.stdout,
            done.stderr
        );
        fs::create_dir_all(kept.parent().context("a path with a parent")?)?;
        fs::rename(module, &kept)?;
        Ok(kept)
    }

    fn key(&self, kit: &Kit) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(kit.kernel.release.as_bytes());
        part(kit.runtime.as_os_str().as_encoded_bytes());
        part(self.name.as_bytes());
        part(self.text.as_bytes());
        self.options
            .iter()
            .for_each(|option| part(option.as_bytes()));
        for file in &self.unwound {
            part(file.as_os_str().as_encoded_bytes());
            part(&fs::read(file).with_context(|| file.display().to_string())?);
        }
        Ok(hasher.finalize().to_hex()[..24].to_owned())
    }
}
