//! The ranking of hosts. In: a merged profile with its seconds. Out: which hosts are unlike the
//! others, where, by how much, and how sure that is; most unlike first. Never: counts compared where
//! shares are meant, or an odd host named among fewer than four.

use super::Per;
use super::comparable::unlike;
use super::counted::{Counted, Feature, Gaps, Wanted, count};
use super::place::{self, Shares};
use model::profile::{NodeId, Profile};
use model::{Finding, FindingCode};
use serde::{Deserialize, Serialize};
use statistics::{
    Fleet, HOSTS_MIN, Host, Judged, Noise, Place, Random, compare_sides, judge, noise,
};
use std::collections::BTreeMap;

/// Below this many samples a host's small differences mean nothing, and a finding says so.
pub const FEW_SAMPLES: u64 = 500;
/// How many of the hosts that are called odd may be wrong, on average.
pub const FALSE_MAX: f64 = 0.05;
/// Most places that are named of a host.
const PLACES_MAX: usize = 3;
/// Hosts of which intervals are made although they are not odd.
const SHOWN: usize = 20;

/// One host against the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Whether the host differs more than noise within hosts and the usual spread between them
    /// explain, after all hosts were looked at.
    #[serde(default)]
    pub odd: bool,
    /// The rate of false accusations at which it would just be called odd; of fewer than four hosts,
    /// how probable its largest difference is by noise within hosts.
    #[serde(default)]
    pub q: f64,
    /// The difference of everything together; none for shares, whose sum is the same everywhere.
    #[serde(default)]
    pub whole: Option<Gap>,
    /// The places that account for most of the difference, the strongest first.
    #[serde(default)]
    pub places: Vec<PlaceGap>,
}

/// Two numbers, their difference and how well it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The host's, in the ranking's unit.
    pub host: f64,
    /// The others'.
    pub rest: f64,
    /// Host minus others.
    pub delta: f64,
    /// With 95 % confidence at least this.
    pub low: f64,
    /// And at most this.
    pub high: f64,
}

impl Gap {
    /// Whether the interval leaves no difference out of the question.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// A place in the call tree and its difference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceGap {
    /// The stack down to the place, root first; of several the one with most of the difference.
    pub path: Vec<String>,
    /// By how many ways its last function is reached; what follows is of all of them together.
    #[serde(default)]
    pub ways: usize,
    /// Its difference.
    pub gap: Gap,
    /// Its part of the difference of everything together; none where that does not tell.
    pub part: Option<f64>,
}

/// Hosts by how unlike the others they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// What values are divided by.
    #[serde(default)]
    pub per: Per,
    /// Most unlike first.
    pub entries: Vec<HostDifference>,
    /// Hosts without a sample; they cannot be compared.
    pub without_samples: Vec<String>,
    /// Why there is no ranking, or how it is to be read.
    pub note: String,
    /// How far hosts usually are from each other, as a part of a value; none of fewer than four.
    #[serde(default)]
    pub spread: Option<f64>,
    /// What weakens it.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// Ranks the hosts of `profile`. `seed` begins the resampling that intervals are made by.
#[must_use]
pub fn rank(profile: &Profile, per: Per, seed: u64) -> Ranking {
    let mut ranking = Ranking {
        per,
        ..Ranking::default()
    };
    let Some(mut counted) = count(profile, per, Wanted::Places, Gaps::Idle) else {
        let said = "the profile carries samples only, no CPU time";
        ranking.note = said.to_owned();
        ranking.findings = vec![Finding::new(FindingCode::DenominatorMissing, said)];
        return ranking;
    };
    ranking.without_samples = std::mem::take(&mut counted.without_samples);
    ranking.findings = std::mem::take(&mut counted.findings);
    if counted.hosts.len() < 2 {
        let missing = |f: &Finding| f.code == FindingCode::DenominatorMissing;
        ranking.note = match counted.names.first() {
            _ if ranking.findings.iter().any(missing) => {
                "fewer than two hosts have what values are divided by".to_owned()
            }
            Some(host) => {
                format!("only {host} has samples, so there is nothing to compare it with")
            }
            None => "no host has samples, so there is nothing to compare".to_owned(),
        };
        return ranking;
    }
    let mut ranker = Ranker::new(profile, &counted, per, seed);
    ranking.spread = ranker.judged.then_some(ranker.fleet.spread);
    let mut order: Vec<usize> = (0..counted.hosts.len()).collect();
    order.sort_by(|a, b| ranker.weight(*b).total_cmp(&ranker.weight(*a)));
    ranking.entries = order
        .into_iter()
        .enumerate()
        .map(|(at, host)| ranker.entry(host, at < SHOWN))
        .collect();
    let described = ranking.spread.is_none();
    ranking.entries.sort_by(|a, b| {
        let odd = b.odd.cmp(&a.odd);
        // Of two or three hosts none is odd; what they cost is what they are ranked by all the same.
        let strength = |e: &HostDifference| match e.whole.filter(|_| e.odd || described) {
            Some(whole) => whole.delta.abs(),
            None => e.distance,
        };
        odd.then_with(|| strength(b).total_cmp(&strength(a)))
            .then_with(|| a.host.cmp(&b.host))
    });
    ranking.note = note(&ranking, counted.hosts.len());
    ranking
        .findings
        .extend(findings(profile, &ranking, counted.hosts.len()));
    ranking
}

