//! A fleet of hosts that have sshd and nothing else: each with a network, a home, folders and an /etc of
//! its own, and an operator with keys, known hosts and an ssh_config.
//!
//! In: hosts, and what is odd about each. Out: running sshd's, the operator's files, and what is left on a
//! host after a run. Never: the machine's own sshd, keys, known hosts or ssh_config; nothing of a host
//! lies outside of the fleet's folder.
//!
//! Processes are the only thing that hosts share: a capture names its targets by process id.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::Binaries;
use crate::fabric::{Fabric, FabricHost};
use crate::link::{Link, LinkConditions};
use crate::namespace::NetNamespace;
use crate::process::Child;
use crate::procfs::{self, Identity, Pid};
use crate::requirements;
use crate::time_shift::TimeShift;

const READY: Duration = Duration::from_secs(20);
/// A debug build uses more CPU than the default policy lets it.
const POLICY: &str =
    "version: 1\nengines: [native, simulated]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";
const JOB: &str = "version: 1\ntitle: e2e\narm_timeout: 40s\nbudgets:\n  cpu_pct_max: 100\n";
/// Folders of a host that are its own, and where they are mounted.
const OWN: &[(&str, &str)] = &[
    ("home", "/root"),
    ("var-tmp", "/var/tmp"),
    ("shm", "/dev/shm"),
    ("run", "/run"),
];
/// What a host has there before any agent comes.
/// (`run/mount` is mount's own.)
const FURNITURE: &[&str] = &["home/.bashrc", "run/sshd", "run/mount", "run/mount/utab"];
/// What sudo remembers of a login is sudo's.
const SUDO: &str = "run/sudo";

/// What is odd about a host.
#[derive(Clone, Debug, Default)]
pub struct SshSetup {
    /// Lines of its .bashrc.
    pub bashrc: String,
    /// More lines of its sshd_config.
    pub sshd: String,
    /// Folders (of home, var-tmp, shm, run) where no program can be run.
    pub noexec: Vec<&'static str>,
    /// Only this other host (by number) reaches it.
    pub behind: Option<usize>,
    /// known_hosts has another host's key for it.
    pub wrong_key: bool,
    /// known_hosts does not have it.
    pub unknown_key: bool,
    /// It has never heard of the operator's key.
    pub refuses_key: bool,
    /// Its policy, when not the one of all others.
    pub policy: Option<String>,
    /// Shell commands that are run in it before sshd, with its own /etc.
    pub prepare: String,
    /// Its clocks count from another boot.
    pub shift: Option<TimeShift>,
    /// Lines of its section in the operator's ssh_config; they come before all others, and so count.
    pub config: String,
}

/// One host.
#[derive(Debug)]
pub struct SshHost {
    /// Its alias in ssh_config.
    pub name: String,
    /// Its sshd.
    pub sshd: Child,
    /// Its own folders, by the names of [`OWN`].
    pub folder: PathBuf,
    number: usize,
    #[expect(dead_code, reason = "the link lives as long as the host")]
    inner: Option<Link>,
}

/// See the module.
#[derive(Debug)]
pub struct SshFleet {
    /// The hosts, in order; their programs end before their networks do.
    pub hosts: Vec<SshHost>,
    /// The networks.
    pub fabric: Fabric,
    /// The operator's agent: without symbols, as it would be sent.
    pub agent: PathBuf,
    stage: tempfile::TempDir,
}

