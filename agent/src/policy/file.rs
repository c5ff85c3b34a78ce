//! The policy's file. In: a path. Out: a policy. Never: a file that somebody else could have
//! written: who can write the policy can make the agent do anything that the agent can do.

use super::Policy;
use crate::closed::require_closed_above;
use model::{Finding, FindingCode};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the policy lies unless `--policy` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/fleetflame/policy.yaml";

/// Larger files are not policies.
const BYTES_MAX: u64 = 256 << 10;

/// Reads the policy. An absent file at the default path means [`Policy::default`]; an absent file
/// that was named is an error.
///
/// # Errors
/// `policy-unsafe` when others could write the file or a folder above it, `policy-invalid` when it
/// cannot be read as a policy, with line and column.
pub fn load(path: Option<&Path>) -> Result<Policy, Finding> {
    let named = path.is_some();
    let path = path.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_path_buf);
    let open = File::options()
        .read(true)
        .custom_flags(nix::libc_flags())
        .open(&path);
    let file = match open {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => {
            return Ok(Policy::default());
        }
        Err(e) => {
            return Err(Finding::new(
                FindingCode::PolicyInvalid,
                format!("{}: {e}", path.display()),
            ));
        }
    };
    check_owner(&path, &file)?;
    let mut text = String::new();
    file.take(BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| invalid(&path, e))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(invalid(&path, "it is larger than 256 KiB"));
    }
    parse(&text).map_err(|why| invalid(&path, why))
}

mod nix {
    //! The flags a policy is opened with.

    /// No symlink at the end of the path, and no waiting on a FIFO.
    pub(super) fn libc_flags() -> i32 {
        use ::nix::fcntl::OFlag;
        (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits()
    }
}

fn invalid(path: &Path, why: impl std::fmt::Display) -> Finding {
    Finding::new(
        FindingCode::PolicyInvalid,
        format!("{}: {why}", path.display()),
    )
}

/// Parses a policy's text.
///
/// # Errors
/// What is wrong and where.
pub fn parse(text: &str) -> Result<Policy, String> {
    let mut options = serde_yaml::Options::default();
    options.strict_booleans = true;
    let policy: Policy =
        serde_yaml::from_str_with_options(text, options).map_err(|e| e.to_string())?;
    if policy.version != 1 {
        return Err(format!(
            "version {} is not known; write version: 1",
            policy.version
        ));
    }
    if policy.engines.contains(&model::job::EngineChoice::Auto) {
        return Err("engines: lists auto; name the engines themselves".into());
    }
    if let Some(odd) = policy.scripts.iter().find(|hash| !is_hash(hash)) {
        return Err(format!(
            "scripts: lists {odd:?}; write the 64 digits that fleetflame-agent expand --hash prints"
        ));
    }
    Ok(policy)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file and every folder above it must belong to root or to the agent's own user, and nobody
/// else may write them (a folder with the sticky bit, such as /tmp, is as good as closed).
fn check_owner(path: &Path, file: &File) -> Result<(), Finding> {
    let unsafe_finding = |at: &Path, why: &str| {
        Finding::new(FindingCode::PolicyUnsafe, format!("{} {why}", at.display()))
    };
    let me = ::nix::unistd::geteuid().as_raw();
    let trusted = |uid: u32| uid == 0 || uid == me;
    let meta = file.metadata().map_err(|e| invalid(path, e))?;
    if !meta.is_file() {
        return Err(unsafe_finding(path, "is not a regular file"));
    }
    if !trusted(meta.uid()) {
        return Err(unsafe_finding(path, "belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(unsafe_finding(
            path,
            "can be written by its group or by everybody",
        ));
    }
    require_closed_above(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => Finding::new(FindingCode::PolicyUnsafe, e.to_string()),
        _ => invalid(path, e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn written(mode: u32, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_policy_that_others_can_write_is_refused() {
        let (_dir, path) = written(0o666, "version: 1\n");
        assert_eq!(
            load(Some(&path)).unwrap_err().code,
            FindingCode::PolicyUnsafe
        );
        let (dir, path) = written(0o600, "version: 1\n");
        assert!(load(Some(&path)).is_ok());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            load(Some(&path)).unwrap_err().code,
            FindingCode::PolicyUnsafe
        );
    }

    #[test]
    fn a_symlink_or_fifo_is_no_policy() {
        let (dir, path) = written(0o600, "version: 1\n");
        let link = dir.path().join("link.yaml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(load(Some(&link)).is_err());
        let fifo = dir.path().join("fifo");
        ::nix::unistd::mkfifo(&fifo, ::nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(load(Some(&fifo)).is_err());
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, word) in [
            ("version: 1\nsample_hz_max: fast\n", "line 2"),
            ("version: 1\nengine: [native]\n", "engine"),
            ("version: 2\n", "version"),
            ("version: 1\nengines: [auto]\n", "auto"),
            ("version: 1\nallow_ptrace: yes\n", "line 2"),
            ("version: 1\nscripts: [any]\n", "expand --hash"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text:?} gave {error:?}");
        }
        let policy =
            parse("version: 1\nengines: [native, simulated]\nsample_hz_max: 99\n").unwrap();
        assert_eq!(policy.sample_hz_max, 99);
        assert_eq!(policy.duration_s_max, Policy::default().duration_s_max);
    }

    #[test]
    fn a_bomb_of_aliases_costs_bounded_time() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (this, last) in "bcdefgh".chars().zip("abcdefg".chars()) {
            let list = vec![format!("*{last}"); 9].join(",");
            bomb.push_str(&format!("{this}: &{this} [{list}]\n"));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(200_000)).is_err());
    }
}
