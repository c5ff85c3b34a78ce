//! Two sides beside each other. In: a difference over one tree. Out: each function's share on both
//! sides, the largest difference first. Never: a recursive function counted twice.

use model::profile::{Difference, FrameTable, Tree, share};
use serde::Serialize;
use std::collections::BTreeMap;

/// One function on both sides, with everything it calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrameShare {
    /// The function.
    pub frame: String,
    /// Its part of the left side, 0 to 1.
    pub left_share: f64,
    /// Its part of the right side.
    pub right_share: f64,
    /// Right minus left in percentage points.
    pub delta_points: f64,
}

fn added(a: (u64, u64, usize), b: (u64, u64, usize)) -> (u64, u64, usize) {
    (
        a.0.saturating_add(b.0),
        a.1.saturating_add(b.1),
        a.2.max(b.2),
    )
}

/// Every function whose shares differ, the largest difference first; of equal ones, the more
/// exact: the one that stands deeper.
#[must_use]
pub fn compared(tree: &Tree, frames: &FrameTable, difference: &Difference) -> Vec<FrameShare> {
    let inclusive = difference.inclusive(tree);
    // By frame first: a label is made once for each function, not once for each node.
    let mut by_frame: Vec<(u64, u64, usize)> = vec![(0, 0, 0); frames.len()];
    for id in inclusive.nodes() {
        let Some(node) = tree.get(id) else { continue };
        let mut above = node.parent;
        let mut depth = 1;
        let mut again = false;
        while let Some(caller) = tree.get(above) {
            again |= caller.frame == node.frame;
            depth += 1;
            above = caller.parent;
        }
        if let Some(sum) = by_frame.get_mut(node.frame.0 as usize).filter(|_| !again) {
            let (left, right) = inclusive.get(id);
            *sum = added(*sum, (left, right, depth));
        }
    }
    let mut sums: BTreeMap<String, (u64, u64, usize)> = BTreeMap::new();
    for (frame, of_frame) in frames.as_slice().iter().zip(by_frame) {
        if of_frame.2 > 0 {
            let sum = sums.entry(frame.label()).or_default();
            *sum = added(*sum, of_frame);
        }
    }
    let part = |value, whole| share(value, whole).map_or(0.0, |s| s.ratio());
    let mut rows: Vec<(usize, FrameShare)> = sums
        .into_iter()
        .map(|(frame, (left, right, depth))| {
            let left_share = part(left, difference.left_total);
            let right_share = part(right, difference.right_total);
            let delta_points = (right_share - left_share) * 100.0;
            (
                depth,
                FrameShare {
                    frame,
                    left_share,
                    right_share,
                    delta_points,
                },
            )
        })
        .filter(|(_, row)| row.delta_points.abs() >= 0.005)
        .collect();
    rows.sort_by(|(da, a), (db, b)| {
        b.delta_points
            .abs()
            .total_cmp(&a.delta_points.abs())
            .then(db.cmp(da))
            .then_with(|| a.frame.cmp(&b.frame))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::folded;
    use model::profile::{Profile, diff};

    #[test]
    fn shares_are_compared_not_counts() {
        let mut profile = Profile::default();
        profile
            .merge(&folded::parse(b"m;f;f 20\nm;g 80\n", "l").0)
            .unwrap();
        profile
            .merge(&folded::parse(b"m;f;f 600\nm;g 400\n", "r").0)
            .unwrap();
        let side = |host: &str| profile.select(|s| s.host == host);
        let rows = compared(
            &profile.tree,
            &profile.frames,
            &diff(&side("l"), &side("r"), 0),
        );
        let told: Vec<(&str, f64)> = rows
            .iter()
            .map(|r| (r.frame.as_str(), r.delta_points.round()))
            .collect();
        assert_eq!(told, [("f", 40.0), ("g", -40.0)]);
    }
}
