//! The ranking of hosts. In: a merged profile. Out: for each host how far its shares are from the
//! rest's and the frame that explains most of it, most unlike first. Never: counts compared where
//! shares are meant: a busier host is not a different one.

use super::explain::{Sides, explain};
use super::unlike::unlike;
use model::profile::{Profile, SeriesId};
use model::{Finding, FindingCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Below this many samples a host's small differences mean nothing, and a finding says so.
pub const FEW_SAMPLES: u64 = 500;
/// A host whose most different frame differs by less than this is called close to the others.
const CLOSE_POINTS: f64 = 5.0;
/// A host nearer than this part of the largest distance is not called unlike the others.
const NEARER: f64 = 0.75;

/// One host against the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostDifference {
    /// The host.
    pub host: String,
    /// The largest difference of the share of any part of the call tree, 0 (alike) to 1 (nothing
    /// shared). Not a sum over self shares: with thousands of small frames that is mostly noise,
    /// and it does not see a caller whose callees stay the same.
    pub distance: f64,
    /// The frame that explains most of it; none when the host is exactly like the others.
    pub frame: Option<String>,
    /// The stack down to that frame, root first.
    pub path: Vec<String>,
    /// Whether the shares are the frame's wherever it stands; else only on `path`.
    pub anywhere: bool,
    /// Part of the host's samples that has the frame, 0 to 1.
    pub host_share: f64,
    /// The same part of the other hosts' samples.
    pub rest_share: f64,
    /// Their difference in percentage points.
    pub delta_points: f64,
    /// Samples of the host.
    pub samples_host: u64,
    /// Samples of the others.
    pub samples_rest: u64,
}

impl HostDifference {
    /// The difference as a person would say it. `largest` is the largest distance in the ranking:
    /// one odd host among few makes all the others differ from *their* rest, so a host that is much
    /// nearer than the oddest one is not called unlike.
    fn sentence(&self, largest: f64) -> String {
        let Some(frame) = &self.frame else {
            return format!("{} is like the others: no frame differs", self.host);
        };
        let manner = if self.delta_points.abs() < CLOSE_POINTS {
            "is close to the others; what differs most:"
        } else if self.distance < largest * NEARER {
            "differs less:"
        } else {
            "is unlike the others:"
        };
        // The last callers say where to look; the whole stack is in the record.
        let callers = &self.path[self.path.len().saturating_sub(3)..];
        let place = if callers.last() == Some(frame) {
            callers.join(" → ")
        } else {
            frame.clone()
        };
        format!(
            "{} {manner} {place} is in {:.1} % of its samples, {:.1} % elsewhere ({:+.1} points)",
            self.host,
            self.host_share * 100.0,
            self.rest_share * 100.0,
            self.delta_points
        )
    }
}

/// Hosts by how unlike the others they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// Most unlike first.
    pub entries: Vec<HostDifference>,
    /// Hosts without a sample; they cannot be compared.
    pub without_samples: Vec<String>,
    /// Why there is no ranking, or how it is to be read.
    pub note: String,
    /// What weakens it.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

impl Ranking {
    /// One sentence for each entry, in their order.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let largest = self.entries.iter().map(|e| e.distance).fold(0.0, f64::max);
        self.entries.iter().map(|e| e.sentence(largest)).collect()
    }
}

