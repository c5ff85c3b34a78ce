//! The statistics against made-up captures of which the truth is known. In: how many. Out: how often
//! a verdict was wrong. Never: another result for the same number of runs: seeds are fixed.

mod made;

use crate::{Host, Place, Random, Scale, compare_sides, judge, noise};
use made::{Dice, LEAVES, Made, Odd, SECONDS, WORKERS, make};

/// Seconds of a block.
const BLOCK: usize = 5;

/// Hosts as the statistics take them, and the caller of each feature: subtrees first, then leaves.
fn observed(made: &Made) -> (Vec<Host>, Vec<Option<usize>>) {
    let subtrees = made.subtree_of.iter().max().map_or(0, |s| s + 1);
    let features = subtrees + made.subtree_of.len();
    let mut callers = vec![None; subtrees];
    callers.extend(made.subtree_of.iter().copied().map(Some));
    let blocks_of_worker = SECONDS / BLOCK;
    let hosts = made.hosts.iter().map(|counts| {
        let mut dense = vec![vec![0.0; WORKERS * blocks_of_worker]; features];
        let mut host = Host {
            weights: vec![0.0; WORKERS * blocks_of_worker],
            sample: 1.0,
            timed: true,
            ..Host::default()
        };
        for worker in 0..WORKERS {
            host.windows.extend(0..blocks_of_worker as u32);
            for second in 0..SECONDS {
                let block = worker * blocks_of_worker + second / BLOCK;
                for (leaf, n) in counts.by_second[worker][second].iter().enumerate() {
                    let n = f64::from(*n);
                    host.weights[block] += n;
                    dense[subtrees + leaf][block] += n;
                    dense[made.subtree_of[leaf]][block] += n;
                }
            }
        }
        let sparse = |row: Vec<f64>| {
            let rows = (0_u32..).zip(row);
            rows.filter(|r| r.1 > 0.0).collect()
        };
        host.values = dense.into_iter().map(sparse).collect();
        host
    });
    (hosts.collect(), callers)
}

/// How often any host of 20 alike is called odd.
#[must_use]
pub fn false_alarms(runs: u64, q: f64) -> usize {
    let alarm = |seed: &u64| {
        let (made, _) = make(&mut Dice::new(*seed), 20, |_, _| None);
        let (hosts, callers) = observed(&made);
        let noise = noise(&hosts, callers.len(), Scale::Share);
        let fleet = judge(&hosts, callers.len(), Scale::Share, &noise);
        fleet.is_some_and(|f| f.hosts.iter().any(|h| h.host_q <= q))
    };
    (0..runs).filter(alarm).count()
}

/// How often the one odd host of 20 comes first, is called odd, and its subtree is named.
#[must_use]
pub fn found(runs: u64, q: f64) -> usize {
    placed(runs, q, None)
}

/// The same when only one leaf of the subtree has more: not its caller, which has more because of it.
#[must_use]
pub fn found_leaf(runs: u64, q: f64) -> usize {
    placed(runs, q, Some(1))
}

fn placed(runs: u64, q: f64, leaf: Option<usize>) -> usize {
    let hit = |seed: &u64| {
        let mut dice = Dice::new(1_000_000 + seed);
        let choose = |dice: &mut Dice, shares: &[f64]| {
            let small: Vec<usize> = (0..shares.len()).filter(|s| shares[*s] <= 0.1).collect();
            let pick = |dice: &mut Dice, n: usize| (dice.unit() * n as f64) as usize;
            Some(Odd {
                host: pick(dice, 20),
                subtree: small[pick(dice, small.len())],
                leaf,
                more: 0.02,
            })
        };
        let (made, odd) = make(&mut dice, 20, choose);
        let Some(odd) = odd else { return false };
        let (hosts, callers) = observed(&made);
        let noise = noise(&hosts, callers.len(), Scale::Share);
        let Some(fleet) = judge(&hosts, callers.len(), Scale::Share, &noise) else {
            return false;
        };
        let first =
            (0..20).min_by(|a, b| fleet.hosts[*a].host_p.total_cmp(&fleet.hosts[*b].host_p));
        let place = Place {
            hosts: &hosts,
            callers: &callers,
            fleet: &fleet,
            noise: &noise,
            scale: Scale::Share,
            host: odd.host,
        };
        let named = fleet.hosts[odd.host].host_q <= q;
        let subtrees = callers.iter().filter(|c| c.is_none()).count();
        let right = leaf.map_or(odd.subtree, |l| subtrees + odd.subtree * LEAVES + l);
        named && first == Some(odd.host) && place.locate(0.01, 3).first() == Some(&right)
    };
    (0..runs).filter(hit).count()
}

/// How many intervals there were of frames with 50 samples on each side, and how many of them had
/// the truth in them: one host against another, or against all others.
#[must_use]
pub fn coverage(runs: u64, hosts: usize) -> Coverage {
    let (mut all, mut right) = (0, 0);
    for seed in 0..runs {
        let (made, _) = make(&mut Dice::new(2_000_000 + seed), hosts, |_, _| None);
        let (seen, callers) = observed(&made);
        let subtrees = callers.iter().filter(|c| c.is_none()).count();
        let mut random = Random::new(seed);
        let verdicts = compare_sides(
            &seen[1..],
            &seen[..1],
            callers.len(),
            Scale::Share,
            false,
            &mut random,
        );
        let rest: f64 = seen[1..].iter().map(Host::weight).sum();
        for (leaf, verdict) in verdicts[subtrees..].iter().enumerate() {
            if verdict.left_samples < 50.0 || verdict.right_samples < 50.0 {
                continue;
            }
            let others: f64 = made.hosts[1..]
                .iter()
                .zip(&seen[1..])
                .map(|(h, s)| h.truth[leaf] * s.weight() / rest)
                .sum();
            let truth = made.hosts[0].truth[leaf] - others;
            all += 1;
            right += usize::from(verdict.interval.low <= truth && truth <= verdict.interval.high);
        }
    }
    Coverage { all, right }
}

/// How many intervals there were, and how many of them had the truth in them.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// Intervals.
    pub all: usize,
    /// Of those, with the truth in them.
    pub right: usize,
}

impl Coverage {
    /// The part that had the truth in them.
    #[must_use]
    pub fn part(self) -> f64 {
        crate::ratio(self.right as f64, self.all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 1,000 and 2,000 runs are made by `make bench`; docs/compare.md has their results. The bounds
    // here are those of 1,000 for 200, widened by what chance does to 200 (four standard deviations).

    #[test]
    fn a_fleet_of_hosts_alike_is_seldom_accused() {
        let alarms = false_alarms(200, 0.05);
        assert!(alarms <= 22, "{alarms} of 200");
    }

    #[test]
    fn one_odd_host_of_twenty_is_found_with_its_subtree_or_its_leaf() {
        let found = found(200, 0.05);
        assert!(found >= 187, "{found} of 200");
        let leaves = found_leaf(100, 0.05);
        assert!(leaves >= 92, "{leaves} of 100 leaves");
    }

    #[test]
    fn intervals_have_the_truth_in_them_as_often_as_they_say() {
        for (runs, hosts) in [(160, 2), (40, 20)] {
            let coverage = coverage(runs, hosts);
            assert!((0.93..=0.97).contains(&coverage.part()), "{coverage:?}");
            assert!(coverage.all > 200);
        }
    }
}
