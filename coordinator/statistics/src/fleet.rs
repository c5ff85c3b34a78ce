//! Each host against the others. In: hosts, and how noisy they are. Out: for each host and feature
//! how far it stands from the others, and for each host how probable that is by chance. Never: an
//! odd host among fewer than four, or one host's difference judged by noise within hosts alone.
//!
//! A host is odd when a feature differs by more than noise within hosts *and* the usual spread
//! between hosts explain. That spread is one relative size for all features (what a median feature
//! shows), widened where a feature is known to spread more. A host's statistics are taken together,
//! so that how many features were looked at is paid for, and features that say the same are paid
//! for once; then hosts are judged together, with the rate of false discoveries controlled. Odd hosts among the others neither move the middle nor
//! widen the spread much: both are robust.

use super::blocks::{Host, Scale, ratio};
use super::distribution::{false_discoveries, t_beyond, t_two_sided, together, trigamma};
use super::variance::Noise;

/// With fewer hosts nobody can say which one is odd.
pub const HOSTS_MIN: usize = 4;
/// Features with fewer samples on a host say nothing about the spread between hosts.
const SAMPLES_MIN: f64 = 20.0;
/// Part of the other hosts whose spread is believed; the rest may be odd themselves.
const KEPT: f64 = 0.8;
/// What stands farther from the middle, in standard deviations, does not move it.
const FAR: f64 = 3.0;
/// Fewer features do not show whether all spread alike.
const FEATURES_MIN: usize = 8;
/// As how many hosts the common spread weighs when that is not known.
const PRIOR_UNKNOWN: f64 = 20.0;
/// As how many hosts it weighs at least and at most.
const PRIOR: (f64, f64) = (8.0, 200.0);
/// The median of a squared standard normal variable.
const MEDIAN_SQUARE: f64 = 0.454_9;
/// The mean of a squared standard normal variable that is within [`FAR`].
const NEAR_MEAN: f64 = 0.973_3;
/// The spread that weights are made with; hosts of one kind differ by a few percent.
const SPREAD_GUESS: f64 = 0.03;

/// One host as it was judged.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// For each feature how far it is from the others', in standard deviations; above 0 for more.
    pub statistics: Vec<f64>,
    /// For each feature how probable that is by chance.
    pub p: Vec<f64>,
    /// For each feature the others' middle.
    pub middle: Vec<f64>,
    /// How probable the host's statistics are by chance, all together.
    pub host_p: f64,
    /// The same after all hosts were looked at.
    pub host_q: f64,
}

/// All hosts as they were judged.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// In the order they were given in.
    pub hosts: Vec<Judged>,
    /// How far hosts usually are from each other, as a part of a feature's value.
    pub spread: f64,
}

/// Judges every host against the others. None with fewer than [`HOSTS_MIN`] hosts.
#[must_use]
pub fn judge(hosts: &[Host], features: usize, scale: Scale, noise: &Noise) -> Option<Fleet> {
    if hosts.len() < HOSTS_MIN {
        return None;
    }
    let rows: Vec<Row> = (0..features)
        .map(|f| Row::of(hosts, f, scale, noise))
        .collect();
    let spread = usual_spread(&rows);
    let mut fleet = Fleet {
        hosts: vec![Judged::default(); hosts.len()],
        spread,
    };
    let prior = prior(&rows, spread);
    let with_weight = hosts.iter().filter(|h| h.weight() > 0.0 && h.sample > 0.0);
    let kept = Kept::of(with_weight.count().saturating_sub(1));
    for row in &rows {
        for (h, judged) in fleet.hosts.iter_mut().enumerate() {
            let (statistic, freedom, middle) = row.statistic(h, spread, prior, scale, &kept);
            judged.statistics.push(statistic);
            judged.p.push(t_two_sided(statistic, freedom));
            judged.middle.push(middle);
        }
    }
    for judged in &mut fleet.hosts {
        judged.host_p = together(&judged.p);
    }
    let p: Vec<f64> = fleet.hosts.iter().map(|h| h.host_p).collect();
    for (judged, q) in fleet.hosts.iter_mut().zip(false_discoveries(&p)) {
        judged.host_q = q;
    }
    Some(fleet)
}

