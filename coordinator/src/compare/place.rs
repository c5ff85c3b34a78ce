//! A place in the call tree in words and shares. In: a profile, a host, a node. Out: the stack down
//! to it, and the frame's shares on the host and elsewhere. Never: a stack that has a frame twice
//! counted twice.

use super::HostDifference;
use model::profile::{Frame, FrameId, Measure, NodeId, Profile, ROOT, share};

/// The labels of the stack down to a node, root first.
pub(super) fn path(profile: &Profile, node: NodeId) -> Vec<String> {
    let label = |f: &FrameId| profile.frames.get(*f).map(Frame::label);
    profile.tree.stack(node).iter().filter_map(label).collect()
}

/// A host's entry with the shares at `node`, or of the frame there wherever it stands: of samples, of
/// waits by their length.
pub(super) fn shares(profile: &Profile, host: &str, node: Option<NodeId>) -> HostDifference {
    let shown = Measure::shown(&profile.measures).0;
    let values = |of_host: bool| {
        let mut samples = 0_u64;
        let mut values = vec![0_u64; profile.tree.len()];
        for (id, totals) in &profile.totals {
            let ours = profile
                .series
                .get(*id)
                .is_some_and(|s| (s.host == host) == of_host);
            for (node, row) in totals.iter().filter(|_| ours) {
                let sum = &mut values[node.0 as usize];
                *sum = sum.saturating_add(row[shown]);
                samples = samples.saturating_add(row[0]);
            }
        }
        (values, samples)
    };
    let ((own, samples_host), (rest, samples_rest)) = (values(true), values(false));
    let sum = |values: &[u64]| values.iter().fold(0_u64, |a, b| a.saturating_add(*b));
    let (own_total, rest_total) = (sum(&own), sum(&rest));
    let part = |value, whole| share(value, whole).map_or(0.0, |s| s.ratio());
    let (own_sums, rest_sums) = (inclusive(profile, &own), inclusive(profile, &rest));
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
        with_frame(profile, frame, &own),
        with_frame(profile, frame, &rest),
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