fn note(ranking: &Ranking, hosts: usize) -> String {
    let of = match ranking.per {
        Per::Share => "shares of samples",
        Per::Cpu => "CPU time per second",
        Per::Requests => "CPU time per 1,000 requests",
    };
    match ranking.spread {
        Some(spread) => format!(
            "{of}, each host against the others; hosts usually differ by {:.1} % of a value; \
             ± is 95 % confidence; at most {:.0} % of the hosts that are called unlike are so by chance",
            spread * 100.0,
            FALSE_MAX * 100.0
        ),
        None => format!(
            "{of}, each host against the others; ± is 95 % confidence; of {hosts} hosts nobody can \
             say which one is odd, only that they differ"
        ),
    }
}

fn findings(profile: &Profile, ranking: &Ranking, hosts: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    if hosts < HOSTS_MIN {
        findings.push(Finding::new(
            FindingCode::RankingFewHosts,
            format!("{hosts} hosts compared"),
        ));
    }
    findings.extend(unlike(profile, |_| true));
    for entry in ranking
        .entries
        .iter()
        .filter(|e| e.samples_host < FEW_SAMPLES)
    {
        let said = format!("{} samples, fewer than {FEW_SAMPLES}", entry.samples_host);
        findings.push(Finding::new(FindingCode::FewSamples, said).on(&entry.host));
    }
    findings
}

/// What entries are made from.
struct Ranker<'a> {
    profile: &'a Profile,
    counted: &'a Counted,
    per: Per,
    noise: Noise,
    fleet: Fleet,
    /// Whether hosts were judged; else differences are only described.
    judged: bool,
    random: Random,
    shares: Shares<'a>,
    /// Of each feature, which function its place is.
    functions: Vec<u32>,
}

impl<'a> Ranker<'a> {
    fn new(profile: &'a Profile, counted: &'a Counted, per: Per, seed: u64) -> Self {
        // Of shares everything together is the same everywhere.
        let features = counted.features.len() + usize::from(per != Per::Share);
        let noise = noise(&counted.hosts, features, per.scale());
        let mut random = Random::new(seed);
        let judged = judge(&counted.hosts, features, per.scale(), &noise);
        let fleet = judged
            .clone()
            .unwrap_or_else(|| described(counted, features, per, &mut random));
        Self {
            profile,
            counted,
            per,
            noise,
            fleet,
            judged: judged.is_some(),
            random,
            shares: Shares::of(profile),
            functions: functions(profile, counted),
        }
    }

    /// What decides which hosts are looked at more closely.
    fn weight(&self, host: usize) -> f64 {
        let judged = &self.fleet.hosts[host];
        let most = judged
            .statistics
            .iter()
            .map(|t| t.abs())
            .fold(0.0, f64::max);
        most + if judged.host_q <= FALSE_MAX { 1e6 } else { 0.0 }
    }