/// One feature on all hosts.
struct Row {
    ratios: Vec<f64>,
    /// Variance within each host if its ratio were `middle`.
    within: Vec<f64>,
    /// The same if samples came independently.
    counting: Vec<f64>,
    /// The denominator, in units of which one sample is worth 1.
    sizes: Vec<f64>,
    /// The ratio that half of the fleet is below.
    middle: f64,
    /// Half a sample in the whole fleet stands for none: what is new must not be infinitely odd.
    half: f64,
    /// What the relative spread is multiplied by: a part of a whole cannot spread beyond it.
    reach: f64,
}

impl Row {
    fn of(hosts: &[Host], feature: usize, scale: Scale, noise: &Noise) -> Self {
        let ratios: Vec<f64> = hosts
            .iter()
            .map(|h| ratio(h.value(feature), h.weight()))
            .collect();
        let weight: f64 = hosts.iter().map(Host::weight).sum();
        let sample = hosts.iter().map(|h| h.sample).fold(0.0, f64::max);
        let half = ratio(sample / 2.0, weight);
        // By how many samples a host has, not by what they are worth: a few long waits of one host are
        // worth more than all of the others together.
        let sizes: Vec<f64> = hosts.iter().map(|h| ratio(h.weight(), h.sample)).collect();
        let mut middle = weighted_median(&ratios, &sizes).max(half);
        if scale == Scale::Share {
            middle = middle.min(1.0 - half).max(half);
        }
        let counting: Vec<f64> = hosts
            .iter()
            .map(|h| h.counting_variance(middle, scale))
            .collect();
        Self {
            within: counting
                .iter()
                .enumerate()
                .map(|(h, v)| v * noise.own[h][feature])
                .collect(),
            sizes,
            reach: match scale {
                Scale::Share => middle * (1.0 - middle),
                Scale::Rate => middle,
            },
            ratios,
            counting,
            middle,
            half,
        }
    }

    fn variance(&self, host: usize, spread: f64) -> f64 {
        self.within[host] + (spread * self.reach).powi(2)
    }

    /// How far the host is from the others, with how many degrees of freedom that is known, and
    /// where the others are. `kept` is that of all hosts with a weight but one.
    fn statistic(
        &self,
        host: usize,
        spread: f64,
        prior: f64,
        scale: Scale,
        kept: &Kept,
    ) -> (f64, f64, f64) {
        let (mut sum, mut weights) = (0.0, 0.0);
        let others = || (0..self.ratios.len()).filter(|k| *k != host && self.sizes[*k] > 0.0);
        for k in others() {
            let variance = self.variance(k, spread);
            if (self.ratios[k] - self.middle).powi(2) <= FAR * FAR * variance {
                sum += self.ratios[k] / variance;
                weights += 1.0 / variance;
            }
        }
        if self.sizes[host] <= 0.0 || weights <= 0.0 {
            return (0.0, 1.0, self.middle);
        }
        let middle = sum / weights;
        let squares = others()
            .map(|k| (self.ratios[k] - middle).powi(2) / self.variance(k, spread))
            .collect();
        let (seen, freedom) = (kept.mean_square(squares), kept.freedom);
        let wider = ((prior + freedom * seen) / (prior + freedom)).max(1.0);
        let variance = wider * (self.variance(host, spread) + 1.0 / weights);
        // As if so many independent samples had been taken: the tails of a rare feature are those of
        // counting, not of the bell curve.
        let counting = self.counting[host].max(f64::MIN_POSITIVE);
        let size = self.sizes[host] * counting / variance;
        let statistic = signed_root(self.ratios[host], middle.max(self.half), size, scale);
        (statistic, prior + freedom, middle)
    }
}

/// How many of so many squares are believed, those nearest to 0, and what they are by chance.
struct Kept {
    squares: usize,
    /// Their mean were they of standard normal values around their own mean.
    mean: f64,
    /// With how many degrees of freedom that is known.
    freedom: f64,
}

