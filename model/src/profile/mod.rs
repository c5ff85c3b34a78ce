//! The stacks of one probe with their measures, by series and second.
//!
//! In: frames, stacks and counts. Out: sums, differences, shares, and what is worth drawing.
//! Never: a count that is lost (merging and pruning conserve totals exactly; a test for each).

mod counter;
mod diff;
mod draw;
mod frame;
mod measure;
mod merge;
mod normalise;
mod part;
mod record;
mod series;
mod tree;

pub use counter::{CounterKind, CounterRow, CounterSource};
pub use diff::{DiffRow, Difference, Inclusive, diff};
pub use draw::{DrawLimits, Drawing, DrawnStack, draw};
pub use frame::{BuildId, Frame, FrameId, FrameKey, FrameKind, FrameRef, FrameTable};
pub use measure::{MEASURES_MAX, Measure, Values, add_values};
pub use merge::{Canonical, Counters, IdMap, Keep, MergeError, Profile, Totals};
pub use normalise::{Share, share};
pub use record::{Recorder, RecorderLimits, Segment};
pub use series::{Process, Series, SeriesId, SeriesTable};
pub use tree::{Node, NodeId, ROOT, Tree};

/// The values of one (series, second): sorted node ids and a row of values for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Node ids, strictly rising.
    pub nodes: Vec<NodeId>,
    /// One row for each node; measures beyond the profile's own are 0.
    pub values: Vec<Values>,
}

impl Cell {
    /// A cell from rows in any order; rows of the same node are added.
    #[must_use]
    pub fn from_rows(mut rows: Vec<(NodeId, Values)>) -> Self {
        rows.sort_unstable_by_key(|r| r.0);
        let mut cell = Cell::default();
        for (node, values) in rows {
            if cell.nodes.last() == Some(&node)
                && let Some(last) = cell.values.last_mut()
            {
                add_values(last, &values);
                continue;
            }
            cell.nodes.push(node);
            cell.values.push(values);
        }
        cell
    }

    /// Rows in order of node id.
    pub fn rows(&self) -> impl Iterator<Item = (NodeId, &Values)> + Clone {
        self.nodes.iter().copied().zip(self.values.iter())
    }
}

#[cfg(test)]
pub(crate) mod tests;
