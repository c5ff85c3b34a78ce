//! `lab-cost [PROBE…]`: what the built-in probes of SystemTap cost, in instructions, in a guest that counts them.
//!
//! In: root, stap, the agent. Out: a table: what a sample or an event of a target costs its process and the agent, what one of
//! another process costs, and the kernel memory that a loaded module takes. Never: a time. The guest's clock is the number of
//! its instructions, so that what this machine does beside it changes nothing; and a real processor takes another time for each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetflame::store::RunDir;
use fleetflame_tests::lab::agent_module::libc;
use fleetflame_tests::lab::fleet::LabFleet;
use fleetflame_tests::lab::{
    GATEWAY_ADDRESS, INSTRUCTION_NS, Kit, RemoteChild, build_module, install_module,
};
use fleetflame_tests::{Build, Guest, GuestSetup, Workload};
use model::coverage::CaptureStats;

const POLICY: &str = "version: 1\nengines: [stap]\ncpu_pct_max: 400\nmemory_mb_max: 512\n\
                      probes: [on-cpu, off-cpu, lua, vfs, lock, alloc]\n";
const SAMPLE_HZ: &str = "99";
const CAPTURED_S: u64 = 8;
/// Calls above an event.
const DEPTHS: [u32; 2] = [10, 40];
const SOON: Duration = Duration::from_mins(3);
const DEADLINE: Duration = Duration::from_mins(6);
/// Of a gateway, one after the other.
const REQUESTS: u32 = 50;
/// A program prints so many lines, one a second, before it is captured.
const LINES_BEFORE: usize = 7;
/// So long after the start and before the end of a capture no line is taken.
const MARGIN_NS: u64 = 200_000_000;

/// A probe, and the event that it is put on.
struct Case {
    probe: &'static str,
    job: &'static str,
    /// What `paced` does; none for Lua, whose events are requests of a gateway.
    event: Option<&'static str>,
    options: &'static [&'static str],
    what: &'static str,
}

const SAMPLED: &[&str] = &["--hz", SAMPLE_HZ];
const CASES: [Case; 8] = [
    Case {
        probe: "oncpu-user",
        job: "probe: on-cpu\nkernel: false",
        event: Some("work"),
        options: SAMPLED,
        what: "a sample",
    },
    Case {
        probe: "oncpu-mixed",
        job: "probe: on-cpu\nkernel: true",
        event: Some("work"),
        options: SAMPLED,
        what: "a sample",
    },
    Case {
        probe: "lua",
        job: "probe: lua",
        event: None,
        options: SAMPLED,
        what: "a sample",
    },
    Case {
        probe: "offcpu-user",
        job: "probe: off-cpu\nkernel: false\nmin_wait: 1ms",
        event: Some("sleep"),
        options: &["--min-wait-us", "1000"],
        what: "a wait",
    },
    Case {
        probe: "offcpu-mixed",
        job: "probe: off-cpu\nkernel: true\nmin_wait: 1ms",
        event: Some("sleep"),
        options: &["--min-wait-us", "1000"],
        what: "a wait",
    },
    Case {
        probe: "lock",
        job: "probe: lock",
        event: Some("wait"),
        options: &[],
        what: "a wait in futex",
    },
    Case {
        probe: "vfs",
        job: "probe: vfs",
        event: Some("read"),
        options: &[],
        what: "a read",
    },
    Case {
        probe: "alloc",
        job: "probe: alloc",
        event: Some("allocate"),
        options: &[],
        what: "malloc and free",
    },
];

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn measure() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |case: &&Case| wanted.is_empty() || wanted.iter().any(|w| w == case.probe);
    let cases: Vec<&Case> = CASES.iter().filter(is_wanted).collect();
    let names = CASES.map(|case| case.probe).join(", ");
    let is_probe = |word: &String| CASES.iter().any(|case| case.probe == word);
    ensure!(wanted.iter().all(is_probe), "the probes are {names}");
    let kit = Kit::find()?;
    // Linked as gateways are: SystemTap searches the unwind table of a static program from its beginning, each time.
    let program = Workload::Paced.compile(Build::default())?;
    let mut modules = Vec::new();
    for case in &cases {
        eprintln!("building {}", case.probe);
        modules.push(module(kit, case, &program)?);
    }
    let setup = GuestSetup::bare().program(&program);
    let setup = setup
        .gateway_that_compiles()
        .counting_instructions()
        .one_cpu();
    let fleet = LabFleet::start(&setup, 1, POLICY)?;
    let mut table = format!(
        "| probe | what it fires on | target's process, {} calls deep | {} calls deep | agent and stapio | another process | kernel memory |\n\
         |---|---|---|---|---|---|---|\n",
        DEPTHS[0], DEPTHS[1]
    );
    for (case, module) in cases.iter().zip(&modules) {
        install_module(&fleet.lab.guests[0], module)?;
        let row = match case.event {
            Some(event) => row(&fleet, case, event, &program)?,
            None => lua_row(&fleet, case)?,
        };
        eprint!("{row}");
        table.push_str(&row);
    }
    fleet.lab.guests[0].check_kernel()?;
    println!("Instructions, more than without a capture:\n\n{table}");
    Ok(())
}

