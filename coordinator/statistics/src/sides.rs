//! Two sides beside each other. In: each side's hosts. Out: for each feature both ratios, their
//! difference with its interval, and how probable it is by chance; of many hosts each against all
//! others. Never: other hosts spoken for where only these were seen.

use super::blocks::{Host, Scale, ratio};
use super::bootstrap::{Drawn, Interval, Random, Replicates, interval};
use super::distribution::{t_beyond, t_two_sided};
use super::fleet::{HOSTS_MIN, deviance};
use super::variance::{Noise, noise};

/// What was found of one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The left side's ratio.
    pub left: f64,
    /// The right side's.
    pub right: f64,
    /// Where right minus left is, with 95 % confidence.
    pub interval: Interval,
    /// How probable a difference at least as large is by chance.
    pub p: f64,
    /// Samples of the left side.
    pub left_samples: f64,
    /// Samples of the right side.
    pub right_samples: f64,
}

/// Half the probability that is left outside of an interval is on each side.
const OUTSIDE: f64 = 0.05;

/// What verdicts take of hosts: their sums, and how noisy they are.
#[derive(Clone, Debug)]
struct Known {
    /// By host and feature.
    values: Vec<Vec<f64>>,
    weights: Vec<f64>,
    samples: Vec<f64>,
    informative: Vec<usize>,
    noise: Noise,
    features: usize,
    scale: Scale,
}

impl Known {
    fn of(hosts: &[Host], features: usize, scale: Scale) -> Self {
        let values = |host: &Host| (0..features).map(|f| host.value(f)).collect();
        Self {
            values: hosts.iter().map(values).collect(),
            weights: hosts.iter().map(Host::weight).collect(),
            samples: hosts.iter().map(|h| h.sample).collect(),
            informative: hosts.iter().map(Host::informative).collect(),
            noise: noise(hosts, features, scale),
            features,
            scale,
        }
    }

    /// These hosts as a side.
    fn side(&self, members: Vec<usize>, drawn: Drawn) -> Side<'_> {
        Side {
            known: self,
            weight: members.iter().map(|h| self.weights[*h]).sum(),
            members,
            drawn,
        }
    }
}

/// Some of the hosts.
struct Side<'a> {
    known: &'a Known,
    members: Vec<usize>,
    weight: f64,
    drawn: Drawn,
}

impl Side<'_> {
    fn value(&self, feature: usize) -> f64 {
        let values = &self.known.values;
        self.members.iter().map(|h| values[*h][feature]).sum()
    }

    fn ratio(&self, feature: usize) -> f64 {
        ratio(self.value(feature), self.weight)
    }

    fn samples(&self, feature: usize) -> f64 {
        let known = self.known;
        let of = |h: &usize| known.values[*h][feature] / known.samples[*h];
        self.members.iter().map(of).sum()
    }

    /// The variance of the ratio by noise within hosts, if each host's ratio were `at(host)`.
    fn within(&self, feature: usize, at: impl Fn(usize) -> f64) -> f64 {
        let known = self.known;
        let parts = self.members.iter().map(|h| {
            let weight = known.weights[*h];
            let part = ratio(weight, self.weight);
            let counting = known
                .scale
                .counting_variance(at(*h), known.samples[*h], weight);
            part * part * known.noise.own[*h][feature] * counting
        });
        parts.sum()
    }

    /// The same around each host's own ratio; a host without a sample as if it had one.
    fn own(&self, feature: usize) -> f64 {
        let known = self.known;
        let at = |h: usize| {
            let one = ratio(known.samples[h], self.weight);
            ratio(known.values[h][feature], known.weights[h]).max(one)
        };
        self.within(feature, at).max(self.between(feature))
    }

    /// The variance between whole hosts, where hosts are what is drawn.
    fn between(&self, feature: usize) -> f64 {
        if self.drawn == Drawn::Blocks {
            return 0.0;
        }
        let (known, whole) = (self.known, self.ratio(feature));
        let square = |h: &usize| (known.values[*h][feature] - whole * known.weights[*h]).powi(2);
        let squares: f64 = self.members.iter().map(square).sum();
        let n = self.members.len() as f64;
        squares * n / (n - 1.0) / self.weight.powi(2)
    }

    fn freedom(&self) -> f64 {
        if self.drawn == Drawn::Hosts {
            return self.members.len() as f64 - 1.0;
        }
        let beyond_one = |h: &usize| self.known.informative[*h].saturating_sub(1);
        let blocks: usize = self.members.iter().map(beyond_one).sum();
        // Noise of counting alone is known; noise from blocks is known by how many there are, and
        // leans on that of all hosts together.
        if blocks == 0 {
            1e6
        } else {
            (blocks as f64).max(self.known.noise.freedom / 2.0)
        }
    }
}

