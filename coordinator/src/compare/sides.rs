//! Two sides beside each other. In: two profiles and which part of each. Out: each function's values
//! on both sides, the difference with its interval, and a verdict that holds for all of them
//! together. Never: a recursive function counted twice, or frames matched by address.

use super::Per;
use super::counted::{Counted, Feature, Wanted, count};
use model::profile::{CounterSource, NodeId, Profile, Series, SeriesId, SeriesTable};
use model::{Finding, FindingCode};
use serde::Serialize;
use statistics::{Host, Random, compare_sides, false_discoveries};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the differences that are told may be by chance, on average.
pub const FALSE_MAX: f64 = 0.05;

/// One side.
pub struct Side<'a> {
    /// Its profile.
    pub profile: &'a Profile,
    /// Which series of it.
    pub series: &'a dyn Fn(&Series) -> bool,
}

/// What is said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// More on the right side.
    More,
    /// Less on the right side.
    Less,
    /// Only on the right side.
    New,
    /// Only on the left side.
    Gone,
    /// Not to be told from chance.
    Unsure,
}

impl Told {
    /// The word for tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::More => "more",
            Self::Less => "less",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Unsure => "-",
        }
    }
}

/// One function, or one place in the call tree, on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrameDifference {
    /// The function.
    pub frame: String,
    /// `total` with what it calls, `self` without.
    pub kind: &'static str,
    /// Its value on the left side, in the unit of the comparison.
    pub left: f64,
    /// On the right side.
    pub right: f64,
    /// Right minus left.
    pub delta: f64,
    /// With 95 % confidence the difference is at least this.
    pub low: f64,
    /// And at most this.
    pub high: f64,
    /// The difference as a part of the left value; none where that is 0.
    pub relative: Option<f64>,
    /// The rate of false discoveries at which it would just be told.
    pub q: f64,
    /// What is said of it.
    pub told: Told,
    /// Samples on the left side.
    pub left_samples: f64,
    /// Samples on the right side.
    pub right_samples: f64,
}

/// Two sides as they were compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Functions that have enough samples on either side, the largest difference first.
    pub frames: Vec<FrameDifference>,
    /// Everything together; none for shares.
    pub whole: Option<FrameDifference>,
    /// Places by their labels, root first: for pictures.
    pub places: BTreeMap<Vec<String>, Told>,
    /// Hosts of the left side and of the right side that were compared.
    pub hosts: (usize, usize),
    /// What weakens it.
    pub findings: Vec<Finding>,
}

/// Compares two sides. `seed` begins the resampling. None when a side does not carry what values are
/// divided of.
#[must_use]
pub fn compared(left: &Side<'_>, right: &Side<'_>, per: Per, seed: u64) -> Option<Compared> {
    let both = beside(left, right);
    let mut random = Random::new(seed);
    let functions = count(&both, per, Wanted::Functions)?;
    let places = count(&both, per, Wanted::Places)?;
    let mut out = Compared::default();
    for finding in &functions.findings {
        let mut finding = finding.clone();
        // Names carry their side in front.
        let bare = |name: &String| name.chars().skip(1).collect::<String>();
        finding.host = finding.host.as_ref().map(bare);
        finding.evidence = bare(&finding.evidence);
        out.findings.push(finding);
    }
    let mut frames = judged(&functions, per, &mut random, &mut out.hosts);
    out.whole = frames.pop().filter(|_| per != Per::Share);
    frames.retain(|f| f.delta != 0.0);
    frames.sort_by(|a, b| {
        let kind = b.kind.cmp(a.kind);
        b.delta
            .abs()
            .total_cmp(&a.delta.abs())
            .then(kind)
            .then_with(|| a.frame.cmp(&b.frame))
    });
    out.frames = frames;
    let told = judged(&places, per, &mut random, &mut out.hosts);
    for (feature, told) in places.features.iter().zip(&told) {
        if let Feature::Node(node) = feature {
            out.places
                .insert(super::place::path(&both, *node), told.told);
        }
    }
    spread_to_callers(&both, &places, &told, &mut out.places);
    out.findings.sort();
    out.findings.dedup();
    Some(out)
}

/// Chains of single callees are one feature, known by their last: what holds for it holds for them.
fn spread_to_callers(
    both: &Profile,
    places: &Counted,
    told: &[FrameDifference],
    by_path: &mut BTreeMap<Vec<String>, Told>,
) {
    let of: BTreeMap<NodeId, usize> = places
        .features
        .iter()
        .enumerate()
        .filter_map(|(i, f)| match f {
            Feature::Node(node) => Some((*node, i)),
            _ => None,
        })
        .collect();
    for (node, feature) in &of {
        let mut path = super::place::path(both, *node);
        let mut above = both.tree.get(*node).map(|n| n.parent);
        while let Some(caller) =
            above.filter(|c| both.tree.get(*c).is_some() && !of.contains_key(c))
        {
            path.pop();
            by_path.entry(path.clone()).or_insert(told[*feature].told);
            above = both.tree.get(caller).map(|n| n.parent);
        }
    }
}

