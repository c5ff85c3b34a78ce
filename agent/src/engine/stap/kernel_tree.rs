//! A kernel's build files with a list of the functions that our probes are put on.
//!
//! In: the build files. Out: a folder that leads to them, with a System.map of ours. Never: a change in the kernel's own
//! folder, or an address: the kernel finds functions by their names when the module is loaded.
//!
//! SystemTap takes a `kprobe.function("NAME")` only if NAME stands in System.map: beside the build files (Red Hat's
//! kernel-devel has one) or in /boot, where Debian's is empty (parse_kernel_functions in session.cxx).

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What probes of ours are put on, and by what SystemTap knows that it may probe returns in user space. Whether a kernel has
/// one shows when the module is loaded: those that may be missing are optional there.
const FUNCTIONS: [&str; 6] = [
    "vfs_read",
    "vfs_write",
    "vfs_readv",
    "vfs_writev",
    "do_futex",
    "arch_uretprobe_hijack_return_addr",
];
const LIST: &str = "System.map";

/// Makes `tree` in `work`: links to all of the build files of `kernel`, a release or a folder, and the list.
///
/// # Errors
/// What the system says.
pub(super) fn with_functions(kernel: &OsStr, work: &Path) -> io::Result<PathBuf> {
    let build = match Path::new(kernel) {
        folder if folder.components().count() > 1 => folder.to_path_buf(),
        release => Path::new("/lib/modules").join(release).join("build"),
    };
    let build = build.canonicalize()?;
    let tree = work.join("tree");
    std::fs::create_dir(&tree)?;
    for entry in std::fs::read_dir(&build)? {
        let name = entry?.file_name();
        if name != LIST {
            symlink(build.join(&name), tree.join(&name))?;
        }
    }
    // As nm prints it: address, kind, name.
    let list: String = FUNCTIONS
        .iter()
        .map(|name| format!("{:016x} T {name}\n", 0))
        .collect();
    std::fs::write(tree.join(LIST), list)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stap::probes::ALL;

    #[test]
    fn build_files_are_led_to_and_the_list_is_ours() {
        let stage = tempfile::tempdir().unwrap();
        let build = stage.path().join("headers");
        std::fs::create_dir_all(build.join("include")).unwrap();
        std::fs::write(build.join("include/x.h"), "x").unwrap();
        std::fs::write(build.join(LIST), "theirs").unwrap();
        let tree = with_functions(build.as_os_str(), stage.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(tree.join("include/x.h")).unwrap(),
            "x"
        );
        let list = std::fs::read_to_string(tree.join(LIST)).unwrap();
        assert!(list.contains("0000000000000000 T do_futex\n"), "{list}");
        assert_eq!(std::fs::read_to_string(build.join(LIST)).unwrap(), "theirs");
        assert!(with_functions(OsStr::new("no-such-release"), stage.path()).is_err());
    }

    #[test]
    fn every_function_that_a_probe_is_put_on_is_listed() {
        let mut found = 0;
        for probe in ALL {
            let script = probe.script();
            for rest in script.split("kprobe.function(\"").skip(1) {
                let name = rest.split('"').next().unwrap();
                assert!(FUNCTIONS.contains(&name), "{name}");
                found += 1;
            }
        }
        assert!(found > 10, "{found}");
    }
}
