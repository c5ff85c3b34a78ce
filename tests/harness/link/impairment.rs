//! The fate of each packet in one direction: delayed, queued, dropped, doubled, overtaken.
//!
//! In: packets, the conditions at that moment, and the time as a value. Out: packets when they are due.
//! Never: a clock, a device, or a random source other than the seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Elapsed;
use super::conditions::{Conditions, Counters};

/// One direction of a link with the packets that are under way.
#[derive(Debug)]
pub(super) struct Lane {
    seed: u64,
    arrivals: u64,
    departures: u64,
    /// When the last byte that entered has passed the bandwidth limit.
    free_at: Elapsed,
    /// When the last packet that keeps its place is due.
    last_due: Elapsed,
    under_way: BinaryHeap<Reverse<Packet>>,
}

#[derive(Debug)]
struct Packet {
    due: Elapsed,
    number: u64,
    bytes: Vec<u8>,
}

/// What chance decides, each with a stream of numbers of its own: changing one share moves no other fate.
#[derive(Clone, Copy)]
enum Chance {
    Drop = 1,
    Duplicate,
    Reorder,
    Jitter,
}

impl Lane {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            arrivals: 0,
            departures: 0,
            free_at: Duration::ZERO,
            last_due: Duration::ZERO,
            under_way: BinaryHeap::new(),
        }
    }

    /// A packet enters at `now`.
    pub(super) fn enter(
        &mut self,
        now: Elapsed,
        bytes: &[u8],
        conditions: &Conditions,
        counters: &mut Counters,
    ) {
        self.arrivals += 1;
        counters.entered += 1;
        if conditions.cut {
            counters.cut += 1;
            return;
        }
        if self.draw(Chance::Drop) < conditions.drop {
            counters.dropped += 1;
            return;
        }
        let Some(sent) = self.pass_limit(now, bytes.len() as u64, conditions) else {
            counters.overflowed += 1;
            return;
        };
        let jitter = conditions.jitter.mul_f64(self.draw(Chance::Jitter));
        let mut due = (sent + conditions.delay + jitter).max(self.last_due);
        if self.draw(Chance::Reorder) < conditions.reorder {
            counters.reordered += 1;
            due += conditions.reorder_by;
        } else {
            self.last_due = due;
        }
        if self.draw(Chance::Duplicate) < conditions.duplicate {
            counters.duplicated += 1;
            self.hold(due, bytes);
        }
        self.hold(due, bytes);
    }

    /// The next packet that is due at `now`; a cut swallows those that come due while it lasts.
    pub(super) fn leave(
        &mut self,
        now: Elapsed,
        conditions: &Conditions,
        counters: &mut Counters,
    ) -> Option<Vec<u8>> {
        while self.next_due()? <= now {
            let Reverse(packet) = self.under_way.pop()?;
            if !conditions.cut {
                return Some(packet.bytes);
            }
            counters.cut += 1;
        }
        None
    }

    /// When the next packet is due.
    pub(super) fn next_due(&self) -> Option<Elapsed> {
        self.under_way.peek().map(|Reverse(packet)| packet.due)
    }

    /// When the packet's last byte has passed the bandwidth limit; `None` when the queue is full.
    fn pass_limit(&mut self, now: Elapsed, bytes: u64, conditions: &Conditions) -> Option<Elapsed> {
        let Some(bytes_per_s) = conditions.bytes_per_s else {
            return Some(now);
        };
        let rate = bytes_per_s.max(1) as f64;
        let start = self.free_at.max(now);
        let waiting_bytes = (start - now).as_secs_f64() * rate;
        if waiting_bytes > conditions.queue_bytes as f64 {
            return None;
        }
        self.free_at = start + Duration::from_secs_f64(bytes as f64 / rate);
        Some(self.free_at)
    }

    fn hold(&mut self, due: Elapsed, bytes: &[u8]) {
        self.departures += 1;
        let packet = Packet {
            due,
            number: self.departures,
            bytes: bytes.to_vec(),
        };
        self.under_way.push(Reverse(packet));
    }

    /// A number in [0, 1) that depends on the seed, the packet's number and what it is for: splitmix64.
    fn draw(&self, chance: Chance) -> f64 {
        let stream = (chance as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut x =
            self.seed ^ stream.wrapping_add(self.arrivals.wrapping_mul(0xD1B5_4A32_D192_ED03));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Packet {}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `count` packets, one a millisecond, and returns (number, time) as they leave.
    fn run(seed: u64, conditions: Conditions, count: u8) -> (Vec<(u8, u128)>, Counters) {
        let (mut lane, mut counters) = (Lane::new(seed), Counters::default());
        let mut left = Vec::new();
        for tick in 0..10_000u32 {
            let now = MS * tick;
            if let Some(number) = u8::try_from(tick).ok().filter(|n| *n < count) {
                lane.enter(now, &[number; 1000], &conditions, &mut counters);
            }
            while let Some(bytes) = lane.leave(now, &conditions, &mut counters) {
                left.push((bytes[0], now.as_millis()));
            }
        }
        (left, counters)
    }

    #[test]
    fn a_perfect_wire_passes_everything_at_once_and_in_order() {
        let (left, _) = run(1, Conditions::default(), 100);
        assert_eq!(
            left,
            (0..100).map(|n| (n, u128::from(n))).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_delay_moves_every_packet_by_itself() {
        let (left, _) = run(
            1,
            Conditions {
                delay: 40 * MS,
                ..Conditions::default()
            },
            10,
        );
        assert_eq!(
            left,
            (0..10).map(|n| (n, u128::from(n) + 40)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_seed_decides_who_is_dropped() {
        let half = Conditions {
            drop: 0.5,
            ..Conditions::default()
        };
        let (first, counters) = run(7, half, 200);
        assert_eq!(first, run(7, half, 200).0);
        assert_ne!(first, run(8, half, 200).0);
        assert!((70..=130).contains(&counters.dropped), "{counters:?}");
        assert_eq!(counters.dropped + first.len() as u64, 200);
    }

    #[test]
    fn a_limit_spreads_packets_and_its_queue_overflows() {
        let narrow = Conditions {
            bytes_per_s: Some(100_000),
            queue_bytes: 5_000,
            ..Conditions::default()
        };
        let (left, counters) = run(1, narrow, 100);
        let last = left.last().expect("packets").1;
        let rate = left.len() as f64 * 1000.0 / (last as f64 / 1000.0);
        assert!((90_000.0..=105_000.0).contains(&rate), "{rate} bytes/s");
        assert_eq!(counters.overflowed + left.len() as u64, 100);
        assert!(counters.overflowed > 80, "{counters:?}");
    }

    #[test]
    fn reordered_packets_are_overtaken_and_duplicates_arrive_twice() {
        let (left, counters) = run(
            3,
            Conditions {
                reorder: 0.2,
                ..Conditions::default()
            },
            100,
        );
        let numbers: Vec<u8> = left.iter().map(|(number, _)| *number).collect();
        assert!(!numbers.is_sorted() && numbers.len() == 100 && counters.reordered > 5);
        let (left, counters) = run(
            3,
            Conditions {
                duplicate: 0.3,
                ..Conditions::default()
            },
            100,
        );
        assert_eq!(left.len() as u64, 100 + counters.duplicated);
        assert!(counters.duplicated > 10, "{counters:?}");
    }

    #[test]
    fn a_cut_swallows_what_is_under_way_and_what_enters() {
        let (mut lane, mut counters) = (Lane::new(1), Counters::default());
        let open = Conditions {
            delay: 10 * MS,
            ..Conditions::default()
        };
        let cut = Conditions { cut: true, ..open };
        lane.enter(MS, &[1], &open, &mut counters);
        lane.enter(2 * MS, &[2], &cut, &mut counters);
        assert_eq!(lane.leave(20 * MS, &cut, &mut counters), None);
        lane.enter(21 * MS, &[3], &open, &mut counters);
        assert_eq!(lane.leave(40 * MS, &open, &mut counters), Some(vec![3]));
        assert_eq!((counters.entered, counters.cut), (3, 2));
    }
}
