//! Processes: bounded waits and output, and nothing that outlives the test.

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{self, Identity};
use fleetflame_tests::{Child, process, requirements};

use crate::{SECOND, command, within};

#[test]
fn output_and_exit_status_come_back() -> Result<()> {
    let done = Child::spawn(command("sh", &["-c", "echo out; echo err >&2; exit 3"]))?;
    let done = done.finish(5 * SECOND)?;
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("out\n", "err\n")
    );
    Ok(())
}

#[test]
fn a_wait_ends_at_its_deadline_and_quotes_stderr() -> Result<()> {
    let mut child = Child::spawn(command("sh", &["-c", "echo stuck >&2; exec sleep 60"]))?;
    assert!(within(5 * SECOND, || child.stderr().contains("stuck")));
    let error = child
        .wait(SECOND / 10)
        .expect_err("it sleeps for a minute")
        .to_string();
    assert!(error.contains("stuck"), "{error}");
    Ok(())
}

#[test]
fn endless_output_neither_blocks_the_child_nor_fills_memory() -> Result<()> {
    let flood = "head -c 40000000 /dev/zero | tr '\\0' x; echo end";
    let done = Child::spawn(command("sh", &["-c", flood]))?.finish(20 * SECOND)?;
    assert!(done.stdout.starts_with('[') && done.stdout.ends_with("xend\n"));
    assert!(
        done.stdout.len() < 9 << 20,
        "{} bytes kept",
        done.stdout.len()
    );
    Ok(())
}

#[test]
fn stdin_is_in_the_callers_hand() -> Result<()> {
    use std::io::Write;
    let (child, mut stdin) = Child::spawn_with_stdin(command("cat", &[]))?;
    stdin.write_all(b"echo\n")?;
    drop(stdin);
    assert_eq!(child.finish(5 * SECOND)?.stdout, "echo\n");
    Ok(())
}

#[test]
fn dropping_a_child_ends_its_daemons_too() -> Result<()> {
    // The daemon has another session and, its parent being gone, another parent.
    let script = "(setsid sleep 63 >/dev/null 2>&1 &) ; echo started; exec sleep 64";
    let mut child = Child::spawn(command("sh", &["-c", script]))?;
    child.wait_for_stdout("started", 5 * SECOND)?;
    assert!(within(5 * SECOND, || procfs::find_ours(child.mark()).len() == 2));
    assert!(
        procfs::descendants(child.pid()).is_empty(),
        "the daemon was adopted by another"
    );
    let family: Vec<Identity> = procfs::find_ours(child.mark())
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    drop(child);
    assert!(family.iter().all(|process| !process.alive()), "{family:?}");
    Ok(())
}

#[test]
fn killing_one_process_leaves_its_children_to_be_found() -> Result<()> {
    let mut child = Child::spawn(command("sh", &["-c", "sleep 65 & echo started; wait"]))?;
    child.wait_for_stdout("started", 5 * SECOND)?;
    assert!(within(5 * SECOND, || procfs::descendants(child.pid())
        .len()
        == 1));
    child.kill_alone()?;
    let family = child.family();
    assert_eq!(family.len(), 1);
    assert_eq!(procfs::comm(family[0]).as_deref(), Some("sleep"));
    Ok(())
}

#[test]
fn what_a_killed_test_run_left_behind_is_swept_up() -> Result<()> {
    use std::os::unix::process::CommandExt;
    // A process that stands for the test process, and one that bears its mark.
    let mut owner = Child::spawn(command("sleep", &["66"]))?;
    let identity = Identity::of(owner.pid()).context("it runs")?;
    let mark = format!("{}.{}.0.", identity.pid, identity.start_ticks);
    let mut orphan = command("sleep", &["66"]);
    let mut orphan = orphan.process_group(0).env(process::MARK, mark).spawn()?;
    let ours = Child::spawn(command("sleep", &["67"]))?;
    let is_marked = || procfs::start_variable(ours.pid(), process::MARK).is_some();
    assert!(within(5 * SECOND, is_marked));

    Child::sweep();
    assert!(orphan.try_wait()?.is_none(), "its owner lives");
    owner.kill_alone()?;
    Child::sweep();
    assert!(!orphan.wait()?.success(), "it was killed");
    assert!(Identity::of(ours.pid()).is_some_and(|process| process.alive()));
    Ok(())
}

#[test]
fn open_perf_events_are_counted() -> Result<()> {
    let perf = requirements::command("perf")?;
    let perf = perf.to_str().context("a path")?;
    let record = [
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-o",
        "/dev/null",
        "--",
        "sleep",
        "60",
    ];
    let child = Child::spawn(command(perf, &record))?;
    assert!(
        within(10 * SECOND, || procfs::open_perf_fds(child.pid()) > 0),
        "{}",
        child.stderr()
    );
    assert_eq!(procfs::open_perf_fds(std::process::id().cast_signed()), 0);
    Ok(())
}
