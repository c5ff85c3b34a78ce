//! The difference of two sides. In: two maps of values over the same tree. Out: a row for each
//! node with both sides and the signed difference. Never: a node dropped because one side lacks it.

use super::{NodeId, ROOT, Tree, Values};
use std::collections::BTreeMap;

/// One node of a difference: self values of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiffRow {
    /// The node.
    pub node: NodeId,
    /// Self value on the left side (before, or the rest of the fleet).
    pub left: u64,
    /// Self value on the right side (after, or the host in question).
    pub right: u64,
}

impl DiffRow {
    /// Right minus left, saturating.
    #[must_use]
    pub fn delta(&self) -> i64 {
        let wide = i128::from(self.right) - i128::from(self.left);
        i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Two sides of one measure over one tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// A row for each node that either side has, by node.
    pub rows: Vec<DiffRow>,
    /// Sum of the left side.
    pub left_total: u64,
    /// Sum of the right side.
    pub right_total: u64,
}

/// Both sides of `measure` (an index) beside each other.
#[must_use]
pub fn diff(
    left: &BTreeMap<NodeId, Values>,
    right: &BTreeMap<NodeId, Values>,
    measure: usize,
) -> Difference {
    let mut rows: BTreeMap<NodeId, DiffRow> = BTreeMap::new();
    let mut out = Difference::default();
    for (&node, values) in left {
        let value = values.get(measure).copied().unwrap_or(0);
        rows.entry(node)
            .or_insert(DiffRow {
                node,
                left: 0,
                right: 0,
            })
            .left = value;
        out.left_total = out.left_total.saturating_add(value);
    }
    for (&node, values) in right {
        let value = values.get(measure).copied().unwrap_or(0);
        rows.entry(node)
            .or_insert(DiffRow {
                node,
                left: 0,
                right: 0,
            })
            .right = value;
        out.right_total = out.right_total.saturating_add(value);
    }
    out.rows = rows.into_values().collect();
    out
}

/// Values of nodes with everything below them, of both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inclusive {
    /// By node number; empty where the side has nothing at all.
    left: Vec<u64>,
    right: Vec<u64>,
    nodes: usize,
}

impl Inclusive {
    /// Both sides of a node; of the root, everything.
    #[must_use]
    pub fn get(&self, id: NodeId) -> (u64, u64) {
        let side = |values: &[u64]| values.get(id.0 as usize).copied().unwrap_or(0);
        (side(&self.left), side(&self.right))
    }

    /// The nodes below the root that have a value on either side, by number.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let ids = (ROOT.0 + 1..).map(NodeId);
        ids.take(self.nodes.saturating_sub(1))
            .filter(|id| self.get(*id) != (0, 0))
    }
}

impl Difference {
    /// Inclusive values (a node with everything below it) of both sides. One pass: a parent has a
    /// lower number than its children.
    #[must_use]
    pub fn inclusive(&self, tree: &Tree) -> Inclusive {
        let side = |total: u64, value: fn(&DiffRow) -> u64| {
            if total == 0 {
                return Vec::new();
            }
            let mut sums = vec![0_u64; tree.len()];
            for row in &self.rows {
                if let Some(sum) = sums.get_mut(row.node.0 as usize) {
                    *sum = sum.saturating_add(value(row));
                }
            }
            for (id, node) in tree.as_slice().iter().enumerate().skip(1).rev() {
                let below = sums[id];
                let above = &mut sums[node.parent.0 as usize];
                *above = above.saturating_add(below);
            }
            sums
        };
        Inclusive {
            left: side(self.left_total, |r| r.left),
            right: side(self.right_total, |r| r.right),
            nodes: tree.len(),
        }
    }

    /// The row of a node.
    #[must_use]
    pub fn row(&self, node: NodeId) -> Option<&DiffRow> {
        let at = self.rows.binary_search_by_key(&node, |r| r.node).ok()?;
        self.rows.get(at)
    }
}
