//! A gateway node: real nginx with Lua handlers, real load.
//!
//! In: a place (this machine's loopback or a namespace). Out: a running nginx that answers, its workers'
//! pids, what its Lua functions truly cost, and bounded load from wrk.
//! Never: the machine's own nginx or its configuration: everything lies in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::namespace::NetNamespace;
use crate::process::{Child, Finished};
use crate::procfs::{self, Pid};
use crate::requirements;

mod files;
mod load;

pub(crate) use files::files;
pub use load::{Load, LoadReport};

const START_DEADLINE: Duration = Duration::from_secs(15);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Where a gateway in a namespace sees its folder.
const HOST_DIR: &str = "/srv";
/// Of the arguments the first is mounted at the second; the rest is what is run.
const MOUNT_AND_BECOME: &str = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;

/// Where a gateway listens.
#[derive(Clone, Copy, Debug)]
pub enum GatewayPlace<'ns> {
    /// On this machine's loopback, at a free port.
    Here,
    /// In a namespace, at an address and port that it has. Its files lie where those of every other host do, so that
    /// hosts can be compared: each has mounts of its own.
    Inside(&'ns NetNamespace, SocketAddr),
}

/// A running nginx. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct Gateway<'ns> {
    place: GatewayPlace<'ns>,
    address: SocketAddr,
    workers: usize,
    nginx: Child,
    dir: tempfile::TempDir,
}

impl<'ns> Gateway<'ns> {
    /// Starts nginx with two workers and waits until it answers.
    pub fn start(place: GatewayPlace<'ns>) -> Result<Self> {
        Self::start_with_workers(place, 2)
    }

