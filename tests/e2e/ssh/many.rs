//! Two hundred hosts from one command, reached in two ways, with clocks that agree on nothing.
//!
//! In: four machines whose clocks count from other boots; on each 49 agents behind TLS and one over SSH.
//! Out: one common start, every count. Never: a coordinator that grows with the fleet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleetflame_tests::{Binaries, Child, LinkConditions, SshFleet, SshSetup, TimeShift, procfs};
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, turn};

const MACHINES: usize = 4;
const AGENTS: usize = 49;
const HZ: u64 = 50;
const SECONDS: u64 = 5;
const PROCESSES: u64 = 4;
/// The recorded starts of all hosts lie this close together.
const SPREAD_NS: i64 = 50_000_000;
const MEMORY_KIB_MAX: u64 = 300 << 10;
const READY: Duration = Duration::from_secs(60);
const POLICY: &str = "version: 1\nengines: [simulated]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";

fn name(machine: usize, agent: usize) -> String {
    format!("m{machine}-{agent:02}")
}

/// Starts the agents of one machine; each listens on a port of its own.
fn start_agents(fleet: &SshFleet, machine: usize, shift: TimeShift) -> Result<Vec<Child>> {
    let policy = fleet.path("agents.yaml");
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        let name = name(machine, agent);
        let mut command = Binaries::find()?.agent();
        command.args(["run", "--listen", &address(fleet, machine, agent), "--tls"]);
        command.arg(fleet.path("tls").join(&name));
        command.arg("--state").arg(fleet.path("state").join(&name));
        command.arg("--policy").arg(&policy);
        let namespace = &fleet.network(machine).namespace;
        agents.push(namespace.spawn(shift.wrap(command)?)?);
    }
    for agent in &mut agents {
        agent.wait_for_stderr("listening on", READY)?;
    }
    Ok(agents)
}

fn address(fleet: &SshFleet, machine: usize, agent: usize) -> String {
    format!("{}:{}", fleet.network(machine).address, 7_100 + agent)
}

#[test]
fn two_hundred_hosts_start_together_and_lose_nothing() -> Result<()> {
    let _turn = turn();
    let shifts = [-300, 86_400, 7, 3_000_000].map(|monotonic_s| TimeShift { monotonic_s });
    let machine = |shift: TimeShift| SshSetup {
        shift: Some(shift),
        ..SshSetup::default()
    };
    let names = ["ssh-0", "ssh-1", "ssh-2", "ssh-3"];
    let hosts: Vec<_> = names.into_iter().zip(shifts.map(machine)).collect();
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    fs::write(fleet.path("agents.yaml"), POLICY)?;
    fs::set_permissions(fleet.path("agents.yaml"), fs::Permissions::from_mode(0o600))?;
    let mut command = Binaries::find()?.coordinator();
    command.arg("tls").arg(fleet.path("tls"));
    command.args((0..MACHINES * AGENTS).map(|n| name(n / AGENTS, n % AGENTS)));
    let done = Child::spawn(command)?.finish(READY)?;
    ensure!(done.status.success(), "fleetflame tls: {}", done.stderr);
    let mut agents = Vec::new();
    for (machine, shift) in shifts.into_iter().enumerate() {
        agents.extend(start_agents(&fleet, machine, shift)?);
    }

    let mut job = format!(
        "version: 1\ntitle: many\narm_timeout: 60s\nbudgets: {{cpu_pct_max: 100}}\nengine: simulated\n\
         duration: {SECONDS}s\nsample_hz: {HZ}\ntargets: [nginx]\n\
         simulated: {{seed: 7, processes: {PROCESSES}, stacks: 64, arm_ms: 20}}\nhosts:\n"
    );
    for ssh in names {
        job.push_str(&format!("  - {{name: {ssh}, ssh: {ssh}}}\n"));
    }
    for n in 0..MACHINES * AGENTS {
        let (machine, agent) = (n / AGENTS, n % AGENTS);
        let (name, address) = (name(machine, agent), address(&fleet, machine, agent));
        job.push_str(&format!("  - {{name: {name}, address: \"{address}\"}}\n"));
    }
    fs::write(fleet.path("many.yaml"), job)?;
    let out = fleet.path("run");
    let mut command = fleet.coordinator("capture")?;
    command.arg(fleet.path("many.yaml")).arg("--out").arg(&out);
    command.arg("--tls").arg(fleet.path("tls/coordinator"));
    let began = Instant::now();
    let mut coordinator = fleet.fabric.coordinator.spawn(command)?;
    let mut memory_kib = 0;
    let status = loop {
        memory_kib = memory_kib.max(procfs::peak_memory_kib(coordinator.pid()).unwrap_or(0));
        if let Some(status) = coordinator.ended()? {
            break status;
        }
        ensure!(began.elapsed() < 2 * CAPTURE, "{}", coordinator.stderr());
        thread::sleep(Duration::from_millis(50));
    };
    let took = began.elapsed();
    assert_eq!(
        status.code(),
        Some(0),
        "{}\n{}",
        coordinator.stdout(),
        coordinator.stderr()
    );
    judge(&out)?;
    println!("{took:?}, coordinator at most {memory_kib} KiB");
    assert!(memory_kib < MEMORY_KIB_MAX, "{memory_kib} KiB");
    Ok(())
}

fn judge(out: &Path) -> Result<()> {
    let run = Written::read(out)?;
    let total = run.check_sums()?;
    let hosts = &run.record.coverage.hosts;
    assert_eq!(hosts.len(), MACHINES * (AGENTS + 1));
    let mut errors = Vec::new();
    for (name, host) in hosts {
        assert_eq!(host.outcome, HostOutcome::Complete, "{name}: {host:?}");
        assert_eq!(run.samples(name), HZ * SECONDS * PROCESSES, "{name}");
        errors.push(host.start_error_ns);
    }
    let spread = errors.iter().max().zip(errors.iter().min());
    let spread = spread.map_or(0, |(max, min)| max - min);
    println!(
        "{} hosts, {total} samples, starts within {spread} ns",
        hosts.len()
    );
    assert!(spread <= SPREAD_NS, "starts lie {spread} ns apart");
    assert_eq!(total, HZ * SECONDS * PROCESSES * hosts.len() as u64);
    Ok(())
}
