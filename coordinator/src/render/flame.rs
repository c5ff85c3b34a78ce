//! Flame graphs as self-contained SVG. The only door to inferno.
//!
//! In: a view, or two sides of one, and the texts above the picture. Out: an SVG within its bounds
//! of frames and bytes, whatever came in. Never: a picture that a browser cannot open, a frame
//! that vanishes because one side of a difference lacks it, markup from a frame's name.
//!
//! inferno's own differential form takes the second side as width and hides what vanished, and
//! colours a frame by its own samples alone. So both sides are laid out here (`stack width`, the
//! larger share), inferno draws that, and `dress` puts colours and tooltips of both sides on it.

use super::dress::{Difference as Scale, Dress, dress};
use super::table::printable;
use super::view::View;
use compare::Told;
use inferno::flamegraph::color::BackgroundColor;
use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};
use model::profile::{DiffRow, Difference, DrawLimits, Drawing, DrawnStack, Frame, draw};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

/// How a picture is drawn.
#[derive(Clone, Debug)]
pub struct FlameOptions {
    /// The title.
    pub title: String,
    /// The line that says how far it can be trusted.
    pub coverage: String,
    /// What one unit of the values is called.
    pub unit: String,
    /// Narrowest frame as a part of the whole.
    pub width_min: f64,
    /// Root at the top.
    pub icicle: bool,
    /// Most frames.
    pub frames_max: usize,
    /// Most bytes.
    pub bytes_max: usize,
}

impl Default for FlameOptions {
    fn default() -> Self {
        Self {
            title: "Flame graph".to_owned(),
            coverage: String::new(),
            unit: "samples".to_owned(),
            width_min: 0.0001,
            icicle: false,
            frames_max: 5_000,
            bytes_max: 1_000_000,
        }
    }
}

/// A picture and what it does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flame {
    /// The SVG.
    pub svg: String,
    /// Frames that are drawn.
    pub frames: usize,
    /// Frames that were too narrow or too many; they count in the frame they stand on.
    pub hidden_frames: usize,
    /// Whether stacks were cut at the deepest level.
    pub depth_capped: bool,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    /// inferno could not draw it.
    #[error("draw the flame graph")]
    Draw(#[source] io::Error),
}

/// Shares are drawn in billionths.
const WHOLE: u64 = 1_000_000_000;
/// Longest label in a picture, in characters: a C++ template can have thousands.
const LABEL_CHARS_MAX: usize = 200;

/// Draws one side (the left one).
///
/// # Errors
/// [`FlameError`] when inferno fails.
pub fn flame(view: &View, options: &FlameOptions) -> Result<Flame, FlameError> {
    let look = Dress::Plain {
        unit: options.unit.clone(),
        groups: groups(view),
    };
    fitting(view, &view.difference, options, &look)
}

/// What a difference's picture shows beside its values.
#[derive(Clone, Debug)]
pub struct DifferenceLook<'a> {
    /// The left side's name.
    pub left: String,
    /// The right side's.
    pub right: String,
    /// What is compared.
    pub scale: Scale,
    /// What is said of places, by their labels; none when nothing was judged.
    pub told: Option<&'a BTreeMap<Vec<String>, Told>>,
}

/// Draws the difference of both sides.
///
/// # Errors
/// [`FlameError`] when inferno fails.
pub fn flame_difference(
    view: &View,
    look: &DifferenceLook<'_>,
    options: &FlameOptions,
) -> Result<Flame, FlameError> {
    let scale = look.scale;
    let dress = Dress::Difference {
        left: look.left.clone(),
        right: look.right.clone(),
        scale,
        told: look.told.map(drawn_places),
        groups: groups(view),
    };
    match scale {
        Scale::Shares => fitting(view, &shares(&view.difference), options, &dress),
        Scale::Per { left, right, .. } => {
            let values = quotients(&view.difference, left, right);
            fitting(view, &values, options, &dress)
        }
    }
}

/// A frame's label as it is drawn.
fn drawn_label(label: &str) -> String {
    safe(label, LABEL_CHARS_MAX)
}

/// The process groups as they are drawn.
fn groups(view: &View) -> BTreeSet<String> {
    view.groups.iter().map(|g| drawn_label(g)).collect()
}

/// What is said of places, by their labels as they are drawn. Of places that become one it is said
/// only when it is said of all of them.
fn drawn_places(told: &BTreeMap<Vec<String>, Told>) -> BTreeMap<Vec<String>, Told> {
    let mut drawn = BTreeMap::new();
    for (path, told) in told {
        let path = path.iter().map(|label| drawn_label(label)).collect();
        let known = drawn.entry(path).or_insert(*told);
        if known != told {
            *known = Told::Unsure;
        }
    }
    drawn
}

