//! The agent's side: takes stacks one by one and gives away what is new, segment by segment.
//!
//! In: stacks of frame ids. Out: [`Segment`]s (new dictionary entries and the values since the
//! last one). Never: a lost count. Over the node budget a stack is counted at its deepest known
//! node under `[pruned]`; over the series budget processes are joined by role.

use super::{
    Cell, CounterKind, CounterRow, CounterSource, Frame, FrameId, FrameTable, Measure, Node,
    NodeId, Process, ROOT, Series, SeriesId, SeriesTable, Tree, Values, add_values,
};
use foldhash::HashMap;
use std::collections::BTreeMap;

/// Bounds of a recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderLimits {
    /// Most nodes of the call tree before stacks are pruned.
    pub nodes_max: usize,
    /// Most series before processes are joined by role.
    pub series_max: usize,
}

/// Bytes of frames that one segment carries: far below what a receiver takes in one batch.
const SEGMENT_TEXT_BYTES_MAX: usize = 2 << 20;
/// What a frame costs beside its texts.
const FRAME_BYTES: usize = 48;
/// Nodes that one segment carries; each is at most ten bytes.
const SEGMENT_NODES_MAX: usize = 1 << 17;

impl Default for RecorderLimits {
    fn default() -> Self {
        Self {
            nodes_max: 1 << 20,
            series_max: 4_096,
        }
    }
}

/// What came since the last segment: new dictionary entries, values by (series, second), counters.
/// Ids count on from `base`, so a receiver needs every segment from the first on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Frames that were known before.
    pub base_frames: u32,
    /// Nodes that were known before (at least 1: the root).
    pub base_nodes: u32,
    /// Series that were known before.
    pub base_series: u32,
    /// New frames, from number `base_frames` on.
    pub frames: Vec<Frame>,
    /// New nodes, from number `base_nodes` on.
    pub nodes: Vec<Node>,
    /// New series, from number `base_series` on.
    pub series: Vec<Series>,
    /// Values, in order of (series, second).
    pub cells: Vec<(SeriesId, u32, Cell)>,
    /// Counters, sorted.
    pub counters: Vec<CounterRow>,
}

impl Segment {
    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
            && self.nodes.is_empty()
            && self.series.is_empty()
            && self.cells.is_empty()
            && self.counters.is_empty()
    }
}

/// Accumulates stacks. See the module.
#[derive(Debug)]
pub struct Recorder {
    host: String,
    measures: Vec<Measure>,
    limits: RecorderLimits,
    frames: FrameTable,
    tree: Tree,
    series: SeriesTable,
    taken: (usize, usize, usize),
    pending: BTreeMap<(SeriesId, u32), HashMap<NodeId, Values>>,
    counters: BTreeMap<(CounterSource, u32, CounterKind), u64>,
    pruned_frame: FrameId,
    pruned_samples: u64,
    joined_series: u64,
    samples: u64,
    counted: [u64; CounterKind::ALL.len()],
}

impl Recorder {
    /// An empty recorder for `host`.
    #[must_use]
    pub fn new(host: &str, measures: Vec<Measure>, limits: RecorderLimits) -> Self {
        let mut frames = FrameTable::default();
        let pruned_frame = frames.intern(&Frame::marker("[pruned]"));
        Self {
            host: host.to_owned(),
            measures,
            limits,
            frames,
            tree: Tree::default(),
            series: SeriesTable::default(),
            taken: (0, 1, 0),
            pending: BTreeMap::new(),
            counters: BTreeMap::new(),
            pruned_frame,
            pruned_samples: 0,
            joined_series: 0,
            samples: 0,
            counted: [0; CounterKind::ALL.len()],
        }
    }

    /// The id of a frame.
    pub fn frame(&mut self, frame: &Frame) -> FrameId {
        self.frames.intern(frame)
    }

    /// The id of a series. Over the budget, the process is replaced by its role.
    pub fn series(&mut self, series: &Series) -> SeriesId {
        if let Some(id) = self.series.find(series) {
            return id;
        }
        if self.series.len() < self.limits.series_max {
            return self.series.intern(series);
        }
        self.joined_series += 1;
        let process = Process {
            role: series.process.role.clone(),
            ..Process::default()
        };
        let joined = Series {
            process,
            thread: String::new(),
            ..series.clone()
        };
        // A role is a word of ours or a comm; should there be no end of them, one series takes all.
        if self.series.find(&joined).is_some() || self.series.len() < self.limits.series_max + 64 {
            return self.series.intern(&joined);
        }
        let process = Process {
            role: "[other]".to_owned(),
            ..Process::default()
        };
        self.series.intern(&Series { process, ..joined })
    }

    /// Whether there is a series of a process in such a role.
    #[must_use]
    pub fn has_role(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        let mut series = self.series.as_slice().iter();
        series.any(|series| is_meant(&series.process.role))
    }

