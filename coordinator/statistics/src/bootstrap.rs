//! Resampling. In: hosts with their blocks, a seed. Out: how ratios would have come out had other
//! blocks been captured. Never: two features resampled differently, or a block moved to another host.

use super::blocks::{Host, ratio};

/// How often a capture is resampled.
pub const REPLICATES: usize = 400;

/// From where to where the truth may be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `n`, from 0.
    pub fn one_of(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }
}

/// What is drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    /// Blocks within each host: what differs when the same hosts are captured again.
    Blocks,
    /// Whole hosts: what differs when other hosts of the same kind are captured.
    Hosts,
}

/// How often each block of each host was drawn, for each replicate; and what the denominator became.
pub(super) struct Replicates {
    /// By replicate: for all blocks of all hosts, one host after the other.
    times: Vec<Vec<f32>>,
    weights: Vec<f64>,
    /// Where each host's blocks begin.
    begin: Vec<usize>,
}

impl Replicates {
    /// Draws. `hosts_again`, where given, are the hosts that were drawn on the other side, so that
    /// the same hosts before and after are drawn together.
    pub(super) fn draw(hosts: &[Host], drawn: Drawn, random: &mut Random) -> Self {
        let mut begin = Vec::with_capacity(hosts.len());
        let mut blocks = 0;
        for host in hosts {
            begin.push(blocks);
            blocks += host.weights.len();
        }
        let mut replicates = Self {
            times: Vec::with_capacity(REPLICATES),
            weights: Vec::with_capacity(REPLICATES),
            begin,
        };
        for _ in 0..REPLICATES {
            let mut times = vec![0.0; blocks];
            match drawn {
                Drawn::Blocks => {
                    for (host, begin) in hosts.iter().zip(&replicates.begin) {
                        let n = host.weights.len();
                        for _ in 0..n {
                            times[begin + random.one_of(n)] += 1.0;
                        }
                    }
                }
                Drawn::Hosts => {
                    for _ in hosts {
                        let host = random.one_of(hosts.len());
                        let begin = replicates.begin[host];
                        for slot in &mut times[begin..begin + hosts[host].weights.len()] {
                            *slot += 1.0;
                        }
                    }
                }
            }
            let weights = hosts.iter().flat_map(|h| &h.weights);
            replicates
                .weights
                .push(weights.zip(&times).map(|(w, t)| w * f64::from(*t)).sum());
            replicates.times.push(times);
        }
        replicates
    }

    /// The feature's ratio in each replicate.
    pub(super) fn ratios(&self, hosts: &[Host], feature: usize, into: &mut Vec<f64>) {
        let mut rows: Vec<(usize, f64)> = Vec::new();
        for (host, begin) in hosts.iter().zip(&self.begin) {
            let values = host.values.get(feature).into_iter().flatten();
            rows.extend(values.map(|(block, value)| (begin + *block as usize, *value)));
        }
        into.clear();
        into.extend(self.times.iter().zip(&self.weights).map(|(times, weight)| {
            let value = rows
                .iter()
                .map(|(block, value)| value * f64::from(times[*block]))
                .sum();
            ratio(value, *weight)
        }));
    }
}

/// An interval with the shape of the replicates' differences and this standard deviation.
/// `beyond` is how many standard deviations each end is from the middle (t for 95 %).
pub(super) fn interval(
    middle: f64,
    replicates: &mut [f64],
    deviation: f64,
    beyond: f64,
) -> Interval {
    /// The same for the normal distribution.
    const NORMAL: f64 = 1.959_964;
    let n = replicates.len() as f64;
    let mean = ratio(replicates.iter().sum(), n);
    let variance = ratio(replicates.iter().map(|r| (r - mean).powi(2)).sum(), n - 1.0);
    let even = Interval {
        low: middle - beyond * deviation,
        high: middle + beyond * deviation,
    };
    // Without time every replicate is the same, but for rounding; and what is no number has no shape.
    let shaped = variance > 1e-12 * deviation * deviation;
    if !shaped || deviation <= 0.0 {
        return even;
    }
    replicates.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * (n - 1.0);
        let (below, within) = (place.floor() as usize, place.fract());
        let above = (below + 1).min(replicates.len() - 1);
        replicates[below] * (1.0 - within) + replicates[above] * within
    };
    let stretch = deviation / variance.sqrt() * beyond / NORMAL;
    // The ends of 400 replicates are shaky; their skew is kept, their width is the deviation's.
    let (down, up) = ((mean - at(0.025)) * stretch, (at(0.975) - mean) * stretch);
    // One replicate far off is no skew: the mean itself is beyond an end then.
    if down <= 0.0 || up <= 0.0 {
        return even;
    }
    let scale = 2.0 * beyond * deviation / (down + up);
    Interval {
        low: middle - down * scale,
        high: middle + up * scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_two_numbers_whatever_the_replicates_are() {
        let waves: Vec<f64> = (0..400).map(|i| f64::from(i % 7)).collect();
        let mut one_apart = vec![1.0; 400];
        one_apart[0] = 9.0;
        let mut no_number = waves.clone();
        no_number[3] = f64::NAN;
        for mut replicates in [waves, one_apart, no_number, vec![2.0; 400], Vec::new()] {
            for deviation in [0.0, 1e-300, 0.5] {
                let found = interval(1.0, &mut replicates, deviation, 1.96);
                let ends = found.low <= 1.0 && 1.0 <= found.high;
                assert!(ends, "{found:?} of {replicates:?}");
                assert!((found.high - found.low - 3.92 * deviation).abs() < 1e-9);
            }
        }
    }
}
