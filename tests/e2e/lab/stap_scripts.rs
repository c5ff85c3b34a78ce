//! Scripts of a user's: written on this machine, built here by the agent's own verb, run by `fleetflame capture` in two
//! guests that have no compiler, on nginx and on a program that was made for its stacks.
//!
//! In: the examples, one for each kind of output; real agents, the real coordinator. Out: what they printed in each guest,
//! added up; what is said where a module is missing; empty kernels. Never: a number that is not read from a guest's own
//! output.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, RemoteChild};
use fleetflame_tests::{Binaries, Build, Child, Finished, Guest, GuestSetup, Workload};

use crate::stap_engine::{CAPTURE, SAFE, install, unloaded};
use crate::within;

const NGINX: &str = "/usr/sbin/nginx";
const BUILD: Duration = Duration::from_mins(4);
/// The scripts end by themselves before.
const JOB: &str = "engine: stap\nduration: 25s";
const TIME: &str = "time=6";
/// Bounded: a guest that is asked without a pause does nothing else.
const REQUESTS: &str =
    "while :; do wget -q -O /dev/null http://127.0.0.1:8000/plain && echo asked; sleep 0.2; done";
/// What the script of a histogram says above it, where hosts' numbers differ.
const TITLE: &str = r"System calls of \# us on average, \# in all:";

#[test]
fn scripts_built_here_print_in_two_guests_and_are_added_up() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let policy = policy(&["syscall-latency.sxx", "syscall-rate.sxx", "stacks.sxx"])?;
    let setup = GuestSetup::bare().gateway().program(&split);
    let fleet = LabFleet::start(&setup, 2, &policy)?;
    let mut running = Vec::new();
    let (mut workers, mut programs) = (Vec::new(), Vec::new());
    for guest in &fleet.lab.guests {
        let (nginx, worker) = guest.start_gateway()?;
        workers.push(worker);
        running.push(nginx);
        let asking = guest.start(&["/bin/sh", "-c", REQUESTS])?;
        asking.wait_for_line("asked", SAFE)?;
        running.push(asking);
    }

    missing(&fleet, &workers)?;
    for (script, exec) in [
        ("syscall-latency.sxx", Path::new(NGINX)),
        ("syscall-rate.sxx", Path::new(NGINX)),
        ("stacks.sxx", &split),
    ] {
        let module = build(&fleet, script, exec)?;
        for guest in &fleet.lab.guests {
            install(guest, &module)?;
        }
    }
    histograms(&fleet, &workers)?;
    rates(&fleet, &workers)?;
    // What works all the time would keep the others from it.
    drop(running);
    for guest in &fleet.lab.guests {
        programs.push([target(guest, &split)?, target(guest, &split)?]);
    }
    stacks(&fleet, &split)?;
    let mut guests = fleet.lab.guests.iter();
    guests.try_for_each(Guest::check_kernel)
}

#[test]
fn an_error_in_a_used_module_is_told_with_its_own_file_and_line() -> Result<()> {
    let stage = tempfile::tempdir()?;
    let tapset = stage.path().join("tapset");
    fs::create_dir(&tapset)?;
    let script = stage.path().join("a.sxx");
    fs::write(&script, "@use b\nprobe begin { f() exit() }\n")?;
    // What stands for the macro is longer than it, and stap's columns are of that.
    let module =
        "function f() {\n    println(\"$^exec_path\")\n    x = \"$^exec_path\" + no_such()\n}\n";
    fs::write(tapset.join("b.sxx"), module)?;
    let mut command = build_command(Kit::find()?, &script, Path::new(NGINX))?;
    command.arg("--out").arg(stage.path().join("modules"));
    let done = Child::spawn(command)?.finish(BUILD)?;
    ensure!(!done.status.success(), "{}", done.stdout);
    let place = format!("{}:3:", tapset.join("b.sxx").display());
    ensure!(
        done.stderr.contains(&place),
        "{place} is not in {}",
        done.stderr
    );
    ensure!(!done.stderr.contains("b.stp"), "{}", done.stderr);
    Ok(())
}

