//! Scripts of a user's: written on this machine, built here by the agent's own verb, run by `fleetflame capture` in two
//! guests that have no compiler, on nginx with Lua and on a program that was made for its stacks.
//!
//! In: the examples, one for each kind of output; real agents, the real coordinator. Out: what they printed in each guest,
//! added up; stacks as a profile; what is said where a module is missing; empty kernels. Never: a number that is not read
//! from a guest's own output.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, RemoteChild, install_module};
use fleetflame_tests::{Build, Child, Finished, Guest, GuestSetup, Workload};

use crate::examples::{
    BUILD, EXAMPLES, NGINX, TIME, build, build_all, build_command, example, hash, policy,
};
use crate::stap_engine::{CAPTURE, SAFE, unloaded};
use crate::{samples, script_ends, within};

/// The scripts end by themselves before.
const JOB: &str = "engine: stap\nduration: 18s";
/// Bounded: a guest that is asked without a pause does nothing else. Each is answered by Lua.
const REQUESTS: &str =
    "while :; do wget -q -O /dev/null http://127.0.0.1:8000/ && echo asked; sleep 0.2; done";
/// What the script of a histogram says above it, where hosts' numbers differ.
const LATENCY: &str = r"System calls of \# us on average, \# in all:";
const RESULTS: &str = "Results of system calls:";

#[test]
fn every_kind_of_output_of_scripts_built_here_comes_back_from_two_guests() -> Result<()> {
    let split = Workload::Split.compile(Build::default())?;
    let kit = Kit::find()?;
    let mut modules = build_all(kit, &split)?;
    let policy = policy(&EXAMPLES.map(|(script, _)| script))?;
    let setup = GuestSetup::bare().gateway().program(&split);
    let fleet = LabFleet::start(&setup, 2, &policy)?;
    let mut running = Vec::new();
    let (mut workers, mut programs) = (Vec::new(), Vec::new());
    for guest in &fleet.lab.guests {
        let (nginx, worker) = guest.start_gateway()?;
        workers.push(worker);
        running.push(nginx);
    }
    missing(&fleet, &workers)?;
    // nginx loads its modules itself, so that the loader does not tell of them.
    let images = mapped(&fleet.lab.guests[0], workers[0])?;
    let images: Vec<&str> = images.iter().flat_map(|i| ["--image", i]).collect();
    modules.push(build(
        kit,
        "stacks.sxx",
        &[TIME],
        Path::new(NGINX),
        &images,
    )?);
    modules.push(build(
        kit,
        "syscall-rate.sxx",
        &[script_ends::LONG],
        Path::new(NGINX),
        &[],
    )?);
    for guest in &fleet.lab.guests {
        for module in &modules {
            install_module(guest, module)?;
        }
    }

    let mut asking = Vec::new();
    for guest in &fleet.lab.guests {
        let asks = guest.start(&["/bin/sh", "-c", REQUESTS])?;
        asks.wait_for_line("asked", SAFE)?;
        asking.push(asks);
    }
    let logarithmic = added_up(&fleet, &workers, "syscall-latency.sxx", LATENCY)?;
    // The script says itself how many there were.
    for (text, own) in &logarithmic {
        let (_, said) = text.split_once(" on average, ").context("no histogram")?;
        let said: u64 = said.split_once(" in all").context("no sum")?.0.parse()?;
        let counted: u64 = own.values().sum();
        ensure!(said == counted && counted > 20, "{said}: {text}");
    }
    let linear = added_up(&fleet, &workers, "syscall-results.sxx", RESULTS)?;
    for (text, own) in &linear {
        let counted: u64 = own.values().sum();
        // Rows that a logarithmic one does not have.
        let is_linear = text.contains(" 5 |") && text.contains(" 10 |");
        ensure!(counted > 20 && is_linear, "{text}");
    }
    rates(&fleet, &workers)?;
    tables(&fleet, &workers)?;
    log_lines(&fleet, &workers)?;
    script_ends::reader_killed(&fleet, &workers)?;
    // What works all the time would keep the others from it.
    drop(asking);
    stacks_of_the_gateway(&fleet, &workers)?;
    drop(running);
    for guest in &fleet.lab.guests {
        programs.push([target(guest, &split)?, target(guest, &split)?]);
    }
    stacks_of_two(&fleet, &split)?;
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
        "with time=5 for /usr/sbin/nginx",
        "fleetflame-agent build-module --script syscall-latency.sxx --arg time=5 --exec /usr/sbin/nginx",
        &format!("--processes 1 --kernel {kernel} --out"),
    ] {
        ensure!(told.contains(words), "{words:?} is missing in {told}");
    }
    Ok(())
}

