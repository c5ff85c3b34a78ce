//! A fleet of real programs: an agent in each host's namespace, and a coordinator that dials them
//! over mutual TLS with certificates of `fleetflame tls`.
//!
//! In: host names, and how each agent is set up. Out: running agents, workloads, captures, and the
//! one private folder in which all their files lie. Never: a certificate, policy or held run of the
//! machine's own, or a program that outlives the fleet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::Binaries;
use crate::fabric::{Fabric, FabricHost};
use crate::link::LinkConditions;
use crate::process::Child;
use crate::procfs::Pid;
use crate::time_shift::TimeShift;
use crate::workload::{Build, Workload};

/// The port that every agent of a fleet listens on, each in its own namespace.
pub const PORT: u16 = 7443;
/// What is allowed unless a test says otherwise: a debug build uses more CPU than the default policy
/// lets it, and the simulated engine is for tests only.
pub const POLICY: &str =
    "version: 1\nengines: [native, simulated]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";
/// What every job of a fleet begins with: budgets as wide as [`POLICY`], and time for a debug build
/// to arm.
const JOB: &str = "version: 1\narm_timeout: 40s\nbudgets:\n  cpu_pct_max: 100\n";

const READY: Duration = Duration::from_secs(20);
/// A workload outlives every story, and ends by itself all the same.
const WORKLOAD_S: &str = "120";

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    /// The text of its policy file.
    pub policy: String,
    /// Clocks that count from another boot.
    pub shift: Option<TimeShift>,
    /// Whose certificate it presents, when not its own.
    pub certificate_of: Option<String>,
}

impl Default for AgentSetup {
    fn default() -> Self {
        Self {
            policy: POLICY.to_owned(),
            shift: None,
            certificate_of: None,
        }
    }
}

/// One host of the fleet.
#[derive(Debug)]
pub struct RealHost {
    /// Its name in jobs and in its certificate.
    pub name: String,
    /// Its agent, once it was started.
    pub agent: Option<Child>,
    /// What is captured there, once it was started.
    pub workload: Option<Child>,
    /// The agent's policy file.
    pub policy: PathBuf,
    /// The agent's folder of held runs.
    pub held: PathBuf,
    number: usize,
}

/// See the module.
#[derive(Debug)]
pub struct RealFleet {
    /// The hosts, in order; their programs end before their networks do.
    pub hosts: Vec<RealHost>,
    /// The networks.
    pub fabric: Fabric,
    stage: tempfile::TempDir,
    programs: &'static Binaries,
}

impl RealFleet {
    /// Networks and certificates; nothing runs yet.
    pub fn prepare(names: &[&str], conditions: LinkConditions) -> Result<Self> {
        let programs = Binaries::find()?;
        let fabric = Fabric::new(names.len(), conditions)?;
        let stage = tempfile::Builder::new()
            .prefix("fleetflame-e2e-")
            .tempdir()?;
        let host = |(number, name): (usize, &&str)| RealHost {
            name: (*name).to_owned(),
            agent: None,
            workload: None,
            policy: stage.path().join(name).join("policy.yaml"),
            held: stage.path().join(name).join("state/held"),
            number,
        };
        let hosts = names.iter().enumerate().map(host).collect();
        let fleet = Self {
            hosts,
            fabric,
            stage,
            programs,
        };
        fleet.certificates("tls")?;
        Ok(fleet)
    }

    /// Everything: networks, certificates, an agent and a `split` workload on each host.
    pub fn start(names: &[&str], conditions: LinkConditions) -> Result<Self> {
        let mut fleet = Self::prepare(names, conditions)?;
        for number in 0..names.len() {
            fleet.start_workload(number)?;
            fleet.start_agent(number, &AgentSetup::default())?;
        }
        Ok(fleet)
    }

    /// Makes a folder of certificates for all hosts, each folder with a CA of its own.
    pub fn certificates(&self, folder: &str) -> Result<()> {
        let mut command = self.programs.coordinator();
        command.arg("tls").arg(self.path(folder));
        command.args(self.hosts.iter().map(|host| &host.name));
        let done = Child::spawn(command)?.finish(READY)?;
        ensure!(done.status.success(), "fleetflame tls: {}", done.stderr);
        Ok(())
    }

