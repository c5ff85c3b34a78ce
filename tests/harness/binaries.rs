//! The two programs under test, and the one that the lab puts into its guests.
//!
//! In: this checkout. Out: the paths of `fleetflame`, `fleetflame-agent` and `lab-door`, built in the running
//! test's own target folder and profile. Never: a program from PATH: a test must not pass with an old one.
//!
//! `FLEETFLAME_BIN_DIR` names a folder with both, for machines without a compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Child;
use crate::target_dir::TargetDir;

/// A folder with both programs; set, nothing is built.
pub const BIN_DIR: &str = "FLEETFLAME_BIN_DIR";

const COORDINATOR: &str = "fleetflame";
const AGENT: &str = "fleetflame-agent";
const LAB_DOOR: &str = "lab-door";
const BUILD_DEADLINE: Duration = Duration::from_mins(20);

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// `fleetflame`.
    pub coordinator: PathBuf,
    /// `fleetflame-agent`.
    pub agent: PathBuf,
    /// `lab-door`, by which the harness commands a guest of the lab; only the lab misses it.
    pub lab_door: PathBuf,
}

impl Binaries {
    /// Finds them; builds them first, once in this process (cargo itself is quick when they are fresh).
    pub fn find() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| match std::env::var_os(BIN_DIR) {
                Some(dir) => Self::in_dir(Path::new(&dir)).map_err(|error| format!("{error:#}")),
                None => Self::build().map_err(|error| format!("{error:#}")),
            })
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// `fleetflame`, ready for arguments.
    pub fn coordinator(&self) -> Command {
        Command::new(&self.coordinator)
    }

    /// `fleetflame-agent`, ready for arguments.
    pub fn agent(&self) -> Command {
        Command::new(&self.agent)
    }

    fn in_dir(dir: &Path) -> Result<Self> {
        let found = Self {
            coordinator: dir.join(COORDINATOR),
            agent: dir.join(AGENT),
            lab_door: dir.join(LAB_DOOR),
        };
        for path in [&found.coordinator, &found.agent] {
            if !path.is_file() {
                bail!("{BIN_DIR} is set, but there is no {}", path.display());
            }
        }
        Ok(found)
    }

    fn build() -> Result<Self> {
        let target = TargetDir::current()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            // The whole workspace, so that features are the same as in the tests' own build and
            // nothing is compiled twice.
            .args(["build", "--bins", "--workspace"])
            .args([
                "--profile",
                &target.profile,
                "--message-format",
                "json-render-diagnostics",
            ])
            .arg("--target-dir")
            .arg(&target.root)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells a test of its own package: build scripts of other packages (ring's) ask for these
        // words, and with them in the environment all that depends on these is built anew, each time.
        for (name, _) in std::env::vars_os() {
            let said = name.to_string_lossy();
            if said.starts_with("CARGO_PKG_") || said.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        let done = Child::spawn(command)?.finish(BUILD_DEADLINE)?;
        if !done.status.success() {
            bail!(
                "cargo cannot build {AGENT} and {COORDINATOR}:\n{}",
                done.stderr
            );
        }
        let mut built = executables(&done.stdout);
        let mut take = |name| {
            built
                .remove(name)
                .with_context(|| format!("cargo built no `{name}`"))
        };
        Ok(Self {
            coordinator: take(COORDINATOR)?,
            agent: take(AGENT)?,
            lab_door: take(LAB_DOOR)?,
        })
    }
}

/// The executables in cargo's messages, by name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = PathBuf::from(message.get("executable")?.as_str()?);
        Some((path.file_name()?.to_str()?.to_owned(), path))
    };
    messages.lines().filter_map(executable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_taken_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"model"},"executable":null}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","executable":"/t/debug/fleetflame-agent"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages);
        assert_eq!(
            found.get(AGENT),
            Some(&PathBuf::from("/t/debug/fleetflame-agent"))
        );
        assert_eq!(found.len(), 1);
    }
}