    /// Adds one stack, root first.
    pub fn add_stack(
        &mut self,
        series: SeriesId,
        bin: u32,
        root_first: &[FrameId],
        values: &Values,
    ) {
        let mut at = ROOT;
        for &frame in root_first {
            at = match self.tree.child(at, frame) {
                Some(child) => child,
                None if self.tree.len() < self.limits.nodes_max => self.tree.intern(at, frame),
                None => {
                    self.pruned_samples = self.pruned_samples.saturating_add(values[0]);
                    at = self.tree.intern(at, self.pruned_frame);
                    break;
                }
            };
        }
        self.samples = self.samples.saturating_add(values[0]);
        let row = self
            .pending
            .entry((series, bin))
            .or_default()
            .entry(at)
            .or_default();
        add_values(row, values);
    }

    /// Adds to a counter.
    pub fn count(&mut self, source: CounterSource, bin: u32, kind: CounterKind, value: u64) {
        let sum = self.counters.entry((source, bin, kind)).or_default();
        *sum = sum.saturating_add(value);
        let all = &mut self.counted[kind as usize];
        *all = all.saturating_add(value);
    }

    /// Sum of a counter over all sources and seconds so far.
    #[must_use]
    pub fn counted(&self, kind: CounterKind) -> u64 {
        self.counted[kind as usize]
    }

    /// The host this recorder is for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The measures of its stacks.
    #[must_use]
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// Sum of the first measure over everything that was added.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The part of [`Recorder::samples`] that was counted under `[pruned]`.
    #[must_use]
    pub fn pruned_samples(&self) -> u64 {
        self.pruned_samples
    }

    /// How often a series was joined with others of its role.
    #[must_use]
    pub fn joined_series(&self) -> u64 {
        self.joined_series
    }

    /// Nodes of the call tree so far.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.tree.len()
    }

    /// Rows of values not yet taken: what the memory budget is held against.
    #[must_use]
    pub fn pending_rows(&self) -> usize {
        self.pending
            .values()
            .map(std::collections::HashMap::len)
            .sum()
    }

    /// Joins the seconds of all pending values, so that a long silence of the network costs a
    /// bounded amount of memory: counts add, the time axis gets coarser.
    pub fn coalesce(&mut self) {
        let mut joined: BTreeMap<(SeriesId, u32), HashMap<NodeId, Values>> = BTreeMap::new();
        let mut first_bin: HashMap<SeriesId, u32> = HashMap::default();
        for ((series, bin), cell) in std::mem::take(&mut self.pending) {
            let bin = *first_bin.entry(series).or_insert(bin);
            let into = joined.entry((series, bin)).or_default();
            for (node, values) in cell {
                add_values(into.entry(node).or_default(), &values);
            }
        }
        self.pending = joined;
    }

    /// Takes what is new, at most about `rows_max` rows of values (a cell is not split). A large
    /// dictionary comes first, in segments of its own, so that none is too large to be sent.
    pub fn take(&mut self, rows_max: usize) -> Segment {
        if let Some(segment) = self.take_dictionary() {
            return segment;
        }
        let (frames, nodes, series) = self.taken;
        let mut cells = Vec::new();
        let mut rows = 0;
        while rows < rows_max
            && let Some(((series, bin), map)) = self.pending.pop_first()
        {
            rows += map.len();
            cells.push((series, bin, Cell::from_rows(map.into_iter().collect())));
        }
        let host = &self.host;
        let counters = std::mem::take(&mut self.counters)
            .into_iter()
            .map(|((source, bin, kind), value)| CounterRow {
                host: host.clone(),
                source,
                bin,
                kind,
                value,
            })
            .collect();
        self.taken = (self.frames.len(), self.tree.len(), self.series.len());
        Segment {
            base_frames: index(frames),
            base_nodes: index(nodes),
            base_series: index(series),
            frames: self.frames.as_slice()[frames..].to_vec(),
            nodes: self.tree.as_slice()[nodes..].to_vec(),
            series: self.series.as_slice()[series..].to_vec(),
            cells,
            counters,
        }
    }

    /// A part of the dictionary, when there is too much of it for one segment: first frames, then
    /// the nodes that use them.
    fn take_dictionary(&mut self) -> Option<Segment> {
        let (frames, nodes, series) = self.taken;
        let (all_frames, all_nodes) = (self.frames.as_slice(), self.tree.as_slice());
        let mut bytes = 0;
        let text = |f: &Frame| f.name.len() + f.module.len() + f.file.len() + FRAME_BYTES;
        let fit = all_frames[frames..].iter().take_while(|f| {
            bytes += text(f);
            bytes <= SEGMENT_TEXT_BYTES_MAX
        });
        let frames_end = (frames + fit.count().max(1)).min(all_frames.len());
        let nodes_end = (nodes + SEGMENT_NODES_MAX).min(all_nodes.len());
        if frames_end == all_frames.len() && nodes_end == all_nodes.len() {
            return None;
        }
        // Nodes only once every frame that they may use is known on the other side.
        let whole = frames_end == all_frames.len();
        let nodes_end = if whole { nodes_end } else { nodes };
        self.taken = (frames_end, nodes_end, series);
        Some(Segment {
            base_frames: index(frames),
            base_nodes: index(nodes),
            base_series: index(series),
            frames: all_frames[frames..frames_end].to_vec(),
            nodes: all_nodes[nodes..nodes_end].to_vec(),
            ..Segment::default()
        })
    }

    /// Forgets that any dictionary entry was sent: the next segment begins at base 0. For a new
    /// epoch, when the receiver has lost its dictionary.
    pub fn restart_dictionary(&mut self) {
        self.taken = (0, 1, 0);
    }

    /// Puts the values of a segment of this recorder back, to be taken again.
    pub fn put_back(&mut self, segment: Segment) {
        for (series, bin, cell) in segment.cells {
            let into = self.pending.entry((series, bin)).or_default();
            for (node, values) in cell.nodes.into_iter().zip(cell.values) {
                add_values(into.entry(node).or_default(), &values);
            }
        }
        for row in segment.counters {
            let sum = self
                .counters
                .entry((row.source, row.bin, row.kind))
                .or_default();
            *sum = sum.saturating_add(row.value);
        }
    }
}

