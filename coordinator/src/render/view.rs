//! A view: the part of one or two profiles that one picture shows, with the process group as the
//! first frame of every stack.
//!
//! In: profiles, which series, which side. Out: a tree of its own with both sides' values.
//! Never: a value lost: what goes into a view is exactly what its rows add up to.

use model::format::folded;
use model::profile::{
    DiffRow, Difference, Frame, FrameId, FrameTable, NodeId, Profile, ROOT, Series, Tree,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Which side of a difference values belong to. Pictures of one side use the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before, or the rest of the fleet.
    Left,
    /// After, or the host in question.
    Right,
}

/// What one picture shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The call tree, process groups first.
    pub tree: Tree,
    /// Its frames.
    pub frames: FrameTable,
    /// Both sides' self values.
    pub difference: Difference,
    /// Labels of the process groups that stand first.
    pub groups: BTreeSet<String>,
}

impl View {
    /// The view of one side.
    #[must_use]
    pub fn of(profile: &Profile, wanted: impl Fn(&Series) -> bool, measure: usize) -> Self {
        let mut builder = ViewBuilder::default();
        builder.add(profile, wanted, measure, Side::Left);
        builder.build()
    }

    /// The left side as folded text, sorted by stack.
    #[must_use]
    pub fn folded(&self) -> String {
        let mut text = String::new();
        self.each_folded(|stack, left| {
            let _ = writeln!(text, "{stack} {left}");
        });
        text
    }

    /// The left side's stacks with their values, sorted by stack, one after the other.
    pub fn each_folded(&self, mut each: impl FnMut(&str, u64)) {
        let rows = self.difference.rows.iter().filter(|r| r.left > 0);
        let rows = rows.map(|r| (r.node, [r.left]));
        folded::each_stack(&self.tree, &self.frames, rows, |stack, [left]| {
            each(stack, *left);
        });
    }

    /// Both sides as folded text: `stack left right`, the form that differential flame graphs are
    /// made from elsewhere.
    #[must_use]
    pub fn folded_difference(&self) -> String {
        let rows = self.difference.rows.iter();
        let rows = rows.filter(|r| r.left > 0 || r.right > 0);
        let rows = rows.map(|r| (r.node, [r.left, r.right]));
        let mut text = String::new();
        folded::each_stack(&self.tree, &self.frames, rows, |stack, [left, right]| {
            let _ = writeln!(text, "{stack} {left} {right}");
        });
        text
    }
}

/// Puts a view together.
#[derive(Debug, Default)]
pub struct ViewBuilder {
    view: View,
    /// Both sides by node number.
    sums: Vec<(u64, u64)>,
    reverse: bool,
}

impl ViewBuilder {
    /// For stacks turned around: the function that was running first, its callers after it. The
    /// process group stays first.
    #[must_use]
    pub fn reversed(reverse: bool) -> Self {
        Self {
            reverse,
            ..Self::default()
        }
    }

    /// Adds the measure with this index of all series that are `wanted`.
    pub fn add(
        &mut self,
        profile: &Profile,
        wanted: impl Fn(&Series) -> bool,
        measure: usize,
        side: Side,
    ) {
        let mut numbers = Numbers::of(profile);
        for (id, totals) in &profile.totals {
            let Some(series) = profile.series.get(*id).filter(|s| wanted(s)) else {
                continue;
            };
            // Sorted, so that the same profile always gives the same numbers and picture.
            let mut rows: Vec<(NodeId, u64)> = totals
                .iter()
                .map(|(n, v)| (*n, v.get(measure).copied().unwrap_or(0)))
                .collect();
            rows.sort_unstable();
            self.add_rows(profile, &mut numbers, series, rows.into_iter(), side);
        }
    }

    /// Adds a sum that nobody else needs: its totals, and values that stand beside them, one list by
    /// node number for each series.
    pub fn add_sum(&mut self, profile: Profile, lists: &[Vec<u64>], measure: usize, side: Side) {
        if let ([values], [series]) = (lists, profile.series.as_slice())
            && profile.totals.is_empty()
            && self.view.tree.is_empty()
            && !self.reverse
        {
            let group = group_frame(series);
            return self.begin_with(profile, values, group, side);
        }
        let mut numbers = Numbers::of(&profile);
        for (series, values) in profile.series.as_slice().iter().zip(lists) {
            let rows = (0_u32..).map(NodeId).zip(values.iter().copied());
            self.add_rows(&profile, &mut numbers, series, rows, side);
        }
        self.add(&profile, |_| true, measure, side);
    }

