//! Words that have no place in the project: paths of one machine, and work put off without a
//! place where it is kept. In: all text files. Out: the lines. Never: this file's own patterns
//! (they are put together below).

use crate::{report, tree};

/// Text files that are looked at.
const ENDINGS: &[&str] = &[
    ".rs",
    ".toml",
    ".md",
    ".proto",
    ".yaml",
    ".yml",
    ".lua",
    ".c",
    ".h",
    ".conf",
    ".sh",
    ".service",
    ".html",
    ".js",
    ".css",
    "Makefile",
    "LICENSE",
    "NOTICE",
    ".ci/run",
    "tests/fuzz/run",
    "deploy/test-packages",
];

#[test]
fn no_path_of_one_machine_is_in_the_project() {
    let machine = [
        concat!("/wo", "rk/"),
        concat!("/tmp/bash", "_jobs"),
        concat!("/ro", "ot/"),
    ];
    let mut found = Vec::new();
    for file in tree::texts(ENDINGS) {
        for (number, line) in file.text.lines().enumerate() {
            for word in machine.iter().filter(|w| line.contains(*w)) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    report("lines name a path of one machine", &found);
}

#[test]
fn work_that_is_put_off_has_an_issue() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut found = Vec::new();
    for file in tree::texts(ENDINGS) {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks {
                let loose = line.match_indices(mark).any(|(at, _)| {
                    let word = |c: char| c.is_alphanumeric() || c == '_';
                    let inside = line[..at].ends_with(word);
                    let after = &line[at + mark.len()..];
                    !inside && !after.starts_with(word) && !after.starts_with("(#")
                });
                if loose {
                    found.push(format!(
                        "{}:{}: {mark} without an issue, as in {mark}(#12)",
                        file.path,
                        number + 1
                    ));
                }
            }
        }
    }
    report("lines put work off without an issue", &found);
}
