//! The order in which writers give stacks: by series, then as a walk through the call tree.
//!
//! In: a profile. Out: its series and rows in an order that depends on their contents only. Never: a
//! number of a frame, node or series that shows: equal profiles are written as equal bytes, however
//! they were merged.

use crate::profile::{FrameId, Profile, SeriesId, Totals, Values};

/// The place of every node in a walk from the root, children in the order of their frames.
#[derive(Debug)]
pub struct Walk {
    place: Vec<u32>,
}

impl Walk {
    /// Of all nodes.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        let frames = profile.frames.as_slice();
        let mut sorted: Vec<usize> = (0..frames.len()).collect();
        sorted.sort_by(|a, b| frames[*a].cmp(&frames[*b]));
        let mut rank = vec![0_u32; frames.len()];
        for (place, frame) in (0_u32..).zip(sorted) {
            rank[frame] = place;
        }
        let nodes = profile.tree.as_slice();
        let mut children: Vec<(u32, u32, u32)> = (0_u32..)
            .zip(nodes)
            .skip(1)
            .map(|(id, node)| {
                let FrameId(frame) = node.frame;
                let frame = rank.get(frame as usize).copied().unwrap_or(u32::MAX);
                (node.parent.0, frame, id)
            })
            .collect();
        children.sort_unstable();
        let first = |node: u32| children.partition_point(|(parent, ..)| *parent < node);
        let mut place = vec![0_u32; nodes.len()];
        let mut next = 0_u32;
        let mut open = vec![0_u32];
        while let Some(node) = open.pop() {
            place[node as usize] = next;
            next += 1;
            let below = children[first(node)..]
                .iter()
                .take_while(|(parent, ..)| *parent == node);
            let from = open.len();
            open.extend(below.map(|(.., id)| *id));
            open[from..].reverse();
        }
        Self { place }
    }

    /// The rows of one series that have a value, in order.
    #[must_use]
    pub fn rows(&self, totals: &Totals) -> Vec<(u32, Values)> {
        let mut rows: Vec<(u32, Values)> = totals
            .iter()
            .filter(|(node, values)| {
                (node.0 as usize) < self.place.len() && values.iter().any(|v| *v > 0)
            })
            .map(|(node, values)| (node.0, *values))
            .collect();
        rows.sort_unstable_by_key(|(node, _)| self.place[*node as usize]);
        rows
    }
}

/// The series that have values, sorted by what they are.
#[must_use]
pub fn series(profile: &Profile) -> Vec<SeriesId> {
    let has_value = |totals: &Totals| totals.values().flatten().any(|v| *v > 0);
    let totals = profile.totals.iter().filter(|(_, t)| has_value(t));
    let mut ids: Vec<SeriesId> = totals.map(|(id, _)| *id).collect();
    ids.sort_by_key(|id| profile.series.get(*id));
    ids
}
