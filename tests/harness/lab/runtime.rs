//! A private copy of SystemTap's runtime that fits the guests' kernel.
//!
//! In: the installed runtime, the kernel's headers. Out: a folder for `stap -R`. Never: a change to the
//! installed one, nor an edit where its text is not what is known.
//!
//! Debian 12 has stap 4.8 and a 6.1 kernel that took two later changes, and the two do not fit as they are:
//!
//! - `task_work_cancel` takes the work itself; the older one, by function, is `task_work_cancel_func` now.
//!   Unpatched, compiling ends in pass 4.
//! - `user_addr_max` is gone. Unpatched, every read of user memory outside of a task is refused, a stack has
//!   one frame, and the exit code is 0 all the same.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where Debian installs it.
pub const INSTALLED: &str = "/usr/share/systemtap/runtime";

/// A text that is replaced wherever it stands, and what a header says where that is right.
struct Edit {
    file: &'static str,
    /// A header under `include/`, and a word that it must contain.
    when: Option<(&'static str, &'static str)>,
    old: &'static str,
    new: &'static str,
}

const EDITS: [Edit; 3] = [
    Edit {
        file: "stp_task_work.c",
        when: Some(("linux/task_work.h", "task_work_cancel_func")),
        old: "typeof(&task_work_cancel) task_work_cancel_fn",
        new: "typeof(&task_work_cancel_func) task_work_cancel_fn",
    },
    Edit {
        file: "stp_task_work.c",
        when: Some(("linux/task_work.h", "task_work_cancel_func")),
        old: "kallsyms_lookup_name(\"task_work_cancel\")",
        new: "kallsyms_lookup_name(\"task_work_cancel_func\")",
    },
    Edit {
        file: "linux/addr-map.c",
        when: None,
        old: "((user_addr_max() - size) < addr)\n#endif",
        new: "((user_addr_max() - size) < addr)\n#else\n\t  && ((TASK_SIZE_MAX - size) < addr)\n#endif",
    },
];

/// What this file does to a runtime: part of the key under which the result is kept.
pub fn edition() -> &'static str {
    include_str!("runtime.rs")
}

/// Copies the runtime at `from` to `to` and fits it to the kernel whose common headers lie in `includes`.
pub fn fit(from: &Path, to: &Path, includes: &Path) -> Result<()> {
    copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    for edit in &EDITS {
        let declares = |(header, word): (&str, &str)| {
            fs::read_to_string(includes.join(header)).is_ok_and(|text| text.contains(word))
        };
        if edit.when.is_none_or(declares) {
            let path = to.join(edit.file);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            fs::write(path, text.replace(edit.old, edit.new))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_needs_is_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let work = "typedef typeof(&task_work_cancel) task_work_cancel_fn;\n\
                    kallsyms_lookup_name(\"task_work_cancel\")";
        put("old/stp_task_work.c", work);
        put(
            "old/linux/addr-map.c",
            "#if defined(user_addr_max)\n\t  && ((user_addr_max() - size) < addr)\n#endif\n",
        );
        put("new-kernel/linux/task_work.h", "task_work_cancel_func(");
        put("old-kernel/linux/task_work.h", "task_work_cancel(");
        let fitted = |kernel: &str| {
            let to = dir.path().join(format!("for-{kernel}"));
            fit(&dir.path().join("old"), &to, &dir.path().join(kernel)).expect("fitted");
            let read = |file: &str| fs::read_to_string(to.join(file)).expect("a file");
            (read("stp_task_work.c"), read("linux/addr-map.c"))
        };
        let (new_work, addresses) = fitted("new-kernel");
        assert!(new_work.contains("typeof(&task_work_cancel_func)"));
        assert!(new_work.contains("(\"task_work_cancel_func\")"));
        assert!(addresses.contains("#else\n\t  && ((TASK_SIZE_MAX - size) < addr)\n#endif"));
        assert_eq!(fitted("old-kernel").0, work);
    }
}
