//! What of a profile is worth drawing: cuts to a number of frames and a depth, after the merge.
//!
//! In: inclusive values over a tree. Out: stacks of labels whose values add up to exactly the same
//! total. Never: a count that vanishes: what is not drawn is counted in the frame above it.

use super::{Difference, FrameTable, Inclusive, NodeId, ROOT, Tree};
use std::collections::BTreeMap;

/// Bounds of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawLimits {
    /// Most frames. A browser stays quick up to about 5,000.
    pub frames_max: usize,
    /// Deepest level; what lies below is one marker frame.
    pub depth_max: usize,
    /// Narrowest frame, as a part of the whole (0.001 = 0.1 %).
    pub width_min: f64,
}

impl Default for DrawLimits {
    fn default() -> Self {
        Self {
            frames_max: 5_000,
            depth_max: 200,
            width_min: 0.0,
        }
    }
}

/// One line of a picture: labels from the root, and the self values of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawnStack {
    /// Labels, root first.
    pub labels: Vec<String>,
    /// Left side; the only one for a picture that is no difference.
    pub left: u64,
    /// Right side.
    pub right: u64,
}

/// A picture's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawing {
    /// Lines, sorted by labels.
    pub stacks: Vec<DrawnStack>,
    /// Frames that are drawn.
    pub frames: usize,
    /// Frames that are not drawn because they are too narrow or too many.
    pub hidden_frames: usize,
    /// Whether stacks were cut at the deepest level.
    pub depth_capped: bool,
}

/// Chooses the widest frames. A frame's width is the larger of its two sides, so that in a
/// difference vanished and new frames are both seen. `inclusive` is that of `difference`.
#[must_use]
pub fn draw(
    tree: &Tree,
    frames: &FrameTable,
    difference: &Difference,
    inclusive: &Inclusive,
    limits: DrawLimits,
) -> Drawing {
    let whole = difference.left_total.max(difference.right_total);
    let narrowest = narrowest(whole, limits.width_min);
    let depth = depths(tree);
    let mut candidates = 0;
    let mut order: Vec<(u64, NodeId)> = Vec::new();
    for id in inclusive.nodes() {
        let (left, right) = inclusive.get(id);
        let width = left.max(right);
        candidates += 1;
        if width >= narrowest && usize::from(depth[id.0 as usize]) <= limits.depth_max {
            order.push((width, id));
        }
    }
    // Widest first; a parent is at least as wide as its child and has the lower number, so every
    // prefix of this order is a tree. That holds for the larger of two sides as well.
    let wider = |a: &(u64, NodeId), b: &(u64, NodeId)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
    if order.len() > limits.frames_max {
        if limits.frames_max > 0 {
            order.select_nth_unstable_by(limits.frames_max - 1, wider);
        }
        order.truncate(limits.frames_max);
    }
    let drawn = order.len();

    // What of a frame's value is not in frames drawn on it.
    let mut own: BTreeMap<NodeId, (u64, u64)> = order
        .iter()
        .map(|(_, id)| (*id, inclusive.get(*id)))
        .collect();
    own.insert(ROOT, (difference.left_total, difference.right_total));
    for (_, id) in &order {
        let (left, right) = inclusive.get(*id);
        let above = tree.get(*id).map_or(ROOT, |n| n.parent);
        if let Some(own) = own.get_mut(&above) {
            *own = (own.0.saturating_sub(left), own.1.saturating_sub(right));
        }
    }
    let mut lines: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
    let mut add = |path: Vec<String>, left: u64, right: u64| {
        if (left, right) != (0, 0) {
            let line = lines.entry(path).or_default();
            line.0 = line.0.saturating_add(left);
            line.1 = line.1.saturating_add(right);
        }
    };
    let mut depth_capped = false;
    for (id, (left, right)) in own {
        let path = path_labels(tree, frames, id);
        if path.len() < limits.depth_max || id == ROOT {
            add(path, left, right);
            continue;
        }
        // At the deepest level: what lies below goes into one marker.
        let row = difference.row(id);
        let (self_left, self_right) = row.map_or((0, 0), |r| (r.left, r.right));
        let mut deeper = path.clone();
        deeper.push("[deeper]".to_owned());
        let below = (
            left.saturating_sub(self_left),
            right.saturating_sub(self_right),
        );
        depth_capped |= below != (0, 0);
        add(path, left.min(self_left), right.min(self_right));
        add(deeper, below.0, below.1);
    }
    Drawing {
        stacks: lines
            .into_iter()
            .map(|(labels, (left, right))| DrawnStack {
                labels,
                left,
                right,
            })
            .collect(),
        frames: drawn,
        hidden_frames: candidates - drawn,
        depth_capped,
    }
}

fn path_labels(tree: &Tree, frames: &FrameTable, node: NodeId) -> Vec<String> {
    let label = |f| {
        frames
            .get(f)
            .map_or_else(|| "[unknown]".to_owned(), super::Frame::label)
    };
    tree.stack(node).into_iter().map(label).collect()
}

/// How many frames lie between the root and each node, itself included.
fn depths(tree: &Tree) -> Vec<u16> {
    let mut depth = vec![0_u16; tree.len()];
    for (id, node) in tree.as_slice().iter().enumerate().skip(1) {
        depth[id] = depth[node.parent.0 as usize].saturating_add(1);
    }
    depth
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a drawing threshold; the value is not negative and below the whole"
)]
fn narrowest(whole: u64, width_min: f64) -> u64 {
    (whole as f64 * width_min.clamp(0.0, 1.0)).ceil() as u64
}