fn module(kit: &Kit, case: &Case, program: &Path) -> Result<PathBuf> {
    if case.event.is_none() {
        return build_module(kit, None, case.probe, case.options);
    }
    let libc = libc()?;
    let libc = libc.to_string_lossy();
    let options = [case.options, &["--image", &libc]].concat();
    build_module(kit, Some(program), case.probe, &options)
}

/// What a capture did to a program.
struct Cost {
    /// Nanoseconds of the target's process for each sample or event.
    target_ns: f64,
    /// The same of the agent and SystemTap's processes.
    agent_ns: f64,
    /// Bytes.
    kernel_memory: u64,
}

fn row(fleet: &LabFleet, case: &Case, event: &str, program: &Path) -> Result<String> {
    let mut costs = Vec::new();
    for depth in DEPTHS {
        costs.push(captured(fleet, case, event, program, depth, true)?);
    }
    let other = match case.probe {
        // It is put on one process.
        "alloc" => "–".to_owned(),
        _ => {
            let cost = captured(fleet, case, event, program, DEPTHS[0], false)?;
            instructions(cost.target_ns)
        }
    };
    let agent: f64 = costs.iter().map(|cost| cost.agent_ns).sum::<f64>() / costs.len() as f64;
    let memory = costs.iter().map(|cost| cost.kernel_memory).max();
    Ok(told(
        case,
        costs.iter().map(|cost| instructions(cost.target_ns)),
        agent,
        &other,
        memory.unwrap_or(0),
    ))
}

fn told(
    case: &Case,
    target: impl Iterator<Item = String>,
    agent_ns: f64,
    other: &str,
    memory: u64,
) -> String {
    let target = target.collect::<Vec<_>>().join(" | ");
    let agent = instructions(agent_ns);
    let megabytes = memory as f64 / 1e6;
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| `{}` | {} | {target} | {agent} | {other} | {megabytes:.1} MB |",
        case.probe, case.what
    );
    row
}

