//! SystemTap sees Lua: a gateway of Debian's packages, stripped, in a guest without a compiler; its functions' shares as
//! their own CPU clocks have them, interpreted and compiled.
//!
//! In: the agent in a guest, a module that was built here and knows no file of the gateway's. Out: shares, whole stacks.
//! Never: a debug file, unwind data in the module, guru mode.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{Kit, build_module, install_module};
use fleetflame_tests::{Finished, Guest, GuestSetup};

use crate::stap_engine::{CAPTURE, POLICY, SAFE, unloaded};
use crate::within;

const CAPTURED_S: u32 = 24;
/// So many seconds instead: chance is then smaller than the 4 points of the tolerance.
const LONGER: &str = "FLEETFLAME_LAB_LUA_S";
/// Beside the capture: arming on a busy machine. The load ends with its capture.
const ARMING_S: u32 = 86;
/// Copying, reading and unwinding a sample takes an emulated processor some 10 ms, and all have one thread of this machine.
const HZ: &str = "39";
/// What a stack of a request goes through, from the root on.
const INWARD: [&str; 5] = [
    "_start",
    "main",
    "ngx_process_events_and_timers",
    "ngx_http_lua_run_thread",
    "content_by_lua",
];

#[test]
fn functions_of_lua_have_their_shares_by_systemtap_too() -> Result<()> {
    let kit = Kit::find()?;
    // While the guest boots. Its module is of no file.
    let building = thread::spawn(|| build_module(kit, None, "lua", &["--hz", HZ]));
    let fleet = LabFleet::start(&GuestSetup::bare().gateway_that_compiles(), 1, POLICY)?;
    let guest = &fleet.lab.guests[0];
    let (_nginx, worker) = guest.start_gateway()?;
    let module = building
        .join()
        .expect("the thread that builds does not panic");
    install_module(guest, &module?)?;
    let captured_s = match std::env::var(LONGER) {
        Ok(seconds) => seconds.parse().context(LONGER)?,
        Err(_) => CAPTURED_S,
    };
    for (path, functions, compiled) in [
        (
            "/interpreted",
            ["interpreted_sixty", "interpreted_forty"],
            false,
        ),
        ("/compiled", ["compiled_sixty", "compiled_forty"], true),
    ] {
        let load = guest.load_gateway(path, captured_s + ARMING_S)?;
        let out = fleet.path(&path[1..]);
        let done = capture(&fleet, captured_s, worker, &out)?;
        drop(load);
        let said = format!("{}\n{}", done.stdout, done.stderr);
        ensure!(done.status.code() == Some(0), "{said}");
        for code in [
            "stap-output",
            "stap-retried",
            "lua-unwind-failed",
            "input-skipped",
        ] {
            ensure!(!done.stdout.contains(code), "{said}");
        }
        let text = fs::read_to_string(out.join("merged.folded"))?;
        let is_worker = |line: &str| line.starts_with("nginx: worker;");
        ensure!(text.lines().all(is_worker), "{text}");
        as_their_clocks_say(&text, functions, compiled, &truth(guest)?)
            .with_context(|| format!("{text}\n{said}"))?;
    }
    // A target without LuaJIT is refused with the reason, and nothing is loaded for it.
    let sleeper = guest.start(&["/bin/sleep", "900"])?;
    let refused = capture(&fleet, 2, sleeper.pid()?, &fleet.path("none"))?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        refused.status.code() != Some(0)
            && said.contains("probe-unavailable")
            && said.contains("has an interpreter of LuaJIT"),
        "{said}"
    );
    within(SAFE, || unloaded(guest)).context("after it")?;
    let (asked, came) = fleet.last_reports(0);
    eprintln!("{came} of {asked} last reports came before the end");
    ensure!(asked == 2 && came > 0, "{came} of {asked}");
    guest.check_kernel()
}

fn capture(fleet: &LabFleet, seconds: u32, target: i32, out: &Path) -> Result<Finished> {
    let body = format!("engine: stap\nprobe: lua\nsample_hz: {HZ}\nduration: {seconds}s");
    fleet.capture(&body, &[target], out)?.finish(CAPTURE)
}

/// CPU seconds by function since the last time, of the one worker.
fn truth(guest: &Guest) -> Result<BTreeMap<String, f64>> {
    let answer = guest.ask_gateway("/truth?reset=1")?;
    let mut seconds = BTreeMap::new();
    for line in answer.lines() {
        if let [_, name, value] = line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            seconds.insert(name.to_owned(), value.parse()?);
        }
    }
    Ok(seconds)
}

fn as_their_clocks_say(
    text: &str,
    functions: [&str; 2],
    compiled: bool,
    truth: &BTreeMap<String, f64>,
) -> Result<()> {
    let (mut all, mut whole, mut in_traces) = (0_u64, 0_u64, 0_u64);
    let mut sampled = [0_u64; 2];
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let count: u64 = count.parse()?;
        all += count;
        for (function, sampled) in functions.iter().zip(&mut sampled) {
            let Some(frame) = stack.split(';').find(|f| f.contains(function)) else {
                continue;
            };
            *sampled += count;
            in_traces += if frame.ends_with("_[j]") { count } else { 0 };
            let mut frames = stack.split(';');
            let is_whole = INWARD
                .iter()
                .all(|name| frames.any(|f| f.starts_with(name)));
            whole += if is_whole { count } else { 0 };
        }
    }
    let n: u64 = sampled.iter().sum();
    let share = sampled[0] as f64 / n as f64;
    let seconds = functions.map(|f| truth.get(f).copied().unwrap_or(0.0));
    let p = seconds[0] / seconds.iter().sum::<f64>();
    let seen = format!(
        "{n} of {all} samples in {functions:?}, {share:.3} of them in the first, in truth {p:.3}; {whole} whole, \
         {in_traces} in traces"
    );
    eprintln!("{seen}");
    ensure!(n > 400 && n * 100 >= all * 85, "{seen}");
    // 4 points, or what chance does to so few.
    let tolerance = (4.0 * (p * (1.0 - p) / n as f64).sqrt()).max(0.04);
    ensure!((share - p).abs() < tolerance, "{seen}");
    ensure!(whole * 100 >= n * 98, "{seen}");
    let is_right = if compiled {
        in_traces * 10 >= n * 9
    } else {
        in_traces == 0
    };
    ensure!(is_right, "{seen}");
    Ok(())
}
