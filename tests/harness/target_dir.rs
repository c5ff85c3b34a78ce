//! Where cargo builds, and with which profile, found from the running test's own place.
//!
//! In: the path of the test executable. Out: the target folder, the profile.
//! Never: an assumption that it is `target`: CARGO_TARGET_DIR and `--target-dir` both move it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The build that the running test belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDir {
    /// The target folder itself.
    pub root: PathBuf,
    /// Cargo's name of the profile: `dev`, `release`, …
    pub profile: String,
}

impl TargetDir {
    /// The build of the running executable.
    pub fn current() -> Result<Self> {
        let executable = std::env::current_exe()?;
        Self::of(&executable).with_context(|| {
            format!(
                "{} does not lie in a cargo target folder",
                executable.display()
            )
        })
    }

    /// Cargo marks a target folder that it made with CACHEDIR.TAG; tests lie in ROOT[/TRIPLE]/PROFILE/deps,
    /// programs one above.
    fn of(executable: &Path) -> Option<Self> {
        let of_test = executable.ancestors().find(|dir| dir.ends_with("deps"));
        let profile_dir = match of_test {
            Some(deps) => deps.parent()?,
            None => executable
                .parent()
                .filter(|dir| dir.join("deps").is_dir())?,
        };
        // A folder that was there before cargo gets no mark; then it is the profile's parent.
        let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
        let root = executable
            .ancestors()
            .find(marked)
            .or(profile_dir.parent())?;
        let profile = match profile_dir.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        Some(Self {
            root: root.to_owned(),
            profile: profile.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_test_lies_in_a_target_folder() {
        let current = TargetDir::current().expect("cargo built this test");
        assert!(current.root.is_dir());
        assert!(!current.profile.is_empty());
    }

    #[test]
    fn a_triple_and_a_release_profile_are_understood() {
        let dir = tempfile::tempdir().expect("a folder");
        let deps = dir.path().join("x86_64-unknown-linux-musl/release/deps");
        std::fs::create_dir_all(&deps).expect("folders");
        std::fs::write(dir.path().join("CACHEDIR.TAG"), "").expect("a tag");
        let found = TargetDir::of(&deps.join("harness-0123")).expect("found");
        assert_eq!(
            found,
            TargetDir {
                root: dir.path().to_owned(),
                profile: "release".into()
            }
        );
        let program = dir.path().join("debug/lab-record");
        assert_eq!(TargetDir::of(&program), None);
        std::fs::create_dir_all(dir.path().join("debug/deps")).expect("a folder");
        let found = TargetDir::of(&program).expect("a program's folder is found by the mark");
        assert_eq!(
            (found.root.as_path(), found.profile.as_str()),
            (dir.path(), "dev")
        );
    }
}