/// A program that is captured, or that runs beside one that is; and what each of its samples or events cost it.
fn captured(
    fleet: &LabFleet,
    case: &Case,
    event: &str,
    program: &Path,
    depth: u32,
    is_target: bool,
) -> Result<Cost> {
    let guest = &fleet.lab.guests[0];
    let program = program.to_string_lossy();
    let paced = guest.start(&[&program, "900", event, &depth.to_string()])?;
    let clock = match event {
        "sleep" => Clock::Machine,
        _ => Clock::Process,
    };
    let end = Instant::now() + SOON;
    while lines(&paced)?.len() < LINES_BEFORE {
        ensure!(Instant::now() < end, "{program} says {}", paced.stdout());
        std::thread::sleep(Duration::from_millis(200));
    }
    let idle = guest.start(&["/bin/sleep", "900"])?;
    let target = if is_target { &paced } else { &idle };
    let before = kernel_memory(guest)?;
    let whose = if is_target { "target" } else { OTHER };
    let name = format!("{}-{depth}-{whose}", case.probe);
    let last = lines(&paced)?.last().map_or(0, |line| line.mono_ns);
    let (stats, kernel_memory) =
        capture(fleet, case, target.pid()?, &name, || kernel_memory(guest))?;
    let lines = lines(&paced)?;
    let within = |from: u64, to: u64| per_event(&lines, clock, from, to);
    let without = within(0, last)?;
    let mut with = within(
        stats.started_mono_ns + MARGIN_NS,
        stats.stopped_mono_ns.saturating_sub(MARGIN_NS),
    )?;
    let captured_ns = stats.stopped_mono_ns.saturating_sub(stats.started_mono_ns);
    // As far as the window goes.
    let own_ns = stats.own_cpu_ns as f64 * with.elapsed_ns / captured_ns as f64;
    if clock == Clock::Machine {
        with.cpu_ns -= own_ns;
    }
    // Of those that sample, as many samples as there were in its CPU time, be they of a target or not.
    let samples = match event {
        "work" => with.cpu_ns * 99.0 / 1e9,
        _ => with.events,
    };
    let more = (with.each() - without.each()) * with.events;
    eprintln!(
        "{name}: {:.0} ns an event, {:.0} without; {} samples, {} lost, of {:.0} events in the window; own CPU {} ms",
        with.each(),
        without.each(),
        stats.samples,
        stats.lost,
        with.events,
        stats.own_cpu_ns / 1_000_000
    );
    Ok(Cost {
        target_ns: more / samples,
        agent_ns: own_ns / samples,
        kernel_memory: kernel_memory.saturating_sub(before),
    })
}

/// Captures one process; what was asked while it ran.
fn capture<T>(
    fleet: &LabFleet,
    case: &Case,
    target: i32,
    name: &str,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(CaptureStats, T)> {
    let out = fleet.path(name);
    let mut body = format!("engine: stap\n{}\nduration: {CAPTURED_S}s", case.job);
    if case.options == SAMPLED {
        body.push_str(&format!("\nsample_hz: {SAMPLE_HZ}"));
    }
    let mut coordinator = fleet.capture(&body, &[target], &out)?;
    let began = coordinator.wait_for_stdout("\"starting\"", DEADLINE);
    if let Err(error) = began {
        let done = coordinator.finish(DEADLINE)?;
        anyhow::bail!("{name}: {error:#}: {}{}", done.stdout, done.stderr);
    }
    let seen = meanwhile()?;
    let done = coordinator.finish(DEADLINE)?;
    let said = format!("{}\n{}", done.stdout, done.stderr);
    // Of a target that does nothing there is nothing.
    let ended = done.status.code();
    let as_expected = ended == Some(0) || ended == Some(4) && name.ends_with(OTHER);
    ensure!(as_expected, "{name}: {ended:?}: {said}");
    let record = RunDir::open(&out)?.record()?;
    let host = record.coverage.hosts.values().next();
    Ok((host.context("no host")?.stats.clone(), seen))
}

/// A line of `paced`.
#[derive(Clone, Copy)]
struct Line {
    mono_ns: u64,
    events: u64,
    cpu_ns: u64,
    idle_ns: u64,
}

fn lines(paced: &RemoteChild) -> Result<Vec<Line>> {
    let said = paced.stdout();
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parsed = whole.lines().filter(|line| !line.starts_with("ready"));
    parsed
        .map(|line| {
            let numbers: Vec<u64> = line
                .split_ascii_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()
                .with_context(|| line.to_owned())?;
            let [mono_ns, events, cpu_ns, idle_ns] = numbers[..] else {
                anyhow::bail!("paced says {line:?}");
            };
            Ok(Line {
                mono_ns,
                events,
                cpu_ns,
                idle_ns,
            })
        })
        .collect()
}

/// How captures are called whose target does nothing, beside a program that works.
const OTHER: &str = "other";

/// Whose time is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The program's own.
    Process,
    /// Whoever ran: what happens while a thread leaves its CPU is in nobody's account, or in the next one's.
    Machine,
}

