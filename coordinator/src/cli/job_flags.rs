//! The flags that make or change a job. In: a YAML file, flags, or both. Out: a checked job and how
//! its hosts are reached. Never: a flag that is silently ignored.

use super::hosts;
use super::output::usage;
use super::script_file::{self, ProbeFlag};
use crate::spec;
use crate::transport::bootstrap::{Programs, Wishes};
use crate::transport::ssh::SshRoom;
use crate::transport::{Connector, Local, Ssh, direct, local};
use anyhow::Context as _;
use clap::Args;
use model::job::{
    EngineChoice, Event, JobHost, Pick, Probe, Reach, Target, URI_SEGMENTS_MAX, parse_duration_ms,
    parse_wait_us,
};
use model::order::Budgets;
use model::script::StackUnit;
use model::{HostName, JobSpec};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to capture, where and how.
#[derive(Debug, Args)]
pub struct JobFlags {
    /// A job file (`fleetflame example capture` prints one); flags change what it says
    #[arg(value_name = "JOB.yaml")]
    pub job: Option<PathBuf>,
    /// Capture this machine; the agent is started as a child
    #[arg(long)]
    pub local: bool,
    /// A running agent, as NAME=ADDR:PORT; repeatable
    #[arg(long, value_name = "NAME=ADDR:PORT")]
    pub host: Vec<String>,
    /// Hosts over ssh, with nothing installed there: names of ssh_config or patterns of them,
    /// [USER@]HOST or ssh://[USER@]HOST[:PORT]; NAME=DEST gives a name of its own. Commas separate;
    /// repeatable
    #[arg(long, value_name = "DEST[,DEST…]", value_delimiter = ',')]
    pub ssh: Vec<String>,
    /// Hosts of an inventory: a fleet file (`fleetflame example fleet` prints one), an Ansible
    /// inventory, a list of destinations; - is stdin
    #[arg(long, value_name = "FLEET.yaml")]
    pub fleet: Option<PathBuf>,
    /// Which hosts of the inventory, such as 'role=kong,dc in (bj,sh),name!=kong-7,10%'
    #[arg(long, value_name = "EXPR", requires = "fleet")]
    pub select: Option<String>,
    /// What to capture: nginx, pid:N, exe:PATH or cmd:REGEX; repeatable
    #[arg(long, value_name = "TARGET")]
    pub target: Vec<Target>,
    /// Which of the matching processes: all, busiest:N or random:N
    #[arg(long, value_name = "PICK")]
    pub pick: Option<Pick>,
    /// How: auto, native, perf or stap
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<EngineChoice>,
    /// What is measured: on-cpu, off-cpu for where threads wait, lua for CPU time with Lua's functions in
    /// the stacks, vfs for bytes and time of reads and writes, lock for waits for locks, alloc for
    /// memory that is not freed (these by SystemTap, where the host's policy lists them; alloc slows its
    /// process down much), or script:FILE for what a script of your own for
    /// SystemTap or stap++ prints
    #[arg(long, value_name = "PROBE")]
    pub probe: Option<ProbeFlag>,
    /// With --probe script:FILE: a value for the script's $^arg_NAME; repeatable
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,
    /// With --probe script:FILE: a folder with modules for its @use, looked through before the current one and
    /// the tapset folders around the script; repeatable
    #[arg(long, value_name = "DIR")]
    pub include: Vec<PathBuf>,
    /// With --probe script:FILE: what the counts of its stacks are: samples, ns, us, ms, bytes or sum [default: by what
    /// the script adds up]
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<StackUnit>,
    /// By which event: cpu-clock, or cycles (by perf, where the processor's counters can be used)
    #[arg(long, value_name = "EVENT")]
    pub event: Option<Event>,
    /// Samples a second and CPU [default: 99]
    #[arg(long, value_name = "HZ")]
    pub hz: Option<u32>,
    /// With --probe off-cpu: waits shorter than this are added up under one frame; with vfs and lock, calls
    /// and waits shorter than this are left out [default: 0ms]
    #[arg(long, value_name = "TIME", value_parser = parse_wait_us)]
    pub min_wait: Option<u32>,
    /// Put below each stack the first segments of the path of its request [default with --uri alone: 2]; never the
    /// query, and * for what looks like a number, a key or a name. Hosts allow it by request_paths: true in their policy
    #[arg(long, value_name = "SEGMENTS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(URI_SEGMENTS_MAX)))]
    pub uri: Option<u32>,
    /// For how long, such as 30s or 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub duration: Option<u64>,
    /// How long hosts may take to get ready [default: 10s; 4m where SystemTap captures]
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub arm_timeout: Option<u64>,
    /// A title for pictures and report
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    #[command(flatten)]
    pub ways: WaysFlags,
}

