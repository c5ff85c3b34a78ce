//! Folding: stacks as a reader meets them become one call tree with counts.
//!
//! In: frames by their text and stacks of frame ids, in any number. Out: a [`Profile`] without time,
//! whose memory is bounded by [`FoldLimits`] whatever the input holds. Never: a lost count: over the
//! budget a stack is counted at its deepest known node under `[pruned]`, and [`Fold::pruned`] says
//! how much.
//!
//! A reader asks for each frame by the part of its line that names the function. That part is looked
//! up in a table of bytes first, so that a frame is decoded, cleaned and allocated once, not once a
//! line.

use crate::profile::{
    Frame, FrameId, FrameKind, Measure, NodeId, Profile, ROOT, Series, SeriesId, Values, add_values,
};
use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher as _, Hasher as _};

/// Bounds of a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldLimits {
    /// Most nodes of the call tree before stacks are pruned.
    pub nodes_max: usize,
    /// Most bytes of distinct frame texts; a new frame beyond them is `[pruned]`.
    pub text_bytes_max: usize,
    /// Deepest stack; what lies beyond (towards the leaf) is counted under `[deeper]`.
    pub depth_max: usize,
    /// Most series; a new one beyond them is counted in one that has the host's name only.
    pub series_max: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self {
            nodes_max: 1 << 20,
            text_bytes_max: 64 << 20,
            depth_max: 4_096,
            series_max: 4_096,
        }
    }
}

/// A text that was met before, and its frame. The text lies in [`Fold::texts`].
#[derive(Clone, Copy, Debug)]
struct Known {
    start: u32,
    name_len: u32,
    module_len: u32,
    /// The frame's kind, or [`LABEL`].
    tag: u8,
    frame: FrameId,
}

/// Tag of a text that is a whole folded label and says its kind itself.
const LABEL: u8 = u8::MAX;

/// Stands for a frame whose text is over the budget; in no table and in no tree.
const PRUNED: FrameId = FrameId(u32::MAX);

/// Whether the inputs of a fold measure the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// They do.
    #[default]
    None,
    /// All count samples, but not all have the measures beside them, which are dropped.
    Extra,
    /// They measure different things and must not be added: the first input, and the other.
    Whole(String, String),
}

/// Accumulates stacks. See the module.
#[derive(Debug)]
pub struct Fold {
    profile: Profile,
    host: String,
    engine: String,
    limits: FoldLimits,
    texts: Vec<u8>,
    known: HashTable<Known>,
    hasher: RandomState,
    pruned: Values,
    deeper: Values,
    /// The reader of the input that is read has said what it measures.
    measured: bool,
    mismatch: Mismatch,
    turned: Vec<FrameId>,
    /// What is still to be taken from stacks. See [`Fold::take_leaf_first`].
    owed: HashMap<(SeriesId, NodeId), Values>,
    /// The last stack from the root, as far as it is in the tree.
    path: Vec<(FrameId, NodeId)>,
}

impl Fold {
    /// An empty fold. `host` and `engine` (a word such as `stap`) name the series.
    #[must_use]
    pub fn new(host: &str, engine: &str, limits: FoldLimits) -> Self {
        let profile = Profile::new("on-cpu", Measure::samples_only());
        Self {
            profile,
            host: host.to_owned(),
            engine: engine.to_owned(),
            limits,
            texts: Vec::new(),
            known: HashTable::new(),
            // Fixed: only memory and speed depend on it, and both are bounded above. A hostile
            // input that collides on purpose costs the operator's own time, not another's.
            hasher: RandomState::default(),
            pruned: Values::default(),
            deeper: Values::default(),
            measured: false,
            mismatch: Mismatch::None,
            turned: Vec::new(),
            owed: HashMap::default(),
            path: Vec::new(),
        }
    }

    /// Says what the values of this input mean, before any of its stacks is added; the default is
    /// `samples`/count.
    pub fn measured(&mut self, probe: &str, measures: Vec<Measure>) {
        self.measured = true;
        let mine = &mut self.profile;
        if mine.totals.is_empty() {
            probe.clone_into(&mut mine.probe);
            mine.measures = measures;
        } else if mine.probe != probe || mine.measures.first() != measures.first() {
            let theirs = Profile::new(probe, measures).describe();
            self.mismatch = Mismatch::Whole(mine.describe(), theirs);
        } else if mine.measures != measures && self.mismatch == Mismatch::None {
            self.mismatch = Mismatch::Extra;
        }
    }

