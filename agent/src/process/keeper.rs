//! The keeper: ends the agent's children when the agent itself was killed.
//!
//! ```text
//! agent ── pipe ──► keeper:   "group PGID START_TICKS\n" "folder PATH\n" "module NAME STAPRUN\n" …
//!                             EOF ► INT, 2 s, TERM, KILL, unload, remove
//! ```
//! In: the groups that the agent started, the kernel modules that it loaded, and its private folder. Out: none of them
//! left after the pipe's end. Never: a signal to a group whose leader was started at another time (a reused number).

use super::folder;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

/// Most groups that one agent starts.
const GROUPS_MAX: usize = 1_024;
/// Times that unloading is tried: handlers may still run.
const UNLOAD_TRIES: usize = 5;
/// What one try may take: staprun only asks the kernel. The keeper must come to its end.
const UNLOAD_TRY: Duration = Duration::from_millis(800);
/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);
/// And most modules that it loads, by name.
const MODULES_MAX: usize = 1_024;

/// The agent's side.
#[derive(Debug)]
pub(super) struct Keeper {
    #[expect(
        dead_code,
        reason = "held so that it is reaped with the agent's runtime"
    )]
    child: Child,
    pipe: ChildStdin,
}

impl Keeper {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door that children go through"
    )]
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("keeper")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = child
            .stdin
            .take()
            .ok_or_else(|| io::Error::other("the keeper has no pipe"))?;
        Ok(Self { child, pipe })
    }

    pub(super) async fn guard(&mut self, folder: &Path) -> io::Result<()> {
        let path = folder.as_os_str().as_bytes();
        if path.contains(&b'\n') {
            return Err(io::Error::other("a folder with a line break in its name"));
        }
        let line = [b"folder ", path, b"\n"].concat();
        self.pipe.write_all(&line).await?;
        self.pipe.flush().await
    }

    pub(super) async fn guard_module(&mut self, staprun: &Path, name: &str) -> io::Result<()> {
        let path = staprun.as_os_str().as_bytes();
        if path.contains(&b'\n') || !is_module_name(name) {
            return Err(io::Error::other("a module or program with an odd name"));
        }
        let line = [b"module ", name.as_bytes(), b" ", path, b"\n"].concat();
        self.pipe.write_all(&line).await?;
        self.pipe.flush().await
    }

    pub(super) async fn watch(&mut self, group: i32) -> io::Result<()> {
        let ticks = start_ticks(group).unwrap_or(0);
        self.pipe
            .write_all(format!("group {group} {ticks}\n").as_bytes())
            .await?;
        self.pipe.flush().await
    }
}

/// The keeper's own life: reads groups from `input` until its end, then ends them.
///
/// # Errors
/// The operating system's, when the pipe cannot be read.
pub fn keep(input: impl BufRead) -> io::Result<()> {
    let kept = read(input)?;
    end_groups(kept.groups);
    kept.modules
        .iter()
        .for_each(|(name, staprun)| unload(staprun, name));
    if let Some(folder) = kept.folder {
        folder::remove(&folder);
    }
    Ok(())
}

/// What is ended and removed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Leaders with the time of their start.
    groups: Vec<(i32, u64)>,
    folder: Option<PathBuf>,
    /// By name, with the staprun that unloads it.
    modules: BTreeMap<String, PathBuf>,
}

fn read(input: impl BufRead) -> io::Result<Kept> {
    let mut kept = Kept::default();
    for line in input.lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("folder ") {
            kept.folder = Some(path.into());
            continue;
        }
        if let Some((name, staprun)) = line.strip_prefix("module ").and_then(|l| l.split_once(' '))
        {
            if is_module_name(name) && kept.modules.len() < MODULES_MAX {
                kept.modules.insert(name.to_owned(), staprun.into());
            }
            continue;
        }
        let mut words = line.split(' ');
        if let (Some("group"), Some(Ok(group)), Some(Ok(ticks))) = (
            words.next(),
            words.next().map(str::parse),
            words.next().map(str::parse),
        ) && group > 1
            && kept.groups.len() < GROUPS_MAX
        {
            kept.groups.push((group, ticks));
        }
    }
    Ok(kept)
}

/// A name that the kernel could have shown for a module of ours.
fn is_module_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 56
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Unloads a module that is still there although whoever read it is gone: it would sample for ever.
#[expect(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime, and nobody keeps the keeper's children"
)]
fn unload(staprun: &Path, name: &str) {
    let is_loaded = || {
        let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
        modules.lines().any(|l| l.split(' ').next() == Some(name))
    };
    for _ in 0..UNLOAD_TRIES {
        if !is_loaded() {
            return;
        }
        let mut staprun = std::process::Command::new(staprun);
        staprun.args(["-d", name]).env_clear().current_dir("/");
        let quiet = staprun
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // What it says would be heard by nobody; whether it worked is seen above.
        let _ = quiet
            .spawn()
            .and_then(|child| end_within(child, UNLOAD_TRY));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for a program, and kills it when it takes longer.
#[expect(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime; it waits on its own thread"
)]
fn end_within(mut child: std::process::Child, patience: Duration) -> io::Result<()> {
    for _ in 0..patience.as_millis() / LOOK.as_millis() {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait().map(drop)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime; it waits on its own thread"
)]
fn end_groups(mut groups: Vec<(i32, u64)>) {
    groups.retain(|(group, ticks)| {
        start_ticks(*group).is_none_or(|now| now == *ticks) && is_alive(*group)
    });
    let pauses = [
        (Signal::SIGINT, 2_000),
        (Signal::SIGTERM, 500),
        (Signal::SIGKILL, 500),
    ];
    for (signal, pause_ms) in pauses {
        for (group, _) in &groups {
            // A group that has just gone is what is wanted.
            let _ = killpg(Pid::from_raw(*group), signal);
        }
        for _ in 0..pause_ms / 20 {
            groups.retain(|(group, _)| is_alive(*group));
            if groups.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_alive(group: i32) -> bool {
    killpg(Pid::from_raw(group), None).is_ok()
}

/// Field 22 of `/proc/PID/stat` (proc(5)): when the process started, in clock ticks since boot.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_module_can_have_are_unloaded() {
        assert!(is_module_name("ff_0123456789abcdef"));
        for odd in ["", "*", "-d", "../x", "a b", "a\nb", &"x".repeat(60)] {
            assert!(!is_module_name(odd), "{odd:?}");
        }
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let said = "module ff_0123456789abcdef /usr/bin/staprun\nmodule * /bin/false\nmodule\n?\n\
                    group 1 5\ngroup 77\ngroup 77 5\nfolder /x y\n";
        let expected = Kept {
            groups: vec![(77, 5)],
            folder: Some("/x y".into()),
            modules: [("ff_0123456789abcdef".to_owned(), "/usr/bin/staprun".into())].into(),
        };
        assert_eq!(read(said.as_bytes()).unwrap(), expected);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the keeper's own children, which nobody keeps"
    )]
    fn a_program_that_hangs_does_not_hold_the_keeper_up() {
        let mut hangs = std::process::Command::new("/bin/sleep");
        let child = hangs.arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        end_within(child, Duration::from_millis(100)).unwrap();
        assert!(nix::sys::signal::kill(Pid::from_raw(pid), None).is_err());
    }
}
