//! Pipes that somebody fills as it comes. In: a descriptor. Out: how long to leave it alone. Never: less speed for a
//! writer in a hurry.
//!
//! A reader that wakes up for each few kilobytes costs more than folding them. Where a pipe has room enough, it is left
//! to fill for a moment whenever a read found little: a live stream is then read a few times a second instead of
//! hundreds of times.

use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::AsFd;
use std::time::Duration;

/// Room that is asked for: what an ordinary user may have (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const ROOM_BYTES: i32 = 1 << 20;
/// With that room nobody who writes less than 200 MB a second waits for it, and no person notices it.
const PAUSE: Duration = Duration::from_millis(5);

/// How long to wait after a read that found less than half of what fits; none for what is no pipe, or has no room.
pub fn pause(from: impl AsFd) -> Option<Duration> {
    let room = fcntl(from, FcntlArg::F_SETPIPE_SZ(ROOM_BYTES)).ok()?;
    (room >= ROOM_BYTES).then_some(PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_pipe_gets_room_and_a_file_is_left_alone() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(pause(&reader), Some(PAUSE));
        // It would block at 64 KiB.
        writer.write_all(&vec![0; ROOM_BYTES as usize]).unwrap();
        assert_eq!(pause(tempfile::tempfile().unwrap()), None);
    }
}