/// Events, and the CPU time that they took.
struct Took {
    events: f64,
    cpu_ns: f64,
    elapsed_ns: f64,
}

impl Took {
    fn each(&self) -> f64 {
        self.cpu_ns / self.events
    }
}

fn per_event(lines: &[Line], clock: Clock, from_ns: u64, to_ns: u64) -> Result<Took> {
    let within = |line: &&Line| (from_ns..=to_ns).contains(&line.mono_ns);
    let first = lines.iter().find(within);
    let last = lines.iter().rev().find(within);
    let (first, last) = first.zip(last).context("no line in the window")?;
    ensure!(last.events > first.events, "one line in the window");
    let elapsed_ns = (last.mono_ns - first.mono_ns) as f64;
    Ok(Took {
        events: (last.events - first.events) as f64,
        cpu_ns: match clock {
            Clock::Process => (last.cpu_ns - first.cpu_ns) as f64,
            Clock::Machine => elapsed_ns - (last.idle_ns - first.idle_ns) as f64,
        },
        elapsed_ns,
    })
}

/// A gateway's worker under load: CPU time of a request, with and without.
fn lua_row(fleet: &LabFleet, case: &Case) -> Result<String> {
    let guest = &fleet.lab.guests[0];
    let (nginx, worker) = guest.start_gateway()?;
    let loaded = || -> Result<Took> {
        let before = schedstat_ns(guest, worker)?;
        let ask = format!(
            "for i in $(seq {REQUESTS}); do wget -q -O /dev/null 'http://{GATEWAY_ADDRESS}/compiled' || exit 1; done"
        );
        guest.sh(&ask, DEADLINE)?;
        Ok(Took {
            events: REQUESTS.into(),
            cpu_ns: (schedstat_ns(guest, worker)? - before) as f64,
            elapsed_ns: 0.0,
        })
    };
    // The first one compiles.
    loaded()?;
    let without = loaded()?;
    let before = kernel_memory(guest)?;
    let (stats, (with, memory)) = capture(fleet, case, worker, "lua", || {
        let memory = kernel_memory(guest)?;
        Ok((loaded()?, memory))
    })?;
    drop(nginx);
    let more = (with.each() - without.each()) * with.events / stats.samples as f64;
    eprintln!(
        "lua: {:.0} ns a request, {:.0} without, {:.0} requests, {} samples",
        with.each(),
        without.each(),
        with.events,
        stats.samples
    );
    let target = [instructions(more), "–".to_owned()];
    let agent_ns = stats.own_cpu_ns as f64 / stats.samples.max(1) as f64;
    let memory = memory.saturating_sub(before);
    Ok(told(case, target.into_iter(), agent_ns, "–", memory))
}

/// Nanoseconds that a process has run.
fn schedstat_ns(guest: &Guest, pid: i32) -> Result<u64> {
    let said = guest.sh(&format!("cat /proc/{pid}/schedstat"), SOON)?;
    let first = said.split_ascii_whitespace().next();
    Ok(first.context("an empty schedstat")?.parse()?)
}

/// Bytes of the kernel's that tables and code of modules are in.
fn kernel_memory(guest: &Guest) -> Result<u64> {
    let said = guest.sh("cat /proc/meminfo", SOON)?;
    let of = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        number.and_then(|n| n.parse::<u64>().ok())
    };
    let sum = of("VmallocUsed:").zip(of("Percpu:"));
    let (mapped, per_cpu) = sum.context("no VmallocUsed or Percpu in /proc/meminfo")?;
    Ok((mapped + per_cpu) * 1024)
}

/// Two digits are exact enough.
fn instructions(ns: f64) -> String {
    let count = ns / INSTRUCTION_NS as f64;
    if count.abs() < 100.0 {
        return format!("{count:.0}");
    }
    let unit = 10_f64.powf(count.abs().log10().floor() - 1.0);
    let rounded = (count / unit).round() * unit;
    let digits = format!("{:.0}", rounded.abs());
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{}{grouped}", if rounded < 0.0 { "−" } else { "" })
}
