//! Two sides beside each other. In: two profiles and which part of each. Out: each function's values
//! on both sides, the difference with its interval, and a verdict that holds for all of them
//! together. Never: a recursive function counted twice, or frames matched by address.

use super::Per;
use super::counted::{Counted, Feature, Gaps, Wanted, count};
use model::profile::{CounterSource, MergeError, Profile, Series, SeriesId, SeriesTable};
use model::{Finding, FindingCode};
use serde::Serialize;
use statistics::{Host, Random, Verdict, compare_sides, false_discoveries, judge_sides};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the differences that are told may be by chance, on average.
pub const FALSE_MAX: f64 = 0.05;

/// One side.
pub struct Side<'a> {
    /// Its profile.
    pub profile: &'a Profile,
    /// Which series of it.
    pub series: &'a dyn Fn(&Series) -> bool,
    /// Whether only some seconds of it were picked; else a second without a sample was an idle one.
    pub picked: bool,
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
    pub hosts: (BTreeSet<String>, BTreeSet<String>),
    /// What each side's values were divided by, in the units of the comparison: all samples, seconds
    /// of hosts, or thousands of requests.
    pub units: (f64, f64),
    /// What weakens it.
    pub findings: Vec<Finding>,
}

/// Why two sides were not compared.
#[derive(Debug, thiserror::Error)]
pub enum NotCompared {
    /// A side does not carry what is divided.
    #[error("a side does not carry the CPU time that was to be divided")]
    Missing,
    /// The sides measure different things.
    #[error("the sides cannot stand beside each other")]
    Measures(#[from] MergeError),
}

/// Compares two sides. `seed` begins the resampling.
///
/// # Errors
/// [`NotCompared`] when they cannot be compared by this.
pub fn compared(
    left: &Side<'_>,
    right: &Side<'_>,
    per: Per,
    seed: u64,
) -> Result<Compared, NotCompared> {
    let both = beside(left, right)?;
    let gaps = if left.picked || right.picked {
        Gaps::Absent
    } else {
        Gaps::Idle
    };
    let counted = |wanted| count(&both, per, wanted, gaps).ok_or(NotCompared::Missing);
    let functions = counted(Wanted::Functions)?;
    let places = counted(Wanted::Places)?;
    let mut out = Compared::default();
    for finding in &functions.findings {
        let mut finding = finding.clone();
        // Names carry their side in front.
        let bare = |name: &String| name.chars().skip(1).collect::<String>();
        finding.host = finding.host.as_ref().map(bare);
        finding.evidence = bare(&finding.evidence);
        out.findings.push(finding);
    }
    let (was, is) = (Hosts::of(&functions, LEFT), Hosts::of(&functions, RIGHT));
    out.units = (was.weight(), is.weight());
    let same = was.names == is.names;
    let features = functions.features.len() + 1;
    let mut random = Random::new(seed);
    let verdicts = compare_sides(
        &was.hosts,
        &is.hosts,
        features,
        per.scale(),
        same,
        &mut random,
    );
    out.hosts = (was.names, is.names);
    let mut frames = differences(&functions, per, &verdicts);
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
    let (was, is) = (Hosts::of(&places, LEFT), Hosts::of(&places, RIGHT));
    let features = places.features.len() + 1;
    let verdicts = judge_sides(&was.hosts, &is.hosts, features, per.scale(), same);
    let told = told_of(&verdicts[..features - 1]);
    let paths = super::rests::paths(&both, &places).into_iter();
    out.places = paths.map(|(path, at)| (path, told[at])).collect();
    out.findings.sort();
    out.findings.dedup();
    Ok(out)
}

/// A side's hosts of what was counted.
struct Hosts {
    names: BTreeSet<String>,
    hosts: Vec<Host>,
}

impl Hosts {
    fn of(counted: &Counted, mark: &str) -> Self {
        let all = counted.names.iter().zip(&counted.hosts);
        let ours = all.filter_map(|(name, host)| Some((name.strip_prefix(mark)?, host)));
        let (names, hosts) = ours
            .map(|(name, host)| (name.to_owned(), host.clone()))
            .unzip();
        Self { names, hosts }
    }

    fn weight(&self) -> f64 {
        self.hosts.iter().map(Host::weight).sum()
    }
}

/// What is said of features, so that it holds for all of them together.
pub(super) fn told_of(verdicts: &[Verdict]) -> Vec<Told> {
    let p: Vec<f64> = verdicts.iter().map(|v| v.p).collect();
    let q = false_discoveries(&p);
    q.iter().zip(verdicts).map(|(q, v)| told(*q, v)).collect()
}

fn told(q: f64, verdict: &Verdict) -> Told {
    if q > FALSE_MAX {
        Told::Unsure
    } else if verdict.left_samples <= 0.0 {
        Told::New
    } else if verdict.right_samples <= 0.0 {
        Told::Gone
    } else if verdict.right > verdict.left {
        Told::More
    } else {
        Told::Less
    }
}

/// Every function, and everything together last, with verdicts that hold together.
fn differences(counted: &Counted, per: Per, verdicts: &[Verdict]) -> Vec<FrameDifference> {
    let functions = &verdicts[..counted.features.len()];
    let p: Vec<f64> = functions.iter().map(|v| v.p).collect();
    let mut q = false_discoveries(&p);
    q.extend(verdicts.get(functions.len()).map(|everything| everything.p));
    let row = |(at, (q, verdict)): (usize, (&f64, &Verdict))| {
        let (frame, kind) = match counted.features.get(at) {
            Some(Feature::Total(label)) => (label.clone(), "total"),
            Some(Feature::Own(label)) => (label.clone(), "self"),
            Some(Feature::Node(_)) => (String::new(), "place"),
            None => ("(everything)".to_owned(), "total"),
        };
        let delta = verdict.right - verdict.left;
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
            told: told(*q, verdict),
            left_samples: verdict.left_samples,
            right_samples: verdict.right_samples,
        }
    };
    q.iter().zip(verdicts).enumerate().map(row).collect()
}

/// Stand before the names of a side's hosts, so that the same host can be on both.
const LEFT: &str = "<";
const RIGHT: &str = ">";

/// Both sides in one profile: frames meet by name and module.
fn beside(left: &Side<'_>, right: &Side<'_>) -> Result<Profile, MergeError> {
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
    both.merge(&right)?;
    Ok(both)
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
