//! Which frames and places are looked at, and their sums. In: a profile and its hosts. Out: features
//! by number, and what each has in a worker's second. Never: a recursive function counted twice.

use super::Per;
use super::counted::{Feature, Wanted};
use model::profile::{Frame, FrameId, Measure, NodeId, Profile, ROOT, SeriesId};
use statistics::{Host, ratio};
use std::collections::{BTreeMap, HashMap};

/// Features below these bounds on every host say nothing: samples, and the part of all samples or of
/// all that is shown, whichever is larger.
const SAMPLES_MIN: u64 = 8;
const SHARE_MIN: f64 = 0.002;
/// Most features of a kind, the largest.
const FEATURES_MAX: usize = 1_500;

/// The features that were chosen, and how they are found.
pub(super) struct Features {
    pub(super) list: Vec<Feature>,
    pub(super) callers: Vec<Option<usize>>,
    /// Of places: the last one on the way from the root to each node, the node itself included.
    of_node: Vec<Option<u32>>,
    total_of_frame: Vec<Option<u32>>,
    own_of_frame: Vec<Option<u32>>,
    are_places: bool,
}

impl Features {
    pub(super) fn choose(
        profile: &Profile,
        hosts: &BTreeMap<&str, Vec<SeriesId>>,
        wanted: Wanted,
    ) -> Self {
        let nodes = profile.tree.as_slice();
        let frames = profile.frames.len();
        let mut features = Self {
            list: Vec::new(),
            callers: Vec::new(),
            of_node: vec![None; nodes.len()],
            total_of_frame: vec![None; frames],
            own_of_frame: vec![None; frames],
            are_places: wanted == Wanted::Places,
        };
        let labels: Vec<String> = match wanted {
            Wanted::Places => Vec::new(),
            Wanted::Functions => profile.frames.as_slice().iter().map(Frame::label).collect(),
        };
        // For each node, or each function's total and own, the largest part that a host has, and
        // the sum, by which chains of nodes with one callee are known.
        let mut node_best = vec![(0.0_f64, 0.0_f64); nodes.len()];
        let mut best: BTreeMap<(&str, bool), f64> = BTreeMap::new();
        // Samples, and what is shown: of few long waits the first is little and the second is not.
        let shown = Measure::shown(&profile.measures).0;
        let mut inclusive = vec![(0_u64, 0_u64); nodes.len()];
        for series in hosts.values() {
            inclusive.fill((0, 0));
            for id in series {
                for (node, values) in profile.totals.get(id).into_iter().flatten() {
                    add(&mut inclusive[node.0 as usize], (values[0], values[shown]));
                }
            }
            let own: Vec<(u64, u64)> = match wanted {
                Wanted::Places => Vec::new(),
                Wanted::Functions => inclusive.clone(),
            };
            for id in (1..nodes.len()).rev() {
                let here = inclusive[id];
                add(&mut inclusive[nodes[id].parent.0 as usize], here);
            }
            let whole = inclusive[0];
            let enough = |(samples, shown): (u64, u64)| {
                let part = ratio(samples as f64, whole.0 as f64);
                let part = part.max(ratio(shown as f64, whole.1 as f64));
                let big = samples >= SAMPLES_MIN && part >= SHARE_MIN;
                if big { part } else { 0.0 }
            };
            if wanted == Wanted::Places {
                for (best, n) in node_best.iter_mut().zip(&inclusive) {
                    best.0 = best.0.max(enough(*n));
                    best.1 += n.0 as f64;
                }
                continue;
            }
            let mut sums: HashMap<(&str, bool), (u64, u64)> = HashMap::new();
            for id in (1..nodes.len()).filter(|id| inclusive[*id] != (0, 0)) {
                let frame = nodes[id].frame;
                let Some(label) = labels.get(frame.0 as usize) else {
                    continue;
                };
                if own[id] != (0, 0) {
                    add(sums.entry((label, false)).or_default(), own[id]);
                }
                if !stands_above(profile, id, frame) {
                    add(sums.entry((label, true)).or_default(), inclusive[id]);
                }
            }
            for (key, n) in sums {
                let part = enough(n);
                if part > 0.0 {
                    let slot = best.entry(key).or_default();
                    *slot = slot.max(part);
                }
            }
        }
        match wanted {
            Wanted::Places => features.places(profile, &node_best),
            Wanted::Functions => features.functions(&labels, best),
        }
        features
    }

    /// Places: the largest; of a chain of single callees with the same values only the last.
    fn places(&mut self, profile: &Profile, best: &[(f64, f64)]) {
        let nodes = profile.tree.as_slice();
        let mut chosen: Vec<usize> = (1..nodes.len()).filter(|id| best[*id].0 > 0.0).collect();
        let mut only_passes = vec![false; nodes.len()];
        for id in &chosen {
            let parent = nodes[*id].parent.0 as usize;
            only_passes[parent] |= parent > 0 && (best[parent].1 - best[*id].1).abs() < 0.5;
        }
        chosen.retain(|id| !only_passes[*id]);
        chosen.sort_by(|a, b| best[*b].0.total_cmp(&best[*a].0).then(a.cmp(b)));
        chosen.truncate(FEATURES_MAX);
        chosen.sort_unstable();
        let mut chosen = chosen.into_iter().peekable();
        // Callers have smaller numbers than what they call.
        for (id, node) in nodes.iter().enumerate().skip(1) {
            let above = self.of_node[node.parent.0 as usize];
            self.of_node[id] = above;
            if chosen.next_if_eq(&id).is_some() {
                self.of_node[id] = u32::try_from(self.list.len()).ok();
                self.callers.push(above.map(|f| f as usize));
                self.list.push(Feature::Node(NodeId(id as u32)));
            }
        }
    }

