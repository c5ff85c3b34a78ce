//! The private folder of an agent that was sent over SSH, and its removal to the last file.
//!
//! In: a folder. Out: that it is private, or that it is gone. Never: a recursive removal, a file that is
//! not ours by name, or a way through a symbolic link.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The agent's own program in its folder.
pub const PROGRAM: &str = "agent";
/// The socket on which the agent is joined.
pub const SOCKET: &str = "socket";
/// How the folder above begins, which is shared by all agents of a user.
const SHARED_PREFIX: &str = "fleetflame-";

/// Checks that `folder` is a real folder, closed to others and owned by `uid`, or by anybody when
/// `uid` is root's; gives its owner.
///
/// # Errors
/// What is wrong with it, in words.
pub fn require_private(folder: &Path, uid: u32) -> io::Result<u32> {
    let meta = fs::symlink_metadata(folder)?;
    let refuse = |said: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
    let at = folder.display();
    if !folder.is_absolute() || !meta.is_dir() {
        return refuse(format!("{at} is no folder with an absolute path"));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return refuse(format!("{at} is open to others (mode {mode:o})"));
    }
    if uid != 0 && meta.uid() != uid {
        return refuse(format!("{at} belongs to user {}, not to {uid}", meta.uid()));
    }
    Ok(meta.uid())
}

/// Removes the folder with what an agent has in it, and the one above when nothing else is there.
/// What is not there is as good as removed.
pub fn remove(folder: &Path) {
    if fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir()) {
        for name in [SOCKET, PROGRAM] {
            let _ = fs::remove_file(folder.join(name));
        }
        let _ = fs::remove_dir(folder);
    }
    let shared = folder.parent().filter(|above| {
        let name = above.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(SHARED_PREFIX))
    });
    if let Some(shared) = shared {
        let _ = fs::remove_dir(shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    fn private(above: &Path, name: &str) -> PathBuf {
        let folder = above.join("fleetflame-0").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.join(PROGRAM), "x").unwrap();
        folder
    }

    #[test]
    fn only_a_private_folder_of_one_s_own_will_do() {
        let stage = tempfile::tempdir().unwrap();
        let folder = private(stage.path(), "a");
        let own = fs::metadata(&folder).unwrap().uid();
        assert_eq!(require_private(&folder, own).unwrap(), own);
        assert!(require_private(&folder, own + 1).is_err() || own + 1 == 0);
        let link = stage.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(require_private(&link, own).is_err(), "through a link");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
        let said = require_private(&folder, own).unwrap_err().to_string();
        assert!(said.contains("mode 750"), "{said}");
        assert!(require_private(Path::new("."), own).is_err());
    }

    #[test]
    fn what_is_ours_goes_and_what_is_not_stays() {
        let stage = tempfile::tempdir().unwrap();
        let (first, second) = (private(stage.path(), "a"), private(stage.path(), "b"));
        fs::write(second.join("foreign"), "x").unwrap();
        remove(&first);
        assert!(!first.exists());
        remove(&second);
        assert!(second.join("foreign").exists() && !second.join(PROGRAM).exists());
        fs::remove_file(second.join("foreign")).unwrap();
        remove(&second);
        assert!(!stage.path().join("fleetflame-0").exists());
        remove(&second);
        let link = stage.path().join("link");
        let third = private(stage.path(), "c");
        symlink(&third, &link).unwrap();
        remove(&link);
        assert!(third.join(PROGRAM).exists(), "removed through a link");
    }
}
