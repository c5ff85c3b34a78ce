//! A guest: a virtual machine that boots, obeys, and ends with the test.
//!
//! In: commands, files, signals. Out: their outcome, and what is loaded and running in the guest. Never: a
//! wait without a deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::image::{GATEWAY, GATEWAY_ADDRESS, GuestSetup};
use super::kit::Kit;
use super::machine::Machine;
use super::remote::{Output, RemoteChild};
use super::{AGENT_PORT, DOOR_PORT};
use crate::namespace::NetNamespace;

/// For what takes a moment on a quiet machine.
const SOON: Duration = Duration::from_mins(3);
/// How long a gateway may take to answer its first request.
const GATEWAY_DEADLINE: Duration = Duration::from_mins(2);
/// Programs of SystemTap's, and ours.
const CAPTURING: [&str; 4] = ["stap", "staprun", "stapio", "fleetflame-agen"];

/// See the module.
#[derive(Debug)]
pub struct Guest {
    /// `lab-0`, `lab-1`, …
    pub name: String,
    machine: Machine,
    agent_port: u16,
    door: SocketAddr,
    /// Dropped last: QEMU lives in it.
    namespace: Arc<NetNamespace>,
}

/// A line of `/proc/modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// Its name.
    pub name: String,
    /// How many hold it: 1 while stapio has it open, 0 when its stapio is gone.
    pub users: u32,
}

impl Guest {
    /// Starts the guest with the given number; it does not obey yet.
    pub(super) fn boot(
        kit: &Kit,
        namespace: &Arc<NetNamespace>,
        number: usize,
        setup: &GuestSetup,
    ) -> Result<Self> {
        let name = format!("lab-{number}");
        let offset = u16::try_from(number)?;
        let (door_port, agent_port) = (DOOR_PORT + offset, AGENT_PORT + offset);
        let root = setup.root(kit, &name)?;
        Ok(Self {
            name,
            machine: Machine::start(kit, namespace, &root, [door_port, agent_port], setup)?,
            agent_port,
            door: (Ipv4Addr::LOCALHOST, door_port).into(),
            namespace: Arc::clone(namespace),
        })
    }

    /// Waits for the end of the boot.
    pub(super) fn wait_until_it_obeys(mut self) -> Result<Self> {
        self.machine.wait_until_ready(&self.namespace)?;
        self.sh("true", SOON)?;
        Ok(self)
    }

    /// How long its boot took.
    pub fn boot_time(&self) -> Duration {
        self.machine.boot_time()
    }

