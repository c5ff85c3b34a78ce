//! `fleetflame demo`: a real fleet on this machine, captured and drawn.
//!
//! In: a C compiler. Out: three agents as processes of their own over mutual TLS, each beside its own
//! workload, a run directory, and the ranking that names the odd host. Never: a simulated stack; if
//! sampling is not permitted, it says so and fails.

use super::job_flags::{JobFlags, WaysFlags};
use super::output::Output;
use super::progress::Progress;
use super::{capture, runtime};
use crate::clock::{self, SystemClock};
use crate::transport::{local, pki::Authority};
use crate::{Rooms, store};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::order::Budgets;
use model::{HostName, JobSpec};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The workload's source.
const WORKLOAD: &str = include_str!("fleet_worker.c");
/// The host with the injected hot spot, and the function.
const HOT: (&str, &str) = ("gateway-2", "rate_limit");
const HOSTS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];
/// What is started gets this long for its first word.
const READY: Duration = Duration::from_secs(10);

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame demo
  fleetflame demo --seconds 10 --out ./demo")]
pub struct DemoArgs {
    /// How long to capture
    #[arg(long, value_name = "N", default_value_t = 6)]
    seconds: u16,
    /// The run directory [default: fleetflame-demo/TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The agent [default: fleetflame-agent beside this program]
    #[arg(long, value_name = "FILE")]
    agent_binary: Option<PathBuf>,
}

pub fn demo(args: &DemoArgs, output: &Output) -> anyhow::Result<u8> {
    let agent = local::agent_program(args.agent_binary.as_ref())?;
    let out = args.out.clone().unwrap_or_else(|| {
        let stamp = store::utc_text(clock::wall_unix_ms()).replace(':', "-");
        Path::new("fleetflame-demo").join(stamp)
    });
    runtime()?.block_on(async {
        let stage = Stage::new()?;
        let cancel = capture::cancel_by_signal()?;
        output.talk("building the workload with cc, starting three agents over mutual TLS\n");
        let fleet = tokio::select! {
            fleet = Fleet::start(&stage, &agent, args.seconds) => fleet?,
            () = cancel.cancelled() => bail!("interrupted"),
        };
        let job = job(&fleet, args.seconds);
        let ways = WaysFlags {
            tls: Some(stage.path("coordinator")),
            ..JobFlags::empty().ways
        };
        let progress = Progress::new(&HOSTS.map(String::from), output.json, output.is_quiet());
        let rooms = Rooms {
            out: out.clone(),
            connectors: ways.connectors(&job)?,
            clock: Arc::new(SystemClock),
            watch: &progress,
            cancel,
        };
        let record = crate::run(&job, rooms).await;
        progress.finish();
        fleet.stop().await;
        let code = capture::tell(&record?, &out, output)?;
        if code == 0 {
            output.talk(&format!(
                "\n{} was started with a hot spot in {}: the ranking above should name both.\n",
                HOT.0, HOT.1
            ));
        }
        Ok(code)
    })
}

fn job(fleet: &Fleet, seconds: u16) -> JobSpec {
    let host = |m: &Member| JobHost {
        name: m.name.clone(),
        reach: Reach::Direct(m.address.clone()),
        targets: vec![Target::Exe(m.workload.display().to_string())],
        labels: Default::default(),
    };
    JobSpec {
        title: "demo: three gateways, one of them hot".into(),
        hosts: fleet.members.iter().map(host).collect(),
        targets: Vec::new(),
        pick: Pick::All,
        engine: EngineChoice::Native,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: 199,
        duration_ms: u64::from(seconds.clamp(1, 60)) * 1_000,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Budgets::default(),
        // A demo on a busy machine should rather wait than fail.
        arm_timeout_ms: Some(60_000),
        script: None,
        simulated: None,
    }
}

/// A private folder that is removed in the end.
struct Stage(PathBuf);

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let name = format!("fleetflame-demo-{:032x}", clock::random_bits()?);
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Member {
    name: HostName,
    address: String,
    workload: PathBuf,
    children: [Child; 2],
}

struct Fleet {
    members: Vec<Member>,
}

impl Fleet {
    #[expect(
        clippy::disallowed_methods,
        reason = "the demo builds and starts its own fleet"
    )]
    async fn start(stage: &Stage, agent: &Path, seconds: u16) -> anyhow::Result<Self> {
        let (source, built) = (stage.path("fleet_worker.c"), stage.path("fleet_worker"));
        std::fs::write(&source, WORKLOAD)?;
        let compiled = Command::new("cc")
            .args(["-O2", "-g0", "-o"])
            .args([&built, &source])
            .output()
            .await
            .context("running cc: a C compiler is needed for the demo's workload")?;
        ensure!(
            compiled.status.success(),
            "cc: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let authority = Authority::new(clock::wall_unix_ms(), 2)?;
        authority.issue_coordinator(&stage.path("coordinator"))?;
        let mut members = Vec::new();
        for name in HOSTS {
            let name = HostName::new(name)?;
            let folder = stage.path(name.as_str());
            authority.issue_agent(&folder, &name)?;
            let workload = folder.join("fleet_worker");
            std::fs::copy(&built, &workload)?;
            let mut command = Command::new(&workload);
            let life = (u32::from(seconds) + 60).to_string();
            command.args(["--workers", "2", "--duty", "12", "--duration-s", &life]);
            if name.as_str() == HOT.0 {
                command.args(["--hot", HOT.1, "--hot-share", "45"]);
            }
            let mut gateway = start(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
            let stdout = gateway
                .stdout
                .take()
                .context("the workload has no output")?;
            first_line(stdout, "ready")
                .await
                .context("starting the workload")?;
            let mut command = Command::new(agent);
            command
                .args(["run", "--listen", "127.0.0.1:0", "--tls"])
                .arg(&folder)
                .arg("--state")
                .arg(folder.join("state"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let mut daemon = start(&mut command)?;
            let stderr = daemon.stderr.take().context("the agent has no output")?;
            let line = first_line(stderr, "listening on")
                .await
                .context("starting an agent")?;
            let address = line.rsplit(' ').next().unwrap_or_default().to_owned();
            members.push(Member {
                name,
                address,
                workload,
                children: [daemon, gateway],
            });
        }
        Ok(Self { members })
    }

    /// Ends agents and workloads, agents first.
    async fn stop(self) {
        for mut member in self.members {
            for child in &mut member.children {
                if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                }
                if timeout(Duration::from_secs(5), child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
            }
        }
    }
}

/// Starts a child that does not outlive this program's error paths, in a group of its own so that
/// Ctrl-C is ours to hand on.
fn start(command: &mut Command) -> anyhow::Result<Child> {
    let program = command.as_std().get_program().to_owned();
    command
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// Reads until a line has `word` in it; what comes later is read and thrown away.
async fn first_line(
    from: impl AsyncRead + Unpin + Send + 'static,
    word: &str,
) -> anyhow::Result<String> {
    let mut lines = BufReader::new(from).lines();
    let mut said = String::new();
    let found = timeout(READY, async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(word) {
                return Ok(Some(line));
            }
            said.push_str(&line);
            said.push('\n');
        }
        Ok::<_, std::io::Error>(None)
    })
    .await;
    match found {
        Ok(Ok(Some(line))) => {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            Ok(line)
        }
        _ => bail!(
            "it did not say {word:?} in {} s; it said: {said}",
            READY.as_secs()
        ),
    }
}