impl Kept {
    fn of(squares: usize) -> Self {
        let n = squares as f64;
        let kept = ((n * KEPT).ceil() as usize).clamp(1, squares.max(1));
        let mean_taken = (n - 1.0).max(0.5) / n.max(1.0);
        if kept >= squares {
            return Self {
                squares: kept,
                mean: mean_taken,
                freedom: (n - 1.0).max(1.0),
            };
        }
        // Of a standard normal variable within its middle part: 1 - 2·z·φ(z)/part. The factor for few
        // values and the degrees of freedom were found by simulation (n from 6 to 100).
        let part = kept as f64 / n;
        let z = t_beyond(1.0 - part, 1e7);
        let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        Self {
            squares: kept,
            mean: (1.0 - 2.0 * z * density / part) * mean_taken * (1.0 + 1.5 / n),
            freedom: n * (part - 0.13),
        }
    }

    /// The mean of the squares that are believed, as a part of what it is by chance.
    fn mean_square(&self, mut squares: Vec<f64>) -> f64 {
        squares.sort_by(f64::total_cmp);
        let sum: f64 = squares.iter().take(self.squares).sum();
        ratio(sum, self.squares as f64) / self.mean
    }
}

/// As how many hosts the common spread weighs beside a feature's own: many when features spread
/// alike, few when some spread much more than others (Smyth's moderated t-statistics).
fn prior(rows: &[Row], spread: f64) -> f64 {
    let kept = Kept::of(rows.first().map_or(0, |row| row.ratios.len()));
    let seen: Vec<f64> = rows
        .iter()
        .filter(|row| {
            let known = |h: &usize| row.sizes[*h] * row.middle >= SAMPLES_MIN;
            (0..row.ratios.len()).filter(known).count() * 2 > row.ratios.len()
        })
        .map(|row| {
            let of = |h: usize| (row.ratios[h] - row.middle).powi(2) / row.variance(h, spread);
            kept.mean_square((0..row.ratios.len()).map(of).collect())
        })
        .filter(|square| *square > 0.0)
        .collect();
    if seen.len() < FEATURES_MIN {
        return PRIOR_UNKNOWN;
    }
    let n = seen.len() as f64;
    let mean = seen.iter().map(|s| s.ln()).sum::<f64>() / n;
    let variance = seen.iter().map(|s| (s.ln() - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let by_chance = trigamma(kept.freedom / 2.0);
    let (mut low, mut high) = PRIOR;
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if trigamma(middle / 2.0) > variance - by_chance {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The signed root of the deviance: how far `ratio` is from `middle` when `size` independent units
/// were looked at.
pub(super) fn signed_root(ratio: f64, middle: f64, size: f64, scale: Scale) -> f64 {
    (2.0 * size * deviance(ratio, middle, scale)).sqrt() * (ratio - middle).signum()
}

/// Half the deviance of one unit: what seeing `ratio` where `middle` was expected is worth.
pub(super) fn deviance(ratio: f64, middle: f64, scale: Scale) -> f64 {
    let part = |o: f64, e: f64| {
        let surprise = if o > 0.0 && e > 0.0 {
            o * (o / e).ln()
        } else {
            0.0
        };
        surprise - (o - e)
    };
    let other = if scale == Scale::Share {
        part(1.0 - ratio, 1.0 - middle)
    } else {
        0.0
    };
    (part(ratio, middle) + other).max(0.0)
}

/// How far hosts usually are from each other, as a part of a feature's value: what makes squared
/// distances as large as they should be, each weighed by how much it tells about the spread. First
/// by their median, which odd hosts do not move; then by the mean of what is not far under that.
fn usual_spread(rows: &[Row]) -> f64 {
    let hosts = rows.first().map_or(1, |r| r.ratios.len()) as f64;
    let mean_taken = (hosts - 1.0) / hosts;
    let mut pairs: Vec<(&Row, usize, f64)> = Vec::new();
    for row in rows {
        for h in 0..row.ratios.len() {
            if row.counting[h] > 0.0 && row.sizes[h] * row.middle >= SAMPLES_MIN {
                let tells = row.reach.powi(2) / row.variance(h, SPREAD_GUESS);
                pairs.push((row, h, tells * tells));
            }
        }
    }
    if pairs.is_empty() {
        return 0.0;
    }
    let square = |(row, h, _): &(&Row, usize, f64), spread: f64| {
        (row.ratios[*h] - row.middle).powi(2) / row.variance(*h, spread)
    };
    let weights: Vec<f64> = pairs.iter().map(|p| p.2).collect();
    let rough = falling_to(MEDIAN_SQUARE * mean_taken, |spread| {
        let squares: Vec<f64> = pairs.iter().map(|p| square(p, spread)).collect();
        weighted_median(&squares, &weights)
    });
    pairs.retain(|p| square(p, rough) <= FAR * FAR);
    let whole: f64 = pairs.iter().map(|p| p.2).sum();
    falling_to(NEAR_MEAN * mean_taken, |spread| {
        ratio(pairs.iter().map(|p| p.2 * square(p, spread)).sum(), whole)
    })
}

/// Where a falling function of the spread comes down to `wanted`; 0 where it begins below.
fn falling_to(wanted: f64, seen_at: impl Fn(f64) -> f64) -> f64 {
    if seen_at(0.0) <= wanted {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 2.0);
    for _ in 0..30 {
        let spread = (low + high) / 2.0;
        if seen_at(spread) > wanted {
            low = spread;
        } else {
            high = spread;
        }
    }
    high
}

/// The value that has half of the weight below it.
fn weighted_median(values: &[f64], weights: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).filter(|i| weights[*i] > 0.0).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let half = order.iter().map(|i| weights[*i]).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for i in &order {
        sum += weights[*i];
        if sum >= half {
            return values[*i];
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;

    /// A host with ten blocks in which each feature has about its value.
    fn host(values: &[f64], shift: usize) -> Host {
        let blocks = |f: usize, value: f64| {
            let wave = |b: usize| {
                if (b + f + shift).is_multiple_of(2) {
                    1.1
                } else {
                    0.9
                }
            };
            (0..10)
                .map(|b| (b as u32, value / 10.0 * wave(b)))
                .collect()
        };
        Host {
            weights: vec![1_000.0; 10],
            windows: (0..10).collect(),
            values: values
                .iter()
                .enumerate()
                .map(|(f, v)| blocks(f, *v))
                .collect(),
            sample: 1.0,
            timed: true,
        }
    }

    fn judged(fleet: &[Host]) -> Fleet {
        let noise = noise(fleet, fleet[0].values.len(), Scale::Share);
        judge(fleet, fleet[0].values.len(), Scale::Share, &noise).unwrap()
    }

    #[test]
    fn with_three_hosts_nobody_is_odd() {
        let three: Vec<Host> = (0..3)
            .map(|h| host(&[5_000.0 - 1_000.0 * h as f64], h))
            .collect();
        let noise = noise(&three, 1, Scale::Share);
        assert!(judge(&three, 1, Scale::Share, &noise).is_none());
    }

    #[test]
    fn what_only_one_host_does_and_what_only_it_lacks_are_odd() {
        let mut fleet: Vec<Host> = (0..8).map(|h| host(&[4_000.0, 0.0, 300.0], h)).collect();
        fleet[3] = host(&[4_000.0, 200.0, 300.0], 1);
        fleet[5] = host(&[4_000.0, 0.0, 0.0], 1);
        let found = judged(&fleet);
        for (h, judged) in found.hosts.iter().enumerate() {
            assert_eq!(
                judged.host_q <= 0.05,
                [3, 5].contains(&h),
                "{h}: {judged:?}"
            );
        }
        assert!(found.hosts[3].statistics[1] > 5.0 && found.hosts[5].statistics[2] < -5.0);
    }

    #[test]
    fn two_odd_hosts_do_not_hide_each_other() {
        let mut fleet: Vec<Host> = (0..12).map(|h| host(&[1_000.0, 3_000.0], h)).collect();
        fleet[0] = host(&[2_000.0, 3_000.0], 0);
        fleet[7] = host(&[2_000.0, 3_000.0], 0);
        let found = judged(&fleet);
        let odd: Vec<usize> = (0..12).filter(|h| found.hosts[*h].host_q <= 0.05).collect();
        assert_eq!(odd, [0, 7]);
    }

    #[test]
    fn a_spread_between_hosts_is_seen_and_widens_verdicts() {
        let values = [
            900.0, 1_100.0, 1_300.0, 700.0, 1_000.0, 1_200.0, 800.0, 1_400.0,
        ];
        let fleet: Vec<Host> = values.iter().map(|v| host(&[*v], 0)).collect();
        let found = judged(&fleet);
        assert!(found.spread > 0.1, "{}", found.spread);
        assert!(found.hosts.iter().all(|h| h.host_q > 0.05));
    }
}
