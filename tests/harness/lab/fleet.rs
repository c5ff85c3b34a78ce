//! A fleet in the lab: our agent in each guest, and the coordinator on this machine.
//!
//! In: what the guests hold, a policy. Out: running agents behind mutual TLS, captures over all of them, cut
//! cables. Never: a file outside of the fleet's private folder and the guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{AGENT_ADDRESS, AGENT_PORT, GuestSetup, Lab, RemoteChild};
use crate::binaries::Binaries;
use crate::process::Child;

const SOON: Duration = Duration::from_mins(3);
/// What an agent says when it may be dialled.
const LISTENING: &str = "listening on";
/// Where a guest has its certificate, policy and state.
const FOLDER: &str = "/etc/fleetflame";
/// What every job of a fleet begins with: an emulated processor is slow to arm.
const JOB: &str =
    "version: 1\ntitle: lab\narm_timeout: 2m\nbudgets:\n  cpu_pct_max: 100\ntargets: [\"pid:1\"]\n";

/// See the module.
#[derive(Debug)]
pub struct LabFleet {
    /// The agents, by guest; none after it was ended.
    pub agents: Vec<RemoteChild>,
    /// The guests.
    pub lab: Lab,
    stage: tempfile::TempDir,
}

impl LabFleet {
    /// Boots `guests` guests and starts an agent with this policy in each.
    pub fn start(setup: &GuestSetup, guests: usize, policy: &str) -> Result<Self> {
        let setup = setup.clone().agent()?;
        let lab = Lab::start(&vec![setup; guests])?;
        let stage = tempfile::Builder::new()
            .prefix("fleetflame-lab-fleet-")
            .tempdir()?;
        let mut tls = Binaries::find()?.coordinator();
        tls.arg("tls").arg(stage.path().join("tls"));
        tls.args(lab.guests.iter().map(|guest| &guest.name));
        let done = Child::spawn(tls)?.finish(SOON)?;
        ensure!(done.status.success(), "fleetflame tls: {}", done.stderr);
        let mut fleet = Self {
            agents: Vec::new(),
            lab,
            stage,
        };
        for number in 0..guests {
            fleet.install(number, policy)?;
            let agent = fleet.start_agent(number)?;
            fleet.agents.push(agent);
        }
        Ok(fleet)
    }

    /// A path in the fleet's private folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path().join(name)
    }

    fn install(&self, number: usize, policy: &str) -> Result<()> {
        let guest = &self.lab.guests[number];
        for entry in fs::read_dir(self.path("tls").join(&guest.name))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            guest.put_file(&entry.path(), &format!("{FOLDER}/tls/{name}"))?;
        }
        guest.put(&format!("{FOLDER}/policy.yaml"), policy.as_bytes())?;
        let close = format!("chmod -R go= {FOLDER}");
        guest.sh(&close, SOON).map(drop)
    }

    /// Starts the agent of a guest (again) and waits until it listens.
    pub fn start_agent(&self, number: usize) -> Result<RemoteChild> {
        let guest = &self.lab.guests[number];
        let listen = format!("{AGENT_ADDRESS}:{AGENT_PORT}");
        let (tls, policy) = (format!("{FOLDER}/tls"), format!("{FOLDER}/policy.yaml"));
        let agent = guest.start(&[
            "/usr/bin/env",
            "FLEETFLAME_LOG=debug",
            "/usr/bin/fleetflame-agent",
            "run",
            "--listen",
            &listen,
            "--tls",
            &tls,
            "--state",
            "/var/lib/fleetflame",
            "--policy",
            &policy,
        ])?;
        agent
            .wait_for_line(LISTENING, SOON)
            .with_context(|| format!("the agent of {}", guest.name))?;
        Ok(agent)
    }

    /// How many modules the agent of a guest asked for their last report, and how many of these came in time.
    pub fn last_reports(&self, number: usize) -> (usize, usize) {
        let said = self.agents[number].stderr();
        let asked = said.lines().filter(|line| line.contains("the last report"));
        let came = asked.clone().filter(|line| line.contains("came=true"));
        (asked.count(), came.count())
    }

    /// Waits until the agent of a guest answers a coordinator. One that was just started, on an emulated processor, has
    /// much to do for its first word.
    pub fn wait_until_heard(&self, number: usize) -> Result<()> {
        let guest = &self.lab.guests[number];
        let host = format!("{}={}", guest.name, guest.agent_address());
        let end = Instant::now() + SOON;
        loop {
            let mut plan = Binaries::find()?.coordinator();
            plan.args(["plan", "--target", "pid:1", "--host", &host]);
            plan.arg("--tls").arg(self.path("tls/coordinator"));
            let done = self.lab.namespace.spawn(plan)?.finish(SOON)?;
            if done.status.success() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{host}: {}", done.stderr);
        }
    }

    /// Starts the capture of a job over all guests, each with the target of its own, into the run directory
    /// `out`; `body` adds what the story asks for.
    pub fn capture(&self, body: &str, targets: &[i32], out: &Path) -> Result<Child> {
        self.capture_with(body, targets, out, &[])
    }

    /// As [`LabFleet::capture`], with flags of the command line beside the job.
    pub fn capture_with(
        &self,
        body: &str,
        targets: &[i32],
        out: &Path,
        flags: &[&str],
    ) -> Result<Child> {
        let mut job = format!("{JOB}{body}\nhosts:\n");
        for (guest, target) in self.lab.guests.iter().zip(targets) {
            job.push_str(&format!(
                "  - name: {}\n    address: \"{}\"\n    targets: [\"pid:{target}\"]\n",
                guest.name,
                guest.agent_address()
            ));
        }
        let path = self.path("job.yaml");
        fs::write(&path, job)?;
        let mut command = Binaries::find()?.coordinator();
        command.args(["capture", "--json"]).arg(&path);
        command.args(flags).arg("--out").arg(out);
        command.arg("--tls").arg(self.path("tls/coordinator"));
        self.lab.namespace.spawn(command)
    }
}
