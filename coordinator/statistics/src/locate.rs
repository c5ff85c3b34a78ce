//! Where in the call tree a host's difference sits. In: a host as it was judged, and which feature
//! lies below which. Out: the few places that account for it, the strongest first. Never: the
//! outermost place when a deeper one says the same, or a callee when its siblings changed with it.

use super::blocks::{Host, Scale, ratio};
use super::fleet::{Fleet, signed_root};
use super::variance::Noise;
use std::collections::BTreeMap;

/// What is left of a place without one callee counts as changed beyond so many standard deviations.
const CHANGED: f64 = 2.5;
/// A callee is stepped down to when it carries at least this part of the difference.
const CARRIED: f64 = 0.8;
/// The same function on another way belongs to a place when it carries at least this part of the place's difference.
const WITH: f64 = 0.1;
/// What is more on the host is preferred to what is less, unless the latter stands out so much
/// more: in shares every gain is a loss elsewhere, and "has rate_limit" says more than "has less of
/// everything else".
const PREFER_MORE: f64 = 1.25;

/// A host among its fleet, with the call tree of the features.
pub struct Place<'a> {
    /// All hosts.
    pub hosts: &'a [Host],
    /// The caller of each feature, if that is a feature too; callers have lower numbers.
    pub callers: &'a [Option<usize>],
    /// As they were judged.
    pub fleet: &'a Fleet,
    /// Their noise.
    pub noise: &'a Noise,
    /// What ratios are of.
    pub scale: Scale,
    /// Which host.
    pub host: usize,
}