    /// A view that begins with one process group takes the tree as it is, instead of looking up every
    /// node of it.
    fn begin_with(&mut self, profile: Profile, values: &[u64], group: Option<Frame>, side: Side) {
        self.view.frames = profile.frames;
        let higher = match group {
            None => {
                self.view.tree = profile.tree;
                0
            }
            Some(group) => {
                self.view.groups.insert(group.label());
                let frame = self.view.frames.intern(&group);
                let (tree, higher) = profile.tree.on(frame);
                self.view.tree = tree;
                higher as usize
            }
        };
        self.sums.resize(self.view.tree.len(), (0, 0));
        for (node, value) in values.iter().enumerate() {
            // What is in no frame is on the process group.
            let sum = &mut self.sums[node + higher];
            match side {
                Side::Left => sum.0 = *value,
                Side::Right => sum.1 = *value,
            }
        }
    }

    fn add_rows(
        &mut self,
        profile: &Profile,
        numbers: &mut Numbers,
        series: &Series,
        rows: impl Iterator<Item = (NodeId, u64)>,
        side: Side,
    ) {
        let top = self.group(series);
        for (node, value) in rows.filter(|r| r.1 > 0) {
            let node = if self.reverse {
                self.place_reversed(profile, numbers, top, node)
            } else {
                self.place(profile, numbers, top, node)
            };
            let node = node.0 as usize;
            if self.sums.len() <= node {
                self.sums.resize(self.view.tree.len(), (0, 0));
            }
            let (left, right) = &mut self.sums[node];
            let sum = if side == Side::Left { left } else { right };
            *sum = sum.saturating_add(value);
        }
    }

    /// The view.
    #[must_use]
    pub fn build(mut self) -> View {
        let difference = &mut self.view.difference;
        let sums = (0_u32..).map(NodeId).zip(self.sums);
        for (node, (left, right)) in sums.filter(|(_, sum)| *sum != (0, 0)) {
            difference.rows.push(DiffRow { node, left, right });
            difference.left_total = difference.left_total.saturating_add(left);
            difference.right_total = difference.right_total.saturating_add(right);
        }
        self.view
    }

    /// The node of a series' process group; the root when it has none.
    fn group(&mut self, series: &Series) -> NodeId {
        let Some(frame) = group_frame(series) else {
            return ROOT;
        };
        self.view.groups.insert(frame.label());
        let frame = self.view.frames.intern(&frame);
        self.view.tree.intern(ROOT, frame)
    }

    /// The node below `top` for a profile's node; its callers are placed first.
    fn place(
        &mut self,
        profile: &Profile,
        numbers: &mut Numbers,
        top: NodeId,
        node: NodeId,
    ) -> NodeId {
        let known = numbers
            .nodes
            .entry(top)
            .or_insert_with(|| vec![None; profile.tree.len()]);
        let mut chain = Vec::new();
        let mut at = node;
        let mut above = loop {
            if at == ROOT {
                break top;
            }
            if let Some(Some(placed)) = known.get(at.0 as usize) {
                break *placed;
            }
            let Some(here) = profile.tree.get(at) else {
                break top;
            };
            chain.push((at, here.frame));
            at = here.parent;
        };
        for (old, frame) in chain.into_iter().rev() {
            let frame = number(&mut self.view.frames, &mut numbers.frames, profile, frame);
            above = self.view.tree.intern(above, frame);
            known[old.0 as usize] = Some(above);
        }
        above
    }

    fn place_reversed(
        &mut self,
        profile: &Profile,
        numbers: &mut Numbers,
        top: NodeId,
        node: NodeId,
    ) -> NodeId {
        profile
            .tree
            .stack(node)
            .into_iter()
            .rev()
            .fold(top, |above, frame| {
                let frame = number(&mut self.view.frames, &mut numbers.frames, profile, frame);
                self.view.tree.intern(above, frame)
            })
    }
}

/// A series' process group: its role, else its comm; none when it has neither.
fn group_frame(series: &Series) -> Option<Frame> {
    let process = &series.process;
    let name = if process.role.is_empty() {
        &process.comm
    } else {
        &process.role
    };
    (!name.is_empty()).then(|| Frame::marker(name.as_str()))
}

/// A profile's numbers in the view's, as far as they were needed.
struct Numbers {
    frames: Vec<Option<FrameId>>,
    nodes: BTreeMap<NodeId, Vec<Option<NodeId>>>,
}

impl Numbers {
    fn of(profile: &Profile) -> Self {
        Self {
            frames: vec![None; profile.frames.len()],
            nodes: BTreeMap::new(),
        }
    }
}