/// Runs the script of a histogram: what each guest printed, with its buckets. The report's are their sum, each of them.
fn added_up(
    fleet: &LabFleet,
    workers: &[i32],
    script: &str,
    title: &str,
) -> Result<Vec<(String, BTreeMap<String, u64>)>> {
    let done = capture(fleet, script, workers, script)?;
    let out = whole(fleet, &done, script)?;
    let mut all = Vec::new();
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for guest in &fleet.lab.guests {
        let text = printed(&out, guest)?;
        let own = rows(&text);
        for (bucket, count) in &own {
            *sum.entry(bucket.clone()).or_default() += count;
        }
        all.push((text, own));
    }
    let report = fs::read_to_string(out.join("report.md"))?;
    let title = format!("### {title}\n\nThe sum of 2 of 2 hosts.");
    ensure!(report.contains(&title), "{report}");
    let added = rows(&report);
    ensure!(added == sum, "{added:?} is not {sum:?}: {report}");
    ensure!(sum.len() > 1, "{sum:?}");
    Ok(all)
}

/// A line each second, with its host and its time.
fn rates(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let done = capture(fleet, "syscall-rate.sxx", workers, "rates")?;
    let out = whole(fleet, &done, "rates")?;
    let mut all = 0;
    for (_, lines) in labelled(fleet, &out)? {
        let rate = |line: &String| -> Result<u64> {
            let rate = line.strip_suffix(" calls/s").context("another line")?;
            Ok(rate.parse()?)
        };
        let rates: Vec<u64> = lines.iter().map(rate).collect::<Result<_>>()?;
        ensure!(rates.len() >= 3, "{lines:?}");
        all += rates.iter().sum::<u64>();
    }
    ensure!(all > 40, "{all} calls");
    Ok(())
}

/// A head and a row for each system call, the dearest first.
fn tables(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let done = capture(fleet, "syscall-top.sxx", workers, "tables")?;
    let out = whole(fleet, &done, "tables")?;
    for (name, lines) in labelled(fleet, &out)? {
        let (head, rows) = lines.split_first().context("no table")?;
        let head: Vec<&str> = head.split_ascii_whitespace().collect();
        ensure!(
            head == ["syscall", "count", "total", "us", "max", "us"],
            "{head:?}"
        );
        ensure!((2..=5).contains(&rows.len()), "{name}: {rows:?}");
        for row in rows {
            let row: Vec<u64> = row
                .split_ascii_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?;
            let [_, count, total, most] = row[..] else {
                anyhow::bail!("{name}: {row:?}");
            };
            ensure!(
                count > 0 && most <= total && total <= most * count,
                "{name}: {row:?}"
            );
        }
    }
    Ok(())
}

/// A line for each event.
fn log_lines(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let done = capture(fleet, "slow-syscalls.sxx", workers, "lines")?;
    let out = whole(fleet, &done, "lines")?;
    for ((name, lines), worker) in labelled(fleet, &out)?.iter().zip(workers) {
        let begins = format!("nginx[{worker}] syscall ");
        ensure!(lines.len() > 5, "{name}: {lines:?}");
        let known = |line: &&String| line.starts_with(&begins) && line.ends_with(" us");
        let odd = lines.iter().find(|line| !known(line));
        ensure!(odd.is_none(), "{name}: {odd:?}");
    }
    Ok(())
}

