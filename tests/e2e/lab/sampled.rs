//! A module that was compiled on this machine samples a program in a guest, and says what the program does.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetflame_tests::lab::stacks::{self, Stack};
use fleetflame_tests::{Build, GuestSetup, Lab, Script, Workload};

const ON_CPU: &str = include_str!("../../lab/scripts/on_cpu.stp");
/// Calls of `descend` above the two that work.
const DEPTH: usize = 5;

#[test]
fn a_module_compiled_here_samples_a_program_there() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let path = split.to_string_lossy().into_owned();
    let lab = Lab::with_one_guest(GuestSetup::bare().program(&split))?;
    let guest = lab.guest()?;
    let module = Script::new("lab_on_cpu", ON_CPU)
        .unwinding(&split)?
        .compile(lab.kit)?;
    guest.put_file(&module, "/mnt/lab_on_cpu.ko")?;
    let workload = guest.start(&[&path, "60", &DEPTH.to_string()])?;
    workload.wait_for_line("ready", Duration::from_mins(2))?;
    let target = workload.pid()?.to_string();
    let run = ["/usr/bin/staprun", "-x", &target, "/mnt/lab_on_cpu.ko"];
    let output = guest.run(&run, Duration::from_mins(4))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        output.stderr()
    );
    let stacks = stacks::read(&output.stdout())?;
    // A hundred samples a second for five seconds, less what the emulated CPU was late for.
    let (all, seventy) = stacks::share(&stacks, "seventy");
    let (_, thirty) = stacks::share(&stacks, "thirty");
    ensure!(all > 60, "only {all} samples: {}", output.stderr());
    let share = seventy as f64 / (seventy + thirty) as f64;
    // 3 points, and what chance does to so few.
    let chance = 4.0 * (0.21 / (seventy + thirty) as f64).sqrt();
    ensure!(
        (share - 0.7).abs() < 0.03 + chance,
        "seventy has {share:.3} of {all} samples: {stacks:#?}"
    );
    ensure!(
        seventy + thirty > all * 85 / 100,
        "of {all} only {seventy} and {thirty}"
    );
    // Until SystemTap has learnt what the program has mapped, its stacks have one frame.
    let of = |wanted: &dyn Fn(&Stack) -> bool| -> u64 {
        let wanted = stacks.iter().filter(|stack| wanted(stack));
        wanted.map(|stack| stack.count).sum()
    };
    let bare = of(&|stack| stack.frames.len() == 1);
    ensure!(bare < all / 5, "of {all} samples {bare} have one frame");
    let (exact, deep) = (
        of(&is_whole),
        of(&|stack| works(stack) && stack.frames.len() > 1),
    );
    ensure!(
        exact >= deep * 98 / 100,
        "of {deep} stacks only {exact} have the depth of the program: {stacks:#?}"
    );
    ensure!(
        guest.left_behind()?.is_empty(),
        "{:?}",
        guest.left_behind()?
    );
    guest.check_kernel()
}

fn works(stack: &Stack) -> bool {
    matches!(
        stack.frames.first().map(String::as_str),
        Some("seventy" | "thirty")
    )
}

/// Whether it goes from the function that works through the whole recursion to main.
fn is_whole(stack: &Stack) -> bool {
    let callers = stack.frames.get(1..).unwrap_or_default();
    let recursion = callers
        .iter()
        .take_while(|frame| *frame == "descend")
        .count();
    works(stack)
        && recursion == DEPTH + 1
        && callers.get(recursion).is_some_and(|frame| frame == "main")
}
