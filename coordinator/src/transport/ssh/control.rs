//! The folder of control sockets and logs of this program's ssh masters.
//!
//! In: a place for short-lived private files. Out: a 0700 folder with a short path, since a socket's path
//! has at most 107 bytes and ssh adds 17 of its own while it makes one. Never: the operator's own control
//! sockets, or a folder that is left when its program has ended in order.

use anyhow::Context as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How our folders begin; the process id follows.
const PREFIX: &str = "ff-";
/// Longest path of the folder: `/NUMBER.log` and ssh's own suffix must fit behind it.
const PATH_BYTES_MAX: usize = 70;

/// See the module. Dropping it removes the folder.
#[derive(Debug)]
pub struct ControlFolder {
    path: PathBuf,
    next: AtomicU64,
}

impl ControlFolder {
    /// Makes the folder in `$XDG_RUNTIME_DIR` or the folder for temporary files, and removes those of
    /// earlier programs of ours that were killed.
    ///
    /// # Errors
    /// When neither place will do.
    pub fn make() -> anyhow::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = [runtime, Some(std::env::temp_dir()), Some("/tmp".into())];
        let mut last = None;
        for place in places.into_iter().flatten().filter(|p| p.is_absolute()) {
            match Self::make_in(&place) {
                Ok(folder) => return Ok(folder),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no place is known")))
            .context("failed to make a folder for ssh's control sockets")
    }

    fn make_in(place: &Path) -> anyhow::Result<Self> {
        sweep(place);
        let random = crate::clock::random_bits()? & 0xffff_ffff;
        let path = place.join(format!("{PREFIX}{}-{random:08x}", std::process::id()));
        anyhow::ensure!(
            path.as_os_str().len() <= PATH_BYTES_MAX,
            "{} is too long a path for sockets",
            path.display()
        );
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            path,
            next: AtomicU64::new(0),
        })
    }

    /// A path for the next master's socket; with `.log` behind it, for its log.
    #[must_use]
    pub fn next_socket(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(number.to_string())
    }
}

impl Drop for ControlFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes folders whose program has ended.
fn sweep(place: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let is_ours = entry
            .path()
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == own);
        if is_ours && !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_short_and_goes_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let dead = place.path().join("ff-4194304999-0");
        fs::create_dir(&dead).unwrap();
        let foreign = place.path().join("ff-notes");
        fs::create_dir(&foreign).unwrap();
        let folder = ControlFolder::make_in(place.path()).unwrap();
        assert!(!dead.exists() && foreign.exists());
        assert_eq!(fs::metadata(&folder.path).unwrap().mode() & 0o777, 0o700);
        let (a, b) = (folder.next_socket(), folder.next_socket());
        assert!(a != b && a.as_os_str().len() < 90);
        let another = ControlFolder::make_in(place.path()).unwrap();
        let path = folder.path.clone();
        assert!(path.exists(), "a living program's folder was removed");
        drop(folder);
        assert!(!path.exists() && another.path.exists());
        let deep = place.path().join("x".repeat(80));
        fs::create_dir(&deep).unwrap();
        assert!(ControlFolder::make_in(&deep).is_err());
    }
}
