//! Periods in steps: what a sample stands for, rounded so that it costs few bits on the wire.
//!
//! In: the period that each sample was taken with, in nanoseconds. Out: multiples of a step. Never:
//! time that gets lost: what rounding leaves is carried to the next sample of the same series, so
//! that a series' sum is never more than one step short.
//!
//! A dithered period is different for each sample, and 24 bits of it would be most of what a sample
//! costs (docs/performance.md, "What a minute of a host weighs"). An eighth of the nominal period
//! is far below what one sample can say about a stack.

use model::profile::SeriesId;
use std::collections::HashMap;

/// Steps in a nominal period.
const STEPS: u64 = 8;

/// Rounds the periods of samples. See the module.
#[derive(Debug)]
pub struct PeriodSteps {
    step_ns: u64,
    carried_ns: HashMap<SeriesId, u64>,
}

impl PeriodSteps {
    /// For samples that are taken every `period_ns` nanoseconds on average.
    #[must_use]
    pub fn new(period_ns: u64) -> Self {
        Self {
            step_ns: (period_ns / STEPS).max(1),
            carried_ns: HashMap::new(),
        }
    }

    /// What a sample of `series` that was taken with `period_ns` is counted as.
    pub fn rounded(&mut self, series: SeriesId, period_ns: u64) -> u64 {
        let carried_ns = self.carried_ns.entry(series).or_default();
        let due_ns = carried_ns.saturating_add(period_ns);
        *carried_ns = due_ns % self.step_ns;
        due_ns - *carried_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_series_is_less_than_a_step_short() {
        let mut steps = PeriodSteps::new(10_101_010);
        let mut sums = [(0_u64, 0_u64); 3];
        for i in 0..10_000_u64 {
            let series = i % 3;
            let period_ns = 6_000_000 + i * 7_919 % 8_000_000;
            let rounded_ns = steps.rounded(SeriesId(u32::try_from(series).unwrap()), period_ns);
            assert_eq!(rounded_ns % (10_101_010 / 8), 0);
            let sum = &mut sums[usize::try_from(series).unwrap()];
            *sum = (sum.0 + period_ns, sum.1 + rounded_ns);
        }
        for (exact_ns, rounded_ns) in sums {
            assert!(exact_ns >= rounded_ns && exact_ns - rounded_ns < 10_101_010 / 8);
        }
    }
}
