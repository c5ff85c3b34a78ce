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

impl Difference {
    /// Inclusive values (a node with everything below it) of both sides, by node.
    #[must_use]
    pub fn inclusive(&self, tree: &Tree) -> BTreeMap<NodeId, (u64, u64)> {
        let mut sums: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for row in &self.rows {
            let mut at = row.node;
            loop {
                let sum = sums.entry(at).or_default();
                sum.0 = sum.0.saturating_add(row.left);
                sum.1 = sum.1.saturating_add(row.right);
                match tree.get(at) {
                    Some(node) => at = node.parent,
                    None => break,
                }
            }
        }
        sums.remove(&ROOT);
        sums
    }
}