/// Both sides divided by their units.
fn quotients(difference: &Difference, left: f64, right: f64) -> Difference {
    let by = |value: u64, units: f64| {
        if units > 0.0 {
            (value as f64 / units).round() as u64
        } else {
            0
        }
    };
    let mut out = Difference::default();
    for row in &difference.rows {
        let (left, right) = (by(row.left, left), by(row.right, right));
        out.rows.push(DiffRow {
            node: row.node,
            left,
            right,
        });
        out.left_total = out.left_total.saturating_add(left);
        out.right_total = out.right_total.saturating_add(right);
    }
    out
}

/// Draws with fewer and fewer frames until the picture is within its bounds.
fn fitting(
    view: &View,
    values: &Difference,
    options: &FlameOptions,
    look: &Dress,
) -> Result<Flame, FlameError> {
    if values.left_total == 0 && values.right_total == 0 {
        return Ok(empty(options));
    }
    let mut limits = DrawLimits {
        frames_max: options.frames_max.saturating_sub(1), // one is for `all`
        width_min: options.width_min,
        ..DrawLimits::default()
    };
    let inclusive = values.inclusive(&view.tree);
    loop {
        let label = |frame: &Frame| drawn_label(&frame.label());
        let drawing = draw(&view.tree, &view.frames, values, &inclusive, limits, label);
        let drawing = on_a_frame(drawing);
        let over = (rectangles(&drawing) + 1).saturating_sub(options.frames_max);
        if over > 0 && limits.frames_max > 0 {
            limits.frames_max = limits.frames_max.saturating_sub(over); // depth markers came on top
            continue;
        }
        let svg = picture(&drawing, options, look)?;
        if svg.len() <= options.bytes_max || limits.frames_max == 0 {
            let Drawing {
                hidden_frames,
                depth_capped,
                ..
            } = drawing;
            return Ok(Flame {
                svg,
                frames: rectangles(&drawing),
                hidden_frames,
                depth_capped,
            });
        }
        limits.frames_max =
            rectangles(&drawing).min(limits.frames_max) * 9 / 10 * options.bytes_max / svg.len();
    }
}

/// Both sides as shares of their own totals, in billionths; each side that has anything adds up to
/// exactly [`WHOLE`].
fn shares(counts: &Difference) -> Difference {
    let scaled = |whole: u64| {
        let mut seen = 0_u128;
        move |value: u64| {
            let part = |seen: u128| {
                (seen * u128::from(WHOLE))
                    .checked_div(u128::from(whole))
                    .unwrap_or(0)
            };
            let before = part(seen);
            seen += u128::from(value);
            u64::try_from(part(seen) - before).unwrap_or(WHOLE)
        }
    };
    let (mut left, mut right) = (scaled(counts.left_total), scaled(counts.right_total));
    let rows: Vec<DiffRow> = counts
        .rows
        .iter()
        .map(|r| DiffRow {
            node: r.node,
            left: left(r.left),
            right: right(r.right),
        })
        .collect();
    let whole = |total: u64| if total > 0 { WHOLE } else { 0 };
    Difference {
        rows,
        left_total: whole(counts.left_total),
        right_total: whole(counts.right_total),
    }
}

/// What is in no frame at all, since it has none or all of them are too narrow, goes on `[unknown]`.
fn on_a_frame(mut drawing: Drawing) -> Drawing {
    let bare = |s: &DrawnStack| s.labels.is_empty();
    // Lines are sorted, so it is the first.
    if !drawing.stacks.first().is_some_and(bare) {
        return drawing;
    }
    let bare = drawing.stacks.remove(0);
    let labels = vec!["[unknown]".into()];
    match drawing.stacks.binary_search_by(|s| s.labels.cmp(&labels)) {
        Ok(at) => {
            let there = &mut drawing.stacks[at];
            there.left = there.left.saturating_add(bare.left);
            there.right = there.right.saturating_add(bare.right);
        }
        Err(at) => drawing.stacks.insert(at, DrawnStack { labels, ..bare }),
    }
    drawing
}

/// A text of characters that a picture may have, cut in the middle.
fn safe(text: &str, chars_max: usize) -> String {
    let clean = printable(text.trim());
    let length = clean.chars().count();
    if length <= chars_max {
        return if clean.is_empty() {
            "[unknown]".to_owned()
        } else {
            clean
        };
    }
    // The end tells the kind of a frame (`_[k]`) and often the function, so it is kept.
    let keep = chars_max.saturating_sub(1) / 2;
    let head: String = clean.chars().take(keep).collect();
    let tail: String = clean.chars().skip(length - keep).collect();
    format!("{head}…{tail}")
}

