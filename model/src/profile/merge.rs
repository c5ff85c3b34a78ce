//! A profile, and how profiles are added.
//!
//! In: segments of recorders and other profiles. Out: one profile whose totals are exactly the sum
//! of its parts. Never: a half-applied segment (it is checked whole before it changes anything).

use super::{
    Cell, CounterKind, CounterSource, Frame, FrameId, FrameTable, Measure, NodeId, ROOT, Segment,
    Series, SeriesId, SeriesTable, Tree, Values, add_values,
};
use foldhash::HashMap;
use std::collections::BTreeMap;

/// Values by node, over all seconds.
pub type Totals = HashMap<NodeId, Values>;

/// Counters by host, source, second and kind.
pub type Counters = BTreeMap<(String, CounterSource, u32, CounterKind), u64>;

/// The stacks of one probe: a dictionary, totals by series, and values by second.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What was measured, such as `on-cpu`.
    pub probe: String,
    /// What the numbers mean.
    pub measures: Vec<Measure>,
    /// Frames by number.
    pub frames: FrameTable,
    /// The call tree.
    pub tree: Tree,
    /// Series by number.
    pub series: SeriesTable,
    /// Sums over all seconds. Always whole, also when `cells` were not kept.
    pub totals: BTreeMap<SeriesId, Totals>,
    /// Values by (series, second); empty when only totals were wanted or the input has no time.
    pub cells: BTreeMap<(SeriesId, u32), Cell>,
    /// What happened beside the stacks.
    pub counters: Counters,
}

/// Why two things cannot be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// They measure different things.
    #[error("one side measures {ours}, the other {theirs}")]
    Measures {
        /// This side's probe and measures.
        ours: String,
        /// The other side's.
        theirs: String,
    },
    /// The segment builds on dictionary entries that are not known here.
    #[error(
        "the segment builds on {theirs} frames, nodes and series, but {ours} are known: a segment before it is missing"
    )]
    Base {
        /// Known here: frames, nodes, series.
        ours: String,
        /// Presumed by the segment.
        theirs: String,
    },
    /// A series claims to come from another host than its sender.
    #[error("a series claims host {claimed:?}, but was sent by {sender:?}")]
    Host {
        /// The host named in the series.
        claimed: String,
        /// The host that sent it.
        sender: String,
    },
    /// An id points outside its table.
    #[error("{0} points outside its table")]
    Range(&'static str),
}

/// From a sender's numbers to a profile's own. One for each sender and epoch.
#[derive(Clone, Debug)]
pub struct IdMap {
    frames: Vec<FrameId>,
    nodes: Vec<NodeId>,
    series: Vec<SeriesId>,
}

impl Default for IdMap {
    fn default() -> Self {
        Self {
            frames: Vec::new(),
            nodes: vec![ROOT],
            series: Vec::new(),
        }
    }
}

impl IdMap {
    fn base(&self) -> String {
        format!(
            "{}/{}/{}",
            self.frames.len(),
            self.nodes.len(),
            self.series.len()
        )
    }

    /// The sender's series as numbered here.
    #[must_use]
    pub fn series(&self, id: SeriesId) -> Option<SeriesId> {
        self.series.get(id.0 as usize).copied()
    }

    /// The sender's cell in this profile's numbers.
    fn cell(&self, cell: &Cell) -> Cell {
        let rows = cell
            .rows()
            .map(|(n, v)| (self.nodes[n.0 as usize], *v))
            .collect();
        Cell::from_rows(rows)
    }
}

/// What of a segment a profile keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Sums only: what merging and drawing need.
    Totals,
    /// Seconds too.
    Cells,
}

impl Profile {
    /// An empty profile.
    #[must_use]
    pub fn new(probe: &str, measures: Vec<Measure>) -> Self {
        Self {
            probe: probe.to_owned(),
            measures,
            ..Self::default()
        }
    }

    /// Adds a segment of `sender`, whose earlier segments went through the same `map`.
    ///
    /// # Errors
    /// [`MergeError`]; the profile and the map are then unchanged.
    pub fn absorb(
        &mut self,
        map: &mut IdMap,
        sender: &str,
        segment: &Segment,
        keep: Keep,
    ) -> Result<(), MergeError> {
        check_sender(sender, segment)?;
        self.absorb_dictionary(map, segment)?;
        for (series, bin, cell) in &segment.cells {
            let series = map.series[series.0 as usize];
            self.add_totals(
                series,
                cell.rows().map(|(n, v)| (map.nodes[n.0 as usize], v)),
            );
            if keep == Keep::Cells {
                self.add_cell(series, *bin, map.cell(cell));
            }
        }
        self.absorb_counters(map, segment);
        Ok(())
    }

