//! Folded text out: lines in the order of their stacks' bytes, without ever holding them all.
//!
//! In: a tree, its frames, values for nodes. Out: each stack once, in order. Never: two lines of the
//! same stack, or memory for more than one line.
//!
//! All stacks below a frame `f` begin with `…;f;` and stand together; the stack that ends in `f`
//! may stand far from them, because a sibling's longer name may go on with something that sorts
//! before `;`. So each frame is placed twice among its siblings: as an end, and as a way down.

use crate::profile::{Frame, FrameId, FrameTable, Node, NodeId, Tree, Values};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Writes the rows of one measure as folded text, sorted by stack.
#[must_use]
pub fn write(
    tree: &Tree,
    frames: &FrameTable,
    rows: &BTreeMap<NodeId, Values>,
    measure: usize,
) -> String {
    let rows = rows.iter().map(|(node, values)| (*node, [values[measure]]));
    let mut text = String::new();
    each_stack(tree, frames, rows, |stack, [count]| {
        if *count > 0 {
            let _ = writeln!(text, "{stack} {count}");
        }
    });
    text
}

/// Gives every stack that `rows` has, once, sorted by bytes, with the sum of its values. An empty
/// stack is `[unknown]`, and so is a frame with a name of nothing but blanks. Names are written so
/// that they are read back: no one ends in a blank and a number. What
/// [`super::parse`] would take for a comment gets a blank in front.
pub fn each_stack<const N: usize>(
    tree: &Tree,
    frames: &FrameTable,
    rows: impl Iterator<Item = (NodeId, [u64; N])>,
    mut each: impl FnMut(&str, &[u64; N]),
) {
    let sums = Sums::of(tree, rows);
    let labels = Labels::of(frames);
    let children = Children::of(tree);
    let nodes = tree.as_slice();
    let mut line = String::new();
    let mut steps = Vec::new();
    let mut events = Vec::new();
    let root = Step::Down(labels.unknown, vec![0]);
    steps.push(root);
    let mut first = true;
    while let Some(step) = steps.pop() {
        let group = match step {
            Step::Cut(len) => {
                line.truncate(len);
                continue;
            }
            Step::End(label, group) => {
                let len = line.len();
                push(&mut line, &labels.texts[label as usize]);
                each(&line, &sums.of_group(&group));
                line.truncate(len);
                continue;
            }
            Step::Down(label, group) => {
                if !first {
                    steps.push(Step::Cut(line.len()));
                    push(&mut line, &labels.texts[label as usize]);
                }
                group
            }
        };
        events.clear();
        if std::mem::take(&mut first) && sums.has(0) {
            events.push((
                labels.ends[labels.unknown as usize],
                labels.unknown,
                false,
                0,
            ));
        }
        for child in group.iter().flat_map(|n| children.below(*n)).copied() {
            let label = labels.number(nodes[child as usize], line.is_empty());
            if sums.has(child) {
                events.push((labels.ends[label as usize], label, false, child));
            }
            if !children.below(child).is_empty() {
                events.push((labels.downs[label as usize], label, true, child));
            }
        }
        events.sort_unstable();
        // The last thing to do goes on the pile first.
        for same in events.chunk_by(|a, b| a.0 == b.0).rev() {
            let (_, label, down, _) = same[0];
            let group = same.iter().map(|e| e.3).collect();
            steps.push(if down {
                Step::Down(label, group)
            } else {
                Step::End(label, group)
            });
        }
    }
}

/// One thing to do on the way through the tree. Nodes of a group have the same stack of labels.
enum Step {
    /// Give the stack that ends in these nodes.
    End(u32, Vec<u32>),
    /// Go below these nodes.
    Down(u32, Vec<u32>),
    /// Cut the line to this length: what lay below is done.
    Cut(usize),
}

fn push(line: &mut String, label: &str) {
    if !line.is_empty() {
        line.push(';');
    }
    line.push_str(label);
}

/// Values by node, dense only where there are some.
struct Sums<const N: usize> {
    /// Number of a node's values plus one; 0 for none.
    slot: Vec<u32>,
    values: Vec<[u64; N]>,
}

impl<const N: usize> Sums<N> {
    fn of(tree: &Tree, rows: impl Iterator<Item = (NodeId, [u64; N])>) -> Self {
        let mut slot = vec![0_u32; tree.len()];
        let mut values: Vec<[u64; N]> = Vec::new();
        for (node, row) in rows {
            let Some(slot) = slot.get_mut(node.0 as usize) else {
                continue;
            };
            if *slot == 0 {
                values.push([0; N]);
                // There are no more rows than nodes, whose numbers are u32.
                *slot = u32::try_from(values.len()).unwrap_or(u32::MAX);
            }
            let sum = &mut values[*slot as usize - 1];
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum = sum.saturating_add(value);
            }
        }
        Self { slot, values }
    }

    fn has(&self, node: u32) -> bool {
        self.slot[node as usize] != 0
    }

    fn of_group(&self, group: &[u32]) -> [u64; N] {
        let mut sum = [0_u64; N];
        for node in group {
            let values = &self.values[self.slot[*node as usize] as usize - 1];
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = sum.saturating_add(*value);
            }
        }
        sum
    }
}

/// A name that ends in a blank and a number gets `_` for that blank: readers would take the number
/// of a stack's last name for a count.
fn unlike_counts(name: &str) -> Cow<'_, str> {
    match name.rsplit_once(' ') {
        Some((before, number)) if super::number(number.as_bytes()).is_some() => {
            Cow::Owned(format!("{before}_{number}"))
        }
        _ => Cow::Borrowed(name),
    }
}

