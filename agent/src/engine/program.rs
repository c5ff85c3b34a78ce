//! The machine's own tools: where a program lies, and whether it may be run.
//!
//! In: a name, a fixed list of folders. Out: a path. Never: the caller's PATH, or a program that others than root and the
//! agent's own user could have written: the agent may run as root.

use model::{Finding, FindingCode};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for, in this order.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"];

/// A program by name; `remedy` says how it is had.
///
/// # Errors
/// `engine-unavailable` with where it was looked for, or why it is not trusted.
pub(super) fn find(program: &str, remedy: &str) -> Result<PathBuf, Finding> {
    let candidates = DIRECTORIES.map(|dir| Path::new(dir).join(program));
    find_in(&candidates, program).map_err(|f| f.with_remedy(remedy))
}

fn find_in(candidates: &[PathBuf], program: &str) -> Result<PathBuf, Finding> {
    let me = nix::unistd::geteuid().as_raw();
    let mut why = None;
    for path in candidates {
        // Followed: /usr/bin/perf may be a link to the kernel's own version of it.
        let Ok(meta) = std::fs::metadata(path) else {
            continue;
        };
        if !meta.is_file() || meta.mode() & 0o111 == 0 {
            continue;
        }
        if (meta.uid() != 0 && meta.uid() != me) || meta.mode() & 0o022 != 0 {
            why = Some(format!(
                "{} can be written by others than root, so it is not run",
                path.display()
            ));
            continue;
        }
        return Ok(path.clone());
    }
    let none = || format!("there is no {program} in {}", DIRECTORIES.join(", "));
    let said = why.unwrap_or_else(none);
    Err(Finding::new(FindingCode::EngineUnavailable, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_that_others_can_write_is_not_run() {
        let stage = tempfile::tempdir().unwrap();
        let path = stage.path().join("perf");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            find_in(std::slice::from_ref(&path), "perf")
        };
        assert_eq!(with(0o755).unwrap(), path);
        assert!(with(0o777).unwrap_err().evidence.contains("not run"));
        let none = with(0o644).unwrap_err();
        assert!(none.evidence.contains("there is no perf in /usr/bin"));
        assert_eq!(none.code, FindingCode::EngineUnavailable);
        let remedy = find("no-such-program", "Install it.").unwrap_err().remedy;
        assert_eq!(remedy, "Install it.");
    }
}
