//! Joins a channel of SSH to a running agent: bytes from stdin to its socket, and back to stdout.
//!
//! In: an agent's folder. Out: the start mark, then the agent's bytes. Never: a byte before the mark, a
//! byte of its own after it, or a life longer than either side's.

use crate::process::folder;
use anyhow::Context;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Bytes that are carried at once.
const CHUNK: usize = 64 << 10;

/// Carries bytes until one side ends.
///
/// # Errors
/// When no agent listens in `folder`.
pub fn attach(folder: &Path) -> anyhow::Result<()> {
    folder::require_private(folder, nix::unistd::geteuid().as_raw())?;
    // Relative: the path of a socket has at most 107 bytes.
    std::env::set_current_dir(folder).context("entering the folder")?;
    let socket = UnixStream::connect(folder::SOCKET).context("joining the agent")?;
    let _ = std::env::set_current_dir("/");
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    output.write_all(proto::START_MARK)?;
    let up = socket.try_clone()?;
    std::thread::spawn(move || {
        let _ = carry(input, &up);
        // The coordinator has gone: the agent hears it at once, and its lease begins.
        let _ = up.shutdown(Shutdown::Both);
    });
    // What breaks here is the network, and whoever is at the other end knows it first.
    let _ = carry(&socket, output);
    let _ = socket.shutdown(Shutdown::Both);
    Ok(())
}

fn carry(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&bytes[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_every_byte_in_order() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut out = Vec::new();
        carry(&bytes[..], &mut out).unwrap();
        assert_eq!(out, bytes);
    }
}