    fn functions(&mut self, labels: &[String], best: BTreeMap<(&str, bool), f64>) {
        let mut number: HashMap<(&str, bool), u32> = HashMap::new();
        for total in [true, false] {
            let mut chosen: Vec<(&str, f64)> = best
                .iter()
                .filter(|((_, t), _)| *t == total)
                .map(|((label, _), part)| (*label, *part))
                .collect();
            chosen.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            for (label, _) in chosen.into_iter().take(FEATURES_MAX) {
                number.insert((label, total), self.list.len() as u32);
                self.list.push(if total {
                    Feature::Total(label.to_owned())
                } else {
                    Feature::Own(label.to_owned())
                });
            }
        }
        for (frame, label) in labels.iter().enumerate() {
            self.total_of_frame[frame] = number.get(&(label.as_str(), true)).copied();
            self.own_of_frame[frame] = number.get(&(label.as_str(), false)).copied();
        }
        self.callers = vec![None; self.list.len()];
    }
}

/// Adds samples and what is shown; hostile values stay at the largest number.
fn add(sum: &mut (u64, u64), more: (u64, u64)) {
    *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
}

/// Whether the same frame stands among the callers of node `id`.
fn stands_above(profile: &Profile, id: usize, frame: FrameId) -> bool {
    let nodes = profile.tree.as_slice();
    let mut at = nodes[id].parent;
    while at != ROOT {
        if nodes[at.0 as usize].frame == frame {
            return true;
        }
        at = nodes[at.0 as usize].parent;
    }
    false
}

/// Sums up the tree of one block.
pub(super) struct Sums<'a> {
    profile: &'a Profile,
    features: &'a Features,
    by_feature: Vec<f64>,
    touched: Vec<u32>,
    whole: f64,
}

impl<'a> Sums<'a> {
    pub(super) fn new(profile: &'a Profile, features: &'a Features) -> Self {
        Self {
            profile,
            features,
            by_feature: vec![0.0; features.list.len()],
            touched: Vec::new(),
            whole: 0.0,
        }
    }

    pub(super) fn add(&mut self, node: NodeId, value: f64) {
        self.whole += value;
        // What stands above the last place follows in `give`.
        self.put(self.features.of_node[node.0 as usize], value);
        if self.features.are_places {
            return;
        }
        let nodes = self.profile.tree.as_slice();
        let mut at = node;
        while at != ROOT {
            let here = nodes[at.0 as usize];
            let frame = here.frame.0 as usize;
            let total = self.features.total_of_frame.get(frame).copied().flatten();
            if total.is_some() && !self.same_above(at, total) {
                self.put(total, value);
            }
            at = here.parent;
        }
        if node != ROOT {
            let frame = nodes[node.0 as usize].frame.0 as usize;
            self.put(
                self.features.own_of_frame.get(frame).copied().flatten(),
                value,
            );
        }
    }

    /// Whether a caller counts for the same function, so that a recursive one counts once.
    fn same_above(&self, node: NodeId, total: Option<u32>) -> bool {
        let nodes = self.profile.tree.as_slice();
        let mut at = nodes[node.0 as usize].parent;
        while at != ROOT {
            let here = nodes[at.0 as usize];
            if self.features.total_of_frame[here.frame.0 as usize] == total {
                return true;
            }
            at = here.parent;
        }
        false
    }

    fn put(&mut self, feature: Option<u32>, value: f64) {
        if let Some(feature) = feature {
            let sum = &mut self.by_feature[feature as usize];
            if *sum == 0.0 {
                self.touched.push(feature);
            }
            *sum += value;
        }
    }

    /// Gives what was summed to a block, and begins anew.
    pub(super) fn give(&mut self, block: u32, host: &mut Host, per: Per) {
        host.values.resize(self.by_feature.len() + 1, Vec::new());
        if self.features.are_places {
            // A place has what those below it have; they have larger numbers.
            for feature in (0..self.by_feature.len()).rev() {
                let value = self.by_feature[feature];
                if value > 0.0
                    && let Some(caller) = self.features.callers[feature]
                {
                    self.put(u32::try_from(caller).ok(), value);
                }
            }
        }
        for feature in self.touched.drain(..) {
            let value = std::mem::take(&mut self.by_feature[feature as usize]);
            if value > 0.0 {
                host.values[feature as usize].push((block, value));
            }
        }
        if let Some(everything) = host.values.last_mut() {
            everything.push((block, self.whole));
        }
        if per == Per::Share {
            host.weights[block as usize] += self.whole;
        }
        self.whole = 0.0;
    }
}