    /// Adds a stored document: its totals stand beside its cells and are not added twice.
    ///
    /// # Errors
    /// [`MergeError`]; the profile and the map are then unchanged.
    pub(crate) fn absorb_stored(
        &mut self,
        map: &mut IdMap,
        segment: &Segment,
        totals: &[(SeriesId, Cell)],
    ) -> Result<(), MergeError> {
        let nodes = map.nodes.len() + segment.nodes.len();
        let series = map.series.len() + segment.series.len();
        for (id, cell) in totals {
            if id.0 as usize >= series || cell.nodes.iter().any(|n| n.0 as usize >= nodes) {
                return Err(MergeError::Range("a total"));
            }
        }
        self.absorb_dictionary(map, segment)?;
        for (series, cell) in totals {
            let series = map.series[series.0 as usize];
            self.add_totals(
                series,
                cell.rows().map(|(n, v)| (map.nodes[n.0 as usize], v)),
            );
        }
        for (series, bin, cell) in &segment.cells {
            self.add_cell(map.series[series.0 as usize], *bin, map.cell(cell));
        }
        self.absorb_counters(map, segment);
        Ok(())
    }

    fn absorb_dictionary(&mut self, map: &mut IdMap, segment: &Segment) -> Result<(), MergeError> {
        check(map, segment)?;
        map.frames
            .extend(segment.frames.iter().map(|f| self.frames.intern(f)));
        for node in &segment.nodes {
            let parent = map.nodes[node.parent.0 as usize];
            let frame = map.frames[node.frame.0 as usize];
            map.nodes.push(self.tree.intern(parent, frame));
        }
        map.series
            .extend(segment.series.iter().map(|s| self.series.intern(s)));
        Ok(())
    }

    fn absorb_counters(&mut self, map: &IdMap, segment: &Segment) {
        for row in &segment.counters {
            let source = match row.source {
                CounterSource::Host => CounterSource::Host,
                CounterSource::Series(id) => CounterSource::Series(map.series[id.0 as usize]),
            };
            self.count(&row.host, source, row.bin, row.kind, row.value);
        }
    }

    /// Adds another profile.
    ///
    /// # Errors
    /// [`MergeError::Measures`] when it measures something else.
    pub fn merge(&mut self, other: &Profile) -> Result<(), MergeError> {
        if self.measures.is_empty() && self.probe.is_empty() {
            self.probe.clone_from(&other.probe);
            self.measures.clone_from(&other.measures);
        }
        if self.probe != other.probe || self.measures != other.measures {
            return Err(MergeError::Measures {
                ours: self.describe(),
                theirs: other.describe(),
            });
        }
        let map = self.map_dictionary(other);
        for (series, totals) in &other.totals {
            let series = map.series[series.0 as usize];
            self.add_totals(
                series,
                totals.iter().map(|(n, v)| (map.nodes[n.0 as usize], v)),
            );
        }
        for ((series, bin), cell) in &other.cells {
            self.add_cell(map.series[series.0 as usize], *bin, map.cell(cell));
        }
        for ((host, source, bin, kind), value) in &other.counters {
            let source = match source {
                CounterSource::Host => CounterSource::Host,
                CounterSource::Series(id) => CounterSource::Series(map.series[id.0 as usize]),
            };
            self.count(host, source, *bin, *kind, *value);
        }
        Ok(())
    }

    /// Adds values of one series, given in this profile's own node numbers.
    pub fn add_totals<'a>(
        &mut self,
        series: SeriesId,
        rows: impl Iterator<Item = (NodeId, &'a Values)>,
    ) {
        let totals = self.totals.entry(series).or_default();
        for (node, values) in rows {
            add_values(totals.entry(node).or_default(), values);
        }
    }

    /// Adds one stack without time, as text formats have it.
    pub fn add_stack(&mut self, series: SeriesId, root_first: &[FrameId], values: &Values) {
        let node = root_first
            .iter()
            .fold(ROOT, |at, &f| self.tree.intern(at, f));
        add_values(
            self.totals
                .entry(series)
                .or_default()
                .entry(node)
                .or_default(),
            values,
        );
    }

    /// The part of the profile whose series pass `wanted`, with the same dictionary numbers.
    #[must_use]
    pub fn select(&self, wanted: impl Fn(&Series) -> bool) -> BTreeMap<NodeId, Values> {
        let mut sum: BTreeMap<NodeId, Values> = BTreeMap::new();
        for (id, totals) in &self.totals {
            if self.series.get(*id).is_some_and(&wanted) {
                for (node, values) in totals {
                    add_values(sum.entry(*node).or_default(), values);
                }
            }
        }
        sum
    }

    /// The sum of everything.
    #[must_use]
    pub fn grand_total(&self) -> Values {
        let mut sum = Values::default();
        self.totals
            .values()
            .flat_map(HashMap::values)
            .for_each(|v| add_values(&mut sum, v));
        sum
    }

