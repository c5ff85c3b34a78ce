//! Roll-ups: where the samples are, by function or by module. In: a profile and which series.
//! Out: rows with self and total values, largest first. Never: a recursive function counted twice
//! in a total.

use super::gateway;
use model::profile::{Frame, FrameKind, Node, Profile, ROOT, Series};
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
    let groups: Vec<usize> = if matches!(by, By::Plugin | By::Phase) {
        let groups = gateway::groups(nodes, frames, by == By::Phase);
        groups.into_iter().map(number).collect()
    } else {
        let of_frame: Vec<usize> = frames.iter().map(|f| number(name(f, by))).collect();
        let of_node = |n: &Node| of_frame.get(n.frame.0 as usize).copied();
        nodes
            .iter()
            .map(|n| of_node(n).unwrap_or(nameless))
            .collect()
    };
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
