//! Commands in a guest, through its door.
//!
//! In: a command, its input, signals, a deadline. Out: its output as it comes, its end. Never: a command
//! that goes on when nobody waits for it any more: closing the connection ends it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::wire::{self, Frame};
use crate::namespace::NetNamespace;

/// What is kept of each stream; more is an error.
const KEPT_BYTES_MAX: usize = 64 << 20;
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// As [`super::case::RUN_DEADLINE`], for what hangs.
const START_DEADLINE: Duration = Duration::from_mins(3);

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A command that runs in a guest. Dropping it kills it and its process group.
#[derive(Debug)]
pub struct RemoteChild {
    stream: TcpStream,
    shared: Arc<(Mutex<State>, Condvar)>,
    words: String,
}

#[derive(Debug, Default)]
struct State {
    pid: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<ExitStatus>,
    error: Option<String>,
}

impl RemoteChild {
    /// Starts `arguments`; `input` is all of its standard input.
    pub(super) fn start(
        namespace: &NetNamespace,
        door: SocketAddr,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<Self> {
        let words = arguments.join(" ");
        let mut stream = namespace
            .enter(|| TcpStream::connect_timeout(&door, CONNECT_DEADLINE))
            .context("the guest's door does not answer")?;
        stream.set_nodelay(true)?;
        for argument in arguments {
            wire::write(&mut stream, wire::ARGUMENT, argument.as_bytes())?;
        }
        wire::write(&mut stream, wire::GO, b"")?;
        let shared = Arc::<(Mutex<State>, Condvar)>::default();
        let (mut incoming, state) = (stream.try_clone()?, Arc::clone(&shared));
        thread::spawn(move || {
            let end = receive(&mut incoming, &state)
                .err()
                .map(|error| error.to_string());
            let mut state_now = lock(&state);
            if state_now.status.is_none() && state_now.error.is_none() {
                state_now.error =
                    Some(end.unwrap_or_else(|| "the guest closed the door".to_owned()));
            }
            state.1.notify_all();
        });
        let mut child = Self {
            stream,
            shared,
            words,
        };
        child.wait_for(START_DEADLINE, "did not start", |state| state.pid)?;
        if !input.is_empty() {
            wire::write(&mut child.stream, wire::INPUT, input)?;
        }
        wire::write(&mut child.stream, wire::INPUT_END, b"")?;
        Ok(child)
    }

    /// Its process id in the guest.
    pub fn pid(&self) -> Result<i32> {
        lock(&self.shared).pid.context("it has not started")
    }

    /// Sends `signal` to this one process.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let number = (signal as i32).to_le_bytes();
        Ok(wire::write(&mut self.stream, wire::SIGNAL, &number)?)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        lock(&self.shared).status
    }

    /// Waits for its end.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        self.wait_for(deadline, "still runs", |state| state.status)
    }

    /// Waits for its end and the last of its output. It is killed when `deadline` passes first.
    pub fn finish(self, deadline: Duration) -> Result<Output> {
        let status = self.wait(deadline)?;
        let mut state = lock(&self.shared);
        Ok(Output {
            status,
            stdout: std::mem::take(&mut state.stdout),
            stderr: std::mem::take(&mut state.stderr),
        })
    }

    /// Waits until a line of its standard output or error contains `text`, and returns the line.
    pub fn wait_for_line(&self, text: &str, deadline: Duration) -> Result<String> {
        let holds = |bytes: &[u8]| {
            let all = String::from_utf8_lossy(bytes);
            all.lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        };
        self.wait_for(deadline, &format!("did not say {text:?}"), |state| {
            holds(&state.stdout).or_else(|| holds(&state.stderr))
        })
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared).stdout).into_owned()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared).stderr).into_owned()
    }

    /// Waits until `wanted` gives something. A command that has ended gives nothing new.
    fn wait_for<T>(
        &self,
        deadline: Duration,
        complaint: &str,
        wanted: impl Fn(&State) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        let mut state = lock(&self.shared);
        loop {
            if let Some(found) = wanted(&state) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.error.is_some() || state.status.is_some() || left.is_zero() {
                bail!(
                    "`{}` in the guest {complaint} ({}; {deadline:?} were given); stdout: {} stderr: {}",
                    self.words,
                    match (&state.error, state.status) {
                        (Some(error), _) => error.clone(),
                        (None, Some(status)) => status.to_string(),
                        (None, None) => "running".to_owned(),
                    },
                    String::from_utf8_lossy(&state.stdout),
                    String::from_utf8_lossy(&state.stderr)
                );
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for RemoteChild {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn lock(shared: &Arc<(Mutex<State>, Condvar)>) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads frames until the end of the command.
fn receive(stream: &mut TcpStream, shared: &Arc<(Mutex<State>, Condvar)>) -> io::Result<()> {
    while let Some(frame) = Frame::read(stream)? {
        let mut state = lock(shared);
        match frame.kind {
            wire::STARTED => state.pid = frame.number(),
            wire::OUTPUT => keep(&mut state.stdout, &frame.body)?,
            wire::ERRORS => keep(&mut state.stderr, &frame.body)?,
            wire::EXITED => state.status = frame.number().map(ExitStatus::from_raw),
            wire::FAILED => state.error = Some(String::from_utf8_lossy(&frame.body).into_owned()),
            other => return Err(io::Error::other(format!("a frame of kind {other}"))),
        }
        shared.1.notify_all();
    }
    Ok(())
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    if kept.len() + bytes.len() > KEPT_BYTES_MAX {
        return Err(io::Error::other("it says more than is kept"));
    }
    kept.extend(bytes);
    Ok(())
}
