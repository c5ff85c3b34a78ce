//! How much of an agent may be on its way to a host. Pure: instants are durations since the upload began.
//!
//! In: what was written, and what the far side says it took. Out: how much more may be written now.
//! Never: more on the way than the network delivers in about a second, so that what is interrupted, by
//! whatever end, has ended on the host before anybody has to wait for it. ssh alone takes 2 MiB at once,
//! which are 17 s at 1 Mbit/s.

use std::collections::VecDeque;
use std::time::Duration;

/// What the far side takes at once, and says so. `start.sh` knows the same number.
pub const PIECE_BYTES: u64 = 32 << 10;
/// On the way at least: 1 Mbit/s takes a second for it.
const WINDOW_BYTES_MIN: u64 = 4 * PIECE_BYTES;
/// On the way at most: what ssh takes at once.
const WINDOW_BYTES_MAX: u64 = 2 << 20;
/// A piece that was taken within this time leaves room for one more.
const QUICK: Duration = Duration::from_millis(700);
/// A piece that took longer than this was one too many.
const SLOW: Duration = Duration::from_millis(1_500);

/// See the module.
#[derive(Debug)]
pub struct Upload {
    total_bytes: u64,
    sent_bytes: u64,
    taken_bytes: u64,
    window_bytes: u64,
    /// Pieces that are on their way: when the last byte of each was written.
    on_the_way: VecDeque<Duration>,
}

impl Upload {
    /// Nothing was written yet.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        Self {
            total_bytes,
            sent_bytes: 0,
            taken_bytes: 0,
            window_bytes: WINDOW_BYTES_MIN,
            on_the_way: VecDeque::new(),
        }
    }

    /// How many bytes may be written now.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let on_the_way = self.sent_bytes - self.taken_bytes;
        let room = self.window_bytes.saturating_sub(on_the_way);
        room.min(self.total_bytes - self.sent_bytes)
            .min(PIECE_BYTES)
    }

    /// `bytes` more were written at `at`; not more than there was room for.
    pub fn wrote(&mut self, bytes: u64, at: Duration) {
        let before = self.sent_bytes;
        self.sent_bytes = (before + bytes).min(self.total_bytes);
        let whole = |bytes: u64| bytes / PIECE_BYTES;
        let mut ended = whole(self.sent_bytes) - whole(before);
        let last_is_short = !self.total_bytes.is_multiple_of(PIECE_BYTES);
        if last_is_short && before < self.total_bytes && self.sent_bytes == self.total_bytes {
            ended += 1;
        }
        for _ in 0..ended {
            self.on_the_way.push_back(at);
        }
    }

    /// The far side says at `at` that it took one more piece. What it cannot have taken is not believed.
    pub fn took(&mut self, at: Duration) {
        let Some(written) = self.on_the_way.pop_front() else {
            return;
        };
        self.taken_bytes = (self.taken_bytes + PIECE_BYTES).min(self.sent_bytes);
        let took = at.saturating_sub(written);
        if took < QUICK {
            self.window_bytes = (self.window_bytes + PIECE_BYTES).min(WINDOW_BYTES_MAX);
        } else if took > SLOW {
            self.window_bytes = (self.window_bytes - PIECE_BYTES).max(WINDOW_BYTES_MIN);
        }
    }

    /// What the far side took.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// What was written.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Whether the far side has all of it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.taken_bytes == self.total_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wire of `bytes_per_s` and `delay` each way; gives how long the upload took, and the most bytes
    /// that were on their way when the window had settled.
    fn over(total_bytes: u64, bytes_per_s: u64, delay: Duration) -> (Duration, u64) {
        let mut upload = Upload::new(total_bytes);
        let (mut now, mut free_at) = (Duration::ZERO, Duration::ZERO);
        let mut acks: VecDeque<Duration> = VecDeque::new();
        let (mut most, mut in_piece) = (0, 0);
        while !upload.is_done() {
            let room = upload.room_bytes();
            if room > 0 {
                upload.wrote(room, now);
                let takes = Duration::from_secs_f64(room as f64 / bytes_per_s as f64);
                free_at = free_at.max(now) + takes;
                in_piece += room;
                while in_piece >= PIECE_BYTES
                    || (in_piece > 0 && upload.sent_bytes() == total_bytes)
                {
                    in_piece = in_piece.saturating_sub(PIECE_BYTES);
                    acks.push_back(free_at + 2 * delay);
                }
                if upload.taken_bytes() > total_bytes / 2 {
                    most = most.max(upload.sent_bytes() - upload.taken_bytes());
                }
                continue;
            }
            now = acks.pop_front().expect("something is on its way");
            upload.took(now);
        }
        (now, most)
    }

    #[test]
    fn a_slow_wire_is_used_whole_and_holds_about_a_second() {
        let (took, most) = over(3_700_000, 125_000, Duration::from_millis(100));
        assert!(took < Duration::from_secs(32), "{took:?}");
        assert!(most <= 160 << 10, "{most}");
    }

    #[test]
    fn a_quick_wire_is_not_held_up_by_its_length() {
        // 100 Mbit/s and 200 ms there and back: 0.3 s at the least, some rounds more to get going.
        let (took, _) = over(3_700_000, 12_500_000, Duration::from_millis(100));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn what_cannot_have_been_taken_is_not_believed() {
        let mut upload = Upload::new(100_000);
        for _ in 0..10 {
            upload.took(Duration::ZERO);
        }
        assert_eq!(upload.taken_bytes(), 0);
        upload.wrote(upload.room_bytes(), Duration::ZERO);
        for _ in 0..10 {
            upload.took(Duration::ZERO);
        }
        assert_eq!(upload.taken_bytes(), PIECE_BYTES);
        assert!(!upload.is_done());
    }

    #[test]
    fn pieces_are_counted_whatever_the_writes_were() {
        for total in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES - 1] {
            let mut upload = Upload::new(total);
            let mut pieces = 0;
            while !upload.is_done() {
                let some = upload.room_bytes().min(7_777);
                if some > 0 {
                    upload.wrote(some, Duration::ZERO);
                } else {
                    upload.took(Duration::ZERO);
                    pieces += 1;
                }
            }
            assert_eq!(pieces, total.div_ceil(PIECE_BYTES), "{total}");
            assert_eq!(upload.taken_bytes(), total);
        }
    }
}