    /// The hosts that have a series or a counter here, sorted.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self
            .series
            .as_slice()
            .iter()
            .map(|s| s.host.clone())
            .collect();
        hosts.extend(self.counters.keys().map(|k| k.0.clone()));
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The same content without any numbering, for comparing two profiles.
    #[must_use]
    pub fn canonical(&self) -> Canonical {
        let stack = |node: NodeId| -> Vec<Frame> {
            self.tree
                .stack(node)
                .iter()
                .filter_map(|f| self.frames.get(*f).cloned())
                .collect()
        };
        let series = |id: SeriesId| self.series.get(id).cloned().unwrap_or_default();
        let mut canonical = Canonical {
            measures: self.measures.clone(),
            ..Canonical::default()
        };
        for (id, totals) in &self.totals {
            for (node, values) in totals {
                canonical
                    .stacks
                    .insert((series(*id), None, stack(*node)), *values);
            }
        }
        for ((id, bin), cell) in &self.cells {
            for (node, values) in cell.rows() {
                canonical
                    .stacks
                    .insert((series(*id), Some(*bin), stack(node)), *values);
            }
        }
        for ((host, source, bin, kind), value) in &self.counters {
            let whose = match source {
                CounterSource::Host => None,
                CounterSource::Series(id) => Some(series(*id)),
            };
            canonical
                .counters
                .insert((host.clone(), whose, *bin, *kind), *value);
        }
        canonical
    }

    pub(crate) fn describe(&self) -> String {
        let measures: Vec<String> = self
            .measures
            .iter()
            .map(|m| format!("{}/{}", m.name, m.unit))
            .collect();
        format!("{} [{}]", self.probe, measures.join(", "))
    }

    fn map_dictionary(&mut self, other: &Profile) -> IdMap {
        let mut map = IdMap::default();
        map.frames.extend(
            other
                .frames
                .as_slice()
                .iter()
                .map(|f| self.frames.intern(f)),
        );
        for node in &other.tree.as_slice()[1..] {
            let parent = map.nodes[node.parent.0 as usize];
            map.nodes
                .push(self.tree.intern(parent, map.frames[node.frame.0 as usize]));
        }
        map.series.extend(
            other
                .series
                .as_slice()
                .iter()
                .map(|s| self.series.intern(s)),
        );
        map
    }

    fn add_cell(&mut self, series: SeriesId, bin: u32, cell: Cell) {
        let slot = self.cells.entry((series, bin)).or_default();
        if slot.nodes.is_empty() {
            *slot = cell;
        } else {
            let rows = slot
                .rows()
                .chain(cell.rows())
                .map(|(n, v)| (n, *v))
                .collect();
            *slot = Cell::from_rows(rows);
        }
    }

    /// Adds to a counter.
    pub fn count(
        &mut self,
        host: &str,
        source: CounterSource,
        bin: u32,
        kind: CounterKind,
        value: u64,
    ) {
        let sum = self
            .counters
            .entry((host.to_owned(), source, bin, kind))
            .or_default();
        *sum = sum.saturating_add(value);
    }
}

/// A profile's content without numbering. See [`Profile::canonical`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canonical {
    /// What the numbers mean.
    pub measures: Vec<Measure>,
    /// Values by series, second (none = total) and stack.
    pub stacks: BTreeMap<(Series, Option<u32>, Vec<Frame>), Values>,
    /// Counters.
    pub counters: BTreeMap<(String, Option<Series>, u32, CounterKind), u64>,
}

fn check_sender(sender: &str, segment: &Segment) -> Result<(), MergeError> {
    let series = segment.series.iter().map(|s| &s.host);
    match series
        .chain(segment.counters.iter().map(|c| &c.host))
        .find(|h| *h != sender)
    {
        Some(alien) => Err(MergeError::Host {
            claimed: alien.clone(),
            sender: sender.to_owned(),
        }),
        None => Ok(()),
    }
}

fn check(map: &IdMap, segment: &Segment) -> Result<(), MergeError> {
    let theirs = format!(
        "{}/{}/{}",
        segment.base_frames, segment.base_nodes, segment.base_series
    );
    if theirs != map.base() {
        return Err(MergeError::Base {
            ours: map.base(),
            theirs,
        });
    }
    let frames = map.frames.len() + segment.frames.len();
    let series = map.series.len() + segment.series.len();
    for (offset, node) in segment.nodes.iter().enumerate() {
        if node.parent.0 as usize >= map.nodes.len() + offset {
            return Err(MergeError::Range("a node's parent"));
        }
        if node.frame.0 as usize >= frames {
            return Err(MergeError::Range("a node's frame"));
        }
    }
    let nodes = map.nodes.len() + segment.nodes.len();
    for (id, _, cell) in &segment.cells {
        if id.0 as usize >= series {
            return Err(MergeError::Range("a cell's series"));
        }
        if cell.nodes.iter().any(|n| n.0 as usize >= nodes) {
            return Err(MergeError::Range("a cell's node"));
        }
    }
    for row in &segment.counters {
        if matches!(row.source, CounterSource::Series(id) if id.0 as usize >= series) {
            return Err(MergeError::Range("a counter's series"));
        }
    }
    Ok(())
}
