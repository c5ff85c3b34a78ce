//! A place in the call tree in words and shares. In: a profile, a host, a node. Out: the stack down
//! to it, and the frame's shares on the host and elsewhere. Never: a stack that has a frame twice
//! counted twice.

use super::HostDifference;
use model::profile::{Frame, FrameId, Measure, NodeId, Profile, ROOT, SeriesId, share};
use std::collections::BTreeMap;

/// The labels of the stack down to a node, root first.
pub(super) fn path(profile: &Profile, node: NodeId) -> Vec<String> {
    let label = |f: &FrameId| profile.frames.get(*f).map(Frame::label);
    profile.tree.stack(node).iter().filter_map(label).collect()
}

/// What hosts' shares are made from: the whole fleet's values, from which a host's own are taken away
/// for those of the others.
pub(super) struct Shares<'a> {
    profile: &'a Profile,
    /// The measure: samples, of waits their length.
    shown: usize,
    fleet: Sums,
    series: BTreeMap<&'a str, Vec<SeriesId>>,
}

/// Values by node, and samples. Wider than values, so that what was added can be taken away.
struct Sums {
    values: Vec<u128>,
    samples: u128,
}

impl Sums {
    fn of(profile: &Profile, series: impl Iterator<Item = SeriesId>, shown: usize) -> Self {
        let mut sums = Self {
            values: vec![0; profile.tree.len()],
            samples: 0,
        };
        for (node, row) in series.filter_map(|id| profile.totals.get(&id)).flatten() {
            sums.values[node.0 as usize] += u128::from(row[shown]);
            sums.samples += u128::from(row[0]);
        }
        sums
    }
}

/// Hostile values stay at the largest number.
fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl<'a> Shares<'a> {
    pub(super) fn of(profile: &'a Profile) -> Self {
        let shown = Measure::shown(&profile.measures).0;
        let mut series: BTreeMap<&str, Vec<SeriesId>> = BTreeMap::new();
        for (number, one) in (0_u32..).zip(profile.series.as_slice()) {
            series.entry(&one.host).or_default().push(SeriesId(number));
        }
        let all = series.values().flatten().copied();
        Self {
            profile,
            shown,
            fleet: Sums::of(profile, all, shown),
            series,
        }
    }

    /// A host's entry with the shares at `node`, or of the frame there wherever it stands.
    pub(super) fn entry(&self, host: &str, node: Option<NodeId>) -> HostDifference {
        let ids = self.series.get(host).into_iter().flatten().copied();
        let host_sums = Sums::of(self.profile, ids, self.shown);
        let pairs = self.fleet.values.iter().zip(&host_sums.values);
        let rest: Vec<u64> = pairs.map(|(all, own)| narrow(all - own)).collect();
        let own: Vec<u64> = host_sums.values.iter().map(|v| narrow(*v)).collect();
        let samples = (
            narrow(host_sums.samples),
            narrow(self.fleet.samples - host_sums.samples),
        );
        entry(self.profile, host, node, (&own, &rest), samples)
    }
}

fn entry(
    profile: &Profile,
    host: &str,
    node: Option<NodeId>,
    (own, rest): (&[u64], &[u64]),
    (samples_host, samples_rest): (u64, u64),
) -> HostDifference {
    let sum = |values: &[u64]| values.iter().fold(0_u64, |a, b| a.saturating_add(*b));
    let (own_total, rest_total) = (sum(own), sum(rest));
    let part = |value, whole| share(value, whole).map_or(0.0, |s| s.ratio());
    let (own_sums, rest_sums) = (inclusive(profile, own), inclusive(profile, rest));
    let deltas = own_sums
        .iter()
        .zip(&rest_sums)
        .map(|(o, r)| (part(*o, own_total) - part(*r, rest_total)).abs());
    let mut entry = HostDifference {
        host: host.to_owned(),
        distance: deltas.fold(0.0, f64::max),
        anywhere: true,
        samples_host,
        samples_rest,
        ..HostDifference::default()
    };
    let Some((node, frame)) = node.and_then(|n| Some((n, profile.tree.get(n)?.frame))) else {
        return entry;
    };
    let at = node.0 as usize;
    let wide = (
        with_frame(profile, frame, own),
        with_frame(profile, frame, rest),
    );
    let wide = (part(wide.0, own_total), part(wide.1, rest_total));
    let narrow = (
        part(own_sums[at], own_total),
        part(rest_sums[at], rest_total),
    );
    // The frame wherever it stands, unless other paths even the difference out.
    let delta = narrow.0 - narrow.1;
    let carries = (wide.0 - wide.1) * delta.signum() >= delta.abs() * 0.999;
    let (host_share, rest_share) = if carries { wide } else { narrow };
    entry.path = path(profile, node);
    entry.frame = profile.frames.get(frame).map(Frame::label);
    entry.anywhere = carries;
    (entry.host_share, entry.rest_share) = (host_share, rest_share);
    entry.delta_points = (host_share - rest_share) * 100.0;
    entry.distance = entry.distance.max((host_share - rest_share).abs());
    entry
}

/// Values of nodes with everything below them. Parents have lower numbers, so one pass from the
/// end is enough.
fn inclusive(profile: &Profile, own: &[u64]) -> Vec<u64> {
    let mut sums = own.to_vec();
    for (id, node) in profile.tree.as_slice().iter().enumerate().skip(1).rev() {
        let value = sums[id];
        let above = &mut sums[node.parent.0 as usize];
        *above = above.saturating_add(value);
    }
    sums
}

/// Values of the stacks that have `frame` anywhere; recursion counts once.
fn with_frame(profile: &Profile, frame: FrameId, own: &[u64]) -> u64 {
    let mut below = vec![false; own.len()];
    let mut sum = 0_u64;
    for (id, node) in profile.tree.as_slice().iter().enumerate().skip(1) {
        below[id] = node.frame == frame || (node.parent != ROOT && below[node.parent.0 as usize]);
        if below[id] {
            sum = sum.saturating_add(own[id]);
        }
    }
    sum
}
