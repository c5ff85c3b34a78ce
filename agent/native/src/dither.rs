//! Sampling periods that do not march in step with the target. In: the nominal period. Out: one
//! period after the other, the nominal one on average. Never: a period below the kernel's floor.
//!
//! Two laws. Where the sampler preempts the target and restarts the timer itself, periods are
//! exponential (Poisson sampling). Handling a sample makes the scheduler choose anew, so tasks
//! begin to run right after samples; with periods of 0.6 to 1.4 times the nominal one nothing is
//! sampled in the first half of that, and on a loaded machine nginx came out 9 % short and a busy
//! loop 6 % long against schedstat. A Poisson clock is as likely to fire at any moment, whatever
//! the past, and both agree within the noise. Where the sampler cannot restart the timer each
//! time, periods are 0.6 to 1.4 times the nominal one.

/// Shortest period of a cpu-clock event: the kernel does not go below
/// (`perf_swevent_start_hrtimer` in kernel/events/core.c).
pub const PERIOD_MIN_NS: u64 = 10_000;
/// Shortest and longest exponential period, in nominal ones: no bursts, no gaps.
const FLOOR: f64 = 0.05;
const CEILING: f64 = 8.0;

/// Exponential periods that are drawn in one go: a logarithm a sample costs more than its arithmetic, for nothing of it is
/// in a cache when the sample comes.
const DRAWN: usize = 64;

/// A stream of periods. The state is one word (xorshift64*), so that it can be drawn at real-time
/// priority.
#[derive(Clone, Debug)]
pub struct Dither {
    nominal_ns: u64,
    state: u64,
    drawn: [u64; DRAWN],
    left: usize,
}

impl Dither {
    /// A stream around `nominal_ns`; streams of different seeds differ.
    #[must_use]
    pub fn new(nominal_ns: u64, seed: u64) -> Self {
        // Any odd multiplier spreads small seeds; the state must not be 0.
        Self {
            nominal_ns,
            state: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            drawn: [0; DRAWN],
            left: 0,
        }
    }

    /// The nominal period.
    #[must_use]
    pub fn nominal_ns(&self) -> u64 {
        self.nominal_ns
    }

    /// A random number in (0, 1].
    fn unit(&mut self) -> f64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let word = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (word as f64 + 1.0) / 4_294_967_296.0
    }

    /// The next period of a Poisson clock, in nanoseconds.
    pub fn next_exponential(&mut self) -> u64 {
        if self.left == 0 {
            for index in 0..DRAWN {
                let periods = FLOOR - (1.0 - FLOOR) * self.unit().ln();
                self.drawn[index] = self.scaled(periods.min(CEILING));
            }
            self.left = DRAWN;
        }
        self.left -= 1;
        self.drawn[self.left]
    }

    /// The next period near the nominal one, in nanoseconds.
    pub fn next_near(&mut self) -> u64 {
        let periods = 0.6 + 0.8 * self.unit();
        self.scaled(periods)
    }

    fn scaled(&self, periods: f64) -> u64 {
        ((self.nominal_ns as f64 * periods) as u64).max(PERIOD_MIN_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(periods: &[u64]) -> u64 {
        periods.iter().sum::<u64>() / periods.len() as u64
    }

    #[test]
    fn near_periods_stay_within_bounds_and_average_to_the_nominal_one() {
        let nominal = 2_000_000;
        let mut dither = Dither::new(nominal, 3);
        let periods: Vec<u64> = (0..20_000).map(|_| dither.next_near()).collect();
        assert!(
            periods
                .iter()
                .all(|&p| (1_200_000..=2_800_000).contains(&p))
        );
        assert!(
            mean(&periods).abs_diff(nominal) < nominal / 100,
            "{}",
            mean(&periods)
        );
    }

    #[test]
    fn exponential_periods_average_to_the_nominal_one_and_forget_the_past() {
        let nominal = 2_000_000;
        let mut dither = Dither::new(nominal, 3);
        let periods: Vec<u64> = (0..100_000).map(|_| dither.next_exponential()).collect();
        assert!(
            mean(&periods).abs_diff(nominal) < nominal / 50,
            "{}",
            mean(&periods)
        );
        // Of those that last one nominal period, as many last another as of all.
        let longer = |than: u64| periods.iter().filter(|&&p| p > than).count() as f64;
        let (one, two) = (longer(nominal), longer(2 * nominal));
        let (first, second) = (one / 100_000.0, two / one);
        assert!(
            (second - (-1.0_f64 / 0.95).exp()).abs() < 0.02,
            "{first} {second}"
        );
        assert!(
            periods
                .iter()
                .all(|&p| (nominal / 20..=nominal * 8).contains(&p))
        );
    }

    #[test]
    fn cpus_do_not_march_together() {
        let (mut a, mut b) = (Dither::new(1_000_000, 0), Dither::new(1_000_000, 1));
        assert!((0..8).any(|_| a.next_near() != b.next_near()));
    }
}
