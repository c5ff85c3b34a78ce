//! The checkout's files. In: the place of this crate. Out: paths from the root, and texts.
//! Never: what cargo or git made.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of the project's own text.
const PASSED_OVER: &[&str] = &["target", ".git", "corpus", "artifacts"];

/// The checkout's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
        .to_owned()
}

/// A text file of the project.
pub struct Text {
    /// Path from the root, with slashes.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// All text files whose name ends in one of `endings`; an empty ending means every text file.
pub fn texts(endings: &[&str]) -> Vec<Text> {
    let mut found = Vec::new();
    walk(&root(), "", &mut |path| {
        if endings.iter().any(|e| path.ends_with(e))
            && let Ok(text) = fs::read_to_string(root().join(path))
        {
            found.push(Text {
                path: path.to_owned(),
                text,
            });
        }
    });
    assert!(!found.is_empty(), "no file ends in {endings:?}");
    found
}

/// All Rust files.
pub fn rust() -> Vec<Text> {
    texts(&[".rs"])
}

fn walk(folder: &Path, prefix: &str, visit: &mut impl FnMut(&str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !PASSED_OVER.contains(&name.as_str()) => {
                walk(&entry.path(), &path, visit);
            }
            Ok(kind) if kind.is_file() => visit(&path),
            _ => {}
        }
    }
}
