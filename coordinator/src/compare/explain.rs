//! Which frame explains most of a host's difference. In: self values of both sides by node.
//! Out: one [`HostDifference`]. Never: the outermost frame when a deeper one says the same.

use super::HostDifference;
use model::profile::{Frame, FrameId, NodeId, Profile, ROOT, share};

/// A child is stepped down to when it carries at least this part of the largest difference.
const CARRIED: f64 = 0.8;
/// A frame that is more on the host is preferred to one that is less, unless the latter differs
/// by this much more: "has rate_limit" says more than "has less of everything else".
const PREFER_MORE: f64 = 0.95;

/// Self values by node number.
pub(super) struct Sides {
    pub(super) own: Vec<u64>,
    pub(super) rest: Vec<u64>,
}

pub(super) fn explain(profile: &Profile, host: String, sides: Sides) -> HostDifference {
    let (own_total, rest_total) = (sum(&sides.own), sum(&sides.rest));
    let part = |value, whole| share(value, whole).map_or(0.0, |s| s.ratio());
    let own = inclusive(profile, &sides.own);
    let rest = inclusive(profile, &sides.rest);
    let deltas: Vec<f64> = own
        .iter()
        .zip(&rest)
        .map(|(o, r)| part(*o, own_total) - part(*r, rest_total))
        .collect();
    let mut difference = HostDifference {
        host,
        distance: deltas.iter().fold(0.0, |most, d| d.abs().max(most)),
        frame: None,
        path: Vec::new(),
        anywhere: true,
        host_share: 0.0,
        rest_share: 0.0,
        delta_points: 0.0,
        samples_host: own_total,
        samples_rest: rest_total,
    };
    let Some(node) = deepest(profile, &deltas) else {
        return difference;
    };
    let at = node.0 as usize;
    let Some(frame) = profile.tree.get(node).map(|n| n.frame) else {
        return difference;
    };
    let wide = (
        with_frame(profile, frame, &sides.own),
        with_frame(profile, frame, &sides.rest),
    );
    let wide = (part(wide.0, own_total), part(wide.1, rest_total));
    let narrow = (part(own[at], own_total), part(rest[at], rest_total));
    // The frame wherever it stands, unless other paths even the difference out.
    let carries = (wide.0 - wide.1) * deltas[at].signum() >= deltas[at].abs() * 0.999;
    let (host_share, rest_share) = if carries { wide } else { narrow };
    let label = |f: &FrameId| profile.frames.get(*f).map(Frame::label);
    difference.path = profile.tree.stack(node).iter().filter_map(label).collect();
    difference.frame = label(&frame);
    difference.anywhere = carries;
    (difference.host_share, difference.rest_share) = (host_share, rest_share);
    difference.delta_points = (host_share - rest_share) * 100.0;
    difference.distance = difference.distance.max((host_share - rest_share).abs());
    difference
}

/// The deepest node that still carries most of the largest difference; none when nothing differs.
fn deepest(profile: &Profile, deltas: &[f64]) -> Option<NodeId> {
    let extreme = |sign: f64| {
        (1..deltas.len()).max_by(|a, b| {
            // Of equals the first, which is the shallowest on its path.
            (deltas[*a] * sign)
                .total_cmp(&(deltas[*b] * sign))
                .then_with(|| b.cmp(a))
        })
    };
    let (more, less) = (extreme(1.0)?, extreme(-1.0)?);
    let prefer_more = deltas[more] >= -deltas[less] * PREFER_MORE;
    let (start, sign) = if prefer_more {
        (more, 1.0)
    } else {
        (less, -1.0)
    };
    let wanted = deltas[start] * sign * CARRIED;
    if deltas[start].abs() < 1e-9 {
        return None;
    }
    // Children have higher numbers, so one pass over the nodes steps down along one path; siblings
    // cannot both carry 80 % of the largest difference unless others take it back, and then the
    // larger one is followed.
    let mut best_child: Vec<Option<usize>> = vec![None; deltas.len()];
    for (id, node) in profile.tree.as_slice().iter().enumerate().skip(1) {
        let slot = &mut best_child[node.parent.0 as usize];
        let named = profile
            .frames
            .get(node.frame)
            .is_some_and(|f| !(f.name.is_empty() && f.module.is_empty()));
        let better = slot.is_none_or(|b| deltas[id] * sign > deltas[b] * sign);
        if named && deltas[id] * sign >= wanted && better {
            *slot = Some(id);
        }
    }
    let mut at = start;
    while let Some(child) = best_child[at] {
        at = child;
    }
    u32::try_from(at).ok().map(NodeId)
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

fn sum(values: &[u64]) -> u64 {
    values.iter().fold(0, |a, b| a.saturating_add(*b))
}
