//! What of a profile is worth drawing: cuts to a number of frames and a depth, after the merge.
//!
//! In: inclusive values over a tree. Out: stacks of labels whose values add up to exactly the same
//! total. Never: a count that vanishes: what is not drawn is counted in the frame above it.

use super::{Difference, Frame, FrameId, FrameTable, Inclusive, NodeId, Tree};
use std::collections::HashMap;
use std::sync::Arc;

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
    /// Labels, root first. Equal ones are one text in memory: a picture has thousands of lines that
    /// share most of their labels.
    pub labels: Vec<Arc<str>>,
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
/// difference vanished and new frames are both seen. `inclusive` is that of `difference`; `label`
/// says what is written on a frame, and frames side by side that get the same label become one.
#[must_use]
pub fn draw(
    tree: &Tree,
    frames: &FrameTable,
    difference: &Difference,
    inclusive: &Inclusive,
    limits: DrawLimits,
    label: impl Fn(&Frame) -> String,
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

    // Parents before children.
    order.sort_unstable_by_key(|(_, id)| *id);
    let mut picture = Labelled::new((difference.left_total, difference.right_total));
    let mut labels = Labels::new(frames.len());
    let mut places = vec![0_u32; tree.len()];
    for (_, id) in &order {
        let Some(node) = tree.get(*id) else { continue };
        let above = places[node.parent.0 as usize];
        let text = labels.of(node.frame, frames, &label);
        let place = picture.below(above, text);
        picture.give(above, place, inclusive.get(*id));
        places[id.0 as usize] = place;
    }
    // At the deepest level: what lies below goes into one marker.
    let mut depth_capped = false;
    for (_, id) in &order {
        if usize::from(depth[id.0 as usize]) < limits.depth_max {
            continue;
        }
        let (left, right) = inclusive.get(*id);
        let own = difference.row(*id).map_or((0, 0), |r| (r.left, r.right));
        let below = (left.saturating_sub(own.0), right.saturating_sub(own.1));
        if below != (0, 0) {
            depth_capped = true;
            let above = places[id.0 as usize];
            let marker = picture.below(above, labels.text("[deeper]"));
            picture.give(above, marker, below);
        }
    }
    Drawing {
        stacks: picture.stacks(&labels.texts),
        frames: drawn,
        hidden_frames: candidates - drawn,
        depth_capped,
    }
}

/// Each label once, by number.
struct Labels {
    of_frames: Vec<Option<u32>>,
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Labels {
    fn new(frames: usize) -> Self {
        Self {
            of_frames: vec![None; frames],
            numbers: HashMap::new(),
            texts: Vec::new(),
        }
    }

    fn of(&mut self, id: FrameId, frames: &FrameTable, label: impl Fn(&Frame) -> String) -> u32 {
        let at = id.0 as usize;
        if let Some(Some(number)) = self.of_frames.get(at) {
            return *number;
        }
        let text = frames.get(id).map(label);
        let number = self.text(text.as_deref().unwrap_or("[unknown]"));
        if let Some(slot) = self.of_frames.get_mut(at) {
            *slot = Some(number);
        }
        number
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }
}

/// The picture's frames by label; number 0 is below all of them.
struct Labelled {
    /// The label's number, and both sides' values that are in no frame above it.
    frames: Vec<(u32, (u64, u64))>,
    children: Vec<Vec<u32>>,
    numbers: HashMap<(u32, u32), u32>,
}

impl Labelled {
    fn new(whole: (u64, u64)) -> Self {
        Self {
            frames: vec![(u32::MAX, whole)],
            children: vec![Vec::new()],
            numbers: HashMap::new(),
        }
    }

    /// The frame with this label on `above`.
    fn below(&mut self, above: u32, label: u32) -> u32 {
        let next = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry((above, label)).or_insert(next);
        if number == next {
            self.frames.push((label, (0, 0)));
            self.children.push(Vec::new());
            self.children[above as usize].push(next);
        }
        number
    }

    /// Moves values from one frame to one on it.
    fn give(&mut self, from: u32, to: u32, (left, right): (u64, u64)) {
        let from = &mut self.frames[from as usize].1;
        *from = (from.0.saturating_sub(left), from.1.saturating_sub(right));
        let to = &mut self.frames[to as usize].1;
        *to = (to.0.saturating_add(left), to.1.saturating_add(right));
    }

    /// Lines sorted by labels.
    fn stacks(mut self, texts: &[Arc<str>]) -> Vec<DrawnStack> {
        let label_of = |frames: &[(u32, _)], at: u32| -> Arc<str> {
            Arc::clone(&texts[frames[at as usize].0 as usize])
        };
        let mut stacks = Vec::new();
        let mut path: Vec<Arc<str>> = Vec::new();
        // A frame, and at which level it stands.
        let mut waiting = vec![(0_u32, 0_usize)];
        while let Some((at, level)) = waiting.pop() {
            if level > 0 {
                path.truncate(level - 1);
                path.push(label_of(&self.frames, at));
            }
            let (left, right) = self.frames[at as usize].1;
            if (left, right) != (0, 0) {
                let labels = path.clone();
                stacks.push(DrawnStack {
                    labels,
                    left,
                    right,
                });
            }
            let mut children = std::mem::take(&mut self.children[at as usize]);
            let text = |id: &u32| &texts[self.frames[*id as usize].0 as usize];
            // The last one waits on top.
            children.sort_unstable_by(|a, b| text(b).cmp(text(a)));
            waiting.extend(children.into_iter().map(|child| (child, level + 1)));
        }
        stacks
    }
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