/// Frames that a drawing has.
fn rectangles(drawing: &Drawing) -> usize {
    let mut count = 0;
    let mut last: &[Arc<str>] = &[];
    for stack in &drawing.stacks {
        let shared = stack
            .labels
            .iter()
            .zip(last)
            .take_while(|(a, b)| a == b)
            .count();
        count += stack.labels.len() - shared;
        last = &stack.labels;
    }
    count
}

/// Lets inferno lay the picture out and draw it, and dresses it.
fn picture(drawing: &Drawing, options: &FlameOptions, look: &Dress) -> Result<String, FlameError> {
    // inferno splits a line at its last blanks, so blanks within labels are hidden from it; and a
    // line that begins with `# ` is a comment to it.
    let line = |s: &DrawnStack| {
        let mut line = String::with_capacity(24 * s.labels.len() + 24);
        for (i, label) in s.labels.iter().enumerate() {
            if i > 0 {
                line.push(';');
            }
            if label.contains(' ') {
                line.push_str(&label.replace(' ', BLANK));
            } else {
                line.push_str(label);
            }
        }
        if line == "#" {
            line.push_str(BLANK);
        }
        let _ = write!(line, " {}", s.left.max(s.right));
        line
    };
    let lines: Vec<String> = drawing.stacks.iter().map(line).collect();
    let mut inferno = Options::default();
    inferno.title = safe(&options.title, 120);
    inferno.subtitle = Some(SUBTITLE.to_owned());
    inferno.notes = safe(&options.coverage, 4_000).replace("--", "- -");
    inferno.count_name = safe(&options.unit, 60);
    inferno.min_width = 0.0;
    inferno.bgcolors = Some(BackgroundColor::Flat((255, 255, 255).into()));
    inferno.deterministic = true;
    inferno.text_truncate_direction = TextTruncateDirection::Right;
    inferno.direction = if options.icicle {
        Direction::Inverted
    } else {
        Direction::Straight
    };
    // The order is ours: in byte order of whole lines, `a b` would stand between `a` and `a;c` and
    // tear `a` in two. A flame chart keeps the order, from the last line to the first.
    inferno.flame_chart = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(
        &mut inferno,
        lines.iter().rev().map(String::as_str),
        &mut svg,
    )
    .map_err(FlameError::Draw)?;
    let svg = String::from_utf8(svg)
        .map_err(|e| FlameError::Draw(io::Error::new(io::ErrorKind::InvalidData, e)))?;
    let subtitle = subtitle(drawing, options, look);
    Ok(dress(
        &svg.replace(BLANK, " "),
        &drawing.stacks,
        look,
        options.icicle,
        &subtitle,
    ))
}

/// A no-break space: looks like a blank and is none to inferno.
const BLANK: &str = "\u{a0}";
/// Stands where the subtitle's lines will be put.
pub(super) const SUBTITLE: &str = "fleetflame-subtitle";

/// The lines below the title: how far it can be trusted, and how it is to be read.
fn subtitle(drawing: &Drawing, options: &FlameOptions, look: &Dress) -> [String; 2] {
    let mut how = match look {
        Dress::Plain { .. } => {
            vec!["red: native, orange: kernel, green: Lua, bright green: JIT-compiled".to_owned()]
        }
        Dress::Difference {
            left, right, told, ..
        } => {
            let mut how = vec![format!("red: more in {right} than in {left}, blue: less")];
            if told.is_some() {
                how.push("pale: may be chance".to_owned());
            }
            how.push("width: the larger of both sides".to_owned());
            how
        }
    };
    if drawing.hidden_frames > 0 {
        how.push(format!(
            "{} narrow frames are not drawn",
            super::table::count(drawing.hidden_frames as u64)
        ));
    }
    if drawing.depth_capped {
        how.push("deeper frames are under [deeper]".to_owned());
    }
    [safe(&options.coverage, 160), safe(&how.join("; "), 160)]
}

/// The picture of nothing.
fn empty(options: &FlameOptions) -> Flame {
    let escape = |text: &str| super::dress::escape(&safe(text, 160));
    let svg = format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" width=\"1200\" height=\"90\" \
         viewBox=\"0 0 1200 90\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"monospace\" \
         font-size=\"12\" text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"50%\" y=\"24\" font-size=\"17\">{}</text>\n<text x=\"50%\" y=\"48\">{}</text>\n\
         <text x=\"50%\" y=\"70\">no stacks were captured</text>\n</svg>\n",
        escape(&options.title),
        escape(&options.coverage)
    );
    Flame {
        svg,
        frames: 0,
        hidden_frames: 0,
        depth_capped: false,
    }
}

#[cfg(test)]
#[path = "flame_tests.rs"]
mod tests;