/// The lines of each guest, which the report has under its name, each behind its time.
fn labelled(fleet: &LabFleet, out: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let report = fs::read_to_string(out.join("report.md"))?;
    let mut all = Vec::new();
    for guest in &fleet.lab.guests {
        let text = printed(out, guest)?;
        let heading = format!("### {}\n\n", guest.name);
        let (_, section) = report.split_once(&heading).context("no such host")?;
        let section = section.split("\n\n").next().unwrap_or_default();
        let untimed = |line: &str| -> Result<String> {
            let (time, rest) = line.trim_start().split_once("  ").context("no time")?;
            let _: f64 = time.parse()?;
            Ok(rest.to_owned())
        };
        let shown: Vec<String> = section.lines().map(untimed).collect::<Result<_>>()?;
        let lines: Vec<&str> = text.lines().collect();
        ensure!(shown.len() == lines.len().min(200), "{section}");
        // A line of a report has no blanks at its end.
        ensure!(
            shown.iter().zip(&lines).all(|(a, b)| a.trim() == b.trim()),
            "{section} is not {text}"
        );
        all.push((guest.name.clone(), shown));
    }
    Ok(all)
}

/// Stacks of nginx while Lua works: a profile of each guest and of both.
fn stacks_of_the_gateway(fleet: &LabFleet, workers: &[i32]) -> Result<()> {
    let mut load = Vec::new();
    for (guest, worker) in fleet.lab.guests.iter().zip(workers) {
        // Behind the agent, which must hear of its coordinator.
        guest.sh(&format!("renice -n 15 -p {worker}"), SAFE)?;
        load.push(guest.load_gateway("/interpreted", 60)?);
    }
    let done = capture(fleet, "stacks.sxx", workers, "gateway")?;
    let out = whole(fleet, &done, "gateway")?;
    drop(load);
    let all = profile(fleet, &out)?;
    let report = fs::read_to_string(out.join("report.md"))?;
    let of = format!("Of {all} samples on all hosts together.");
    ensure!(report.replace(',', "").contains(&of), "{of}: {report}");
    let merged = fs::read_to_string(out.join("merged.folded"))?;
    ensure!(
        shares(&merged, |stack| stack.contains(";main;"))? > 0,
        "none is whole: {merged}"
    );
    for guest in &fleet.lab.guests {
        let folded = folded(&out, guest)?;
        let own = shares(&folded, |_| true)?;
        let in_lua = shares(&folded, |stack| {
            stack.contains("libluajit-5.1.so") || stack.contains("ngx_http_lua_")
        })?;
        ensure!(own > 30 && in_lua * 2 > own, "{in_lua} of {own}: {folded}");
        ensure!(folded.contains(";ngx_http_lua_"), "no name: {folded}");
        ensure!(!folded.contains("0x7f"), "a run-time address: {folded}");
    }
    Ok(())
}

/// Stacks with names of two processes at once, of which the module was told when it was loaded: each works 70 to 30.
fn stacks_of_two(fleet: &LabFleet, program: &Path) -> Result<()> {
    let both = format!("exe:{}", program.display());
    let done = capture_of(fleet, "stacks.sxx", &[1, 1], "two", &["--target", &both])?;
    let out = whole(fleet, &done, "two")?;
    profile(fleet, &out)?;
    for guest in &fleet.lab.guests {
        let text = folded(&out, guest)?;
        let leaf = |name: &'static str| {
            shares(&text, move |stack| {
                stack
                    .rsplit(';')
                    .next()
                    .is_some_and(|leaf| leaf.contains(name))
            })
        };
        let (seventy, thirty) = (leaf("seventy")?, leaf("thirty")?);
        let all = seventy + thirty;
        ensure!(all > 40, "{all} samples: {text}");
        // SystemTap names frames of the process that is on the CPU when it prints: those of the other are addresses.
        let other = leaf("[unknown]")?;
        ensure!(other * 4 > all, "{other} beside {all}: {text}");
        let share = seventy as f64 / all as f64;
        let chance = 4.0 * (0.21 / all as f64).sqrt();
        ensure!((share - 0.7).abs() < 0.03 + chance, "{share:.3}: {text}");
        ensure!(text.contains("descend"), "{text}");
    }
    Ok(())
}