    /// Starts nginx with `workers` workers and waits until it answers.
    pub fn start_with_workers(place: GatewayPlace<'ns>, workers: usize) -> Result<Self> {
        requirements::root()?;
        let nginx = requirements::command("nginx")?;
        check_packages()?;
        let address = match place {
            GatewayPlace::Here => free_port()?,
            GatewayPlace::Inside(_, address) => address,
        };
        let dir = tempfile::Builder::new()
            .prefix("fleetflame-gateway-")
            .tempdir()?;
        let seen = match place {
            GatewayPlace::Here => dir.path(),
            GatewayPlace::Inside(..) => Path::new(HOST_DIR),
        };
        files::write(dir.path(), seen, address, workers)?;
        let mut command = match place {
            GatewayPlace::Here => Command::new(nginx),
            // Mounts of its own, and then it becomes nginx: the process stays the same.
            GatewayPlace::Inside(..) => {
                let mut command = Command::new(requirements::command("unshare")?);
                command.args(["--mount", "sh", "-c", MOUNT_AND_BECOME, "sh"]);
                command.arg(dir.path()).arg(HOST_DIR).arg(nginx);
                command
            }
        };
        command
            .arg("-p")
            .arg(seen)
            .arg("-c")
            .arg(seen.join("nginx.conf"));
        let nginx = match place {
            GatewayPlace::Here => Child::spawn(command)?,
            GatewayPlace::Inside(namespace, _) => namespace.spawn(command)?,
        };
        let mut gateway = Self {
            place,
            address,
            workers,
            nginx,
            dir,
        };
        gateway.wait_until_it_answers()?;
        Ok(gateway)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The master's process id.
    pub fn master(&self) -> Pid {
        self.nginx.pid()
    }

    /// The workers' process ids, those that shut down after a reload included.
    pub fn worker_pids(&self) -> Vec<Pid> {
        procfs::descendants(self.master())
    }

    /// The folder with its configuration and Lua sources.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The body of `GET path`; an error unless the answer is 200.
    pub fn get(&self, path: &str) -> Result<String> {
        match self.place {
            GatewayPlace::Here => get(self.address, path),
            GatewayPlace::Inside(namespace, _) => namespace.enter(|| get(self.address, path)),
        }
    }

    /// Starts wrk against `path`: `connections` connections for `duration` (whole seconds).
    pub fn load(&self, path: &str, connections: u32, duration: Duration) -> Result<Load> {
        let wrk = load::command(self.address, path, connections, duration)?;
        let child = match self.place {
            GatewayPlace::Here => Child::spawn(wrk)?,
            GatewayPlace::Inside(namespace, _) => namespace.spawn(wrk)?,
        };
        Ok(Load::new(child, duration))
    }

    /// Asks for `path` at an even rate as long as `wanted` holds, and says how many answers came: what hosts of one
    /// cluster are compared under. What is late is made up for, so that a slow gateway answers as many as a fast one.
    pub fn pace(&self, path: &str, per_s: u32, wanted: impl Fn() -> bool + Send) -> Result<u64> {
        let ask = || get(self.address, path);
        match self.place {
            GatewayPlace::Here => load::pace(per_s, wanted, ask),
            GatewayPlace::Inside(namespace, _) => {
                namespace.enter(|| load::pace(per_s, wanted, ask))
            }
        }
    }

    /// CPU seconds of each Lua function since the start or the last [`Self::reset_truth`], all workers together.
    pub fn truth(&self) -> Result<BTreeMap<String, f64>> {
        self.ask_every_worker("/truth")
    }

    /// Sets the workers' own measurement back to zero.
    pub fn reset_truth(&self) -> Result<()> {
        self.ask_every_worker("/truth?reset=1").map(drop)
    }

    /// Makes nginx read its configuration again (HUP): new workers start, old ones finish and go.
    pub fn reload(&self) -> Result<()> {
        let old = self.worker_pids();
        self.nginx.signal(Signal::SIGHUP)?;
        let end = Instant::now() + START_DEADLINE;
        while self
            .worker_pids()
            .iter()
            .filter(|pid| !old.contains(pid))
            .count()
            < self.workers
        {
            ensure!(
                Instant::now() < end,
                "nginx started no new workers: {}",
                self.error_log()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Lets nginx end in its own time (QUIT).
    pub fn stop(self) -> Result<Finished> {
        self.nginx.signal(Signal::SIGQUIT)?;
        let Self { nginx, dir, .. } = self;
        let finished = nginx.finish(START_DEADLINE)?;
        dir.close()?;
        Ok(finished)
    }

    /// The kernel picks the worker that answers, so it is asked until each of them has.
    fn ask_every_worker(&self, path: &str) -> Result<BTreeMap<String, f64>> {
        let workers = self.worker_pids();
        let mut by_worker = BTreeMap::<Pid, String>::new();
        let end = Instant::now() + ANSWER_DEADLINE;
        while workers.iter().any(|pid| !by_worker.contains_key(pid)) {
            ensure!(
                Instant::now() < end,
                "of {workers:?} only {:?} answer",
                by_worker.keys()
            );
            let answer = self.get(path)?;
            let pid = answer
                .split_ascii_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok());
            by_worker
                .entry(pid.context("the answer names no worker")?)
                .or_insert(answer);
        }
        let mut seconds = BTreeMap::new();
        for line in by_worker.values().flat_map(|answer| answer.lines()) {
            if let [_, name, value] = line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
                *seconds.entry(name.to_owned()).or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        Ok(seconds)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.nginx.ended()? {
                bail!(
                    "nginx ended ({status}): {}{}",
                    self.nginx.stderr(),
                    self.error_log()
                );
            }
            match self.get("/plain") {
                Ok(_) if self.worker_pids().len() == self.workers => return Ok(()),
                Err(error) if Instant::now() >= end => return Err(error.context(self.error_log())),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn error_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }
}

/// Fails unless nginx's modules and libraries are there.
pub(crate) fn check_packages() -> Result<()> {
    for (file, package) in [
        (
            "/usr/lib/nginx/modules/ngx_http_lua_module.so",
            "libnginx-mod-http-lua",
        ),
        ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
        (
            &format!(
                "/usr/lib/{}-linux-gnu/lua/5.1/cjson.so",
                std::env::consts::ARCH
            ),
            "lua-cjson",
        ),
    ] {
        requirements::file(Path::new(file), package)?;
    }
    Ok(())
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(
        status == "200",
        "GET {path}: {}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.to_owned())
}
