//! Starts the agent once more, without a terminal or a parent that it needs, and waits until it is
//! ready.
//!
//! In: arguments for the same program. Out: a process in a session of its own that has said it is
//! ready; or its words. Never: one of the starter's descriptors kept open: a channel of SSH ends only
//! when nobody holds it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What a detached agent says on stdout when it listens.
const READY: &[u8] = b"ready\n";
/// It listens after some milliseconds; on a host under full load after some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of its words that are kept.
const WORDS_MAX: u64 = 4 << 10;

/// Starts this program with `arguments` and returns when it has called [`detached`].
///
/// # Errors
/// The operating system's, or the child's own words when it ended instead.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the room that starts children"
)]
pub fn start_detached(arguments: &[OsString]) -> io::Result<()> {
    let mut child = Command::new(super::own_program())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (Some(mut output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the agent has no pipes"));
    };
    let (said_tx, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut word = [0; READY.len()];
        let ready = output.read_exact(&mut word).is_ok() && word == READY;
        let mut words = String::new();
        if !ready {
            let _ = errors.take(WORDS_MAX).read_to_string(&mut words);
        }
        let _ = said_tx.send((ready, words));
    });
    match said.recv_timeout(PATIENCE) {
        Ok((true, _)) => Ok(()),
        Ok((false, words)) => Err(io::Error::other(words.trim().to_owned())),
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(io::Error::other(format!(
                "it is not ready after {} s",
                PATIENCE.as_secs()
            )))
        }
    }
}

/// The child's side, before anything else: a session of its own, so that no end of a terminal or of
/// a login reaches it.
///
/// # Errors
/// The operating system's.
pub fn leave_session() -> io::Result<()> {
    nix::unistd::setsid().map(drop).map_err(io::Error::from)
}

/// The child's side: says that it is ready, and lets go of what it has from its starter.
///
/// # Errors
/// The operating system's.
pub fn detached() -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(READY)?;
    output.flush()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    Ok(())
}
