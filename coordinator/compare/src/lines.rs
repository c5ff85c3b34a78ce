//! Source lines of one function. In: a profile whose frames have their lines, a function's name. Out: how many
//! samples each of its lines has, itself and with what it calls. Never: a sample counted twice in a line, also
//! where the function calls itself.

use model::format::source::split_line;
use model::profile::{Frame, FrameKind, Node, Profile, ROOT, Series};
use serde::Serialize;
use std::collections::BTreeMap;

use super::TopRow;

/// The row of code whose line is not known.
const NO_LINE: &str = "[no line]";

/// Lines of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Samples of all functions.
    pub all: u64,
    /// Samples in the function and in what it calls.
    pub whole: u64,
    /// Samples in the function itself: in its own code and in what was inlined into it.
    #[serde(rename = "self")]
    pub own: u64,
    /// Its lines, the largest by their own samples first; `total` is with what is called from there.
    pub rows: Vec<TopRow>,
}

/// The lines of `function`, by the measure with this index, of all series that are `wanted`.
#[must_use]
pub fn lines_of(
    profile: &Profile,
    wanted: impl Fn(&Series) -> bool,
    measure: usize,
    function: &str,
) -> Lines {
    let nodes = profile.tree.as_slice();
    let mut inclusive = vec![0_u64; nodes.len()];
    for (node, values) in profile.select(wanted) {
        inclusive[node.0 as usize] = values.get(measure).copied().unwrap_or(0);
    }
    let frames = profile.frames.as_slice();
    let places: Vec<Option<String>> = frames.iter().map(|f| place(f, function)).collect();
    let of = |node: &Node| places.get(node.frame.0 as usize).and_then(Option::as_ref);
    let is_inlined = |node: &Node| {
        let frame = frames.get(node.frame.0 as usize);
        frame.is_some_and(|f| f.kind == FrameKind::Inline)
    };
    // Callers have lower numbers than what they call.
    let mut own = inclusive.clone();
    for id in (1..nodes.len()).rev() {
        let parent = nodes[id].parent.0 as usize;
        inclusive[parent] = inclusive[parent].saturating_add(inclusive[id]);
        if is_inlined(&nodes[id]) && of(&nodes[id]).is_none() {
            own[parent] = own[parent].saturating_add(own[id]);
        }
    }
    let mut lines = Lines {
        all: inclusive.first().copied().unwrap_or(0),
        whole: 0,
        own: 0,
        rows: Vec::new(),
    };
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for id in 1..nodes.len() {
        let Some(place) = of(&nodes[id]) else {
            continue;
        };
        let (mut again, mut again_here) = (false, false);
        let mut at = nodes[id].parent;
        while at != ROOT && !again_here {
            let above = &nodes[at.0 as usize];
            again |= of(above).is_some();
            again_here |= of(above) == Some(place);
            at = above.parent;
        }
        let sum = sums.entry(place).or_default();
        sum.0 = sum.0.saturating_add(own[id]);
        lines.own = lines.own.saturating_add(own[id]);
        if !again_here {
            sum.1 = sum.1.saturating_add(inclusive[id]);
        }
        if !again {
            lines.whole = lines.whole.saturating_add(inclusive[id]);
        }
    }
    lines.rows = sums
        .into_iter()
        .filter(|(_, (own, total))| own | total > 0)
        .map(|(name, (own, total))| TopRow {
            name: name.to_owned(),
            own,
            total,
        })
        .collect();
    (lines.rows).sort_by_key(|row| std::cmp::Reverse((row.own, row.total)));
    lines
}

/// The line of a frame of the function; none of another function's. A compiler's clones of a function
/// (`function.constprop.0`) are the function.
fn place(frame: &Frame, function: &str) -> Option<String> {
    let (name, place) = match split_line(&frame.name) {
        Some((name, file, line)) => (name, format!("{file}:{line}")),
        None => (frame.name.as_str(), NO_LINE.to_owned()),
    };
    let rest = name.strip_prefix(function)?;
    (rest.is_empty() || rest.starts_with('.')).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::Measure;

    #[test]
    fn what_was_inlined_into_a_line_is_its_own_and_recursion_counts_once() {
        let mut profile = Profile::new("on-cpu", Measure::samples_only());
        let series = profile.series.intern(&Series::default());
        let mut add = |stack: &[&str], samples| {
            let frames: Vec<_> = stack
                .iter()
                .map(|name| {
                    let (kind, name) = match name.strip_prefix('~') {
                        Some(name) => (FrameKind::Inline, name),
                        None => (FrameKind::User, *name),
                    };
                    profile.frames.intern(&Frame::named(kind, name, ""))
                })
                .collect();
            profile.add_stack(series, &frames, &[samples, 0, 0]);
        };
        add(&["main(m.c:3)", "sum(m.c:20)", "~square(s.h:4)"], 5);
        add(&["main(m.c:3)", "sum(m.c:21)"], 2);
        add(&["main(m.c:3)", "sum.constprop.0(m.c:20)", "malloc"], 7);
        add(&["main(m.c:3)", "sum(m.c:20)", "sum(m.c:20)"], 1);
        add(&["main(m.c:3)", "sum(m.c:20)", "~sum(m.c:22)"], 1);
        add(&["main(m.c:3)", "sum"], 1);
        add(&["main(m.c:3)", "summit(m.c:20)"], 9);
        let lines = lines_of(&profile, |_| true, 0, "sum");
        let rows: Vec<_> = lines
            .rows
            .iter()
            .map(|r| (r.name.as_str(), r.own, r.total))
            .collect();
        assert_eq!(
            rows,
            [
                ("m.c:20", 6, 14),
                ("m.c:21", 2, 2),
                ("[no line]", 1, 1),
                ("m.c:22", 1, 1),
            ]
        );
        assert_eq!((lines.own, lines.whole, lines.all), (10, 17, 26));
        let of_inlined = lines_of(&profile, |_| true, 0, "square");
        assert_eq!((of_inlined.own, of_inlined.rows[0].own), (5, 5));
        assert!(lines_of(&profile, |_| true, 0, "absent").rows.is_empty());
        assert!(
            lines_of(&Profile::default(), |_| true, 0, "a")
                .rows
                .is_empty()
        );
    }
}
