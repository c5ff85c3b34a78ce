//! The shape of files: header, length, name. In: all Rust files. Out: those out of shape.
//! Never: a file without a first sentence that says what it is.

use crate::{report, source, tree};
use std::collections::BTreeMap;

const LINES_MAX: usize = 500;

/// Names that say nothing: what is put there belongs to the room that needs it.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "common", "helper", "helpers", "manager", "types", "misc",
];

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let bare: Vec<String> = tree::rust()
        .into_iter()
        .filter(|f| !f.text.starts_with("//! "))
        .map(|f| format!("{}: the first line is no //! header", f.path))
        .collect();
    report("files have no header", &bare);
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = tree::rust()
        .into_iter()
        .map(|f| (f.text.lines().count(), f.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    report(&format!("files have more than {LINES_MAX} lines"), &long);
}

#[test]
fn no_name_is_empty() {
    let mut empty = Vec::new();
    for file in tree::rust() {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                empty.push(format!("{}: {part} says nothing", file.path));
            }
        }
        for (number, line) in source::code(&file.text).lines().enumerate() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .collect();
            for pair in words.windows(2) {
                if pair[0] == "mod" && EMPTY_NAMES.contains(&pair[1]) {
                    empty.push(format!(
                        "{}:{}: mod {} says nothing",
                        file.path,
                        number + 1,
                        pair[1]
                    ));
                }
            }
        }
    }
    report("names say nothing", &empty);
}

#[test]
fn every_test_file_has_a_name_of_its_own() {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in tree::rust() {
        let name = file.path.rsplit('/').next().unwrap_or("").to_owned();
        let is_story = file.path.starts_with("tests/e2e/") || file.path.contains("/tests/");
        if is_story && name != "main.rs" && name != "mod.rs" {
            by_name.entry(name).or_default().push(file.path);
        }
    }
    let twice: Vec<String> = by_name
        .into_values()
        .filter(|paths| paths.len() > 1)
        .map(|paths| paths.join(" and "))
        .collect();
    report("names of test files are used twice", &twice);
}
