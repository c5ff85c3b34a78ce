//! An agent's clock against ours, from round trips. Pure.
//!
//! Of all round trips the shortest says most: the true offset lies within half of it of the
//! measured one, however unlike the two ways are (Mills, RFC 5905 §10). In: four instants a round
//! trip. Out: offset and uncertainty. Never: the wall clock.

/// Round trips that are remembered.
const KEPT: usize = 64;

/// Offset and how far it may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockEstimate {
    /// Agent's clock minus ours, in nanoseconds.
    pub offset_ns: i64,
    /// The true offset lies within this, in nanoseconds.
    pub uncertainty_ns: u64,
}

/// Collects round trips.
#[derive(Clone, Debug, Default)]
pub struct ClockSync {
    best: Option<ClockEstimate>,
    trips: usize,
}

impl ClockSync {
    /// One round trip: sent and received by us, received and sent by the agent.
    pub fn add(&mut self, sent: u64, agent_received: u64, agent_sent: u64, received: u64) {
        if received < sent || agent_sent < agent_received || self.trips > KEPT * 1_000 {
            return;
        }
        self.trips += 1;
        let wide = |n: u64| i128::from(n);
        let there = wide(agent_received) - wide(sent);
        let back = wide(agent_sent) - wide(received);
        let round = (wide(received) - wide(sent)) - (wide(agent_sent) - wide(agent_received));
        let (Ok(offset_ns), Ok(round)) = (
            i64::try_from((there + back) / 2),
            u64::try_from(round.max(0)),
        ) else {
            return;
        };
        let estimate = ClockEstimate {
            offset_ns,
            uncertainty_ns: round.div_ceil(2) + 1,
        };
        if self
            .best
            .is_none_or(|b| estimate.uncertainty_ns < b.uncertainty_ns)
        {
            self.best = Some(estimate);
        }
    }

    /// The best estimate so far.
    #[must_use]
    pub fn estimate(&self) -> Option<ClockEstimate> {
        self.best
    }

    /// Round trips so far.
    #[must_use]
    pub fn trips(&self) -> usize {
        self.trips
    }
}

impl ClockEstimate {
    /// Our instant on the agent's clock.
    #[must_use]
    pub fn to_agent(self, ours_ns: u64) -> u64 {
        ours_ns.saturating_add_signed(self.offset_ns)
    }

    /// The agent's instant minus our instant of the same moment's plan, in nanoseconds.
    #[must_use]
    pub fn error_ns(self, agent_ns: u64, ours_ns: u64) -> i64 {
        let error = i128::from(agent_ns) - i128::from(self.offset_ns) - i128::from(ours_ns);
        i64::try_from(error).unwrap_or(if error < 0 { i64::MIN } else { i64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_true_offset_is_within_the_uncertainty_whatever_the_delays(
            offset in -10_000_000_000_000_i64..10_000_000_000_000,
            trips in prop::collection::vec((0_u64..60_000_000, 0_u64..60_000_000, 0_u64..5_000_000), 1..20),
        ) {
            let mut sync = ClockSync::default();
            let mut now = 20_000_000_000_000_u64;
            for (there, back, work) in trips {
                let received = (now + there).saturating_add_signed(offset);
                sync.add(now, received, received + work, now + there + work + back);
                now += 100_000_000;
            }
            let best = sync.estimate().unwrap();
            prop_assert!(best.offset_ns.abs_diff(offset) <= best.uncertainty_ns);
        }
    }

    #[test]
    fn impossible_round_trips_are_ignored() {
        let mut sync = ClockSync::default();
        sync.add(10, 5, 4, 20);
        sync.add(10, 5, 6, 9);
        assert_eq!(sync.estimate(), None);
        sync.add(0, u64::MAX, u64::MAX, 10);
        assert_eq!(sync.estimate(), None);
    }
}