/// How hosts are reached.
#[derive(Debug, Args)]
pub struct WaysFlags {
    /// Folder with ca.pem, coordinator.pem and coordinator.key [default: ~/.config/fleetflame/tls]
    #[arg(long, value_name = "DIR")]
    pub tls: Option<PathBuf>,
    /// The agent for --local and --ssh; repeatable, one for each kind of processor [default:
    /// fleetflame-agent-MACHINE or fleetflame-agent beside this program]
    #[arg(long, value_name = "FILE")]
    pub agent_binary: Vec<PathBuf>,
    /// The policy for --local [default: the host's own]
    #[arg(long, value_name = "FILE")]
    pub agent_policy: Option<PathBuf>,
    /// Leave the agent on --ssh hosts, for the next run; it does not run there
    #[arg(long)]
    pub keep_agent: bool,
    /// Never try sudo on --ssh hosts, also where the login may see too little
    #[arg(long)]
    pub no_sudo: bool,
    /// ssh's configuration for --ssh [default: ssh's own]
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
}

impl JobFlags {
    /// The job that is meant.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn read(&self) -> anyhow::Result<JobSpec> {
        let mut job = match &self.job {
            Some(path) => {
                let text = std::fs::read(path)
                    .with_context(|| format!("failed to read {}", path.display()))?;
                spec::read_job(&text, &path.display().to_string())?
            }
            None => JobSpec {
                title: String::new(),
                hosts: Vec::new(),
                targets: Vec::new(),
                pick: Pick::All,
                engine: EngineChoice::Auto,
                probe: Probe::OnCpu,
                event: Event::CpuClock,
                sample_hz: 99,
                duration_ms: 30_000,
                kernel: true,
                min_wait_us: 0,
                uri_segments: 0,
                budgets: Budgets::default(),
                arm_timeout_ms: None,
                script: None,
                simulated: None,
            },
        };
        self.change(&mut job)?;
        if job.title.is_empty() {
            let targets: Vec<String> = job.targets.iter().map(ToString::to_string).collect();
            job.title = format!("{} of {}", job.probe, targets.join(", "));
        }
        job.validate().map_err(usage)?;
        Ok(job)
    }

    fn change(&self, job: &mut JobSpec) -> anyhow::Result<()> {
        let named = self.local || self.fleet.is_some();
        if named || !self.host.is_empty() || !self.ssh.is_empty() {
            job.hosts.clear();
        }
        if let Some(fleet) = &self.fleet {
            job.hosts = hosts::from_inventory(fleet, self.select.as_deref())?;
        }
        if self.local {
            let name = HostName::new("local").map_err(|e| usage(e.to_string()))?;
            job.hosts.push(JobHost::new(name, Reach::Local));
        }
        for text in &self.ssh {
            let config = self.ways.ssh_config.as_deref();
            job.hosts.extend(hosts::over_ssh(text, config)?);
        }
        for text in &self.host {
            let (name, address) = text
                .split_once('=')
                .filter(|(_, a)| {
                    a.rsplit_once(':')
                        .is_some_and(|(_, p)| p.parse::<u16>().is_ok())
                })
                .ok_or_else(|| usage(format!("--host {text:?} is not NAME=ADDR:PORT")))?;
            let name = HostName::new(name).map_err(|e| usage(e.to_string()))?;
            let reach = Reach::Direct(address.to_owned());
            job.hosts.push(JobHost::new(name, reach));
        }
        if !self.target.is_empty() {
            job.targets.clone_from(&self.target);
            job.hosts.iter_mut().for_each(|h| h.targets.clear());
        }
        job.pick = self.pick.unwrap_or(job.pick);
        job.engine = self.engine.unwrap_or(job.engine);
        match &self.probe {
            Some(ProbeFlag::BuiltIn(probe)) => job.probe = *probe,
            Some(ProbeFlag::Script(path)) => {
                job.probe = Probe::Script;
                job.script = Some(script_file::read(
                    path,
                    &self.arguments,
                    &self.include,
                    self.unit,
                )?);
            }
            None => {}
        }
        if job.script.is_none() && !self.arguments.is_empty() {
            return Err(usage("--arg is for --probe script:FILE"));
        }
        if job.script.is_none() && !self.include.is_empty() {
            return Err(usage("--include is for --probe script:FILE"));
        }
        if job.script.is_none() && self.unit.is_some() {
            return Err(usage("--unit is for --probe script:FILE"));
        }
        job.event = self.event.unwrap_or(job.event);
        job.sample_hz = self.hz.unwrap_or(job.sample_hz);
        job.min_wait_us = self.min_wait.unwrap_or(job.min_wait_us);
        job.uri_segments = self.uri.unwrap_or(job.uri_segments);
        job.duration_ms = self.duration.unwrap_or(job.duration_ms);
        job.arm_timeout_ms = self.arm_timeout.or(job.arm_timeout_ms);
        if let Some(title) = &self.title {
            job.title.clone_from(title);
        }
        Ok(())
    }
}

