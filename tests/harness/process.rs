//! Processes that end with the test.
//!
//! In: a `Command`. Out: a [`Child`] with its output in bounded buffers and every wait under a deadline.
//! Never: a signal by name or pattern, nor to a process that this test did not start.
//!
//! A child gets its own process group and a mark in its environment. Dropping it kills the group, its
//! descendants, and whatever carries the mark: also what changed session, group and parent.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid as NixPid;

use crate::procfs::{self, Identity, Pid};

mod captured;

use captured::Captured;

/// The environment variable that marks a child and everything it starts.
pub const MARK: &str = "FLEETFLAME_TEST_MARK";
const POLL: Duration = Duration::from_millis(5);
/// How long the dead may take to disappear.
const DEATH: Duration = Duration::from_secs(5);

/// A running program with captured output. Dropping it leaves no process behind.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    program: String,
    mark: String,
    stdout: Captured,
    stderr: Captured,
}

/// How a child ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output (its end, when it was very long).
    pub stdout: String,
    /// Standard error (likewise).
    pub stderr: String,
}

impl Child {
    /// Starts `command` with stdin from /dev/null, in the network namespace of the calling thread.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::start(command)
    }

    /// Starts `command` with its stdin in the caller's hand; dropping that is the end of file.
    pub fn spawn_with_stdin(mut command: Command) -> Result<(Self, ChildStdin)> {
        command.stdin(Stdio::piped());
        let mut child = Self::start(command)?;
        let stdin = child.child.stdin.take().context("no stdin pipe")?;
        Ok((child, stdin))
    }

    fn start(mut command: Command) -> Result<Self> {
        static ORDINAL: AtomicU64 = AtomicU64::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(Self::sweep);
        let own = Identity::of(std::process::id().cast_signed()).context("no /proc")?;
        let ordinal = ORDINAL.fetch_add(1, Ordering::Relaxed);
        // The last dot tells child 1 from child 10.
        let value = format!("{}.{}.{ordinal}.", own.pid, own.start_ticks);
        let mark = format!("{MARK}={value}");
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .process_group(0)
            .env(MARK, value)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = Captured::from(child.stdout.take());
        let stderr = Captured::from(child.stderr.take());
        Ok(Self {
            child,
            program,
            mark,
            stdout,
            stderr,
        })
    }

    /// Kills the children of test processes that were killed before they could do it themselves. Starting
    /// the first child of a process does this.
    pub fn sweep() {
        let orphaned =
            |pid: &Pid| procfs::start_variable(*pid, MARK).is_some_and(|v| owner_is_gone(&v));
        let orphans = || {
            procfs::find_ours(&format!("{MARK}="))
                .into_iter()
                .filter(orphaned)
        };
        end_all(Vec::new(), || orphans().filter_map(Identity::of).collect());
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.child.id().cast_signed()
    }

    /// The mark that this child's whole family carries: an argument for [`procfs::find_ours`].
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Sends `signal` to this one process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(NixPid::from_raw(self.pid()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.program))
    }

    /// Kills this one process as the kernel's out-of-memory killer would: no warning, children left alone.
    pub fn kill_alone(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end; an error that quotes stderr when `deadline` passes first. It is not killed then.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} (pid {}) still runs after {deadline:?}; stderr: {}",
                    self.program,
                    self.pid(),
                    self.stderr()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end and for the last of the output.
    pub fn finish(mut self, deadline: Duration) -> Result<Finished> {
        let end = Instant::now() + deadline;
        let status = self.wait(deadline)?;
        // A grandchild may hold the pipes open: then what has come so far is the output.
        let grace = end
            .saturating_duration_since(Instant::now())
            .min(Duration::from_secs(1));
        self.stdout.wait_closed(grace);
        self.stderr.wait_closed(grace);
        Ok(Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    /// Waits until a line of stdout contains `text`, and returns the line.
    pub fn wait_for_stdout(&mut self, text: &str, deadline: Duration) -> Result<String> {
        self.wait_for_line(text, deadline, |child| &child.stdout)
    }

    /// Waits until a line of stderr contains `text`, and returns the line.
    pub fn wait_for_stderr(&mut self, text: &str, deadline: Duration) -> Result<String> {
        self.wait_for_line(text, deadline, |child| &child.stderr)
    }

    fn wait_for_line(
        &mut self,
        text: &str,
        deadline: Duration,
        stream: fn(&Self) -> &Captured,
    ) -> Result<String> {
        let end = Instant::now() + deadline;
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                stream(self).wait_closed(Duration::from_millis(200));
            }
            if let Some(line) = stream(self).text().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!(
                    "{} ended ({status}) without {text:?}: {}",
                    self.program,
                    self.stderr()
                );
            }
            if Instant::now() >= end {
                bail!(
                    "{} did not say {text:?} within {deadline:?}: {}",
                    self.program,
                    self.stderr()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Standard output so far, as bytes.
    pub fn stdout_bytes(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    /// Everything alive that descends from this child or carries its mark, without the child itself.
    pub fn family(&self) -> Vec<Pid> {
        let mut family: Vec<Pid> = procfs::descendants(self.pid())
            .into_iter()
            .chain(procfs::find_ours(&self.mark))
            .filter(|&pid| pid != self.pid())
            .filter(|&pid| Identity::of(pid).is_some_and(|process| process.alive()))
            .collect();
        family.sort_unstable();
        family.dedup();
        family
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let family: Vec<Identity> = self.family().into_iter().filter_map(Identity::of).collect();
        // Once the leader is reaped its number may belong to a stranger's group, so only before that.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(NixPid::from_raw(self.pid()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        let left = end_all(family, || {
            procfs::find_ours(&self.mark)
                .into_iter()
                .filter_map(Identity::of)
                .collect()
        });
        if !left.is_empty() && !thread::panicking() {
            panic!("processes of {} survive SIGKILL: {left:?}", self.program);
        }
    }
}

/// Whether the test process that wrote this mark has ended.
fn owner_is_gone(mark: &str) -> bool {
    let mut numbers = mark.split('.');
    let pid = numbers.next().and_then(|pid| pid.parse().ok());
    let start_ticks = numbers.next().and_then(|ticks| ticks.parse().ok());
    let owner = pid
        .zip(start_ticks)
        .map(|(pid, start_ticks)| Identity { pid, start_ticks });
    owner.is_some_and(|owner| !owner.alive())
}

/// Kills `known` and whatever `find` still finds, until neither is left; returns those that would not die.
pub(crate) fn end_all(known: Vec<Identity>, find: impl Fn() -> Vec<Identity>) -> Vec<Identity> {
    let end = Instant::now() + DEATH;
    loop {
        let mut left: Vec<Identity> = known.iter().copied().chain(find()).collect();
        left.retain(Identity::alive);
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        for process in left {
            let _ = kill(NixPid::from_raw(process.pid), Signal::SIGKILL);
        }
        thread::sleep(POLL);
    }
}
