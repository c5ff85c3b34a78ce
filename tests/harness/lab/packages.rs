//! Debian's packages, fetched and unpacked without being installed.
//!
//! In: the name of a package. Out: what it depends on, its files in a folder. Never: an installation, nor
//! anything but apt's own sources. The lists of packages are refreshed when they name none, or files that are gone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Child;
use crate::requirements;

/// Some 90 MB over a slow line.
const FETCH_DEADLINE: Duration = Duration::from_mins(10);
const UNPACK_DEADLINE: Duration = Duration::from_mins(3);

/// What `package` depends on, whatever the alternative; an error when apt does not know it.
pub fn dependencies(package: &str) -> Result<Vec<String>> {
    let found = ask(package)?;
    if !found.is_empty() {
        return Ok(found);
    }
    refresh()?;
    let found = ask(package)?;
    ensure!(
        !found.is_empty(),
        "apt knows no package {package}, which the lab needs"
    );
    Ok(found)
}

/// apt's lists of packages, anew.
fn refresh() -> Result<()> {
    let mut update = Command::new(requirements::command("apt-get")?);
    update.args(["-q", "update"]);
    run(update, FETCH_DEADLINE)
}

fn ask(package: &str) -> Result<Vec<String>> {
    // An unknown package is answered with nothing and exit code 0, or with 100.
    let mut command = Command::new(requirements::command("apt-cache")?);
    command.args(["depends", "--important", package]);
    let done = Child::spawn(command)?.finish(UNPACK_DEADLINE)?;
    Ok(read_dependencies(&done.stdout))
}

/// `apt-cache depends` prints a tree of one level: `  Depends: NAME`, or `  Depends: <VIRTUAL>`.
fn read_dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            line.trim_start_matches([' ', '|'])
                .strip_prefix("Depends: ")
        })
        .filter(|name| !name.starts_with('<'))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

/// Fetches packages into `folder`, and gives their files. Lists that are old name files that are there no more: they
/// are refreshed once.
pub fn fetch(packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
    let download = || -> Result<()> {
        let mut command = Command::new(requirements::command("apt-get")?);
        // apt's own user may not write into our folder; then apt fetches as root, and says so.
        command.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
        command.args(packages).current_dir(folder);
        run(command, FETCH_DEADLINE)
    };
    if download().is_err() {
        refresh()?;
        download()?;
    }
    let files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    ensure!(
        files.len() == packages.len(),
        "of {packages:?} apt-get fetched {files:?}"
    );
    Ok(files)
}

/// Unpacks the files of `package` into `folder`.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let mut command = Command::new(requirements::command("dpkg-deb")?);
    command.arg("-x").arg(package).arg(folder);
    run(command, UNPACK_DEADLINE)
}

fn run(command: Command, deadline: Duration) -> Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let done = Child::spawn(command)?.finish(deadline)?;
    ensure!(
        done.status.success(),
        "`{}` failed: {}",
        words.join(" "),
        done.stderr.trim()
    );
    Ok(())
}

/// The package among `packages` whose name is `prefix` and a version.
pub fn versioned<'a>(packages: &'a [String], prefix: &str) -> Result<&'a String> {
    let begins = |name: &&String| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    packages
        .iter()
        .find(begins)
        .with_context(|| format!("no {prefix}VERSION among {packages:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let text = "linux-headers-6.1.0-56-amd64\n  Depends: linux-headers-6.1.0-56-common\n \
                    |Depends: linux-kbuild-6.1:any\n  Depends: <virtual>\n    other\n  Suggests: x\n";
        let found = read_dependencies(text);
        assert_eq!(found, ["linux-headers-6.1.0-56-common", "linux-kbuild-6.1"]);
        let kernel = [
            "linux-kbuild-6.1".to_owned(),
            "linux-image-6.1.0-56-amd64".to_owned(),
        ];
        assert_eq!(
            versioned(&kernel, "linux-image-").expect("found"),
            &kernel[1]
        );
        assert!(versioned(&kernel, "linux-doc-").is_err());
    }
}