    /// Begins an input: says where its stacks come from, before any series is asked for.
    pub fn from_engine(&mut self, engine: &str) {
        engine.clone_into(&mut self.engine);
        self.measured = false;
    }

    /// The end of an input.
    pub fn end_input(&mut self) {
        if !self.measured && self.profile.measures.len() > 1 && self.mismatch == Mismatch::None {
            self.mismatch = Mismatch::Extra;
        }
    }

    /// Whether the inputs so far measure the same.
    #[must_use]
    pub fn mismatch(&self) -> &Mismatch {
        &self.mismatch
    }

    /// Says which host the stacks belong to from now on.
    pub fn of_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// The series of everything that has no process of its own.
    pub fn whole(&mut self) -> SeriesId {
        let series = Series {
            host: self.host.clone(),
            engine: self.engine.clone(),
            ..Series::default()
        };
        self.profile.series.intern(&series)
    }

    /// A series; host and engine are filled in where they are empty. Readers keep the id of the
    /// last one instead of asking for each stack.
    pub fn series(&mut self, series: &Series) -> SeriesId {
        let mut series = series.clone();
        if series.host.is_empty() {
            series.host.clone_from(&self.host);
        }
        if series.engine.is_empty() {
            series.engine.clone_from(&self.engine);
        }
        if let Some(id) = self.profile.series.find(&series) {
            return id;
        }
        if self.profile.series.len() >= self.limits.series_max {
            return self.whole();
        }
        self.profile.series.intern(&series)
    }

    /// The frame of a function by name and module, both as they stand in the input. A name of
    /// nothing but blanks is an unnamed frame of its module. The module's path is cut to its base
    /// name.
    pub fn frame(&mut self, kind: FrameKind, name: &[u8], module: &[u8]) -> FrameId {
        self.by_text(kind as u8, name, module, |name, module| {
            let (name, module) = (clean(name), clean(base_name(module)));
            if name.is_empty() {
                Frame::unnamed(kind, module, None, 0)
            } else {
                Frame::named(kind, name, module)
            }
        })
    }

    /// The frame that a folded label stands for.
    pub fn label(&mut self, label: &[u8]) -> FrameId {
        self.by_text(LABEL, label, b"", |label, _| {
            super::folded::frame(&String::from_utf8_lossy(label))
        })
    }

    /// A frame that says more than its name and module do. Slower than [`Fold::frame`].
    pub fn whole_frame(&mut self, frame: &Frame) -> FrameId {
        let bytes = frame.name.len() + frame.module.len() + frame.file.len() + size_of::<Frame>();
        if self.texts.len().saturating_add(bytes) > self.limits.text_bytes_max {
            return self.profile.frames.find(frame).unwrap_or(PRUNED);
        }
        let before = self.profile.frames.len();
        let id = self.profile.frames.intern(frame);
        if self.profile.frames.len() > before {
            // Nothing looks these bytes up; they only make the budget count.
            self.texts.resize(self.texts.len() + bytes, 0);
        }
        id
    }

    fn by_text(
        &mut self,
        tag: u8,
        name: &[u8],
        module: &[u8],
        make: impl FnOnce(&[u8], &[u8]) -> Frame,
    ) -> FrameId {
        let hash = hash_of(&self.hasher, tag, name, module);
        let texts = &self.texts;
        let same = |known: &Known| {
            let (start, name_len) = (known.start as usize, known.name_len as usize);
            known.tag == tag
                && name_len == name.len()
                && known.module_len as usize == module.len()
                && texts[start..start + name_len] == *name
                && texts[start + name_len..start + name_len + module.len()] == *module
        };
        if let Some(known) = self.known.find(hash, same) {
            return known.frame;
        }
        let (start, room) = (self.texts.len(), name.len() + module.len());
        if start + room > self.limits.text_bytes_max.min(u32::MAX as usize) {
            return PRUNED;
        }
        let frame = self.profile.frames.intern(&make(name, module));
        self.texts.extend_from_slice(name);
        self.texts.extend_from_slice(module);
        let fits = |len: usize| u32::try_from(len).unwrap_or(u32::MAX); // below text_bytes_max
        let known = Known {
            start: fits(start),
            name_len: fits(name.len()),
            module_len: fits(module.len()),
            tag,
            frame,
        };
        let (texts, state) = (&self.texts, &self.hasher);
        self.known.insert_unique(hash, known, |known| {
            let start = known.start as usize;
            let end = start + known.name_len as usize;
            let module = &texts[end..end + known.module_len as usize];
            hash_of(state, known.tag, &texts[start..end], module)
        });
        frame
    }

