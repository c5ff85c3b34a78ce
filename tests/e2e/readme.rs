//! README's command blocks, run as they stand.
//!
//! In: README.md and the built programs. Out: each block ends as README says. Never: a block that
//! nobody runs: it is run here, is one of the two commands that run everything, or needs hosts that a
//! test has not; the last two are listed below by their first words.

use fleetflame_tests::Binaries;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Blocks that this test cannot run, and where they are run instead.
const ELSEWHERE: [(&str, &str); 5] = [
    (
        "make demo",
        "its program is run below and by the fleet tests",
    ),
    ("make test", "this test is part of it"),
    (
        "# on kong-1",
        "the fleet tests start agents so, in network namespaces",
    ),
    (
        "fleetflame doctor  --ssh",
        "the ssh tests capture so, in network namespaces",
    ),
    (
        "fleetflame doctor  --tls",
        "the fleet tests capture so, in network namespaces",
    ),
];

struct Block {
    exit_code: Option<i32>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `sh` blocks of README; a comment `<!-- run: CODE -->` above one says that it can be run here.
fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut exit_code, mut open) = (None, false);
    for line in readme.lines() {
        if let Some(code) = line
            .strip_prefix("<!-- run: ")
            .and_then(|l| l.strip_suffix(" -->"))
        {
            exit_code = Some(code.parse().expect("an exit code"));
        } else if line == "```sh" {
            blocks.push(Block {
                exit_code: exit_code.take(),
                text: String::new(),
            });
            open = true;
        } else if line.starts_with("```") {
            open = false;
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    blocks
}

#[test]
fn every_command_block_does_what_readme_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let programs = Binaries::find().expect("the programs");
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!(
        "{}:{}",
        programs.coordinator.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |script: &str| {
        Command::new("sh")
            .args(["-euc", script])
            .current_dir(folder.path())
            .env("PATH", &path)
            .output()
            .expect("sh")
    };
    let demo = run("fleetflame demo --seconds 3 --out ./demo");
    assert_eq!(
        demo.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&demo.stderr)
    );
    let blocks = blocks(&readme);
    assert!(blocks.len() >= 8, "README has lost its command blocks");
    let mut ran = 0;
    for block in &blocks {
        let Some(code) = block.exit_code else {
            let known = ELSEWHERE
                .iter()
                .any(|(first, _)| block.text.starts_with(first));
            assert!(known, "nobody runs this block of README:\n{}", block.text);
            continue;
        };
        let output = run(&block.text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{}\n{said}", block.text);
        ran += 1;
    }
    assert!(ran >= 4, "only {ran} blocks were run");
    for made in [
        "tls/kong-2/agent.key",
        "hot.svg",
        "gateway-1.svg",
        "sample.pb.gz",
    ] {
        assert!(folder.path().join(made).is_file(), "{made} was not made");
    }
}

#[test]
fn pictures_and_documents_that_readme_links_are_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let links: Vec<&str> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.starts_with("http"))
        .collect();
    assert!(links.len() > 8);
    for link in links {
        assert!(
            root().join(link).is_file(),
            "README links {link}, which is not there"
        );
    }
    let output = readme
        .split("<!-- demo-output -->")
        .nth(1)
        .expect("the demo's output");
    assert!(
        output.contains("gateway-2 differs from the other 2 hosts"),
        "README shows no real output"
    );
    let shown = output.split("```").nth(1).expect("a fenced block");
    assert!(
        !shown.contains('…'),
        "README leaves a part of the output out"
    );
}
