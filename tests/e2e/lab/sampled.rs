//! A module that was compiled on this machine samples a program in a guest, and says what the program does.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetflame_tests::lab::stacks::{self, Stack};
use fleetflame_tests::{Build, GuestSetup, Lab, Script, Workload};

const ON_CPU: &str = include_str!("../../lab/cases/on_cpu.stp");
/// Calls of `descend` above the two that work.
const DEPTH: usize = 5;

#[test]
fn a_module_compiled_here_samples_a_program_there() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let path = split.to_string_lossy().into_owned();
    let lab = Lab::with_one_guest(GuestSetup::bare().program(&split))?;
    let guest = lab.guest()?;
    let module = Script::new("lab_on_cpu", ON_CPU)
        .unwinding(&split)
        .compile(lab.kit)?;
    guest.put_file(&module, "/mnt/lab_on_cpu.ko")?;
    let workload = guest.start(&[&path, "60", &DEPTH.to_string()])?;
    workload.wait_for_line("ready", Duration::from_secs(20))?;
    let target = workload.pid()?.to_string();
    let run = ["/usr/bin/staprun", "-x", &target, "/mnt/lab_on_cpu.ko"];
    let output = guest.run(&run, Duration::from_mins(1))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        output.stderr()
    );
    let stacks = stacks::read(&output.stdout())?;
    // One sample a millisecond for five seconds, less what the emulated CPU was late for.
    let (all, seventy) = stacks::share(&stacks, "seventy");
    let (_, thirty) = stacks::share(&stacks, "thirty");
    ensure!(all > 1000, "only {all} samples: {}", output.stderr());
    let share = seventy as f64 / (seventy + thirty) as f64;
    ensure!(
        (share - 0.7).abs() < 0.03,
        "seventy has {share:.3} of {all} samples: {stacks:#?}"
    );
    ensure!(
        seventy + thirty > all * 85 / 100,
        "of {all} only {seventy} and {thirty}"
    );
    // The first instructions of a function are no place to unwind from, so a few stacks end there.
    let exact: u64 = stacks
        .iter()
        .filter(|stack| is_whole(stack))
        .map(|stack| stack.count)
        .sum();
    ensure!(
        exact >= (seventy + thirty) * 98 / 100,
        "of {seventy} and {thirty} only {exact} have the depth of the program: {stacks:#?}"
    );
    ensure!(
        guest.left_behind()?.is_empty(),
        "{:?}",
        guest.left_behind()?
    );
    guest.check_kernel()
}

/// Whether it goes from the function that works through the whole recursion up to the program's start.
fn is_whole(stack: &Stack) -> bool {
    let frames: Vec<&str> = stack.frames.iter().map(String::as_str).collect();
    let Some((&function, callers)) = frames.split_first() else {
        return false;
    };
    let recursion = callers
        .iter()
        .take_while(|frame| **frame == "descend")
        .count();
    matches!(function, "seventy" | "thirty")
        && recursion == DEPTH + 1
        && callers.get(recursion) == Some(&"main")
        && frames.last() == Some(&"_start")
}
