//! ARCHITECTURE.md against the tree. In: the documents. Out: paths in them that are not there, and
//! rooms that the map lacks. Never: a map of a house that was torn down.

use crate::{report, tree};

#[test]
fn every_path_in_the_documents_exists() {
    let mut missing = Vec::new();
    for file in tree::texts(&[
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/testing.md",
        "docs/operate.md",
    ]) {
        let mut in_tree = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.starts_with("```") {
                in_tree = line == "```tree";
                continue;
            }
            let first = line.split_whitespace().next().filter(|_| in_tree);
            for path in named(line).into_iter().chain(first) {
                let here = tree::root().join(path.trim_end_matches('/'));
                if !here.exists() {
                    missing.push(format!("{}:{}: {path}", file.path, number + 1));
                }
            }
        }
    }
    report("paths in documents are not there", &missing);
}

#[test]
fn every_room_is_on_the_map() {
    let map = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).expect("the map");
    let mut absent = Vec::new();
    for file in tree::rust() {
        let mut parts = file.path.split("/src/");
        let (Some(house), Some(inside)) = (parts.next(), parts.next()) else {
            continue;
        };
        let room = match inside.split_once('/') {
            Some((room, _)) => format!("{house}/src/{room}"),
            None => continue,
        };
        let is_ours =
            !house.starts_with("tests/") && house != "bench" && !house.ends_with("native");
        let named = map.lines().any(|l| {
            l.strip_prefix(&room)
                .is_some_and(|rest| rest.starts_with([' ', '/']))
        });
        if is_ours && !named && !absent.contains(&room) {
            absent.push(room);
        }
    }
    report("rooms are missing in the tree of ARCHITECTURE.md", &absent);
}

/// Words in backticks that are paths of ours: they begin with a folder or file at the root and
/// hold no blank or pattern.
fn named(line: &str) -> Vec<&str> {
    let tops: [&str; 12] = [
        "model/",
        "proto/",
        "agent/",
        "coordinator/",
        "tests/",
        "bench/",
        "docs/",
        "deploy/",
        ".ci/",
        ".config/",
        "Cargo.",
        "clippy.toml",
    ];
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| tops.iter().any(|top| word.starts_with(top)))
        .map(|word| word.split_once(':').map_or(word, |(path, _)| path))
        .filter(|word| !word.contains([' ', '*', '{', '<', '…']) && !word.contains("NAME"))
        .collect()
}

#[test]
fn only_paths_are_taken_for_paths() {
    let line = "`model/src` and `agent/src/x.rs:12`, not `proto::v1`, `docs/*.md` or model/none";
    assert_eq!(named(line), ["model/src", "agent/src/x.rs"]);
}