    /// A path in the fleet's private folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path().join(name)
    }

    /// The network of a host.
    pub fn network(&self, number: usize) -> &FabricHost {
        &self.fabric.hosts[number]
    }

    /// `ADDR:PORT` of a host's agent.
    pub fn address(&self, number: usize) -> String {
        format!("{}:{PORT}", self.network(number).address)
    }

    /// Starts a program with 70 % of its time in `seventy` and 30 % in `thirty`.
    pub fn start_workload(&mut self, number: usize) -> Result<()> {
        let mut command = Workload::Split.command(Build::default())?;
        command.arg(WORKLOAD_S);
        let mut workload = self.network(number).namespace.spawn(command)?;
        workload.wait_for_stdout("ready", READY)?;
        self.hosts[number].workload = Some(workload);
        Ok(())
    }

    /// Starts a host's agent and waits until it listens.
    pub fn start_agent(&mut self, number: usize, setup: &AgentSetup) -> Result<()> {
        let command = self.agent(number, setup)?;
        let mut agent = self.network(number).namespace.spawn(command)?;
        agent.wait_for_stderr("listening on", READY)?;
        self.hosts[number].agent = Some(agent);
        Ok(())
    }

    /// A host's agent, ready to be started: its policy is written.
    pub fn agent(&self, number: usize, setup: &AgentSetup) -> Result<Command> {
        let host = &self.hosts[number];
        let folder = self.path(&host.name);
        fs::create_dir_all(&folder)?;
        fs::write(&host.policy, &setup.policy)?;
        fs::set_permissions(&host.policy, fs::Permissions::from_mode(0o600))?;
        let owner = setup.certificate_of.as_ref().unwrap_or(&host.name);
        let mut command = self.programs.agent();
        command.args(["run", "--listen", &self.address(number), "--tls"]);
        command.arg(self.path("tls").join(owner));
        command.arg("--state").arg(folder.join("state"));
        command.arg("--policy").arg(&host.policy);
        match setup.shift {
            Some(shift) => shift.wrap(command),
            None => Ok(command),
        }
    }

    /// Writes a job over all hosts; `body` adds what the story asks for. A host with a workload has
    /// that as its target.
    pub fn job(&self, body: &str) -> Result<PathBuf> {
        let workloads = self.hosts.iter().map(|host| host.workload.iter());
        let targets: Vec<Vec<Pid>> = workloads.map(|w| w.map(Child::pid).collect()).collect();
        self.job_on(body, &targets)
    }

    /// The same with these processes of each host as its targets.
    pub fn job_on(&self, body: &str, targets: &[Vec<Pid>]) -> Result<PathBuf> {
        let title = match body.contains("title:") {
            true => "",
            false => "title: e2e\n",
        };
        let mut text = format!("{JOB}{title}{body}\ntargets: [\"pid:1\"]\nhosts:\n");
        for (host, pids) in self.hosts.iter().zip(targets) {
            let address = self.address(host.number);
            text.push_str(&format!(
                "  - name: {}\n    address: \"{address}\"\n",
                host.name
            ));
            if !pids.is_empty() {
                let pids: Vec<String> = pids.iter().map(|pid| format!("\"pid:{pid}\"")).collect();
                text.push_str(&format!("    targets: [{}]\n", pids.join(", ")));
            }
        }
        let path = self.path("job.yaml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// `fleetflame VERB …` with JSON lines and this fleet's certificates.
    pub fn coordinator(&self, verb: &str, arguments: &[&Path]) -> Command {
        self.coordinator_with(verb, arguments, "tls/coordinator")
    }

    /// The same with another folder of certificates.
    pub fn coordinator_with(&self, verb: &str, arguments: &[&Path], tls: &str) -> Command {
        let mut command = self.programs.coordinator();
        command.args([verb, "--json"]).args(arguments);
        command.arg("--tls").arg(self.path(tls));
        command
    }

    /// Starts the capture of a job into the run directory `out`.
    pub fn capture(&self, body: &str, out: &Path) -> Result<Child> {
        let job = self.job(body)?;
        let command = self.coordinator("capture", &[&job, Path::new("--out"), out]);
        self.fabric.coordinator.spawn(command)
    }
}

impl RealHost {
    /// The running agent.
    pub fn agent(&self) -> Result<&Child> {
        let agent = self.agent.as_ref();
        agent.with_context(|| format!("{} has no agent", self.name))
    }

    /// The running agent, for what changes it.
    pub fn agent_mut(&mut self) -> Result<&mut Child> {
        let agent = self.agent.as_mut();
        agent.with_context(|| format!("{} has no agent", self.name))
    }
}