/// Every feature, and everything together last, with verdicts that hold together.
fn judged(
    counted: &Counted,
    per: Per,
    random: &mut Random,
    hosts: &mut (usize, usize),
) -> Vec<FrameDifference> {
    let side = |mark: &str| -> (Vec<Host>, BTreeSet<&str>) {
        let ours = counted.names.iter().zip(&counted.hosts);
        let ours: Vec<_> = ours.filter(|(n, _)| n.starts_with(mark)).collect();
        let names = ours.iter().map(|(n, _)| &n[1..]).collect();
        (ours.into_iter().map(|(_, h)| h.clone()).collect(), names)
    };
    let ((left, was), (right, is)) = (side(LEFT), side(RIGHT));
    *hosts = (left.len(), right.len());
    let features = counted.features.len() + 1;
    let verdicts = compare_sides(&left, &right, features, per.scale(), was == is, random);
    let p: Vec<f64> = verdicts[..features - 1].iter().map(|v| v.p).collect();
    let mut q = false_discoveries(&p);
    q.push(verdicts[features - 1].p);
    let row = |(at, q): (usize, &f64)| {
        let verdict = &verdicts[at];
        let (frame, kind) = match counted.features.get(at) {
            Some(Feature::Total(label)) => (label.clone(), "total"),
            Some(Feature::Own(label)) => (label.clone(), "self"),
            Some(Feature::Node(_)) => (String::new(), "place"),
            None => ("(everything)".to_owned(), "total"),
        };
        let delta = verdict.right - verdict.left;
        let told = if *q > FALSE_MAX {
            Told::Unsure
        } else if verdict.left_samples <= 0.0 {
            Told::New
        } else if verdict.right_samples <= 0.0 {
            Told::Gone
        } else if delta > 0.0 {
            Told::More
        } else {
            Told::Less
        };
        FrameDifference {
            frame,
            kind,
            left: per.shown(verdict.left),
            right: per.shown(verdict.right),
            delta: per.shown(delta),
            low: per.shown(verdict.interval.low),
            high: per.shown(verdict.interval.high),
            relative: (verdict.left > 0.0).then(|| delta / verdict.left),
            q: *q,
            told,
            left_samples: verdict.left_samples,
            right_samples: verdict.right_samples,
        }
    };
    q.iter().enumerate().map(row).collect()
}

/// Stand before the names of a side's hosts, so that the same host can be on both.
const LEFT: &str = "<";
const RIGHT: &str = ">";

/// Both sides in one profile: frames meet by name and module.
fn beside(left: &Side<'_>, right: &Side<'_>) -> Profile {
    let mut sides = [(left, LEFT), (right, RIGHT)].map(|(side, mark)| marked(side, mark));
    // Text has samples only; then that is all that can be compared.
    if sides[0].measures != sides[1].measures || sides[0].probe != sides[1].probe {
        let fewer = sides[0].measures.len().min(sides[1].measures.len()).min(1);
        let measures = sides[0].measures[..fewer].to_vec();
        for side in &mut sides {
            side.measures.clone_from(&measures);
            side.probe.clear();
        }
    }
    let [mut both, right] = sides;
    // Measures are the same now, and nothing else is refused.
    let merged = both.merge(&right);
    debug_assert!(merged.is_ok());
    both
}

/// The wanted series of a side, with its mark before their hosts' names.
fn marked(side: &Side<'_>, mark: &str) -> Profile {
    let mut profile = side.profile.clone().part(side.series);
    let mut series = SeriesTable::default();
    let numbers: Vec<SeriesId> = profile
        .series
        .as_slice()
        .iter()
        .map(|s| {
            series.intern(&Series {
                host: format!("{mark}{}", s.host),
                ..s.clone()
            })
        })
        .collect();
    profile.series = series;
    let counters = std::mem::take(&mut profile.counters);
    profile.counters = counters
        .into_iter()
        .map(|((host, source, second, kind), value)| {
            let source = match source {
                CounterSource::Host => CounterSource::Host,
                CounterSource::Series(id) => CounterSource::Series(numbers[id.0 as usize]),
            };
            ((format!("{mark}{host}"), source, second, kind), value)
        })
        .collect();
    profile
}

/// The finding for a denominator that a side does not carry.
#[must_use]
pub fn denominator_missing(name: &str, per: Per) -> Finding {
    let said = match per {
        Per::Share | Per::Cpu => format!("{name} has no CPU time (text carries samples only)"),
        Per::Requests => format!("{name} has no CPU time and no requests"),
    };
    Finding::new(FindingCode::DenominatorMissing, said)
}