/// Ranks the hosts of `profile` by the measure with this index.
#[must_use]
pub fn rank(profile: &Profile, measure: usize) -> Ranking {
    let mut ranking = Ranking::default();
    let mut by_host: BTreeMap<String, Vec<SeriesId>> = profile
        .hosts()
        .into_iter()
        .map(|h| (h, Vec::new()))
        .collect();
    for id in profile.totals.keys() {
        if let Some(series) = profile.series.get(*id) {
            by_host.entry(series.host.clone()).or_default().push(*id);
        }
    }
    let all: Vec<SeriesId> = profile.totals.keys().copied().collect();
    let all = self_values(profile, &all, measure);
    let mut compared = Vec::new();
    for (host, series) in by_host {
        let own = self_values(profile, &series, measure);
        if own.iter().all(|v| *v == 0) {
            ranking.without_samples.push(host);
        } else {
            compared.push((host, own));
        }
    }
    if compared.len() < 2 {
        ranking.note = match compared.first() {
            Some((host, _)) => {
                format!("only {host} has samples, so there is nothing to compare it with")
            }
            None => "no host has samples, so there is nothing to compare".to_owned(),
        };
        return ranking;
    }
    for (host, own) in compared {
        let rest = all
            .iter()
            .zip(&own)
            .map(|(a, o)| a.saturating_sub(*o))
            .collect();
        ranking
            .entries
            .push(explain(profile, host, Sides { own, rest }));
    }
    ranking.entries.sort_by(|a, b| {
        b.distance
            .total_cmp(&a.distance)
            .then_with(|| a.host.cmp(&b.host))
    });
    ranking.note =
        "shares of samples, each host against all others together; no error bars yet".to_owned();
    ranking.findings = findings(profile, &ranking.entries);
    ranking
}

fn findings(profile: &Profile, entries: &[HostDifference]) -> Vec<Finding> {
    let mut findings = vec![Finding::new(
        FindingCode::RankingNoErrorBars,
        format!("{} hosts compared", entries.len()),
    )];
    findings.extend(unlike(profile, |_| true));
    for entry in entries.iter().filter(|e| e.samples_host < FEW_SAMPLES) {
        let said = format!("{} samples, fewer than {FEW_SAMPLES}", entry.samples_host);
        findings.push(Finding::new(FindingCode::FewSamples, said).on(&entry.host));
    }
    findings
}

