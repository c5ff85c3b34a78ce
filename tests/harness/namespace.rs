//! Network namespaces: hosts that share a kernel and no network.
//!
//! In: a hint for the name. Out: a named namespace with loopback up, and ways to run things in it.
//! Never: a change to the machine's own network, nor a signal to a process outside the namespace.
//!
//! A namespace is named after the test process, so a later run finds and removes what a killed one left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::{Child, end_all};
use crate::procfs::{self, Identity, Pid};
use crate::requirements;

const PREFIX: &str = "fleetflame";
const IP_DEADLINE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. Dropping it kills the processes in it and removes it.
#[derive(Debug)]
pub struct NetNamespace {
    name: String,
    file: File,
    /// Starts the programs. It lives as long as the namespace, because a child that asked for a
    /// signal at its parent's death gets it when the *thread* that started it ends.
    starter: Option<mpsc::Sender<Job>>,
}

impl NetNamespace {
    /// Makes a namespace whose name ends in `hint` (letters, digits and dashes).
    pub fn new(hint: &str) -> Result<Self> {
        static ORDINAL: AtomicU64 = AtomicU64::new(0);
        static SWEEP: Once = Once::new();
        requirements::root()?;
        SWEEP.call_once(Self::sweep);
        if !hint.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            bail!("{hint:?} cannot be part of a namespace's name");
        }
        let own = Identity::of(std::process::id().cast_signed()).context("no /proc")?;
        let ordinal = ORDINAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}.{}.{}.{ordinal}.{hint}", own.pid, own.start_ticks);
        ip(&["netns", "add", &name])?;
        let file = File::open(path(&name))?;
        let (starter, jobs) = mpsc::channel::<Job>();
        let inside = file.try_clone()?;
        thread::Builder::new()
            .name(format!("netns {hint}"))
            .spawn(move || {
                // Without its namespace the thread takes no job: programs must not start in the machine's own.
                if setns(&inside, CloneFlags::CLONE_NEWNET).is_ok() {
                    jobs.iter().for_each(|job| job());
                }
            })?;
        let namespace = Self {
            name,
            file,
            starter: Some(starter),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Removes the namespaces, and kills the processes in them, whose test process was killed before it could.
    /// [`Self::new`] does this once in a process.
    pub fn sweep() {
        let Ok(entries) = fs::read_dir("/run/netns") else {
            return;
        };
        for name in entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
        {
            if owner(&name).is_none_or(|owner| owner.alive()) {
                continue;
            }
            if let Ok(ns) = fs::metadata(path(&name)) {
                end_all(Vec::new(), || inhabitants(ns.dev(), ns.ino()));
            }
            let _ = ip(&["netns", "delete", &name]);
        }
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `inside` on a thread that is in this namespace: sockets made there belong to it for good.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("a namespace that exists");
                inside()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `command` in this namespace.
    pub fn spawn(&self, command: Command) -> Result<Child> {
        self.start(move || Child::spawn(command))
    }

    /// Starts `command` in this namespace with its stdin in the caller's hand.
    pub fn spawn_with_stdin(&self, command: Command) -> Result<(Child, ChildStdin)> {
        self.start(move || Child::spawn_with_stdin(command))
    }

    /// The processes in this namespace (not the threads of this one that entered it).
    pub fn pids(&self) -> Vec<Pid> {
        self.processes()
            .into_iter()
            .map(|process| process.pid)
            .collect()
    }

    /// Runs `ip` with `arguments` in this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut inside = vec!["-n", self.name.as_str()];
        inside.extend(arguments);
        ip(&inside)
    }

    fn start<T: Send + 'static>(
        &self,
        start: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = mpsc::channel();
        let job: Job = Box::new(move || drop(reply.send(start())));
        let starter = self.starter.as_ref().context("the namespace is closing")?;
        starter
            .send(job)
            .ok()
            .context("no thread could enter the namespace")?;
        answer
            .recv()
            .context("the thread in the namespace is gone")?
    }

    fn processes(&self) -> Vec<Identity> {
        self.file
            .metadata()
            .map(|own| inhabitants(own.dev(), own.ino()))
            .unwrap_or_default()
    }
}

impl Drop for NetNamespace {
    fn drop(&mut self) {
        self.starter = None;
        let left = end_all(Vec::new(), || self.processes());
        let deleted = ip(&["netns", "delete", &self.name]);
        if !thread::panicking() {
            assert!(
                left.is_empty(),
                "processes in {} survive SIGKILL: {left:?}",
                self.name
            );
            deleted.expect("a namespace can be deleted");
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn inhabitants(dev: u64, ino: u64) -> Vec<Identity> {
    let lives_there = |pid: &Pid| {
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|ns| ns.dev() == dev && ns.ino() == ino)
    };
    procfs::all()
        .into_iter()
        .filter(lives_there)
        .filter_map(Identity::of)
        .collect()
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(requirements::command("ip")?);
    command.args(arguments);
    let done = Child::spawn(command)?.finish(IP_DEADLINE)?;
    if !done.status.success() {
        bail!("ip {}: {}", arguments.join(" "), done.stderr.trim());
    }
    Ok(done.stdout)
}

/// The test process that a namespace's name tells of.
fn owner(name: &str) -> Option<Identity> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
    Some(Identity {
        pid: parts.next()?.parse().ok()?,
        start_ticks: parts.next()?.parse().ok()?,
    })
}