impl SshFleet {
    /// Starts hosts, each with its oddities.
    pub fn start(hosts: &[(&str, SshSetup)], conditions: LinkConditions) -> Result<Self> {
        let fabric = Fabric::new(hosts.len(), conditions)?;
        let stage = tempfile::Builder::new()
            .prefix("fleetflame-ssh-")
            .tempdir()?;
        // A login that is not root must reach its authorized keys; private keys are 0600.
        fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o711))?;
        let agent = stripped_agent(stage.path())?;
        let mut fleet = Self {
            hosts: Vec::new(),
            fabric,
            agent,
            stage,
        };
        fleet.key("operator")?;
        fleet.key("stranger")?;
        let mut config = String::new();
        for (number, (name, setup)) in hosts.iter().enumerate() {
            let host = fleet.start_host(number, name, setup)?;
            config.push_str(&fleet.section(&host, setup)?);
            fleet.hosts.push(host);
        }
        fs::write(fleet.path("ssh_config"), config)?;
        Ok(fleet)
    }

    /// The agent that fleets send, in a folder that goes with the first part.
    pub fn agent_to_send() -> Result<(tempfile::TempDir, PathBuf)> {
        let stage = tempfile::tempdir()?;
        let agent = stripped_agent(stage.path())?;
        Ok((stage, agent))
    }

    /// A path in the fleet's private folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path().join(name)
    }

    /// The network of a host.
    pub fn network(&self, number: usize) -> &FabricHost {
        &self.fabric.hosts[number]
    }

    /// `fleetflame VERB …` with the operator's ssh_config and agent, run as the operator does: with
    /// temporary files of its own.
    pub fn coordinator(&self, verb: &str) -> Result<Command> {
        let mut command = Binaries::find()?.coordinator();
        command.args([verb, "--json", "--ssh-config"]);
        command.arg(self.path("ssh_config"));
        command.arg("--agent-binary").arg(&self.agent);
        let temporary = self.temporary();
        fs::create_dir_all(&temporary)?;
        command.env("TMPDIR", temporary);
        command.env_remove("XDG_RUNTIME_DIR");
        Ok(command)
    }

    /// Where the operator's control sockets are.
    pub fn temporary(&self) -> PathBuf {
        self.path("t")
    }

    /// Starts the capture of a job over all hosts; `body` adds what the story asks for, `targets` gives
    /// each host its own.
    pub fn capture(&self, body: &str, targets: &[Vec<Pid>], out: &Path) -> Result<Child> {
        let mut text = format!("{JOB}{body}\ntargets: [\"pid:1\"]\nhosts:\n");
        for host in &self.hosts {
            text.push_str(&format!("  - {{name: {0}, ssh: {0}", host.name));
            let pids = targets.get(host.number).filter(|pids| !pids.is_empty());
            if let Some(pids) = pids {
                let words: Vec<String> = pids.iter().map(|p| format!("\"pid:{p}\"")).collect();
                text.push_str(&format!(", targets: [{}]", words.join(", ")));
            }
            text.push_str("}\n");
        }
        let job = self.path("job.yaml");
        fs::write(&job, text)?;
        let mut command = self.coordinator("capture")?;
        command.arg(&job).arg("--out").arg(out);
        self.fabric.coordinator.spawn(command)
    }

    fn key(&self, name: &str) -> Result<()> {
        let mut command = Command::new(requirements::command("ssh-keygen")?);
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        command.arg(self.path(name));
        let done = Child::spawn(command)?.finish(READY)?;
        ensure!(done.status.success(), "ssh-keygen: {}", done.stderr);
        Ok(())
    }

    fn public_key(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.path(name).with_extension("pub"))?;
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        Ok(words.join(" "))
    }

    fn start_host(&self, number: usize, name: &str, setup: &SshSetup) -> Result<SshHost> {
        let folder = self.path(name);
        for (own, _) in OWN {
            fs::create_dir_all(folder.join(own))?;
        }
        fs::create_dir_all(folder.join("run/sshd"))?;
        for part in ["etc-upper", "etc-work"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::set_permissions(folder.join("var-tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::set_permissions(folder.join("shm"), fs::Permissions::from_mode(0o1777))?;
        fs::write(folder.join("home/.bashrc"), &setup.bashrc)?;
        let host_key = format!("{name}-host");
        self.key(&host_key)?;
        let known_to = if setup.refuses_key {
            "stranger"
        } else {
            "operator"
        };
        let authorized = folder.join("authorized_keys");
        fs::write(&authorized, self.public_key(known_to)?)?;
        let address = self.inner_address(number, setup);
        let mut conf = format!(
            "Port 22\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n\
             UseDNS no\n",
            self.path(&host_key).display(),
            authorized.display(),
        );
        conf.push_str(&setup.sshd);
        fs::write(folder.join("sshd_config"), conf)?;
        let inner = match setup.behind {
            Some(gate) => Some(self.inner_link(gate, number)?),
            None => None,
        };
        let mut command = self.boxed(&folder, setup)?;
        if let Some(shift) = setup.shift {
            command = shift.wrap(command)?;
        }
        let mut sshd = self.network(number).namespace.spawn(command)?;
        sshd.wait_for_stderr("Server listening on", READY)?;
        Ok(SshHost {
            name: name.to_owned(),
            sshd,
            folder,
            number,
            inner,
        })
    }

    /// sshd in a mount namespace where the host's folders stand in the place of the machine's.
    fn boxed(&self, folder: &Path, setup: &SshSetup) -> Result<Command> {
        let (at, sshd) = (folder.display(), requirements::command("sshd")?);
        let policy = setup.policy.as_deref().unwrap_or(POLICY);
        let mut script = format!(
            "set -e\nmount -t overlay overlay -o lowerdir=/etc,upperdir={at}/etc-upper,workdir={at}/etc-work /etc\n\
             mkdir -p /etc/fleetflame\nprintf '%s' '{policy}' > /etc/fleetflame/policy.yaml\n"
        );
        for (own, place) in OWN {
            script.push_str(&format!("mount --bind {at}/{own} {place}\n"));
            if setup.noexec.contains(own) {
                script.push_str(&format!("mount -o remount,bind,noexec {place}\n"));
            }
        }
        script.push_str(&format!(
            "{}\nexec {} -D -e -f {at}/sshd_config\n",
            setup.prepare,
            sshd.display()
        ));
        let mut command = Command::new(requirements::command("unshare")?);
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        Ok(command)
    }

    /// Where a host listens: on its link to the coordinator, or on one that only its gate has.
    fn inner_address(&self, number: usize, setup: &SshSetup) -> Ipv4Addr {
        match setup.behind {
            Some(_) => inner(number).1,
            None => self.network(number).address,
        }
    }

    fn inner_link(&self, gate: usize, number: usize) -> Result<Link> {
        let (a, b) = inner(number);
        Link::between(
            &self.network(gate).namespace,
            IpAddr::V4(a),
            &self.network(number).namespace,
            IpAddr::V4(b),
            LinkConditions::default(),
        )
    }

    /// A host's lines in ssh_config, and its key in known_hosts.
    fn section(&self, host: &SshHost, setup: &SshSetup) -> Result<String> {
        let address = self.inner_address(host.number, setup);
        let known_hosts = self.path("known_hosts");
        if !setup.unknown_key {
            let own = format!("{}-host", host.name);
            let key = if setup.wrong_key { "stranger" } else { &own };
            let mut text = fs::read_to_string(&known_hosts).unwrap_or_default();
            text.push_str(&format!("{address} {}\n", self.public_key(key)?));
            fs::write(&known_hosts, text)?;
        }
        let mut section = format!(
            "Host {}\n{}  HostName {address}\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            host.name,
            setup.config,
            self.path("operator").display(),
            known_hosts.display(),
        );
        if let Some(gate) = setup.behind {
            let gate = self.hosts.get(gate).context("the gate is started first")?;
            section.push_str(&format!("  ProxyJump {}\n", gate.name));
        }
        Ok(section)
    }

    /// Waits until nothing of ours is left, neither on a host nor on the operator's side; else tells what.
    pub fn wait_clean(&self, deadline: Duration) -> Result<Duration> {
        wait_empty(deadline, || self.left())
    }

    /// Waits until nothing of ours is left on one host.
    pub fn wait_clean_on(&self, number: usize, deadline: Duration) -> Result<Duration> {
        wait_empty(deadline, || self.left_on(&self.hosts[number]))
    }

    /// What is left: files and processes on hosts, ssh masters here.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self.hosts.iter().flat_map(|h| self.left_on(h)).collect();
        let alive = |pid: &Pid| Identity::of(*pid).is_some_and(|process| process.alive());
        let here = self.fabric.coordinator.pids().into_iter().filter(alive);
        left.extend(here.map(|pid| format!("operator: process {pid} {}", line_of(pid))));
        left
    }

    fn left_on(&self, host: &SshHost) -> Vec<String> {
        let files = host.files();
        let files = files.iter().map(|file| format!("{}:{file}", host.name));
        let agents = self.agents(host.number);
        let agents = agents
            .iter()
            .map(|pid| format!("{}: process {pid} {}", host.name, line_of(*pid)));
        files.chain(agents).collect()
    }

    /// Processes of agents on a host: whatever runs there from an agent's folder.
    pub fn agents(&self, number: usize) -> Vec<Pid> {
        let is_agent = |pid: &Pid| {
            let alive = Identity::of(*pid).is_some_and(|process| process.alive());
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let in_memory = program.to_string_lossy().starts_with("/memfd:agent");
            let named = procfs::comm(*pid).is_some_and(|comm| ["agent", "sleep"].contains(&&*comm));
            alive && (named || in_memory)
        };
        let pids = self.network(number).namespace.pids();
        pids.into_iter().filter(is_agent).collect()
    }
}

impl SshHost {
    /// Files below the host's own folders that were not there at first.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (own, _) in OWN {
            walk(&self.folder.join(own), &self.folder, &mut found);
        }
        found.retain(|file| !FURNITURE.contains(&&**file) && !file.starts_with(SUDO));
        found
    }
}