    /// Adds one stack whose first frame is the leaf, as tracers print them.
    pub fn add_leaf_first(&mut self, series: SeriesId, leaf_first: &[FrameId], values: &Values) {
        let at = self.place_leaf_first(leaf_first, values);
        let totals = self.profile.totals.entry(series).or_default();
        add_values(totals.entry(at).or_default(), values);
    }

    /// Adds one stack whose first frame is the root.
    pub fn add_root_first(&mut self, series: SeriesId, root_first: &[FrameId], values: &Values) {
        let at = self.place(root_first, values);
        let totals = self.profile.totals.entry(series).or_default();
        add_values(totals.entry(at).or_default(), values);
    }

    /// Takes values away from a stack, whether what they are taken from came before or comes later.
    /// Taken are they by [`Fold::settle`].
    pub fn take_leaf_first(&mut self, series: SeriesId, leaf_first: &[FrameId], values: &Values) {
        let at = self.place_leaf_first(leaf_first, &Values::default());
        add_values(self.owed.entry((series, at)).or_default(), values);
    }

    /// Does all takings. Out: how many stacks had nothing left by that and are gone, and how much
    /// of the first measure could not be taken because it was not there.
    pub fn settle(&mut self) -> (u64, u64) {
        let (mut gone, mut missing) = (0, 0_u64);
        for ((series, node), owed) in std::mem::take(&mut self.owed) {
            let totals = self.profile.totals.entry(series).or_default();
            let left = totals.entry(node).or_default();
            missing = missing.saturating_add(owed[0].saturating_sub(left[0]));
            let frame = self.profile.tree.get(node).map(|node| node.frame);
            let frame = frame.and_then(|frame| self.profile.frames.get(frame));
            let marker = frame.filter(|frame| frame.kind == FrameKind::Marker);
            let cut = match marker.map(|frame| frame.name.as_str()) {
                Some("[pruned]") => Some(&mut self.pruned),
                Some("[deeper]") => Some(&mut self.deeper),
                _ => None,
            };
            if let Some(cut) = cut {
                cut[0] = cut[0].saturating_sub(owed[0].min(left[0]));
            }
            for (left, owed) in left.iter_mut().zip(owed) {
                *left = left.saturating_sub(owed);
            }
            if *left == Values::default() {
                totals.remove(&node);
                gone += 1;
            }
        }
        self.profile.totals.retain(|_, rows| !rows.is_empty());
        (gone, missing)
    }

    fn place_leaf_first(&mut self, leaf_first: &[FrameId], values: &Values) -> NodeId {
        let mut turned = std::mem::take(&mut self.turned);
        turned.clear();
        turned.extend(leaf_first.iter().rev());
        let at = self.place(&turned, values);
        self.turned = turned;
        at
    }

    /// The node that stands for a stack. `values` are those that are counted there, for the sums
    /// of what is cut.
    fn place(&mut self, root_first: &[FrameId], values: &Values) -> NodeId {
        // Neighbours in an input share most of their way from the root; that part needs no table.
        let same = self.path.iter().zip(root_first);
        let same = same.take_while(|((frame, _), now)| frame == *now).count();
        self.path.truncate(same);
        let mut at = self.path.last().map_or(ROOT, |(_, node)| *node);
        let Profile { tree, frames, .. } = &mut self.profile;
        for (depth, &frame) in root_first.iter().enumerate().skip(same) {
            let (cut, marker) = if let Some(child) = tree.child(at, frame) {
                at = child;
                self.path.push((frame, at));
                continue;
            } else if frame == PRUNED || tree.len() >= self.limits.nodes_max {
                (&mut self.pruned, "[pruned]")
            } else if depth >= self.limits.depth_max {
                (&mut self.deeper, "[deeper]")
            } else {
                at = tree.intern(at, frame);
                self.path.push((frame, at));
                continue;
            };
            add_values(cut, values);
            return tree.intern(at, frames.intern(&Frame::marker(marker)));
        }
        at
    }