fn number(
    table: &mut FrameTable,
    known: &mut [Option<FrameId>],
    profile: &Profile,
    frame: FrameId,
) -> FrameId {
    let slot = known.get_mut(frame.0 as usize);
    if let Some(Some(id)) = slot {
        return *id;
    }
    let value = profile
        .frames
        .get(frame)
        .cloned()
        .unwrap_or_else(|| Frame::marker("[unknown]"));
    let id = table.intern(&value);
    if let Some(slot) = slot {
        *slot = Some(id);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::{FrameKind, Measure, Process};
    use proptest::prelude::*;

    fn profile(rows: &[(u8, u8, Vec<u8>, u64)]) -> Profile {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        for (host, role, stack, value) in rows {
            let role = ["", "nginx: worker", "nginx: master"][usize::from(role % 3)];
            let process = Process {
                role: role.into(),
                ..Process::default()
            };
            let series = Series {
                host: format!("h{}", host % 3),
                process,
                ..Series::default()
            };
            let series = profile.series.intern(&series);
            let frames: Vec<FrameId> = stack
                .iter()
                .map(|f| {
                    profile
                        .frames
                        .intern(&Frame::named(FrameKind::User, format!("f{f}"), "m"))
                })
                .collect();
            profile.add_stack(series, &frames, &[*value, 0, 0]);
        }
        profile
    }

    fn sum(folded: &str) -> u64 {
        folded
            .lines()
            .map(|l| l.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }

    proptest! {
        #[test]
        fn hosts_add_up_to_the_merged_view_whichever_way_round(
            rows in prop::collection::vec((0_u8..3, 0_u8..3, prop::collection::vec(0_u8..4, 0..5), 0_u64..100), 0..30),
            reverse in any::<bool>(),
        ) {
            let profile = profile(&rows);
            let folded = |wanted: &dyn Fn(&Series) -> bool| {
                let mut builder = ViewBuilder::reversed(reverse);
                builder.add(&profile, wanted, 0, Side::Left);
                builder.build().folded()
            };
            let whole = folded(&|_| true);
            let parts: String = ["h0", "h1", "h2"].iter().map(|h| folded(&|s| s.host == *h)).collect();
            prop_assert_eq!(sum(&whole), sum(&parts));
            prop_assert_eq!(sum(&whole), profile.grand_total()[0]);
            let mut added: BTreeMap<String, u64> = BTreeMap::new();
            for line in parts.lines() {
                let (stack, count) = line.rsplit_once(' ').unwrap();
                *added.entry(stack.to_owned()).or_default() += count.parse::<u64>().unwrap();
            }
            let added: String = added.iter().map(|(s, c)| format!("{s} {c}\n")).collect();
            prop_assert_eq!(added, whole);
        }
    }

    proptest! {
        #[test]
        fn a_sum_that_is_taken_as_it_is_shows_what_it_shows_when_it_is_looked_up(
            rows in prop::collection::vec((Just(0_u8), prop::collection::vec(0_u8..4, 0..5), 1_u64..100), 0..30),
            role in 0_u8..3, first in any::<bool>(),
        ) {
            let rows: Vec<_> = rows.into_iter().map(|(host, stack, value)| (host, role, stack, value)).collect();
            let whole = profile(&rows);
            let slowly = View::of(&whole, |_| true, 0);
            let mut sum = whole.clone();
            let lists: Vec<Vec<u64>> = std::mem::take(&mut sum.totals).into_values().map(|totals| {
                let last = totals.keys().map(|n| n.0 as usize).max().unwrap_or(0);
                let mut list = vec![0; last + 1];
                totals.iter().for_each(|(n, v)| list[n.0 as usize] = v[0]);
                list
            }).collect();
            let mut builder = ViewBuilder::default();
            if first {
                builder.add_sum(Profile::new("on-cpu", Measure::on_cpu()), &[], 0, Side::Left);
            } else {
                builder.add(&whole, |_| true, 0, Side::Right); // not the first: looked up
            }
            builder.add_sum(sum, &lists, 0, Side::Left);
            // More can be added to it.
            builder.add(&whole, |_| true, 0, Side::Right);
            let quickly = builder.build();
            prop_assert_eq!(quickly.folded(), slowly.folded());
            prop_assert_eq!(&quickly.groups, &slowly.groups);
            let right: u64 = quickly.difference.right_total;
            prop_assert_eq!(right, slowly.difference.left_total * if first { 1 } else { 2 });
        }
    }

    #[test]
    fn the_process_group_stands_first_and_stays_first_when_reversed() {
        let profile = profile(&[(0, 1, vec![1, 2], 3), (1, 0, vec![1, 2], 4)]);
        assert_eq!(
            View::of(&profile, |_| true, 0).folded(),
            "f1;f2 4\nnginx: worker;f1;f2 3\n"
        );
        let mut builder = ViewBuilder::reversed(true);
        builder.add(&profile, |_| true, 0, Side::Left);
        assert_eq!(builder.build().folded(), "f2;f1 4\nnginx: worker;f2;f1 3\n");
        let mut both = ViewBuilder::default();
        both.add(&profile, |s| s.host == "h1", 0, Side::Left);
        both.add(&profile, |s| s.host == "h0", 0, Side::Right);
        assert_eq!(
            both.build().folded_difference(),
            "f1;f2 4 0\nnginx: worker;f1;f2 0 3\n"
        );
    }
}
