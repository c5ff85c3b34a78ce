//! Time shift: the clocks since boot move, the wall clock stays, the network namespace stays too.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use fleetflame_tests::{Build, Child, NetNamespace, TimeShift, Workload};

use crate::{SECOND, command};

fn clocks(child: Child) -> Result<BTreeMap<String, f64>> {
    let output = child.finish(5 * SECOND)?.stdout;
    let clock = |line: &str| {
        let (name, seconds) = line.split_once(' ')?;
        Some((name.to_owned(), seconds.parse().ok()?))
    };
    output
        .lines()
        .map(|line| clock(line).context("a clock"))
        .collect()
}

#[test]
fn the_monotonic_clock_is_an_hour_ahead_inside_and_the_wall_clock_is_not() -> Result<()> {
    let namespace = NetNamespace::new("later")?;
    let program = Workload::Clocks.command(Build::default())?;
    let shifted = TimeShift { monotonic_s: 3600 }.wrap(program)?;
    let outside = clocks(Child::spawn(Workload::Clocks.command(Build::default())?)?)?;
    let inside = clocks(namespace.spawn(shifted)?)?;
    for (clock, ahead) in [
        ("monotonic", 3600.0),
        ("boottime", 3600.0),
        ("realtime", 0.0),
    ] {
        let difference = inside[clock] - outside[clock];
        assert!(
            (ahead..ahead + 5.0).contains(&difference),
            "{clock} is {difference} s ahead"
        );
    }
    Ok(())
}

#[test]
fn a_shifted_program_keeps_its_pid_environment_and_network() -> Result<()> {
    let namespace = NetNamespace::new("shifted")?;
    let mut program = command("sh", &["-c", "echo $$ $WORD; exec sleep 30"]);
    program.env("WORD", "kept");
    let mut child = namespace.spawn(TimeShift { monotonic_s: 10 }.wrap(program)?)?;
    let line = child.wait_for_stdout("kept", 5 * SECOND)?;
    assert_eq!(line, format!("{} kept", child.pid()));
    assert_eq!(namespace.pids(), [child.pid()]);
    let own = fs::read_link("/proc/self/ns/time")?;
    assert_ne!(
        fs::read_link(format!("/proc/{}/ns/time", child.pid()))?,
        own
    );
    Ok(())
}
