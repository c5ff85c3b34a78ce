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

#[test]
fn sides_are_compared_by_what_functions_belong_to() {
    let root = tempfile::tempdir().unwrap();
    let side = |acl: u32, auth: u32| {
        let access = "main;ngx_worker;access_by_lua(nginx.conf:3);/l/kong/init.lua:9 access";
        format!(
            "{access};/l/kong/plugins/acl/handler.lua:7 f {acl}\n\
             {access};/l/kong/plugins/acl/handler.lua:7 f;/l/resty/lrucache.lua:3 get {acl}\n\
             {access};/l/kong/plugins/key-auth/handler.lua:7 f {auth}\n\
             main;ngx_worker;tcp_sendmsg_[k] 300\n"
        )
    };
    std::fs::write(root.path().join("before"), side(100, 400)).unwrap();
    std::fs::write(root.path().join("after"), side(300, 400)).unwrap();
    for (group, more, before, after) in [
        ("plugin", "acl", 200.0 / 900.0, 600.0 / 1_300.0),
        (
            "file",
            "/l/resty/lrucache.lua",
            100.0 / 900.0,
            300.0 / 1_300.0,
        ),
        ("phase", "access", 600.0 / 900.0, 1_000.0 / 1_300.0),
        ("kind", "lua interpreted", 600.0 / 900.0, 1_000.0 / 1_300.0),
    ] {
        let arguments = ["diff", "before", "after", "--roll-up", group];
        let json = fleetflame(root.path(), &[&arguments[..], &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let rows = json["frames"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|r| r["frame"] == more && r["kind"] == "self")
            .unwrap_or_else(|| panic!("{more} is missing in {json:#}"));
        assert_eq!(row["told"], "more", "{row}");
        for (side, share) in [("left", before), ("right", after)] {
            let shown = row[side].as_f64().unwrap();
            assert!((shown - share * 100.0).abs() < 1e-9, "{side}: {row}");
        }
        let drawn = fleetflame(root.path(), &arguments);
        assert!(text(&drawn.stdout).contains(&format!("<title>{more} (before ")));
    }
    let folded = ["diff", "before", "after", "--roll-up", "plugin", "--folded"];
    let folded = fleetflame(root.path(), &folded);
    assert!(
        text(&folded.stdout).contains("[nginx];[kong];acl 200 600\n"),
        "{}",
        text(&folded.stdout)
    );
}

#[test]
fn the_odd_host_among_files_from_elsewhere_is_named() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    let names: Vec<String> = (1..=6).map(|n| format!("kong-{n}.folded")).collect();
    for (n, name) in names.iter().enumerate() {
        let (route, limit) = if n == 3 {
            (500, 500)
        } else {
            (700 + n, 300 - n)
        };
        write(
            name,
            &format!("main;access;route {route}\nmain;access;limit {limit}\n"),
        );
    }
    let mut words = vec!["rank", "-n", "2"];
    words.extend(names.iter().map(String::as_str));
    let ranked = fleetflame(root.path(), &words);
    let said = text(&ranked.stdout);
    assert_eq!(ranked.status.code(), Some(0), "{}", text(&ranked.stderr));
    let first = said.lines().next().unwrap();
    assert!(
        first.starts_with("kong-4 is unlike the other 5 hosts") && first.contains("limit"),
        "{said}"
    );
    assert!(said.contains("… and 4 more hosts\n"), "{said}");

    words.push("--json");
    let json = fleetflame(root.path(), &words);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["hosts"], 6);
    assert_eq!(json["ranking"]["entries"][0]["host"], "kong-4");
    assert_eq!(json["ranking"]["entries"][0]["odd"], true);
    assert_eq!(json["ranking"]["entries"][1]["odd"], false);

    std::fs::create_dir(root.path().join("old")).unwrap();
    write("old/kong-1.folded", "main 1\n");
    for (words, says) in [
        (
            &["rank", "kong-1.folded", "old/kong-1.folded"][..],
            "both have stacks of a host kong-1",
        ),
        (&["rank"], "<RUN|FILE>"),
        (&["rank", "kong-1.folded", "--by", "cpu"], "no CPU time"),
        (&["rank", "kong-1.folded"], "nothing to compare it with"),
        (
            &["rank", "kong-1.folded", "kong-2.folded", "--above", "9"],
            "has no seconds",
        ),
    ] {
        let output = fleetflame(root.path(), words);
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(all.contains(says), "{words:?}: {all}");
    }
}
