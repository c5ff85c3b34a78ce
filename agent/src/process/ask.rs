//! A program that is asked one thing and ends by itself, such as `perf --version`.
//!
//! In: an argument list. Out: what it said and how it ended. Never: more of its words than a bound,
//! more of its time than a deadline, a shell, or input. There is no keeper: only for programs that
//! end by themselves.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Bytes that are kept of each stream.
const BYTES_MAX: u64 = 64 << 10;

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// How it ended; none when it had to be killed at the deadline.
    pub status: Option<ExitStatus>,
    /// The begin of its standard output; empty when it was not wanted.
    pub stdout: String,
    /// The begin of its standard error.
    pub stderr: String,
}

/// Runs `argv` in a process group of its own, with an input on which nothing comes, at the root folder, with nothing
/// in its environment but `environment`. Blocks for at most about `deadline`.
///
/// # Errors
/// The operating system's, when it cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the door that children go through"
)]
pub fn ask(
    argv: &[OsString],
    environment: &[(&str, &str)],
    keep_stdout: bool,
    deadline: Duration,
) -> io::Result<Answer> {
    let (program, arguments) = super::split(argv)?;
    let stdout = if keep_stdout {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir("/")
        // A pipe that stays silent: perf takes an end of its control channel for an error.
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let _open = child.stdin.take();
    // Short, and somebody waits for it.
    native::give_usual_priority(child.id());
    let (said, heard) = channel();
    let mut streams = 1;
    if let Some(stream) = child.stdout.take() {
        streams += 1;
        listen(stream, true, said.clone());
    }
    if let Some(stream) = child.stderr.take() {
        listen(stream, false, said);
    }
    let mut answer = Answer {
        status: None,
        stdout: String::new(),
        stderr: String::new(),
    };
    let mut in_time = true;
    for _ in 0..streams {
        // Both share the deadline closely enough: it is there for programs that hang.
        match heard.recv_timeout(deadline) {
            Ok((true, text)) => answer.stdout = text,
            Ok((false, text)) => answer.stderr = text,
            Err(_) => in_time = false,
        }
    }
    if !in_time {
        let group = i32::try_from(child.id()).unwrap_or(0);
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let status = child.wait()?;
    answer.status = in_time.then_some(status);
    Ok(answer)
}

/// Reads a stream to its end on a thread of its own, and tells its begin.
fn listen(stream: impl Read + Send + 'static, is_stdout: bool, said: Sender<(bool, String)>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut begin = stream.take(BYTES_MAX);
        let _ = begin.read_to_end(&mut bytes);
        let _ = io::copy(&mut begin.into_inner(), &mut io::sink());
        let _ = said.send((is_stdout, String::from_utf8_lossy(&bytes).into_owned()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn words_of_both_streams_and_the_end_are_told() {
        let shell = argv(&["/bin/sh", "-c", "echo a; echo $X >&2; exit 3"]);
        let answer = ask(&shell, &[("X", "b")], true, Duration::from_secs(10)).unwrap();
        assert_eq!(answer.status.and_then(|s| s.code()), Some(3));
        assert_eq!((&*answer.stdout, &*answer.stderr), ("a\n", "b\n"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let shell = argv(&["/bin/sh", "-c", "echo here >&2; /bin/sleep 100 & wait"]);
        let answer = ask(&shell, &[], false, Duration::from_millis(300)).unwrap();
        assert!(answer.status.is_none());
        assert!(ask(&argv(&["/no/such/program"]), &[], true, Duration::ZERO).is_err());
    }
}