/// Self values by node number of some series together.
fn self_values(profile: &Profile, series: &[SeriesId], measure: usize) -> Vec<u64> {
    let mut values = vec![0_u64; profile.tree.len()];
    for totals in series.iter().filter_map(|id| profile.totals.get(id)) {
        for (node, row) in totals {
            let sum = &mut values[node.0 as usize];
            *sum = sum.saturating_add(row.get(measure).copied().unwrap_or(0));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::folded;

    /// A fleet from (host, folded text).
    fn fleet(hosts: &[(&str, &str)]) -> Profile {
        let mut profile = Profile::default();
        for (host, text) in hosts {
            profile
                .merge(&folded::parse(text.as_bytes(), host).0)
                .unwrap();
        }
        profile
    }

    const USUAL: &str = "main;loop;route 500\nmain;loop;rate_limit;incr 200\nmain;idle 300\n";

    #[test]
    fn the_host_with_the_other_shares_comes_first_with_its_frame() {
        let slow = "main;loop;route 250\nmain;loop;rate_limit;incr 600\nmain;idle 150\n";
        let busy = "main;loop;route 5000\nmain;loop;rate_limit;incr 2000\nmain;idle 3000\n";
        let ranking = rank(&fleet(&[("a", USUAL), ("b", slow), ("c", busy)]), 0);
        let order: Vec<_> = ranking.entries.iter().map(|e| e.host.as_str()).collect();
        assert_eq!(order[0], "b");
        let b = &ranking.entries[0];
        assert_eq!(b.frame.as_deref(), Some("incr"));
        assert_eq!(b.path, ["main", "loop", "rate_limit", "incr"]);
        assert_eq!((b.samples_host, b.samples_rest), (1_000, 11_000));
        assert_eq!(
            ranking.sentences()[0],
            "b is unlike the others: loop → rate_limit → incr is in 60.0 % of its samples, 20.0 % elsewhere (+40.0 points)"
        );
        assert!(
            ranking.sentences()[1].contains("differs less: loop → rate_limit → incr is in 20.0 %")
        );
        // Among many like hosts the odd one hardly moves the rest of the others.
        let mut hosts = vec![("b", slow)];
        hosts.extend(["a", "c", "d", "e", "f", "g", "h", "i", "j"].map(|h| (h, USUAL)));
        let ranking = rank(&fleet(&hosts), 0);
        assert_eq!(ranking.entries[0].host, "b");
        assert!(
            ranking.sentences()[1].contains("is close to the others"),
            "{:?}",
            ranking.sentences()
        );
        assert!(
            ranking
                .findings
                .iter()
                .any(|f| f.code == FindingCode::RankingNoErrorBars)
        );
    }

    #[test]
    fn one_odd_caller_outweighs_the_noise_of_many_small_frames() {
        let mut seed = 7_u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let mut host = |limit_pct: u64| -> String {
            (0..4_000)
                .map(|_| {
                    let caller = if random(100) < limit_pct {
                        "rate_limit"
                    } else {
                        "route"
                    };
                    format!("main;{caller};f{} 1\n", random(3_000))
                })
                .collect()
        };
        let texts: Vec<(String, String)> = (0..8)
            .map(|i| (format!("h{i}"), host(if i == 5 { 40 } else { 20 })))
            .collect();
        let hosts: Vec<(&str, &str)> = texts
            .iter()
            .map(|(h, t)| (h.as_str(), t.as_str()))
            .collect();
        let ranking = rank(&fleet(&hosts), 0);
        assert_eq!(ranking.entries[0].host, "h5", "{:?}", ranking.sentences());
        assert_eq!(ranking.entries[0].frame.as_deref(), Some("rate_limit"));
        assert!(ranking.sentences()[1].contains("is close to the others"));
    }

    #[test]
    fn the_deepest_frame_that_still_explains_it_is_named() {
        let one = "m;filter;redis;connect 60\nm;filter;redis;read 3\nm;serve 37\n";
        let two = "m;filter;redis;connect 10\nm;filter;redis;read 3\nm;serve 87\n";
        let ranking = rank(&fleet(&[("a", one), ("b", two)]), 0);
        assert_eq!(ranking.entries[0].frame.as_deref(), Some("connect"));
        // Spread below redis, no single child explains it.
        let one = "m;redis;a 20\nm;redis;b 20\nm;redis;c 20\nm;serve 40\n";
        let two = "m;redis;a 5\nm;redis;b 5\nm;redis;c 5\nm;serve 85\n";
        let ranking = rank(&fleet(&[("a", one), ("b", two)]), 0);
        assert_eq!(ranking.entries[0].frame.as_deref(), Some("redis"));
        assert!((ranking.entries[0].delta_points - 45.0).abs() < 1e-9);
        assert_eq!(
            ranking
                .findings
                .iter()
                .filter(|f| f.code == FindingCode::FewSamples)
                .count(),
            2
        );
    }

    #[test]
    fn something_that_only_the_others_do_is_named_as_missing() {
        let without = "m;a 250\nm;b 250\nm;c 250\nm;d 250\n";
        let with = "m;a 125\nm;b 125\nm;c 125\nm;d 125\nm;gzip 500\n";
        let ranking = rank(&fleet(&[("a", with), ("b", without), ("c", with)]), 0);
        let b = &ranking.entries[0];
        assert_eq!((b.host.as_str(), b.frame.as_deref()), ("b", Some("gzip")));
        assert!((b.delta_points + 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_frame_on_many_paths_is_counted_wherever_it_stands_and_once_a_stack() {
        let own = "m;x;lock;lock 300\nm;y;lock 300\nm;z 400\n";
        let rest = "m;x 300\nm;y 300\nm;z 400\n";
        let ranking = rank(&fleet(&[("a", own), ("b", rest), ("c", rest)]), 0);
        let a = &ranking.entries[0];
        assert_eq!((a.frame.as_deref(), a.anywhere), (Some("lock"), true));
        assert!((a.host_share - 0.6).abs() < 1e-9, "{}", a.host_share);
    }

    #[test]
    fn one_host_none_and_idle_ones_are_said_and_not_ranked() {
        assert_eq!(
            rank(&Profile::default(), 0).note,
            "no host has samples, so there is nothing to compare"
        );
        let one = rank(&fleet(&[("a", USUAL)]), 0);
        assert!(one.entries.is_empty() && one.note.contains("only a has samples"));
        let ranking = rank(&fleet(&[("a", USUAL), ("b", USUAL), ("idle", "m 0\n")]), 0);
        assert_eq!(ranking.without_samples, ["idle"]);
        assert_eq!(ranking.entries[0].frame, None);
        assert_eq!(
            ranking.sentences()[0],
            "a is like the others: no frame differs"
        );
    }
}