/// Table sizes fit u32: nodes are bounded by the budget and frames by the nodes.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(nodes_max: usize, series_max: usize) -> Recorder {
        Recorder::new(
            "h",
            Measure::on_cpu(),
            RecorderLimits {
                nodes_max,
                series_max,
            },
        )
    }

    fn sum(segment: &Segment) -> u64 {
        segment
            .cells
            .iter()
            .flat_map(|c| &c.2.values)
            .map(|v| v[0])
            .sum()
    }

    #[test]
    fn over_the_node_budget_counts_go_to_pruned_and_none_is_lost() {
        let mut r = recorder(10, 10);
        let series = r.series(&Series::default());
        for i in 0..100_u64 {
            let f = r.frame(&Frame::named(FrameKind::User, format!("f{i}"), "m"));
            let g = r.frame(&Frame::named(FrameKind::User, format!("g{i}"), "m"));
            r.add_stack(series, 0, &[f, g], &[1, 10, 0]);
        }
        assert_eq!(r.samples(), 100);
        assert!(r.pruned_samples() > 80);
        assert!(r.nodes() < 30);
        assert_eq!(sum(&r.take(usize::MAX)), 100);
    }

    use super::super::FrameKind;

    #[test]
    fn over_the_series_budget_processes_are_joined_by_role() {
        let mut r = recorder(100, 4);
        for pid in 1..51 {
            let process = Process {
                pid,
                role: "nginx: worker".into(),
                ..Process::default()
            };
            let id = r.series(&Series {
                process,
                ..Series::default()
            });
            r.add_stack(id, 0, &[], &[1, 0, 0]);
        }
        let segment = r.take(usize::MAX);
        assert_eq!(segment.series.len(), 5);
        assert_eq!(segment.series[4].process.role, "nginx: worker");
        assert_eq!(sum(&segment), 50);
    }

    #[test]
    fn a_large_dictionary_comes_in_pieces_that_add_up() {
        use super::super::{IdMap, Keep, Profile};
        let mut r = recorder(1 << 20, 10);
        let series = r.series(&Series {
            host: "h".into(),
            ..Series::default()
        });
        for i in 0..150_000_u64 {
            let name = format!("a_function_with_a_longish_name_{i}");
            let f = r.frame(&Frame::named(FrameKind::User, name, "m"));
            r.add_stack(series, 0, &[f], &[1, 1, 0]);
        }
        r.restart_dictionary();
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let (mut map, mut pieces) = (IdMap::default(), 0);
        loop {
            let segment = r.take(1_000);
            if segment.is_empty() {
                break;
            }
            pieces += 1;
            assert!(segment.nodes.len() <= SEGMENT_NODES_MAX);
            profile
                .absorb(&mut map, "h", &segment, Keep::Totals)
                .unwrap();
        }
        assert!(pieces > 4, "{pieces}");
        assert_eq!(profile.grand_total()[0], 150_000);
    }

    #[test]
    fn put_back_and_coalesce_conserve_counts() {
        let mut r = recorder(100, 100);
        let series = r.series(&Series::default());
        let f = r.frame(&Frame::named(FrameKind::User, "f", "m"));
        for bin in 0..20 {
            r.add_stack(series, bin, &[f], &[2, 3, 0]);
        }
        let first = r.take(5);
        assert_eq!(sum(&first), 10);
        r.put_back(first);
        r.coalesce();
        assert_eq!(r.pending_rows(), 1);
        assert_eq!(sum(&r.take(usize::MAX)), 40);
    }
}