    /// What was counted under `[pruned]` because a budget was full.
    #[must_use]
    pub fn pruned(&self) -> Values {
        self.pruned
    }

    /// What was counted under `[deeper]`.
    #[must_use]
    pub fn deeper(&self) -> Values {
        self.deeper
    }

    /// Nodes of the call tree so far.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.profile.tree.len()
    }

    /// The profile. Measures that not all inputs have are no longer in it.
    #[must_use]
    pub fn into_profile(mut self) -> Profile {
        self.settle();
        if self.mismatch != Mismatch::None {
            self.profile.measures.truncate(1);
            let rows = self
                .profile
                .totals
                .values_mut()
                .flat_map(|t| t.values_mut());
            rows.for_each(|values| values[1..].fill(0));
        }
        self.profile
    }
}

/// The name tells frames apart; of the module its end is enough to tell most of the rest.
#[inline]
fn hash_of(state: &RandomState, tag: u8, name: &[u8], module: &[u8]) -> u64 {
    let tail = match module.last_chunk::<8>() {
        Some(tail) => u64::from_le_bytes(*tail),
        None => module.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
    };
    let mut hasher = state.build_hasher();
    hasher.write(name);
    hasher.write_u64(tail.rotate_left(7) ^ u64::from(tag));
    hasher.finish()
}

/// A name as text: any encoding, without control characters, without blanks around it.
pub(in crate::format) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains(char::is_control) {
        text.replace(char::is_control, " ").trim().to_owned()
    } else {
        text.trim().to_owned()
    }
}

/// What follows the last slash; all of it where nothing does.
pub(in crate::format) fn base_name(path: &[u8]) -> &[u8] {
    match memchr::memrchr(b'/', path) {
        Some(at) if at + 1 < path.len() => &path[at + 1..],
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(nodes_max: usize, text_bytes_max: usize, depth_max: usize) -> Fold {
        let limits = FoldLimits {
            nodes_max,
            text_bytes_max,
            depth_max,
            series_max: 3,
        };
        Fold::new("h", "stap", limits)
    }

    fn folded(fold: Fold) -> String {
        let profile = fold.into_profile();
        super::super::folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
    }

    #[test]
    fn the_same_text_is_one_frame_and_the_same_stack_one_node() {
        let mut fold = Fold::new("h", "stap", FoldLimits::default());
        let series = fold.whole();
        let a = fold.frame(FrameKind::User, b"main", b"/usr/bin/nginx");
        assert_eq!(fold.frame(FrameKind::User, b"main", b"/usr/bin/nginx"), a);
        assert_eq!(fold.frame(FrameKind::User, b"main", b"/opt/nginx"), a);
        assert_ne!(fold.frame(FrameKind::Kernel, b"main", b"nginx"), a);
        assert_ne!(fold.frame(FrameKind::User, b"mainn", b"ginx"), a);
        let b = fold.frame(FrameKind::User, b"", b"/usr/lib/libc.so.6");
        fold.add_leaf_first(series, &[b, a], &[2, 0, 0]);
        fold.add_root_first(series, &[a, b], &[3, 0, 0]);
        assert_eq!(fold.nodes(), 3);
        assert_eq!(folded(fold), "main;[libc.so.6] 5\n");
    }

    #[test]
    fn over_any_budget_the_total_stays_exact() {
        for mut fold in [
            small(10, 1 << 20, 50),
            small(1 << 20, 40, 50),
            small(1 << 20, 1 << 20, 2),
        ] {
            for i in 0..100_u32 {
                let series = fold.series(&Series {
                    thread: format!("t{i}"),
                    ..Series::default()
                });
                let stack: Vec<FrameId> = (0..4)
                    .map(|d| fold.frame(FrameKind::User, format!("f{i}_{d}").as_bytes(), b"m"))
                    .collect();
                fold.add_root_first(series, &stack, &[2, 0, 0]);
            }
            let cut = fold.pruned()[0] + fold.deeper()[0];
            assert!(cut > 100, "{cut}");
            let profile = fold.into_profile();
            assert_eq!(profile.grand_total()[0], 200);
            assert!(profile.series.len() <= 4);
        }
    }
}
