//! Whether others than root and the agent's own user could put something into a folder, or another folder in its place.
//!
//! In: a path. Out: leave to trust what lies there, or a folder that was made so. Never: a judgement by the path's own
//! words: links are followed one by one, and every folder on the way and every link's owner counts; or a folder made
//! through one that others can write.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Links of one path that are followed: the kernel's own bound (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Checks `folder` and everything that leads to it. What lies in it may then be taken whoever put it there.
///
/// # Errors
/// `PermissionDenied` with who can be another's; what the system says when a part of the way is missing.
pub(crate) fn require_closed(folder: &Path) -> io::Result<()> {
    walk(folder, false, nix::unistd::geteuid().as_raw())
}

/// Checks everything that leads to `file`, whose own owner and mode are the caller's matter: its folder may have the
/// sticky bit, with which others cannot replace a file that is not theirs.
///
/// # Errors
/// As [`require_closed`].
pub(crate) fn require_closed_above(file: &Path) -> io::Result<()> {
    let file = std::path::absolute(file)?;
    let me = nix::unistd::geteuid().as_raw();
    walk(file.parent().unwrap_or(&file), true, me)
}

/// Makes `folder` where it is missing, and what is missing above it, each closed to all others (0700) and in one that is
/// closed already: what leads to it is checked before anything is made there.
///
/// # Errors
/// As [`require_closed`], of the folder and of everything that leads to it; what making says.
pub(crate) fn make_closed(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let mut missing = Vec::new();
    for at in folder.ancestors() {
        match at.symlink_metadata() {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(at),
            Err(e) => return Err(e),
        }
    }
    for at in missing.into_iter().rev() {
        require_closed_above(at)?;
        match DirBuilder::new().mode(0o700).create(at) {
            // Somebody was faster; whose it is counts below.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    require_closed(&folder)
}

fn walk(folder: &Path, last_may_be_sticky: bool, me: u32) -> io::Result<()> {
    let open = |at: &Path| {
        let said = format!("{} can be written by others", at.display());
        io::Error::new(io::ErrorKind::PermissionDenied, said)
    };
    let mut to_go = parts(&std::path::absolute(folder)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    loop {
        let meta = at.symlink_metadata()?;
        if meta.uid() != 0 && meta.uid() != me {
            return Err(open(&at));
        }
        if meta.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::other(format!(
                    "{}: too many links",
                    at.display()
                )));
            }
            let target = at.read_link()?;
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                to_go.push_front(part);
            }
            continue;
        }
        let is_sticky = meta.mode() & 0o1000 != 0 && (last_may_be_sticky || !to_go.is_empty());
        if !meta.is_dir() {
            let said = format!("{} is no folder", at.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, said));
        }
        if meta.mode() & 0o022 != 0 && !is_sticky {
            return Err(open(&at));
        }
        match to_go.pop_front() {
            // Here are no links any more: the folder above is the one by name.
            Some(part) if part == ".." => _ = at.pop(),
            Some(part) => at.push(part),
            None => return Ok(()),
        }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn folder(path: PathBuf, mode: u32) -> PathBuf {
        create_dir(&path).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn said(path: &Path) -> String {
        let error = require_closed(path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        error.to_string()
    }

    #[test]
    fn a_folder_is_as_closed_as_what_leads_to_it() {
        let stage = tempfile::tempdir().unwrap();
        let closed = folder(stage.path().join("closed"), 0o755);
        let inner = folder(closed.join("inner"), 0o700);
        assert!(require_closed(&inner).is_ok());
        assert!(require_closed(&closed.join("../closed/inner")).is_ok());
        set_permissions(&closed, Permissions::from_mode(0o775)).unwrap();
        assert!(said(&inner).starts_with(closed.to_str().unwrap()));
        // With the sticky bit the inner one cannot be replaced, but something put beside it.
        set_permissions(&closed, Permissions::from_mode(0o1777)).unwrap();
        assert!(require_closed(&inner).is_ok());
        said(&closed);
        assert!(require_closed_above(&closed.join("file")).is_ok());
        let missing = require_closed(&stage.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_is_made_where_others_can_write() {
        let stage = tempfile::tempdir().unwrap();
        let deep = stage.path().join("a/b/c");
        make_closed(&deep).unwrap();
        for path in deep.ancestors().take(3) {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
        make_closed(&deep).unwrap();
        let open = folder(stage.path().join("open"), 0o777);
        let error = make_closed(&open.join("x/y")).unwrap_err();
        assert!(error.to_string().contains("written by others"), "{error}");
        assert!(!open.join("x").exists());
        // A link that leads nowhere yet may be led anywhere.
        symlink(open.join("z"), stage.path().join("dangling")).unwrap();
        assert!(make_closed(&stage.path().join("dangling/x")).is_err());
        assert!(!open.join("z").exists());
    }

    #[test]
    fn a_link_does_not_hide_an_open_folder_on_its_way() {
        let stage = tempfile::tempdir().unwrap();
        let good = folder(stage.path().join("good"), 0o700);
        let open = folder(stage.path().join("open"), 0o777);
        let below = folder(open.join("below"), 0o700);
        let to_below = stage.path().join("to_below");
        symlink(&below, &to_below).unwrap();
        assert!(said(&to_below).starts_with(open.to_str().unwrap()));
        // Neither end's ancestors are open: the link in the middle lies where others can change it.
        symlink(&good, open.join("back")).unwrap();
        let through = stage.path().join("through");
        symlink("open/back", &through).unwrap();
        assert!(said(&through).starts_with(open.to_str().unwrap()));
        let straight = stage.path().join("straight");
        symlink("good", &straight).unwrap();
        assert!(require_closed(&straight).is_ok());
        let ring = stage.path().join("ring");
        symlink("ring", &ring).unwrap();
        assert!(require_closed(&ring).is_err());
    }

    #[test]
    fn another_users_folder_or_link_is_open() {
        let stage = tempfile::tempdir().unwrap();
        let sticky = folder(stage.path().join("sticky"), 0o1777);
        let good = folder(stage.path().join("good"), 0o700);
        let link = sticky.join("link");
        symlink(&good, &link).unwrap();
        assert!(require_closed(&link).is_ok());
        let me = nix::unistd::geteuid();
        if !me.is_root() {
            // Only root can give something away; to another user all of it is another's.
            assert!(walk(&good, false, me.as_raw() + 1).is_err());
            return;
        }
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        said(&link);
        chown(&good, Some(65_534), None).unwrap();
        said(&good);
    }
}