/// How the hosts of both sides are drawn.
fn drawn(left: &[Host], right: &[Host], same_hosts: bool) -> Drawn {
    if left.len() >= HOSTS_MIN && right.len() >= HOSTS_MIN && !same_hosts {
        Drawn::Hosts
    } else {
        Drawn::Blocks
    }
}

/// Compares all features. `same_hosts` says that both sides are the same hosts at different times:
/// then only what differs within hosts counts. Else, with enough hosts on both sides, the
/// difference must also stand out against the spread between hosts of a side.
#[must_use]
pub fn compare_sides(
    left: &[Host],
    right: &[Host],
    features: usize,
    scale: Scale,
    same_hosts: bool,
    random: &mut Random,
) -> Vec<Verdict> {
    let known = Known::of(&[left, right].concat(), features, scale);
    let drawn = drawn(left, right, same_hosts);
    let was_side = known.side((0..left.len()).collect(), drawn);
    let is_side = known.side((left.len()..left.len() + right.len()).collect(), drawn);
    let replicates = [left, right].map(|hosts| Replicates::draw(hosts, drawn, random));
    let (mut was, mut is) = (Vec::new(), Vec::new());
    (0..features)
        .map(|feature| {
            let mut found = chance(&was_side, &is_side, feature);
            if found.freedom <= 0.0 {
                return found.verdict;
            }
            replicates[0].ratios(left, feature, &mut was);
            replicates[1].ratios(right, feature, &mut is);
            for (later, before) in is.iter_mut().zip(&was) {
                *later -= before;
            }
            let delta = found.verdict.right - found.verdict.left;
            let beyond = t_beyond(OUTSIDE, found.freedom);
            found.verdict.interval = interval(delta, &mut is, found.variance.sqrt(), beyond);
            found.verdict
        })
        .collect()
}

/// The same verdicts without their intervals, which are most of the work.
#[must_use]
pub fn judge_sides(
    left: &[Host],
    right: &[Host],
    features: usize,
    scale: Scale,
    same_hosts: bool,
) -> Vec<Verdict> {
    let known = Known::of(&[left, right].concat(), features, scale);
    let drawn = drawn(left, right, same_hosts);
    let left = known.side((0..left.len()).collect(), drawn);
    let right = known.side((left.members.len()..known.weights.len()).collect(), drawn);
    (0..features)
        .map(|feature| chance(&left, &right, feature).verdict)
        .collect()
}

/// Hosts that are judged one after the other, each against all others: what is the same for each is
/// made once.
#[derive(Clone, Debug)]
pub struct Rests(Known);

impl Rests {
    /// Of these hosts.
    #[must_use]
    pub fn of(hosts: &[Host], features: usize, scale: Scale) -> Self {
        Self(Known::of(hosts, features, scale))
    }

    /// What [`judge_sides`] finds of all other hosts on the left and this one on the right.
    #[must_use]
    pub fn against(&self, host: usize) -> Vec<Verdict> {
        let others = (0..self.0.weights.len()).filter(|h| *h != host).collect();
        let left = self.0.side(others, Drawn::Blocks);
        let right = self.0.side(vec![host], Drawn::Blocks);
        (0..self.0.features)
            .map(|feature| chance(&left, &right, feature).verdict)
            .collect()
    }
}

/// What is known of a difference before anything is resampled.
struct Chance {
    /// Without its interval.
    verdict: Verdict,
    /// The variance of the difference.
    variance: f64,
    /// With how many degrees of freedom it is known; 0 where there is nothing to compare.
    freedom: f64,
}