/// Before a module is there, each host says which one it wants, and how it is built.
fn missing(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let script = "syscall-latency.sxx";
    let done = capture(fleet, script, workers, "missing")?;
    ensure!(done.status.code() != Some(0), "{}", done.stdout);
    let told = format!("{}{}", done.stdout, done.stderr);
    let kernel = &fleet.lab.kit.kernel.release;
    for words in [
        "stap-script-module",
        hash(script)?.as_str(),
        "with time=6 for /usr/sbin/nginx",
        "fleetflame-agent build-module --script syscall-latency.sxx --arg time=6 --exec /usr/sbin/nginx",
        &format!("--processes 1 --kernel {kernel} --out"),
    ] {
        ensure!(told.contains(words), "{words:?} is missing in {told}");
    }
    Ok(())
}

/// A logarithmic histogram, and a module by `@use`: the report's is the sum of the guests'.
fn histograms(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let done = capture(fleet, "syscall-latency.sxx", workers, "histograms")?;
    let out = whole(fleet, &done, "histograms")?;
    let mut sum: BTreeMap<u64, u64> = BTreeMap::new();
    for guest in &fleet.lab.guests {
        let text = printed(&out, guest)?;
        let own = rows(&text);
        let counted: u64 = own.values().sum();
        let said = text
            .split_once(" on average, ")
            .and_then(|(_, rest)| rest.split_once(" in all"));
        let said: u64 = said.context("no histogram")?.0.parse()?;
        ensure!(said == counted && counted > 20, "{said}: {text}");
        for (value, count) in own {
            *sum.entry(value).or_default() += count;
        }
    }
    let report = fs::read_to_string(out.join("report.md"))?;
    let title = format!("### {TITLE}\n\nThe sum of 2 of 2 hosts.");
    ensure!(report.contains(&title), "{report}");
    let added = rows(&report);
    ensure!(added == sum, "{added:?} is not {sum:?}: {report}");
    Ok(())
}

/// A line each second, with its host and its time.
fn rates(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let done = capture(fleet, "syscall-rate.sxx", workers, "rates")?;
    let out = whole(fleet, &done, "rates")?;
    let report = fs::read_to_string(out.join("report.md"))?;
    for guest in &fleet.lab.guests {
        let text = printed(&out, guest)?;
        let rate = |line: &str| -> Result<u64> {
            let rate = line.strip_suffix(" calls/s").context("another line")?;
            Ok(rate.parse()?)
        };
        let rates: Vec<u64> = text.lines().map(rate).collect::<Result<_>>()?;
        ensure!(rates.len() >= 4, "{text}");
        ensure!(rates.iter().sum::<u64>() > 20, "{text}");
        let (_, section) = report
            .split_once(&format!("### {}\n", guest.name))
            .context("the report has no such host")?;
        // Each line behind its time.
        let shown = section.lines().take(2 + rates.len()).skip(1);
        let shown: Vec<&str> = shown.filter(|line| line.ends_with(" calls/s")).collect();
        ensure!(shown.len() >= rates.len() - 1, "{report}");
        ensure!(
            shown.iter().all(|line| line.contains('.')),
            "no times: {shown:?}"
        );
    }
    Ok(())
}

/// Stacks with names of two processes at once, of which the module was told when it was loaded: each works 70 to 30.
fn stacks(fleet: &LabFleet, program: &Path) -> Result<()> {
    let both = format!("exe:{}", program.display());
    let done = capture_of(fleet, "stacks.sxx", &[1, 1], "stacks", &["--target", &both])?;
    let out = whole(fleet, &done, "stacks")?;
    for guest in &fleet.lab.guests {
        let text = printed(&out, guest)?;
        let (mut seventy, mut thirty, mut leaf) = (0_u64, 0_u64, "");
        let mut other = 0_u64;
        for line in text.lines() {
            // The count closes a stack, whose leaf was printed first.
            if let Some(count) = line.strip_prefix('\t') {
                let count: u64 = count.trim().parse()?;
                match leaf {
                    leaf if leaf.contains("seventy") => seventy += count,
                    leaf if leaf.contains("thirty") => thirty += count,
                    _ => other += count,
                }
                leaf = "";
            } else if leaf.is_empty() {
                leaf = line;
            }
        }
        let all = seventy + thirty;
        ensure!(all > 50, "{all} samples: {text}");
        // SystemTap names frames of the process that is on the CPU when it prints: those of the other are addresses.
        ensure!(other * 4 > all, "{other} beside {all}: {text}");
        let share = seventy as f64 / all as f64;
        let chance = 4.0 * (0.21 / all as f64).sqrt();
        ensure!((share - 0.7).abs() < 0.03 + chance, "{share:.3}: {text}");
        ensure!(text.contains("descend"), "{text}");
    }
    Ok(())
}

