//! Two sides beside each other. In: each side's hosts. Out: for each feature both ratios, their
//! difference with its interval, and how probable it is by chance. Never: other hosts spoken for
//! where only these were seen.

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

/// One side, with what each feature of it needs.
struct Side<'a> {
    hosts: &'a [Host],
    noise: &'a Noise,
    /// The first of its hosts within the noise.
    first: usize,
    weight: f64,
    replicates: Replicates,
    drawn: Drawn,
}

impl Side<'_> {
    fn ratio(&self, feature: usize) -> f64 {
        ratio(
            self.hosts.iter().map(|h| h.value(feature)).sum(),
            self.weight,
        )
    }

    fn samples(&self, feature: usize) -> f64 {
        self.hosts.iter().map(|h| h.samples(feature)).sum()
    }

    /// The variance of the ratio by noise within hosts, if each host's ratio were `at(host)`.
    fn within(&self, feature: usize, scale: Scale, at: impl Fn(&Host) -> f64) -> f64 {
        let parts = self.hosts.iter().enumerate().map(|(h, host)| {
            let part = ratio(host.weight(), self.weight);
            let noise = self.noise.own[self.first + h][feature];
            part * part * noise * host.counting_variance(at(host), scale)
        });
        parts.sum()
    }

    /// The variance between whole hosts, where hosts are what is drawn.
    fn between(&self, feature: usize) -> f64 {
        if self.drawn == Drawn::Blocks {
            return 0.0;
        }
        let whole = self.ratio(feature);
        let squares: f64 = self
            .hosts
            .iter()
            .map(|h| (h.value(feature) - whole * h.weight()).powi(2))
            .sum();
        let n = self.hosts.len() as f64;
        squares * n / (n - 1.0) / self.weight.powi(2)
    }

    fn freedom(&self) -> f64 {
        if self.drawn == Drawn::Hosts {
            return self.hosts.len() as f64 - 1.0;
        }
        let blocks: usize = self
            .hosts
            .iter()
            .map(|h| h.informative().saturating_sub(1))
            .sum();
        // Noise of counting alone is known; noise from blocks is known by how many there are, and
        // leans on that of all hosts together.
        if blocks == 0 {
            1e6
        } else {
            (blocks as f64).max(self.noise.freedom / 2.0)
        }
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
    let hosts: Vec<Host> = left.iter().chain(right).cloned().collect();
    let noise = noise(&hosts, features, scale);
    let many = left.len() >= HOSTS_MIN && right.len() >= HOSTS_MIN && !same_hosts;
    let drawn = if many { Drawn::Hosts } else { Drawn::Blocks };
    let mut side = |hosts, first| Side {
        hosts,
        noise: &noise,
        first,
        weight: <[Host]>::iter(hosts).map(Host::weight).sum(),
        replicates: Replicates::draw(hosts, drawn, random),
        drawn,
    };
    let (left, right) = (side(left, 0), side(right, left.len()));
    let (mut was, mut is) = (Vec::new(), Vec::new());
    (0..features)
        .map(|feature| {
            left.replicates.ratios(left.hosts, feature, &mut was);
            right.replicates.ratios(right.hosts, feature, &mut is);
            verdict(&left, &right, feature, scale, (&was, &mut is))
        })
        .collect()
}

fn verdict(
    left: &Side<'_>,
    right: &Side<'_>,
    feature: usize,
    scale: Scale,
    (was, is): (&[f64], &mut [f64]),
) -> Verdict {
    let (a, b) = (left.ratio(feature), right.ratio(feature));
    let mut found = Verdict {
        left: a,
        right: b,
        p: 1.0,
        left_samples: left.samples(feature),
        right_samples: right.samples(feature),
        ..Verdict::default()
    };
    if left.weight <= 0.0 || right.weight <= 0.0 {
        return found;
    }
    // The interval: each side varies around its own ratio; a side without a sample as if it had one.
    let own = |side: &Side<'_>| {
        let one = |h: &Host| ratio(h.sample, side.weight);
        let at = |h: &Host| ratio(h.value(feature), h.weight()).max(one(h));
        side.within(feature, scale, at).max(side.between(feature))
    };
    let (va, vb) = (own(left), own(right));
    for (later, before) in is.iter_mut().zip(was) {
        *later -= before;
    }
    let freedom = ratio(
        (va + vb).powi(2),
        va * va / left.freedom() + vb * vb / right.freedom(),
    );
    let beyond = t_beyond(OUTSIDE, freedom);
    found.interval = interval(b - a, is, (va + vb).sqrt(), beyond);
    // The verdict: both sides vary around one common ratio.
    let together = left.hosts.iter().chain(right.hosts);
    let common = ratio(
        together.map(|h| h.value(feature)).sum(),
        left.weight + right.weight,
    );
    let counting = match scale {
        Scale::Share => common * (1.0 - common),
        Scale::Rate => common,
    };
    if counting <= 0.0 {
        return found;
    }
    // As if so many independent units had been looked at.
    let size = |side: &Side<'_>| {
        let variance = side
            .within(feature, scale, |_| common)
            .max(side.between(feature));
        ratio(counting, variance)
    };
    let (na, nb) = (size(left), size(right));
    let middle = ratio(a * na + b * nb, na + nb);
    let worth = na * deviance(a, middle, scale) + nb * deviance(b, middle, scale);
    found.p = t_two_sided((2.0 * worth).sqrt(), freedom);
    found
}