fn chance(left: &Side<'_>, right: &Side<'_>, feature: usize) -> Chance {
    let scale = left.known.scale;
    let (a, b) = (left.ratio(feature), right.ratio(feature));
    let verdict = Verdict {
        left: a,
        right: b,
        p: 1.0,
        left_samples: left.samples(feature),
        right_samples: right.samples(feature),
        ..Verdict::default()
    };
    let mut found = Chance {
        verdict,
        variance: 0.0,
        freedom: 0.0,
    };
    if left.weight <= 0.0 || right.weight <= 0.0 {
        return found;
    }
    // Each side varies around its own ratio.
    let (va, vb) = (left.own(feature), right.own(feature));
    found.variance = va + vb;
    found.freedom = ratio(
        (va + vb).powi(2),
        va * va / left.freedom() + vb * vb / right.freedom(),
    )
    .max(1.0);
    // The verdict: both sides vary around one common ratio.
    let together = left.value(feature) + right.value(feature);
    let common = ratio(together, left.weight + right.weight);
    let counting = match scale {
        Scale::Share => common * (1.0 - common),
        Scale::Rate => common,
    };
    if counting <= 0.0 {
        return found;
    }
    // As if so many independent units had been looked at.
    let size = |side: &Side<'_>| {
        let variance = side.within(feature, |_| common).max(side.between(feature));
        ratio(counting, variance)
    };
    let (na, nb) = (size(left), size(right));
    let middle = ratio(a * na + b * nb, na + nb);
    let worth = na * deviance(a, middle, scale) + nb * deviance(b, middle, scale);
    found.verdict.p = t_two_sided((2.0 * worth).sqrt(), found.freedom);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts of uneven load, some without some features; every third has no time.
    fn fleet(n: usize, timed: bool, sample: f64) -> Vec<Host> {
        let host = |h: usize| {
            let blocks = if timed || !h.is_multiple_of(3) { 12 } else { 1 };
            let feature = |f: usize| {
                let some = (0..blocks)
                    .filter(|b| (b + f + h).is_multiple_of(f + 1) && !(f + h).is_multiple_of(5));
                some.map(|b| {
                    let busy = ((b * 7 + f * 3 + h) % 11 + 1 + h % 4) as f64;
                    (b as u32, busy * sample)
                })
                .collect()
            };
            Host {
                weights: vec![(60 + 10 * h) as f64 * sample; blocks],
                windows: (0..blocks as u32).collect(),
                values: (0..8).map(feature).collect(),
                sample: sample * (1.0 + h as f64 / 7.0),
                timed: blocks > 1,
            }
        };
        (0..n).map(host).collect()
    }

    #[test]
    fn each_against_the_others_is_what_two_sides_are() {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1e-12);
        for (n, timed, sample) in [
            (2, true, 1.0),
            (3, false, 1.0),
            (9, true, 1e6),
            (30, false, 1.0),
        ] {
            let hosts = fleet(n, timed, sample);
            for scale in [Scale::Share, Scale::Rate] {
                let rests = Rests::of(&hosts, 8, scale);
                for h in 0..n {
                    let mut rest = hosts.clone();
                    let own = [rest.remove(h)];
                    let mut random = Random::new(1);
                    let slowly = compare_sides(&rest, &own, 8, scale, false, &mut random);
                    let judged = judge_sides(&rest, &own, 8, scale, false);
                    for (f, quick) in rests.against(h).iter().enumerate() {
                        let slow = &slowly[f];
                        let pairs = [
                            (quick.left, slow.left),
                            (quick.right, slow.right),
                            (quick.p, slow.p),
                            (quick.left_samples, slow.left_samples),
                            (quick.right_samples, slow.right_samples),
                            (judged[f].p, slow.p),
                        ];
                        for (at, (a, b)) in pairs.into_iter().enumerate() {
                            assert!(close(a, b), "{n} {h} {f} {at}: {quick:?} {slow:?}");
                        }
                    }
                }
            }
        }
    }
}
