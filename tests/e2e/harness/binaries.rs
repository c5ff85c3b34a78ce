//! The programs under test are found and run.

use anyhow::Result;
use fleetflame_tests::{Binaries, Child};

use crate::SECOND;

#[test]
fn both_programs_are_built_and_start() -> Result<()> {
    let binaries = Binaries::find()?;
    for (mut program, name) in [
        (binaries.coordinator(), "fleetflame"),
        (binaries.agent(), "fleetflame-agent"),
    ] {
        program.arg("--version");
        let done = Child::spawn(program)?.finish(10 * SECOND)?;
        assert!(
            done.status.success() && done.stdout.starts_with(name),
            "{name}: {done:?}"
        );
    }
    Ok(())
}