fn capture(fleet: &LabFleet, script: &str, targets: &[i32], name: &str) -> Result<Finished> {
    capture_of(fleet, script, targets, name, &[])
}

fn capture_of(
    fleet: &LabFleet,
    script: &str,
    targets: &[i32],
    name: &str,
    more: &[&str],
) -> Result<Finished> {
    let probe = format!("script:{}", example(script).display());
    let flags = [&["--probe", &probe, "--arg", TIME], more].concat();
    let out = fleet.path(name);
    fleet
        .capture_with(JOB, targets, &out, &flags)?
        .finish(CAPTURE)
}

/// A run that is whole, of guests that nothing is left in: its directory.
fn whole(fleet: &LabFleet, done: &Finished, name: &str) -> Result<PathBuf> {
    let code = done.status.code();
    ensure!(
        code == Some(0),
        "{code:?}: {}\n{}\n{}",
        done.stdout,
        done.stderr,
        fleet.lab.guests[0].reader_state()
    );
    for guest in &fleet.lab.guests {
        within(SAFE, || unloaded(guest)).with_context(|| format!("{}: after it", guest.name))?;
    }
    let out = fleet.path(name);
    // The record has the same text, with times.
    let record: serde_json::Value = serde_json::from_slice(&fs::read(out.join("run.json"))?)?;
    for guest in &fleet.lab.guests {
        let pieces = &record["coverage"]["hosts"][&guest.name]["stats"]["printed"];
        let pieces = pieces.as_array().context("run.json has nothing printed")?;
        let text: String = pieces.iter().filter_map(|p| p["text"].as_str()).collect();
        ensure!(text == printed(&out, guest)?, "{text}");
        ensure!(pieces.iter().all(|p| p["at_ms"].is_u64()), "{pieces:?}");
    }
    Ok(out)
}

fn printed(out: &Path, guest: &Guest) -> Result<String> {
    let file = out.join(format!("hosts/{}.txt", guest.name));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Rows of a histogram, `VALUE |@@@ COUNT`, those that count nothing left out.
fn rows(text: &str) -> BTreeMap<u64, u64> {
    let row = |line: &str| {
        let (value, rest) = line.split_once('|')?;
        let (value, count) = (value.trim().parse().ok()?, rest.trim_start_matches('@'));
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some((value, count))
    };
    text.lines().filter_map(row).collect()
}

fn target(guest: &Guest, program: &Path) -> Result<RemoteChild> {
    let workload = guest.start(&[&program.to_string_lossy(), "900", "5"])?;
    workload.wait_for_line("ready", SAFE)?;
    Ok(workload)
}

fn example(script: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("agent/probes/examples").join(script)
}

/// What the owner of a host would be told to write into its policy.
fn hash(script: &str) -> Result<String> {
    let mut command = Binaries::find()?.agent();
    command.args(["expand", "--hash"]).arg(example(script));
    let done = Child::spawn(command)?.finish(SAFE)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(done.stdout.trim().to_owned())
}

fn policy(scripts: &[&str]) -> Result<String> {
    let mut policy = format!("{}scripts:\n", crate::stap_engine::POLICY);
    for script in scripts {
        policy.push_str(&format!("  - {}\n", hash(script)?));
    }
    Ok(policy)
}

/// Builds a script's module with the agent's own verb, for the guests' kernel.
fn build(fleet: &LabFleet, script: &str, exec: &Path) -> Result<PathBuf> {
    let kit = fleet.lab.kit;
    let mut command = build_command(kit, &example(script), exec)?;
    command.args(["--arg", TIME]);
    command.arg("--out").arg(kit.folder("agent-modules")?);
    let done = Child::spawn(command)?.finish(BUILD)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(PathBuf::from(done.stdout.trim()))
}

fn build_command(kit: &Kit, script: &Path, exec: &Path) -> Result<Command> {
    let mut command = Binaries::find()?.agent();
    command.arg("build-module").arg("--script").arg(script);
    command.arg("--exec").arg(exec);
    command.arg("--kernel").arg(kit.kernel.headers());
    command.arg("--runtime").arg(&kit.runtime);
    Ok(command)
}
