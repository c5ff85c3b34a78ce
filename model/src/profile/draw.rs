//! What of a profile is worth drawing: cuts to a number of frames and a depth, after the merge.
//!
//! In: inclusive values over a tree. Out: stacks of labels whose values add up to exactly the same
//! total. Never: a count that vanishes: what is not drawn is counted in the frame above it.

use super::{Difference, FrameTable, NodeId, Tree};
use foldhash::HashMap;
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
/// difference vanished and new frames are both seen. `prefix` gives labels above a node's own
/// stack (the process group), by node.
#[must_use]
pub fn draw(
    tree: &Tree,
    frames: &FrameTable,
    difference: &Difference,
    limits: DrawLimits,
) -> Drawing {
    let inclusive = difference.inclusive(tree);
    let depth = depths(tree, &inclusive);
    let whole = difference.left_total.max(difference.right_total);
    let narrowest = narrowest(whole, limits.width_min);
    let mut order: Vec<(NodeId, u64)> = inclusive
        .iter()
        .map(|(n, (l, r))| (*n, (*l).max(*r)))
        .collect();
    let candidates = order.len();
    order.retain(|(n, width)| *width >= narrowest && *width > 0 && depth[n] <= limits.depth_max);
    // Widest first; a parent is at least as wide as its child and has the lower number, so every
    // prefix of this order is a tree. That holds for the larger of two sides as well.
    order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(limits.frames_max);
    let drawn: HashMap<NodeId, ()> = order.iter().map(|(n, _)| (*n, ())).collect();

    let mut lines: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
    let mut depth_capped = false;
    let mut labels: HashMap<NodeId, Vec<String>> = HashMap::default();
    for row in &difference.rows {
        let mut at = row.node;
        let mut capped = false;
        while at != super::ROOT && !drawn.contains_key(&at) {
            capped |= depth.get(&at).is_some_and(|d| *d > limits.depth_max);
            at = tree.get(at).map_or(super::ROOT, |n| n.parent);
        }
        let mut path = labels
            .entry(at)
            .or_insert_with(|| path_labels(tree, frames, at))
            .clone();
        if capped && path.len() >= limits.depth_max {
            path.push("[deeper]".to_owned());
            depth_capped = true;
        }
        let line = lines.entry(path).or_default();
        line.0 = line.0.saturating_add(row.left);
        line.1 = line.1.saturating_add(row.right);
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
        frames: drawn.len(),
        hidden_frames: candidates - drawn.len(),
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

fn depths(tree: &Tree, nodes: &BTreeMap<NodeId, (u64, u64)>) -> HashMap<NodeId, usize> {
    let mut depth: HashMap<NodeId, usize> = HashMap::default();
    for &id in nodes.keys() {
        // Ids rise and parents come first, and every ancestor of a node is in the map.
        let above = tree
            .get(id)
            .and_then(|n| depth.get(&n.parent))
            .copied()
            .unwrap_or(0);
        depth.insert(id, above + 1);
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
