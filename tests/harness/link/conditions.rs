//! What a link does to packets, and what it has done: plain values.
//!
//! In: nothing. Out: [`LinkConditions`] to set, [`Counters`] to read. Never: time or I/O.

use std::time::Duration;

/// One of a link's two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first namespace given to `Link::between` to the second.
    AToB = 0,
    /// From the second to the first.
    BToA = 1,
}

impl Direction {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::AToB, Self::BToA];
}

/// The conditions of one direction. The default is a perfect wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// How long every packet takes.
    pub delay: Duration,
    /// Up to this much longer, different for each packet; the order stays.
    pub jitter: Duration,
    /// What passes in a second at most; `None` is no limit.
    pub bytes_per_s: Option<u64>,
    /// What may wait for a limited direction; more is dropped, as a router does.
    pub queue_bytes: u64,
    /// Share of packets that vanish, 0 to 1.
    pub drop: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets that are held back by `reorder_by`, so that later ones overtake them.
    pub reorder: f64,
    /// How long those are held back.
    pub reorder_by: Duration,
    /// All packets vanish.
    pub cut: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bytes_per_s: None,
            queue_bytes: 256 << 10,
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            cut: false,
        }
    }
}

/// The conditions of both directions and the seed that decides single packets' fates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkConditions {
    /// From the first namespace to the second.
    pub a_to_b: Conditions,
    /// From the second namespace to the first.
    pub b_to_a: Conditions,
    /// The same seed and the same packets give the same fates.
    pub seed: u64,
}

impl LinkConditions {
    /// The same in both directions.
    pub fn alike(conditions: Conditions) -> Self {
        Self {
            a_to_b: conditions,
            b_to_a: conditions,
            seed: 0,
        }
    }

    /// A link that only delays, by a different time each way.
    pub fn delays(a_to_b: Duration, b_to_a: Duration) -> Self {
        let mut conditions = Self::default();
        conditions.a_to_b.delay = a_to_b;
        conditions.b_to_a.delay = b_to_a;
        conditions
    }

    /// These conditions with another seed.
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The conditions of one direction.
    pub fn of(&self, direction: Direction) -> Conditions {
        match direction {
            Direction::AToB => self.a_to_b,
            Direction::BToA => self.b_to_a,
        }
    }

    pub(super) fn of_mut(&mut self, direction: Direction) -> &mut Conditions {
        match direction {
            Direction::AToB => &mut self.a_to_b,
            Direction::BToA => &mut self.b_to_a,
        }
    }
}

/// What happened to the packets of one direction. Every packet that entered was delivered or is counted
/// in one of the reasons, or is under way: `entered + duplicated = delivered + dropped + overflowed + cut
/// + undeliverable + under way`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets taken from the sending side.
    pub entered: u64,
    /// Packets handed to the receiving side, copies included.
    pub delivered: u64,
    /// Bytes handed to the receiving side.
    pub delivered_bytes: u64,
    /// Packets that vanished by chance.
    pub dropped: u64,
    /// Packets that found the queue of a limited direction full.
    pub overflowed: u64,
    /// Packets that vanished because the link was cut.
    pub cut: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Packets held back so that others overtake them.
    pub reordered: u64,
    /// Packets that the receiving device did not take.
    pub undeliverable: u64,
}
