//! The only room that starts children: own process group, INT before TERM before KILL, and a
//! keeper that outlives a killed agent.
//!
//! In: an argument list. Out: a child that can be stopped. Never: a shell, or a child without a
//! keeper.

mod ask;
mod detach;
pub mod folder;
mod keeper;

pub use ask::{Answer, ask};
pub use detach::{detached, leave_session, start_detached};
pub use keeper::keep;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// This program's own file; where it runs from memory, the kernel's name for it.
#[must_use]
pub fn own_program() -> PathBuf {
    let own = std::env::current_exe().ok().filter(|path| path.exists());
    own.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// What a child gets to end by itself after SIGINT.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts children.
#[derive(Debug)]
pub struct Processes {
    agent_program: Option<PathBuf>,
    keeper: Mutex<Option<keeper::Keeper>>,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    child: tokio::process::Child,
    group: Pid,
    /// Nothing of its group is left.
    is_gone: bool,
}

impl Processes {
    /// `agent_program` is this agent's own binary, which also is the keeper. Without it no child
    /// can be started.
    #[must_use]
    pub fn new(agent_program: Option<PathBuf>) -> Self {
        Self {
            agent_program,
            keeper: Mutex::new(None),
        }
    }

    /// Has the keeper remove `folder` when this agent is gone, however it goes.
    ///
    /// # Errors
    /// The operating system's, when the keeper cannot be started.
    pub async fn guard_folder(&self, folder: &Path) -> io::Result<()> {
        let mut keeper = self.keeper.lock().await;
        self.keeper(&mut keeper)?.guard(folder).await
    }

    /// Has the keeper unload the kernel module `name` by `staprun` when this agent is gone, however it goes.
    ///
    /// # Errors
    /// The operating system's, when the keeper cannot be started.
    pub async fn guard_module(&self, staprun: &Path, name: &str) -> io::Result<()> {
        let mut keeper = self.keeper.lock().await;
        self.keeper(&mut keeper)?.guard_module(staprun, name).await
    }

    /// The keeper, started when it is needed first.
    fn keeper<'k>(
        &self,
        keeper: &'k mut Option<keeper::Keeper>,
    ) -> io::Result<&'k mut keeper::Keeper> {
        match keeper {
            Some(keeper) => Ok(keeper),
            None => {
                let program = self
                    .agent_program
                    .as_ref()
                    .ok_or_else(|| io::Error::other("no keeper program is known"))?;
                Ok(keeper.insert(keeper::Keeper::start(program)?))
            }
        }
    }

    /// Starts `argv` in a process group of its own, with no input and its output thrown away.
    ///
    /// # Errors
    /// The operating system's, for the program or for the keeper.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door that children go through"
    )]
    pub async fn spawn(&self, argv: &[OsString]) -> io::Result<Child> {
        let (program, arguments) = split(argv)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.launch(command).await
    }

    /// Starts one stage of a pipeline in a process group of its own, in the stage's folder, with
    /// nothing in its environment but what the stage says. Its stderr can be read.
    ///
    /// # Errors
    /// The operating system's, for the program or for the keeper.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door that children go through"
    )]
    pub async fn spawn_stage(&self, stage: Stage<'_>) -> io::Result<Child> {
        let (program, arguments) = split(stage.argv)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(stage.environment.iter().copied())
            .current_dir(stage.folder)
            .stdin(stage.stdin)
            .stdout(stage.stdout)
            .stderr(Stdio::piped());
        self.launch(command).await
    }

    async fn launch(&self, mut command: Command) -> io::Result<Child> {
        let mut keeper = self.keeper.lock().await;
        let keeper = self.keeper(&mut keeper)?;
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
        // First, so that it is ended where the keeper does not hear of it.
        let child = Child {
            child,
            group: Pid::from_raw(pid),
            is_gone: false,
        };
        keeper.watch(pid).await?;
        Ok(child)
    }
}

/// One program of a pipeline.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The program's absolute path and its arguments.
    pub argv: &'a [OsString],
    /// All of its environment.
    pub environment: &'a [(&'a str, &'a str)],
    /// Where it runs: the root folder, unless it leaves something where it runs.
    pub folder: &'a Path,
    /// Where its input comes from.
    pub stdin: Stdio,
    /// Where its output goes.
    pub stdout: Stdio,
}

/// Program and arguments.
fn split(argv: &[OsString]) -> io::Result<(&OsString, &[OsString])> {
    argv.split_first()
        .ok_or_else(|| io::Error::other("no program"))
}

impl Child {
    /// Its process id; 0 once it was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Its pipes that were asked for and not yet taken: stdin, stdout, stderr.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        )
    }

    /// Asks the child and its group to end (SIGINT), without waiting.
    pub fn interrupt(&self) {
        if self.pid() != 0 {
            let _ = killpg(self.group, Signal::SIGINT);
        }
    }

    /// How it ended, if it does so within `patience`. What it left in its group ends with it: later the group's number
    /// may be another's.
    pub async fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let waited = tokio::time::timeout(patience, self.child.wait()).await;
        let status = waited.ok()?.ok()?;
        self.kill_group();
        Some(status)
    }

    /// Ends the child and everything in its group at once, whatever it does.
    pub async fn kill(mut self) {
        self.kill_group();
        let _ = self.child.wait().await;
    }

    fn kill_group(&mut self) {
        // A pid of 0 would be our own group.
        if self.group.as_raw() > 1 && !self.is_gone {
            let _ = killpg(self.group, Signal::SIGKILL);
            self.is_gone = true;
        }
    }

    /// Ends the child and everything in its group: INT, then TERM, then KILL.
    pub async fn stop(mut self) {
        for (signal, patience) in [
            (Signal::SIGINT, PATIENCE),
            (Signal::SIGTERM, Duration::from_millis(500)),
        ] {
            if self.is_gone {
                break;
            }
            let _ = killpg(self.group, signal);
            self.ended_within(patience).await;
        }
        self.kill_group();
        let _ = self.child.wait().await;
    }
}

impl Drop for Child {
    /// Where nobody waits for it any more: a compiler that stap started must not go on when stap is ended.
    fn drop(&mut self) {
        self.kill_group();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door that children go through"
    )]
    async fn a_child_that_nobody_holds_any_more_is_gone_with_its_group() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "/bin/sleep 600 & echo $!; wait"]);
        shell.stdout(Stdio::piped()).process_group(0);
        let shell = shell.spawn().unwrap();
        let group = Pid::from_raw(shell.id().unwrap().try_into().unwrap());
        let mut child = Child {
            child: shell,
            group,
            is_gone: false,
        };
        let mut line = String::new();
        let stdout = child.pipes().1.unwrap();
        tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(stdout), &mut line)
            .await
            .unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        assert!(nix::sys::signal::kill(grandchild, None).is_ok());
        drop(child);
        // Whoever inherits it has to reap it: dead is enough.
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            stat.is_ok_and(|s| !s.contains(") Z "))
        };
        for _ in 0..500 {
            if !is_alive() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the child's child {grandchild} lives on");
    }
}
