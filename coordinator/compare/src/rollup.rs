//! Roll-ups: where the samples are, by function or by what functions belong to. In: a profile and which
//! series. Out: rows with self and total values, largest first; a profile of groups. Never: a recursive function counted twice
//! in a total.

use super::gateway;
use model::format::source::split_line;
use model::profile::{Cell, Frame, FrameKind, Node, NodeId, Profile, ROOT, Series, Values};
use serde::Serialize;
use std::collections::BTreeMap;

/// What rows are made by, and what they are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Functions by their own samples.
    SelfValue,
    /// Functions by their samples with everything they called.
    Total,
    /// Modules (programs, libraries, Lua files, the kernel) by their own samples.
    Module,
    /// Kong's plugins; what belongs to none is Kong itself, a library, a timer, nginx or the kernel.
    Plugin,
    /// Phases of ngx_lua.
    Phase,
    /// Paths of requests, where the capture was asked for them.
    Uri,
    /// Lua files: what C functions and the kernel do for one belongs to it.
    File,
    /// What runs: the kernel, native code, interpreted Lua, compiled Lua.
    Kind,
    /// Source lines, where frames have them.
    Line,
}

impl By {
    /// Reads a word of the command line.
    ///
    /// # Errors
    /// The words that are known.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "self" => Ok(Self::SelfValue),
            "total" => Ok(Self::Total),
            "line" => Ok(Self::Line),
            _ => Self::parse_group(word).map_err(|_| {
                "use self, total, line, module, plugin, phase, uri, file or kind".to_owned()
            }),
        }
    }

    /// Reads a word that groups functions.
    ///
    /// # Errors
    /// The words that are known.
    pub fn parse_group(word: &str) -> Result<Self, String> {
        let groups = [
            Self::Module,
            Self::Plugin,
            Self::Phase,
            Self::Uri,
            Self::File,
            Self::Kind,
        ];
        let found = groups.into_iter().find(|by| by.word() == word);
        found.ok_or_else(|| "use module, plugin, phase, uri, file or kind".to_owned())
    }

    /// What a row is.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::SelfValue | Self::Total => "frame",
            Self::Module => "module",
            Self::Plugin => "plugin",
            Self::Phase => "phase",
            Self::Uri => "uri",
            Self::File => "file",
            Self::Kind => "kind",
            Self::Line => "line",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopRow {
    /// The function or module.
    pub name: String,
    /// Samples in it.
    #[serde(rename = "self")]
    pub own: u64,
    /// Samples in it and in what it called.
    pub total: u64,
}

/// A roll-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Top {
    /// All samples.
    pub whole: u64,
    /// Rows, largest first.
    pub rows: Vec<TopRow>,
}