/// The texts of frames, and where each sorts among its siblings.
struct Labels {
    texts: Vec<String>,
    /// Label of each frame.
    by_frame: Vec<u32>,
    /// Label of a frame that stands first, where that is another one.
    as_first: BTreeMap<u32, u32>,
    /// The label of a frame that is not known.
    unknown: u32,
    /// Place of each label as the end of a stack; shares its numbers with `downs`.
    ends: Vec<u32>,
    /// Place of each label followed by `;`.
    downs: Vec<u32>,
}

impl Labels {
    fn of(frames: &FrameTable) -> Self {
        let mut texts = vec!["[unknown]".to_owned()];
        let mut known: BTreeMap<String, u32> = BTreeMap::from([(texts[0].clone(), 0)]);
        let mut number = |text: &str| {
            if let Some(label) = known.get(text) {
                return *label;
            }
            let label = u32::try_from(texts.len()).unwrap_or(0); // no more than frames, twice
            texts.push(text.to_owned());
            known.insert(text.to_owned(), label);
            label
        };
        let mut as_first = BTreeMap::new();
        let mut by_frame = Vec::with_capacity(frames.len());
        for frame in frames.as_slice() {
            let text = Frame::label(frame);
            let text = match text.trim() {
                "" => "[unknown]",
                text => text,
            };
            let unlike_counts = unlike_counts(text);
            let text = &*unlike_counts;
            let label = number(text);
            by_frame.push(label);
            if text.starts_with('#') {
                as_first.insert(label, number(&format!(" {text}")));
            }
        }
        drop(known);
        let mut keys: Vec<(&str, bool, usize)> = texts
            .iter()
            .enumerate()
            .flat_map(|(i, text)| [(text.as_str(), false, i), (text.as_str(), true, i)])
            .collect();
        let sorts = |(text, down, _): &(&str, bool, usize)| {
            let mut end = down.then_some(b';').into_iter();
            let mut bytes = text.as_bytes().to_vec();
            bytes.extend(end.by_ref());
            bytes
        };
        keys.sort_by_cached_key(sorts);
        let (mut ends, mut downs) = (vec![0; texts.len()], vec![0; texts.len()]);
        for (place, (_, down, label)) in (0_u32..).zip(keys) {
            let places = if down { &mut downs } else { &mut ends };
            places[label] = place;
        }
        Self {
            texts,
            by_frame,
            as_first,
            unknown: 0,
            ends,
            downs,
        }
    }

    fn number(&self, node: Node, first: bool) -> u32 {
        let FrameId(frame) = node.frame;
        let label = self.by_frame.get(frame as usize).copied();
        let label = label.unwrap_or(self.unknown);
        if first {
            self.as_first.get(&label).copied().unwrap_or(label)
        } else {
            label
        }
    }
}

/// The children of every node: one list, and a range of it for each.
struct Children {
    from: Vec<u32>,
    nodes: Vec<u32>,
}

impl Children {
    fn of(tree: &Tree) -> Self {
        let nodes = tree.as_slice();
        let mut from = vec![0_u32; nodes.len() + 1];
        for node in &nodes[1..] {
            from[node.parent.0 as usize + 1] += 1;
        }
        for i in 1..from.len() {
            from[i] += from[i - 1];
        }
        let mut next = from.clone();
        let mut children = vec![0_u32; nodes.len() - 1];
        for (id, node) in (0_u32..).zip(nodes).skip(1) {
            let at = &mut next[node.parent.0 as usize];
            children[*at as usize] = id;
            *at += 1;
        }
        Self {
            from,
            nodes: children,
        }
    }

    fn below(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.nodes[self.from[node] as usize..self.from[node + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FrameKind;
    use proptest::prelude::*;

    /// The same by writing every line down and sorting.
    fn slowly(tree: &Tree, frames: &FrameTable, rows: &[(NodeId, [u64; 2])]) -> String {
        let mut lines: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for (node, values) in rows {
            let mut line = String::new();
            for frame in tree.stack(*node) {
                let label = frames.get(frame).map(Frame::label).unwrap_or_default();
                let label = label.trim();
                push(
                    &mut line,
                    if label.is_empty() { "[unknown]" } else { label },
                );
            }
            if line.is_empty() {
                line.push_str("[unknown]");
            } else if line.starts_with('#') {
                line.insert(0, ' ');
            }
            let sum = lines.entry(line).or_default();
            sum[0] += values[0];
            sum[1] += values[1];
        }
        lines
            .iter()
            .map(|(l, [a, b])| format!("{l} {a} {b}\n"))
            .collect()
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_stacks_bytes(
            names in prop::collection::vec("[#a \\-(:]{0,3}", 1..6),
            stacks in prop::collection::vec((prop::collection::vec(0_usize..12, 0..5), 0_u64..9), 0..40),
        ) {
            let (mut tree, mut frames) = (Tree::default(), FrameTable::default());
            // Two frames of each name, so that different nodes have the same stack of labels.
            let ids: Vec<FrameId> = (0..12)
                .map(|i| frames.intern(&Frame::named(FrameKind::User, names[i % names.len()].as_str(), if i < 6 { "m" } else { "n" })))
                .collect();
            let rows: Vec<(NodeId, [u64; 2])> = stacks
                .iter()
                .map(|(stack, value)| {
                    let node = stack.iter().fold(crate::profile::ROOT, |at, f| tree.intern(at, ids[*f]));
                    (node, [*value, 2 * value])
                })
                .collect();
            let mut text = String::new();
            each_stack(&tree, &frames, rows.iter().copied(), |stack, [a, b]| {
                let _ = writeln!(text, "{stack} {a} {b}");
            });
            prop_assert_eq!(text, slowly(&tree, &frames, &rows));
        }
    }
}