fn wait_empty(deadline: Duration, left: impl Fn() -> Vec<String>) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return Ok(began.elapsed());
        }
        if began.elapsed() >= deadline {
            bail!("after {deadline:?} there is still: {}", left.join(", "));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn walk(folder: &Path, base: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Ok(name) = path.strip_prefix(base) {
            found.push(name.display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, base, found);
        }
    }
}

/// A process's arguments.
fn line_of(pid: Pid) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
    line.chars().take(120).collect()
}

/// The two addresses of the network between a gate and the host behind it.
fn inner(number: usize) -> (Ipv4Addr, Ipv4Addr) {
    let third = u8::try_from(number).unwrap_or(u8::MAX);
    (
        Ipv4Addr::new(10, 88, third, 1),
        Ipv4Addr::new(10, 88, third, 2),
    )
}

/// The agent without symbols: a debug build has 30 MB of them, and it is sent to every host.
fn stripped_agent(stage: &Path) -> Result<PathBuf> {
    let path = stage.join("fleetflame-agent");
    let mut command = Command::new(requirements::command("strip")?);
    command.arg("-o").arg(&path).arg(&Binaries::find()?.agent);
    let done = Child::spawn(command)?.finish(READY)?;
    ensure!(done.status.success(), "strip: {}", done.stderr);
    Ok(path)
}

/// A namespace that a gateway can be started in, by host.
pub fn place(fleet: &SshFleet, number: usize) -> (&NetNamespace, std::net::SocketAddr) {
    let host = fleet.network(number);
    (&host.namespace, (host.address, 8_000).into())
}
