//! The checks of `deploy/build-agent` refuse what could not be sent or run.
//!
//! In: this build's agent, which is dynamic and large; a small static program. Out: what the script says of
//! each. Never: a build: `make agent` makes the static one and runs the same checks on it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use fleetflame_tests::{Binaries, Build, Child, Finished, Workload};

use crate::SECOND;

fn check(file: &Path) -> Result<Finished> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join("deploy/build-agent"));
    command.arg("--check").arg(file);
    Child::spawn(command)?.finish(60 * SECOND)
}

#[test]
fn what_is_too_large_or_needs_too_much_is_refused() -> Result<()> {
    let agent = check(&Binaries::find()?.agent)?;
    assert_eq!(agent.status.code(), Some(1), "{}", agent.stdout);
    assert!(
        agent.stderr.contains("more than 9000000"),
        "{}",
        agent.stderr
    );

    // Small, but of this machine's glibc, which is newer than that of the oldest hosts.
    let dynamic = Workload::Split.command(Build::default())?;
    let dynamic = check(Path::new(dynamic.get_program()))?;
    assert!(
        dynamic.stdout.contains("dynamic, needs glibc"),
        "{}",
        dynamic.stdout
    );
    assert_eq!(dynamic.status.code(), Some(1), "{}", dynamic.stdout);
    assert!(
        dynamic.stderr.contains("symbols of glibc"),
        "{}",
        dynamic.stderr
    );

    let build = Build {
        stripped: true,
        statically_linked: true,
        ..Build::default()
    };
    let alone = Workload::Split.command(build)?;
    let alone = check(Path::new(alone.get_program()))?;
    assert!(
        alone.stdout.contains("static, needs nothing"),
        "{}",
        alone.stdout
    );
    // It runs there, but it is no agent.
    assert!(
        alone.stderr.contains("in an empty root"),
        "{}",
        alone.stderr
    );
    Ok(())
}