impl WaysFlags {
    /// A connector for each host of a job.
    ///
    /// # Errors
    /// Missing certificates, or no agent for this machine.
    pub fn connectors(&self, job: &JobSpec) -> anyhow::Result<Vec<(HostName, Connector)>> {
        let dialled = job
            .hosts
            .iter()
            .any(|h| matches!(h.reach, Reach::Direct(_)));
        let identity = match dialled {
            true => Some(direct::identity(&self.tls_folder()?)?),
            false => None,
        };
        let sent = job.hosts.iter().any(|h| matches!(h.reach, Reach::Ssh(_)));
        let room = match sent {
            true => Some(self.ssh_room()?),
            false => None,
        };
        let connector = |host: &JobHost| -> anyhow::Result<(HostName, Connector)> {
            let connector: Connector = match (&host.reach, &identity, &room) {
                (Reach::Direct(address), Some(identity), _) => {
                    direct::connector(host.name.clone(), address.clone(), identity)?
                }
                (Reach::Ssh(destination), _, Some(room)) => {
                    Arc::new(Ssh::new(Arc::clone(room), destination.clone()))
                }
                _ => {
                    let program = local::agent_program(self.agent_binary.first())?;
                    Arc::new(Local::new(program, self.agent_policy.clone()))
                }
            };
            Ok((host.name.clone(), connector))
        };
        job.hosts.iter().map(connector).collect()
    }

    fn ssh_room(&self) -> anyhow::Result<Arc<SshRoom>> {
        for path in &self.agent_binary {
            std::fs::metadata(path)
                .with_context(|| format!("failed to read {}", path.display()))?;
        }
        let wishes = Wishes {
            keep: self.keep_agent,
            sudo: !self.no_sudo,
        };
        let programs = Programs::new(self.agent_binary.clone());
        SshRoom::new(programs, self.ssh_config.clone(), wishes)
    }

    fn tls_folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.tls {
            return Ok(folder.clone());
        }
        let home = std::env::var_os("HOME").context("no --tls, and HOME is not set")?;
        Ok(Path::new(&home).join(".config/fleetflame/tls"))
    }
}

impl JobFlags {
    /// No flag at all.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            job: None,
            local: false,
            host: Vec::new(),
            ssh: Vec::new(),
            fleet: None,
            select: None,
            target: Vec::new(),
            pick: None,
            engine: None,
            probe: None,
            event: None,
            hz: None,
            min_wait: None,
            uri: None,
            arguments: Vec::new(),
            include: Vec::new(),
            unit: None,
            duration: None,
            arm_timeout: None,
            title: None,
            ways: WaysFlags {
                tls: None,
                agent_binary: Vec::new(),
                agent_policy: None,
                keep_agent: false,
                no_sudo: false,
                ssh_config: None,
            },
        }
    }
}
