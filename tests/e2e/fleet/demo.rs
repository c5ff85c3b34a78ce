//! `fleetflame demo` names the odd host and the frame that makes it so, and cleans up.
//!
//! In: a folder. Out: a run whose ranking is right. Never: an agent, a workload or a file left over.

use anyhow::{Context, Result};
use fleetflame_tests::{Binaries, Child, procfs};

use crate::written::Written;
use crate::{CAPTURE, turn};

#[test]
fn the_demo_names_the_hot_host_and_its_frame() -> Result<()> {
    let _turn = turn();
    let programs = Binaries::find()?;
    let stage = tempfile::tempdir()?;
    let (out, scratch) = (stage.path().join("run"), stage.path().join("tmp"));
    std::fs::create_dir(&scratch)?;
    let mut command = programs.coordinator();
    command
        .args(["demo", "--json", "--seconds", "4", "--out"])
        .arg(&out)
        .env("TMPDIR", &scratch);
    let demo = Child::spawn(command)?;
    let mark = demo.mark().to_owned();
    let done = demo.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let left = procfs::find_ours(&mark);
    assert!(left.is_empty(), "the demo left {left:?}");
    let files: Vec<_> = scratch
        .read_dir()?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(files.is_empty(), "the demo left {files:?}");

    let run = Written::read(&out)?;
    let n = run.check_sums()?;
    assert_eq!(run.profile.hosts(), ["gateway-1", "gateway-2", "gateway-3"]);
    let ranking = run.record.ranking.as_ref().context("no ranking")?;
    let first = ranking.entries.first().context("nobody is ranked")?;
    println!("{n} samples; {:?}", ranking.entries);
    assert_eq!(first.host, "gateway-2");
    assert!(
        first.path.iter().any(|frame| frame == "rate_limit"),
        "{first:?}"
    );
    assert!(first.host_share > first.rest_share, "{first:?}");
    Ok(())
}