    /// `ADDRESS:PORT` of its agent, seen from the lab's namespace; in the guest an agent listens on
    /// [`super::AGENT_ADDRESS`] and [`super::AGENT_PORT`].
    pub fn agent_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.agent_port).into()
    }

    /// Starts a command: the program and its arguments, no shell.
    pub fn start(&self, arguments: &[&str]) -> Result<RemoteChild> {
        RemoteChild::start(&self.namespace, self.door, arguments, b"")
    }

    /// Runs a command to its end, whatever its exit code.
    pub fn run(&self, arguments: &[&str], deadline: Duration) -> Result<Output> {
        self.start(arguments)?.finish(deadline)
    }

    /// Runs a line of shell that must succeed, and gives its standard output.
    pub fn sh(&self, line: &str, deadline: Duration) -> Result<String> {
        let output = self.run(&["/bin/sh", "-c", line], deadline)?;
        ensure!(
            output.status.success(),
            "`{line}` in {} failed ({}): {}{}",
            self.name,
            output.status,
            output.stdout(),
            output.stderr()
        );
        Ok(output.stdout())
    }

    /// Puts a file; its folder is made.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let script = "mkdir -p \"${0%/*}\" && cat >\"$0\"";
        let arguments = ["/bin/sh", "-c", script, path];
        let child = RemoteChild::start(&self.namespace, self.door, &arguments, content)?;
        let output = child.finish(SOON)?;
        ensure!(
            output.status.success(),
            "putting {path}: {}",
            output.stderr()
        );
        Ok(())
    }

    /// Puts a file of this machine.
    pub fn put_file(&self, here: &Path, there: &str) -> Result<()> {
        let content = std::fs::read(here).with_context(|| here.display().to_string())?;
        self.put(there, &content)
    }

    /// Gets a file.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(&["/bin/cat", path], SOON)?;
        ensure!(
            output.status.success(),
            "getting {path}: {}",
            output.stderr()
        );
        Ok(output.stdout)
    }

    /// Sends a signal to a process of the guest.
    pub fn signal(&self, pid: i32, signal: &str) -> Result<()> {
        self.sh(&format!("kill -{signal} {pid}"), SOON).map(drop)
    }

    /// The modules that were not there when the guest had booted.
    pub fn modules(&self) -> Result<Vec<LoadedModule>> {
        Ok(read_modules(
            &self.sh("cat /proc/modules", SOON)?,
            &self.sh("cat /lab/loaded", SOON)?,
        ))
    }

    /// Processes by the name that the kernel knows them by (15 bytes of it at most).
    pub fn pids_of(&self, comm: &str) -> Result<Vec<i32>> {
        Ok(self
            .processes()?
            .into_iter()
            .filter(|(_, name)| name == comm)
            .map(|(pid, _)| pid)
            .collect())
    }

    /// What of a capture is still there: modules, and processes of SystemTap's or ours.
    pub fn left_behind(&self) -> Result<Vec<String>> {
        let modules = self.modules()?.into_iter();
        let mut left: Vec<String> = modules
            .map(|module| format!("module {} (users: {})", module.name, module.users))
            .collect();
        for (pid, name) in self.processes()? {
            if CAPTURING.contains(&name.as_str()) {
                left.push(format!("process {pid} ({name})"));
            }
        }
        Ok(left)
    }

    /// Waits until nothing of a capture is left; an error that says what is.
    pub fn wait_until_clean(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let left = self.left_behind()?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("after {deadline:?} {} still has {left:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Starts nginx with the harness's Lua handlers, one worker, on [`GATEWAY_ADDRESS`]; gives the worker's
    /// process id. The guest must have been set up with a gateway.
    pub fn start_gateway(&self) -> Result<(RemoteChild, i32)> {
        let conf = format!("{GATEWAY}/nginx.conf");
        let nginx = self.start(&["/usr/sbin/nginx", "-p", GATEWAY, "-c", &conf])?;
        let end = Instant::now() + GATEWAY_DEADLINE;
        loop {
            match self.ask_gateway("/plain") {
                Ok(_) => break,
                Err(error) if nginx.ended().is_some() || Instant::now() >= end => {
                    bail!(
                        "nginx does not answer: {error:#}; it says: {}",
                        nginx.stderr()
                    );
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        let master = nginx.pid()?;
        let worker = self
            .pids_of("nginx")?
            .into_iter()
            .find(|&pid| pid != master);
        Ok((nginx, worker.context("nginx has no worker")?))
    }

    /// What its gateway answers.
    pub fn ask_gateway(&self, path: &str) -> Result<String> {
        let ask = format!("wget -q -O - 'http://{GATEWAY_ADDRESS}{path}'");
        self.sh(&ask, SOON)
    }

    /// Starts wrk in the guest against `path` of its gateway, for whole seconds.
    pub fn load_gateway(&self, path: &str, duration_s: u32) -> Result<RemoteChild> {
        let url = format!("http://{GATEWAY_ADDRESS}{path}");
        self.start(&[
            "/usr/bin/wrk",
            "-t",
            "1",
            "-c",
            "4",
            "-d",
            &format!("{duration_s}s"),
            &url,
        ])
    }

    /// Pulls (`false`) or plugs (`true`) the cable of the network that agents are reached by. Commands go on.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.machine.set_link(up)
    }

    /// What the console has shown since the boot.
    pub fn console(&self) -> String {
        self.machine.console()
    }

    /// What the console shows, where the readers of SystemTap wait and what its modules say, for the message of a
    /// test that waited in vain. A guest that does nothing more cannot be asked: then the console alone.
    pub fn reader_state(&self) -> String {
        let asked = self.sh(
            "for t in /proc/[0-9]*/task/*; do read -r comm <$t/comm || continue; \
             case $comm in stap*) echo \"$t $comm\"; grep State $t/status; cat $t/wchan; echo; cat $t/stack $t/syscall;; esac; \
             done; lsmod 2>/dev/null; ls -l /sys/kernel/debug/systemtap/* /proc/systemtap/* 2>&1; true",
            SOON,
        );
        let readers = asked.unwrap_or_else(|error| format!("{error:#}"));
        format!("console: {}\nreaders: {readers}", self.console())
    }

    /// Fails when the kernel has complained about itself: an oops, a lockup, a warning.
    pub fn check_kernel(&self) -> Result<()> {
        let complaints = self.machine.complaints();
        ensure!(
            complaints.is_empty(),
            "the kernel of {} complains: {complaints:#?}\n{}",
            self.name,
            self.console()
        );
        Ok(())
    }

    /// Ends it as a power cut does. (Dropping it does the same.)
    pub fn kill(self) -> Result<()> {
        self.machine.kill()
    }

    fn processes(&self) -> Result<Vec<(i32, String)>> {
        // A process that ends meanwhile has no file; a zombie runs no more.
        let script = "for p in /proc/[0-9]*; do read -r s <$p/stat && case ${s##*) } in Z*) ;; *) \
                      read -r c <$p/comm && echo \"${p#/proc/} $c\";; esac; done 2>/dev/null; true";
        let listed = self.sh(script, SOON)?;
        let line = |line: &str| {
            let (pid, name) = line.split_once(' ')?;
            Some((pid.parse().ok()?, name.to_owned()))
        };
        Ok(listed.lines().filter_map(line).collect())
    }
}

/// Lines `NAME SIZE USERS …`, without the names in `before`.
fn read_modules(now: &str, before: &str) -> Vec<LoadedModule> {
    let module = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some(LoadedModule {
            name: words.next()?.to_owned(),
            users: words.nth(1)?.parse().ok()?,
        })
    };
    now.lines()
        .filter_map(module)
        .filter(|module| before.lines().all(|name| name != module.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_boot_do_not_count() {
        let now = "sbt 667648 1 - Live 0x0 (OE)\nvirtio_net 1 0 - Live 0x0\n";
        let expected = LoadedModule {
            name: "sbt".into(),
            users: 1,
        };
        assert_eq!(read_modules(now, "virtio_net\nvirtio\n"), [expected]);
    }
}
