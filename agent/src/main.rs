//! `fleetflame-agent`: the command line of the agent.
//!
//! In: arguments, the policy file. Out: a daemon, a child on stdin and stdout, a report, or a module.
//! Never: anything but the protocol on stdout in `stdio`.

use anyhow::Context;
use clap::{Parser, Subcommand};
use fleetflame_agent::clock::SystemClock;
use fleetflame_agent::engine::EngineRoom;
use fleetflame_agent::process::Processes;
use fleetflame_agent::service::{Agent, Settings};
use fleetflame_agent::session::HeldStore;
use fleetflame_agent::{attach, detached, host, listen, policy, process, verb};
use model::Severity;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

/// Captures stacks on a gateway host when a coordinator asks for it.
#[derive(Parser)]
#[command(name = "fleetflame-agent", version, after_help = EXAMPLES)]
struct Arguments {
    /// The host's policy [default: /etc/fleetflame/policy.yaml; built-in harmless rules without it]
    #[arg(long, global = true, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  fleetflame-agent check                 what this host can do, and what is missing
  fleetflame-agent expand --help         stap++ scripts, with stap++'s options
  fleetflame-agent run --listen 0.0.0.0:7443 --tls /etc/fleetflame/tls --state /var/lib/fleetflame";

#[derive(Subcommand)]
enum Verb {
    /// Runs as a daemon that coordinators dial over mutual TLS
    Run {
        /// Address and port to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
        listen: SocketAddr,
        /// Folder with ca.pem, agent.pem and agent.key
        #[arg(long, value_name = "DIR", default_value = "/etc/fleetflame/tls")]
        tls: PathBuf,
        /// Folder for what is held of runs that lost their coordinator
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fleetflame")]
        state: PathBuf,
    },
    /// Runs as a coordinator's child, on stdin and stdout
    Stdio {
        /// Runs by itself instead, in a private folder that holds this program, and removes that
        /// folder at its end: how an agent is started over SSH
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// What this program must hash to
        #[arg(long, value_name = "HEX", requires = "dir")]
        blake3: Option<String>,
    },
    /// Says what this host can do
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Nothing; the exit code is 0 if some engine can see every process of the host
        #[arg(long, conflicts_with = "json")]
        unrestricted: bool,
    },
    /// Expands a stap++ script: prints what stap would get
    Expand(Box<verb::expand::Arguments>),
    /// Lists what a stap++ script asks for
    Args(verb::args::Arguments),
    /// Names Lua functions in the stacks that a script printed
    LuaNames(verb::lua_names::Arguments),
    /// Builds a SystemTap module for hosts of another kernel, or without what it takes to build one
    BuildModule(verb::build_module::Arguments),
    /// (internal) Joins stdin and stdout to the agent that runs in a folder
    #[command(hide = true)]
    Attach {
        /// The agent's folder
        dir: PathBuf,
    },
    /// (internal) What `stdio --dir` starts
    #[command(hide = true)]
    Detached {
        /// The agent's folder
        dir: PathBuf,
    },
    /// Removes what a dead agent has left: half-written files, and held runs that are too old
    Clean {
        /// Folder for what is held
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fleetflame")]
        state: PathBuf,
    },
    /// (internal) Ends an agent's children when the agent was killed
    #[command(hide = true)]
    Keeper,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(log_level())
        .init();
    match run(arguments) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("fleetflame-agent: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// `FLEETFLAME_LOG`: off, error, warn, info, debug or trace.
fn log_level() -> LevelFilter {
    std::env::var("FLEETFLAME_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::WARN)
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Verb::Expand(arguments) => return Ok(verb::expand::run(&arguments)),
        Verb::Args(arguments) => return Ok(verb::args::run(&arguments)),
        Verb::LuaNames(arguments) => return Ok(verb::lua_names::run(&arguments)),
        Verb::Keeper => {
            fleetflame_agent::process::keep(std::io::stdin().lock()).context("keeping watch")
        }
        Verb::Check { unrestricted, .. } if unrestricted => can_see_everything(arguments.policy),
        Verb::Check { json, .. } => check(arguments.policy, json),
        Verb::BuildModule(asked) => build_module(asked),
        Verb::Attach { dir } => attach::attach(&dir),
        Verb::Detached { dir } => {
            fleetflame_agent::process::leave_session().context("leaving the session")?;
            become_harmless();
            let runtime = runtime()?;
            let agent = agent(arguments.policy, HeldStore::none());
            let done = runtime.block_on(detached::serve(agent, &dir));
            runtime.shutdown_timeout(Duration::from_millis(200));
            done
        }
        Verb::Clean { state } => HeldStore::open(&state)
            .map(drop)
            .with_context(|| format!("opening {}", state.display())),
        Verb::Run { listen, tls, state } => {
            become_harmless();
            let held = HeldStore::open(&state)
                .with_context(|| format!("opening {} for held runs", state.display()))?;
            runtime()?.block_on(daemon(arguments.policy, listen, tls, held))
        }
        Verb::Stdio {
            dir: Some(dir),
            blake3,
        } => detached::start(&dir, blake3.as_deref()),
        Verb::Stdio { dir: None, .. } => {
            become_harmless();
            let runtime = runtime()?;
            let done = runtime.block_on(child(arguments.policy));
            runtime.shutdown_timeout(Duration::from_millis(200));
            done
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The agent yields to the gateway in everything but its sampler threads, and is the first to go
/// when memory runs out.
fn become_harmless() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    native::lower_own_priority();
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")
}

fn agent(policy_path: Option<PathBuf>, held: HeldStore) -> Arc<Agent> {
    let program = Some(process::own_program());
    Agent::new(Settings {
        policy: Box::new(move || policy::load(policy_path.as_deref())),
        survey: Box::new(host::survey),
        engines: EngineRoom {
            clock: Arc::new(SystemClock),
            processes: Arc::new(Processes::new(program)),
        },
        held,
        own_cpu_ns,
    })
}

/// CPU time of all threads so far.
fn own_cpu_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

async fn daemon(
    policy_path: Option<PathBuf>,
    address: SocketAddr,
    tls: PathBuf,
    held: HeldStore,
) -> anyhow::Result<()> {
    policy::load(policy_path.as_deref()).map_err(|f| anyhow::anyhow!("{f}"))?;
    let identity = listen::identity(&tls)?;
    let agent = agent(policy_path, held);
    let stop = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stopper.cancel();
    });
    listen::listen(Arc::clone(&agent), address, &identity, stop, |bound| {
        eprintln!("fleetflame-agent: listening on {bound}");
    })
    .await?;
    let _ = tokio::time::timeout(Duration::from_secs(3), agent.shut_down()).await;
    Ok(())
}

async fn child(policy_path: Option<PathBuf>) -> anyhow::Result<()> {
    let agent = agent(policy_path, HeldStore::none());
    let duplicate =
        |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    let input = pipe::Receiver::from_owned_fd(duplicate(std::io::stdin().as_fd())?)
        .context("stdin is not a pipe: this verb is for coordinators")?;
    let output = pipe::Sender::from_owned_fd(duplicate(std::io::stdout().as_fd())?)
        .context("stdout is not a pipe: this verb is for coordinators")?;
    // Ctrl-C in the operator's terminal reaches the whole process group; the coordinator decides.
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move { while int.recv().await.is_some() {} });
    let mut term = signal(SignalKind::terminate())?;
    let link = proto::link::agent_link(tokio::io::join(input, output)).await?;
    tokio::select! {
        () = agent.serve(link) => {}
        _ = term.recv() => {}
    }
    // The end of stdin starts the lease; it does not end it.
    while !agent.is_idle() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            _ = term.recv() => agent.shut_down().await,
        }
    }
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the module's file is this verb's output"
)]
fn build_module(asked: verb::build_module::Arguments) -> anyhow::Result<()> {
    let processes = Processes::new(Some(process::own_program()));
    let file = runtime()?.block_on(verb::build_module::run(asked, &processes))?;
    println!("{}", file.display());
    Ok(())
}

/// Whether root's privileges would add nothing.
fn can_see_everything(policy_path: Option<PathBuf>) -> anyhow::Result<()> {
    let report = host::survey(&policy::load(policy_path.as_deref()));
    let whole = report
        .engines
        .iter()
        .any(|e| e.can_run && e.findings.iter().all(|f| f.severity() == Severity::Note));
    anyhow::ensure!(whole, "some processes of this host cannot be sampled");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report is this verb's output")]
fn check(policy_path: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let report = host::survey(&policy::load(policy_path.as_deref()));
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{}  {}  {} {}  {} CPUs  {} MiB",
        report.hostname, report.os, report.kernel, report.arch, report.cpus, report.memory_mb
    );
    println!("policy     {}", report.policy);
    for engine in &report.engines {
        let can = if engine.can_run { "yes" } else { "no " };
        println!("{:<10} {can}  {}", engine.engine, engine.how);
        engine
            .findings
            .iter()
            .for_each(|f| println!("           {f}"));
    }
    for gateway in &report.gateways {
        println!(
            "gateway    {:<8} {} ({})",
            gateway.pid, gateway.role, gateway.exe
        );
    }
    report.findings.iter().for_each(|f| println!("{f}"));
    Ok(())
}