impl Place<'_> {
    /// Up to `most` features, none above or below another, each of which stands out with a
    /// probability of at most `p_max`. The first is taken whatever its probability is.
    #[must_use]
    pub fn locate(&self, p_max: f64, most: usize) -> Vec<usize> {
        let judged = &self.fleet.hosts[self.host];
        let mut free = vec![true; self.callers.len()];
        let mut found = Vec::new();
        while found.len() < most {
            let best = |sign: f64| {
                (0..free.len())
                    .filter(|f| free[*f] && judged.statistics[*f] * sign > 0.0)
                    // Of equals the first, which is the outermost.
                    .max_by(|a, b| {
                        let (a_t, b_t) = (judged.statistics[*a].abs(), judged.statistics[*b].abs());
                        a_t.total_cmp(&b_t).then_with(|| b.cmp(a))
                    })
            };
            let strength = |f: Option<usize>| f.map_or(0.0, |f| judged.statistics[f].abs());
            let (more, less) = (best(1.0), best(-1.0));
            let start = if strength(less) > strength(more) * PREFER_MORE {
                less
            } else {
                more.or(less)
            };
            let Some(start) = start else { break };
            if !found.is_empty() && judged.p[start] > p_max {
                break;
            }
            let place = self.down(self.up(start, &free));
            self.take(place, &mut free);
            found.push(place);
        }
        found
    }

    /// One function below `place` that carries most of its difference although no single way to it does: the features
    /// where it is met first, the strongest first. Empty when there is none. `functions` says which features are the
    /// same function.
    #[must_use]
    pub fn gather(&self, place: usize, functions: &[u32]) -> Vec<usize> {
        let sign = self.delta(place).signum();
        // By function, where it is met first on the way down from the place.
        let mut met: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut below = vec![false; self.callers.len()];
        below[place] = true;
        for at in place + 1..self.callers.len() {
            let Some(caller) = self.callers[at].filter(|c| below[*c]) else {
                continue;
            };
            below[at] = true;
            let mut above = Some(caller).filter(|c| *c != place);
            while let Some(one) = above.filter(|a| functions[*a] != functions[at]) {
                above = self.callers[one].filter(|c| *c != place);
            }
            if above.is_none() {
                met.entry(functions[at]).or_default().push(at);
            }
        }
        let sum = |group: &[usize]| group.iter().map(|f| self.delta(*f)).sum::<f64>() * sign;
        let value = |group: &[usize]| group.iter().map(|f| self.of_host(*f)).sum::<f64>();
        let carries = |group: &Vec<usize>| {
            group.len() > 1
                && sum(group) >= self.delta(place).abs() * CARRIED
                && self.without(place, group) * sign < CHANGED
        };
        // Of functions that call each other the innermost has least beside the difference.
        let mut found = met
            .into_values()
            .filter(carries)
            .min_by(|a, b| value(a).total_cmp(&value(b)))
            .unwrap_or_default();
        found.sort_by(|a, b| {
            let by_delta = (self.delta(*b) * sign).total_cmp(&(self.delta(*a) * sign));
            by_delta.then_with(|| a.cmp(b))
        });
        found
    }

    /// A place and the same function on other ways, where that has changed in the same direction; the strongest first.
    #[must_use]
    pub fn elsewhere(&self, place: usize, functions: &[u32]) -> Vec<usize> {
        let delta = self.delta(place);
        let mut found = vec![place];
        for at in (0..self.callers.len()).filter(|f| functions[*f] == functions[place]) {
            let same = self.delta(at) * delta.signum() >= delta.abs() * WITH;
            if same
                && !found
                    .iter()
                    .any(|f| self.is_above(*f, at) || self.is_above(at, *f))
            {
                found.push(at);
            }
        }
        found.sort_by(|a, b| self.delta(*b).abs().total_cmp(&self.delta(*a).abs()));
        found
    }

    /// Whether `above` is `below` or one of its callers.
    fn is_above(&self, above: usize, below: usize) -> bool {
        let callers = std::iter::successors(Some(below), |f| self.callers[*f]);
        callers.take_while(|f| *f >= above).any(|f| f == above)
    }

    /// Marks a place and all above and below it.
    fn take(&self, place: usize, free: &mut [bool]) {
        let mut above = Some(place);
        while let Some(at) = above {
            free[at] = false;
            above = self.callers[at];
        }
        let mut below = vec![false; free.len()];
        below[place] = true;
        for at in place + 1..free.len() {
            if self.callers[at].is_some_and(|c| below[c]) {
                below[at] = true;
                free[at] = false;
            }
        }
    }

    /// The caller, as long as its other callees changed in the same way.
    fn up(&self, mut place: usize, free: &[bool]) -> usize {
        while let Some(caller) = self.callers[place].filter(|c| free[*c]) {
            let sign = self.delta(place).signum();
            if self.without(caller, &[place]) * sign < CHANGED {
                break;
            }
            place = caller;
        }
        place
    }

    /// The callee, as long as one carries most of it and the others did not change.
    fn down(&self, mut place: usize) -> usize {
        loop {
            let delta = self.delta(place);
            let callees =
                (place + 1..self.callers.len()).filter(|c| self.callers[*c] == Some(place));
            let carrier = callees
                .filter(|c| self.delta(*c) * delta.signum() >= delta.abs() * CARRIED)
                .filter(|c| self.without(place, &[*c]) * delta.signum() < CHANGED)
                .max_by(|a, b| self.delta(*a).abs().total_cmp(&self.delta(*b).abs()));
            match carrier {
                Some(callee) => place = callee,
                None => return place,
            }
        }
    }

    /// By how much the host differs from the others' middle.
    fn delta(&self, feature: usize) -> f64 {
        self.of_host(feature) - self.fleet.hosts[self.host].middle[feature]
    }

    fn of_host(&self, feature: usize) -> f64 {
        let host = &self.hosts[self.host];
        ratio(host.value(feature), host.weight())
    }

    /// How far what `caller` has without `callees` is from the others', in standard deviations.
    fn without(&self, caller: usize, callees: &[usize]) -> f64 {
        let judged = &self.fleet.hosts[self.host];
        let host = &self.hosts[self.host];
        let size = ratio(host.weight(), host.sample);
        let own: f64 = callees.iter().map(|c| self.of_host(*c)).sum();
        let others: f64 = callees.iter().map(|c| judged.middle[*c]).sum();
        let of_host = (self.of_host(caller) - own).max(0.0);
        let middle = (judged.middle[caller] - others).max(ratio(0.5, size));
        let counting = host.counting_variance(middle, self.scale);
        let variance =
            counting * self.noise.own[self.host][caller] + (self.fleet.spread * middle).powi(2);
        signed_root(
            of_host,
            middle,
            size * ratio(counting, variance),
            self.scale,
        )
    }
}