/// A run whose stacks are a profile: the merged one has the sum, which is also what the agents say; everything is drawn, and
/// no stack is left in what was printed.
fn profile(fleet: &LabFleet, out: &Path) -> Result<u64> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(out.join("run.json"))?)?;
    let mut sum = 0;
    for guest in &fleet.lab.guests {
        let name = &guest.name;
        let own = samples(&out.join(format!("hosts/{name}.folded")))?;
        let told = &record["coverage"]["hosts"][name]["stats"]["samples"];
        ensure!(told.as_u64() == Some(own) && own > 0, "{told} is not {own}");
        sum += own;
        for picture in [
            format!("hosts/{name}.svg"),
            format!("diff/{name}-vs-rest.svg"),
        ] {
            ensure!(out.join(&picture).exists(), "no {picture}");
        }
        let text = printed(out, guest).unwrap_or_default();
        ensure!(!text.contains("\n\t"), "{text}");
    }
    ensure!(samples(&out.join("merged.folded"))? == sum);
    ensure!(fs::read_to_string(out.join("merged.svg"))?.contains("samples"));
    Ok(sum)
}

fn folded(out: &Path, guest: &Guest) -> Result<String> {
    let file = out.join(format!("hosts/{}.folded", guest.name));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Samples of the stacks of a folded text that are meant.
fn shares(folded: &str, is_meant: impl Fn(&str) -> bool) -> Result<u64> {
    let lines = folded.lines().filter_map(|line| line.rsplit_once(' '));
    let meant = lines.filter(|(stack, _)| is_meant(stack));
    meant.map(|(_, count)| Ok(count.parse::<u64>()?)).sum()
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
    let known = EXAMPLES.iter().find(|(name, _)| *name == script);
    let values = known.context("no such example")?.1;
    begun(fleet, (script, values), targets, name, more)?.finish(CAPTURE)
}

pub(crate) fn begun(
    fleet: &LabFleet,
    (script, values): (&str, &[&str]),
    targets: &[i32],
    name: &str,
    more: &[&str],
) -> Result<Child> {
    let probe = format!("script:{}", example(script).display());
    let arguments = values.iter().flat_map(|value| ["--arg", value]);
    let mut flags = vec!["--probe", &probe];
    flags.extend(arguments.chain(more.iter().copied()));
    let out = fleet.path(name);
    fleet.capture_with(JOB, targets, &out, &flags)
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
        // All of it may be stacks, which are the profile's.
        let Some(pieces) = pieces.as_array() else {
            continue;
        };
        let text: String = pieces.iter().filter_map(|p| p["text"].as_str()).collect();
        ensure!(text == printed(&out, guest)?, "{text}");
        ensure!(pieces.iter().all(|p| p["at_ms"].is_u64()), "{pieces:?}");
    }
    Ok(out)
}

/// What a script printed on a guest, without its stacks.
pub(crate) fn printed(out: &Path, guest: &Guest) -> Result<String> {
    let file = out.join(format!("hosts/{}.txt", guest.name));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Rows of a histogram, `VALUE |@@@ COUNT`, those that count nothing left out.
fn rows(text: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let (value, rest) = line.split_once(" |")?;
        let (value, count) = (value.trim(), rest.trim_start_matches('@'));
        let _: i64 = value.trim_start_matches(['<', '>']).parse().ok()?;
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some((value.to_owned(), count))
    };
    text.lines().filter_map(row).collect()
}

/// The libraries that a guest's process has mapped as code.
fn mapped(guest: &Guest, pid: i32) -> Result<Vec<String>> {
    let maps = guest.get(&format!("/proc/{pid}/maps"))?;
    let maps = String::from_utf8(maps)?;
    let code = maps.lines().filter(|line| line.contains(" r-xp "));
    let paths = code.filter_map(|line| line.find('/').map(|at| line[at..].to_owned()));
    let mut paths: Vec<String> = paths.filter(|path| path != NGINX).collect();
    paths.sort();
    paths.dedup();
    ensure!(
        paths.iter().any(|path| path.contains("libluajit")),
        "{paths:?}"
    );
    Ok(paths)
}

/// Works all the time, behind the agent: two of it leave it nothing of an emulated CPU else.
fn target(guest: &Guest, program: &Path) -> Result<RemoteChild> {
    let workload = guest.start(&[&program.to_string_lossy(), "900", "5"])?;
    workload.wait_for_line("ready", SAFE)?;
    guest.sh(&format!("renice -n 15 -p {}", workload.pid()?), SAFE)?;
    Ok(workload)
}