/// Rolls up the measure with this index of all series that are `wanted`.
#[must_use]
pub fn top(profile: &Profile, wanted: impl Fn(&Series) -> bool, measure: usize, by: By) -> Top {
    let nodes = profile.tree.as_slice();
    let mut own = vec![0_u64; nodes.len()];
    for (node, values) in profile.select(wanted) {
        own[node.0 as usize] = values.get(measure).copied().unwrap_or(0);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = |name: String| {
        let next = names.len();
        *names.entry(name).or_insert(next)
    };
    let nameless = number("[unknown]".to_owned());
    let frames = profile.frames.as_slice();
    let groups: Vec<usize> = names_of_nodes(nodes, frames, by, |name| {
        name.map_or(nameless, |name| number(name.to_owned()))
    });
    let group = |id: usize| groups[id];

    let mut sums = vec![(0_u64, 0_u64); names.len()];
    sums[nameless] = (own[0], own[0]); // samples without any frame
    let mut inclusive = own.clone();
    for id in (1..nodes.len()).rev() {
        let (value, parent) = (inclusive[id], nodes[id].parent.0 as usize);
        inclusive[parent] = inclusive[parent].saturating_add(value);
    }
    for id in (1..nodes.len()).filter(|id| inclusive[*id] > 0) {
        let sum = &mut sums[group(id)];
        sum.0 = sum.0.saturating_add(own[id]);
        if !stands_above(nodes, id, group(id), group) {
            sum.1 = sum.1.saturating_add(inclusive[id]);
        }
    }
    let mut rows: Vec<TopRow> = names
        .into_iter()
        .map(|(name, i)| TopRow {
            name,
            own: sums[i].0,
            total: sums[i].1,
        })
        .filter(|row| row.total > 0)
        .collect();
    let key = |row: &TopRow| {
        if by == By::Total {
            (row.total, row.own)
        } else {
            (row.own, row.total)
        }
    };
    rows.sort_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
    Top {
        whole: inclusive[0],
        rows,
    }
}

/// What each node's name is made into; the root and damaged nodes have none.
fn names_of_nodes<T: Clone>(
    nodes: &[Node],
    frames: &[Frame],
    by: By,
    mut made: impl FnMut(Option<&str>) -> T,
) -> Vec<T> {
    if matches!(by, By::Plugin | By::Phase | By::Uri | By::File) {
        let groups = gateway::groups(nodes, frames, by);
        return groups.into_iter().map(|name| made(Some(&name))).collect();
    }
    let of_frame: Vec<T> = frames.iter().map(|f| made(Some(&name(f, by)))).collect();
    let nameless = made(None);
    let of_node = |n: &Node| {
        of_frame
            .get(n.frame.0 as usize)
            .unwrap_or(&nameless)
            .clone()
    };
    nodes.iter().map(of_node).collect()
}

/// The profile with groups in the place of functions: stacks are the groups that they go through, one
/// after the other, so that everything that is made of functions can be made of groups.
#[must_use]
pub fn grouped(profile: &Profile, by: By) -> Profile {
    let mut out = Profile {
        probe: profile.probe.clone(),
        measures: profile.measures.clone(),
        series: profile.series.clone(),
        counters: profile.counters.clone(),
        ..Profile::default()
    };
    let nodes = profile.tree.as_slice();
    let frames = profile.frames.as_slice();
    let groups = names_of_nodes(nodes, frames, by, |name| {
        out.frames
            .intern(&Frame::marker(name.unwrap_or("[unknown]")))
    });
    let mut places: Vec<NodeId> = Vec::with_capacity(nodes.len());
    for (id, (node, group)) in nodes.iter().zip(groups).enumerate() {
        let above = places.get(node.parent.0 as usize).copied();
        let place = match above.filter(|_| id > 0) {
            None => ROOT,
            Some(above) if out.tree.get(above).is_some_and(|n| n.frame == group) => above,
            Some(above) => out.tree.intern(above, group),
        };
        places.push(place);
    }
    let placed = |(node, values): (NodeId, &Values)| {
        (
            places.get(node.0 as usize).copied().unwrap_or(ROOT),
            *values,
        )
    };
    for (id, totals) in &profile.totals {
        let rows = totals.iter().map(|(node, values)| placed((*node, values)));
        let rows = Cell::from_rows(rows.collect());
        let sum = rows.rows().map(|(node, values)| (node, *values)).collect();
        out.totals.insert(*id, sum);
    }
    for (at, cell) in &profile.cells {
        let cell = Cell::from_rows(cell.rows().map(placed).collect());
        out.cells.insert(*at, cell);
    }
    out
}

/// Whether a caller of the node belongs to the same group.
fn stands_above(
    nodes: &[model::profile::Node],
    id: usize,
    wanted: usize,
    group: impl Fn(usize) -> usize,
) -> bool {
    let mut at = nodes[id].parent;
    while at != ROOT {
        if group(at.0 as usize) == wanted {
            return true;
        }
        at = nodes[at.0 as usize].parent;
    }
    false
}

fn name(frame: &Frame, by: By) -> String {
    if by == By::Kind {
        return gateway::kind(frame).to_owned();
    }
    if by == By::Line
        && let Some((_, file, line)) = split_line(&frame.name)
    {
        return format!("{file}:{line}");
    }
    if by != By::Module {
        return frame.label();
    }
    match frame.kind {
        FrameKind::Kernel if frame.module.is_empty() || frame.module.starts_with("vmlinux") => {
            "[kernel]".to_owned()
        }
        FrameKind::Lua | FrameKind::Jit if !frame.file.is_empty() => frame.file.clone(),
        _ if !frame.module.is_empty() => frame.module.clone(),
        FrameKind::Marker => frame.label(),
        // Text formats keep file and line in the name.
        _ if frame.name.contains(".lua:") => frame
            .name
            .split_once(".lua:")
            .map_or_else(String::new, |(path, _)| format!("{path}.lua")),
        _ => "[unknown]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::folded;

    #[test]
    fn recursion_counts_once_and_all_self_values_add_up() {
        let lua = Frame::named(FrameKind::User, "kong/handler.lua:42 access", "");
        assert_eq!(name(&lua, By::Module), "kong/handler.lua");
        let text = "main;walk;walk;walk 5\nmain;walk 2\nmain;walk;leaf_[k] 3\n";
        let (profile, _) = folded::parse(text.as_bytes(), "h");
        let total = top(&profile, |_| true, 0, By::Total);
        let row = |name: &str| total.rows.iter().find(|r| r.name == name).unwrap().clone();
        assert_eq!(total.whole, 10);
        assert_eq!((row("walk").own, row("walk").total), (7, 10));
        assert_eq!((row("main").own, row("main").total), (0, 10));
        assert_eq!(total.rows.iter().map(|r| r.own).sum::<u64>(), 10);
        let by_self = top(&profile, |_| true, 0, By::SelfValue);
        assert_eq!(by_self.rows[0].name, "walk");
        let modules = top(&profile, |_| true, 0, By::Module);
        assert_eq!(modules.rows[1].name, "[kernel]");
        assert_eq!(modules.rows.iter().map(|r| r.own).sum::<u64>(), 10);
        assert!(
            top(&Profile::default(), |_| true, 0, By::Total)
                .rows
                .is_empty()
        );
    }
}
