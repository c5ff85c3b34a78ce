//! What is built in: Cargo.lock against deny.toml, without any tool to install. In: both lock
//! files, the manifests of all dependencies. Out: banned crates, foreign sources, licences that
//! nobody agreed to. Never: the network.

use crate::{report, tree};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
const LOCKS: &[&str] = &["Cargo.lock", "tests/fuzz/Cargo.lock"];

fn read(path: &str) -> String {
    fs::read_to_string(tree::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The texts in quotes on lines of one section of deny.toml, from `key = [` to `]`.
fn listed(section: &str, key: &str) -> Vec<String> {
    let text = read("deny.toml");
    let body = text
        .split(&format!("[{section}]\n"))
        .nth(1)
        .expect("the section in deny.toml");
    let body = body.split("\n[").next().unwrap_or(body);
    let list = body
        .split(&format!("{key} = ["))
        .nth(1)
        .expect("the list in deny.toml");
    let list = list.split("\n]").next().unwrap_or(list);
    list.lines()
        .filter_map(|l| l.split('"').nth(1))
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_banned_crate_and_no_foreign_source_is_locked() {
    let banned: BTreeSet<String> = listed("bans", "deny").into_iter().collect();
    assert!(
        banned.contains("aws-lc-sys") && banned.contains("openssl-sys"),
        "{banned:?}"
    );
    let mut wrong = Vec::new();
    for lock in LOCKS {
        for package in read(lock).split("[[package]]").skip(1) {
            let field = |key: &str| {
                package
                    .lines()
                    .find_map(|l| l.strip_prefix(&format!("{key} = \""))?.strip_suffix('"'))
            };
            let name = field("name").unwrap_or("?");
            if banned.contains(name) {
                wrong.push(format!("{lock}: {name} is banned by deny.toml"));
            }
            if let Some(source) = field("source").filter(|s| *s != REGISTRY) {
                wrong.push(format!("{lock}: {name} comes from {source}"));
            }
        }
    }
    report("locked packages are not allowed", &wrong);
}

#[test]
fn every_licence_was_agreed_to() {
    let mut allowed: BTreeSet<String> = listed("licenses", "allow").into_iter().collect();
    allowed.remove("CDDL-1.0");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
        ])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or("?");
        let licence = package["license"].as_str().unwrap_or("(none stated)");
        let is_inferno = name == "inferno" && licence == "CDDL-1.0";
        if !is_inferno && !agreed(licence, &allowed) {
            wrong.push(format!("{name}: {licence}"));
        }
    }
    report(
        "packages have a licence that deny.toml does not allow",
        &wrong,
    );
}

/// Whether an SPDX expression can be met: one side of each OR, both sides of each AND.
fn agreed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression
        .split(" AND ")
        .all(|all| all.split(" OR ").any(|one| allowed.contains(one.trim())))
}

#[test]
fn licences_are_read_as_expressions() {
    let allowed: BTreeSet<String> = ["MIT", "Unicode-3.0"].map(str::to_owned).into();
    assert!(agreed("MIT OR Apache-2.0", &allowed) && agreed("Apache-2.0/MIT", &allowed));
    assert!(agreed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
    assert!(!agreed("MIT AND GPL-3.0", &allowed) && !agreed("CDDL-1.0", &allowed));
}
