//! `diff` as a user types it. In: files. Out: what is written. Never: a line that the other tools
//! would not have written.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use assert_cmd::Command;
use std::path::Path;

fn fleetflame(root: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("fleetflame").unwrap();
    command.current_dir(root).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Bytes that the other tools wrote; see the README beside them.
fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/testdata");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_folded_difference_has_the_lines_of_flamegraphs_script() {
    let root = tempfile::tempdir().unwrap();
    for name in ["before", "after"] {
        let input = golden(&format!("compat/difference/{name}.folded"));
        std::fs::write(root.path().join(name), input).unwrap();
    }
    std::fs::write(root.path().join("empty"), "").unwrap();
    for (option, name) in [("-q", "plain"), ("-n", "normalized"), ("-s", "stripped")] {
        let output = fleetflame(
            root.path(),
            &["diff", "before", "after", "--folded", option],
        );
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let due = golden(&format!("compat/difference/{name}.txt"));
        assert_eq!(text(&output.stdout), text(&due), "{name}");
    }
    let empty = fleetflame(root.path(), &["diff", "empty", "after", "--folded", "-n"]);
    assert_eq!(empty.status.code(), Some(4), "{}", text(&empty.stderr));
    assert!(text(&empty.stdout).contains(" 0 7\n"));
}

#[test]
fn differences_come_with_intervals_and_verdicts_and_say_what_weakens_them() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    write("before", "main;route 700\nmain;limit 300\nmain;rare 1\n");
    write("after", "main;route 500\nmain;limit 490\nmain;fresh 10\n");
    let json = fleetflame(root.path(), &["diff", "before", "after", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let row = |frame: &str| {
        let rows = json["frames"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|r| r["frame"] == frame && r["kind"] == "self");
        row.unwrap_or_else(|| panic!("{frame} is missing in {json:#}"))
            .clone()
    };
    assert_eq!(
        (&row("limit")["told"], &row("route")["told"]),
        (&"more".into(), &"less".into())
    );
    assert_eq!(row("fresh")["told"], "new");
    let low = row("limit")["low"].as_f64().unwrap();
    assert!((10.0..19.0).contains(&low), "{low}");
    let said = json["findings"].to_string();
    assert!(said.contains("compared-without-seconds"), "{said}");
    let drawn = fleetflame(root.path(), &["diff", "before", "after", "-o", "d.svg"]);
    let said = text(&drawn.stderr);
    assert!(
        said.contains("verdict") && said.contains("told from chance"),
        "{said}"
    );
}