    fn entry(&mut self, host: usize, shown: bool) -> HostDifference {
        let judged = &self.fleet.hosts[host];
        let place = Place {
            hosts: &self.counted.hosts,
            callers: &self.counted.callers,
            fleet: &self.fleet,
            noise: &self.noise,
            scale: self.per.scale(),
            host,
        };
        let p_max = FALSE_MAX / (judged.p.len() as f64).max(1.0);
        let mut places: Vec<Vec<usize>> = Vec::new();
        for found in place.locate(p_max, PLACES_MAX) {
            // One function that several ways lead to is named once.
            if places.iter().flatten().any(|f| *f == found) {
                continue;
            }
            let ways = place.gather(found, &self.functions);
            places.push(match ways.is_empty() {
                true => place.elsewhere(found, &self.functions),
                false => ways,
            });
        }
        let name = &self.counted.names[host];
        let node = |ways: &Vec<usize>| match self.counted.features.get(*ways.first()?) {
            Some(Feature::Node(node)) => Some(*node),
            _ => None,
        };
        let nodes: Vec<NodeId> = places.iter().filter_map(node).collect();
        let mut entry = self.shares.entry(name, nodes.first().copied());
        entry.q = judged.host_q;
        entry.odd = self.judged && judged.host_q <= FALSE_MAX;
        if shown || entry.odd {
            self.intervals(host, &places, &nodes, &mut entry);
        }
        entry
    }

    /// Fills in differences with their intervals.
    fn intervals(
        &mut self,
        host: usize,
        places: &[Vec<usize>],
        nodes: &[NodeId],
        entry: &mut HostDifference,
    ) {
        let mut wanted = places.to_vec();
        wanted.push(vec![self.counted.everything()]);
        let few = |h: &Host| Host {
            values: wanted.iter().map(|ways| together(h, ways)).collect(),
            weights: h.weights.clone(),
            windows: h.windows.clone(),
            ..*h
        };
        let own = [few(&self.counted.hosts[host])];
        let hosts = self.counted.hosts.iter().enumerate();
        let rest: Vec<Host> = hosts
            .filter(|(h, _)| *h != host)
            .map(|(_, h)| few(h))
            .collect();
        let verdicts = compare_sides(
            &rest,
            &own,
            wanted.len(),
            self.per.scale(),
            false,
            &mut self.random,
        );
        let gap = |at: usize| {
            let verdict = &verdicts[at];
            Gap {
                host: self.per.shown(verdict.right),
                rest: self.per.shown(verdict.left),
                delta: self.per.shown(verdict.right - verdict.left),
                low: self.per.shown(verdict.interval.low),
                high: self.per.shown(verdict.interval.high),
            }
        };
        let whole = gap(wanted.len() - 1);
        entry.whole = (self.per != Per::Share).then_some(whole);
        let tells = entry.whole.filter(Gap::tells);
        entry.places = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| PlaceGap {
                path: place::path(self.profile, *node),
                ways: places[at].len(),
                gap: gap(at),
                part: tells.map(|w| gap(at).delta / w.delta),
            })
            .collect();
    }
}

/// A host's values of several features in one, block by block.
fn together(host: &Host, features: &[usize]) -> Vec<(u32, f64)> {
    let values = features.iter().filter_map(|f| host.values.get(*f));
    let mut sum: BTreeMap<u32, f64> = BTreeMap::new();
    for (block, value) in values.flatten() {
        *sum.entry(*block).or_default() += value;
    }
    sum.into_iter().collect()
}

/// Of each feature, the number of its place's frame.
fn functions(profile: &Profile, counted: &Counted) -> Vec<u32> {
    let frame = |feature: &Feature| match feature {
        Feature::Node(node) => profile.tree.get(*node).map_or(u32::MAX, |n| n.frame.0),
        _ => u32::MAX,
    };
    counted.features.iter().map(frame).collect()
}

/// Fewer than four hosts: each against the others, by noise within hosts alone.
fn described(counted: &Counted, features: usize, per: Per, random: &mut Random) -> Fleet {
    let hosts = (0..counted.hosts.len()).map(|host| {
        let all = counted.hosts.iter().enumerate();
        let rest: Vec<Host> = all
            .filter(|(h, _)| *h != host)
            .map(|(_, h)| h.clone())
            .collect();
        let own = std::slice::from_ref(&counted.hosts[host]);
        let verdicts = compare_sides(&rest, own, features, per.scale(), false, random);
        let mut judged = Judged::default();
        for verdict in &verdicts {
            let delta = verdict.right - verdict.left;
            let half = (verdict.interval.high - verdict.interval.low) / 2.0;
            // 1.96 standard deviations are half an interval.
            let statistic = if half > 0.0 { 1.96 * delta / half } else { 0.0 };
            judged.statistics.push(statistic);
            judged.p.push(verdict.p);
            judged.middle.push(verdict.left);
        }
        let least = judged.p.iter().copied().fold(1.0, f64::min);
        judged.host_p = (least * features as f64).min(1.0);
        judged.host_q = judged.host_p;
        judged
    });
    Fleet {
        hosts: hosts.collect(),
        spread: 0.0,
    }
}
