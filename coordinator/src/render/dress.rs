//! Colours and tooltips on a picture that inferno has laid out.
//!
//! In: inferno's SVG and the stacks it was drawn from. Out: the same SVG with our colours, tooltips
//! and subtitle. Never: text put into the picture unescaped.
//!
//! A frame is known by its place: its level and the position of its first sample, which inferno
//! writes beside each rectangle (`y`, `fg:x`).

use super::flame::SUBTITLE;
use super::table::{count, printable};
use compare::Told;
use model::profile::DrawnStack;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What a difference compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Difference {
    /// Each side's shares of its own whole.
    Shares,
    /// Milliseconds for each unit of something else; the values are nanoseconds.
    Per {
        /// Units of the left side.
        left: f64,
        /// Units of the right side.
        right: f64,
        /// What the quotient is called.
        unit: &'static str,
    },
}

/// How a picture is dressed.
pub(super) enum Dress {
    /// By the kind of frame.
    Plain {
        /// What one unit is called.
        unit: String,
        /// Labels of the process groups on the first level.
        groups: BTreeSet<String>,
    },
    /// By the difference of shares.
    Difference {
        /// The left side's name.
        left: String,
        /// The right side's.
        right: String,
        /// What is compared.
        scale: Difference,
        /// What is said of places, by their labels; none when nothing was judged.
        told: Option<BTreeMap<Vec<String>, Told>>,
        /// Labels of the process groups on the first level, which places do not have.
        groups: BTreeSet<String>,
    },
}

/// What one rectangle stands for.
#[derive(Default)]
struct Box_<'a> {
    label: &'a str,
    left: u64,
    right: u64,
    /// What is said of it; none where too few samples are there, or nothing was judged.
    told: Option<Told>,
}

/// Dresses the picture of `stacks`, which are in the order that they were drawn in.
pub(super) fn dress(
    svg: &str,
    stacks: &[DrawnStack],
    look: &Dress,
    icicle: bool,
    subtitle: &[String; 2],
) -> String {
    let boxes = layout(stacks, look);
    let sum = |side: fn(&DrawnStack) -> u64| stacks.iter().map(side).fold(0, u64::saturating_add);
    let whole = Box_ {
        label: "all",
        left: sum(|s| s.left),
        right: sum(|s| s.right),
        told: None,
    };
    // The root is the lowest frame, or in an icicle the highest; inferno does not write it first.
    let ys = svg
        .split("<g><title>")
        .skip(1)
        .filter_map(|part| number_after(part, " y=\""));
    let root_y = if icicle { ys.min() } else { ys.max() }.unwrap_or(0);

    let mut out = String::with_capacity(svg.len() + svg.len() / 8);
    let mut parts = svg.split("<g><title>");
    out.push_str(&without_stubs(&with_subtitle(
        parts.next().unwrap_or_default(),
        subtitle,
    )));
    for part in parts {
        let y = number_after(part, " y=\"").unwrap_or(0);
        let x = number_after(part, "fg:x=\"").unwrap_or(0);
        let level = root_y.abs_diff(y) / FRAME_HEIGHT;
        let box_ = if level == 0 {
            Some(&whole)
        } else {
            boxes.get(&(level, x))
        };
        out.push_str("<g><title>");
        match box_ {
            Some(box_) => dressed(&mut out, part, box_, &whole, level, look),
            None => out.push_str(part),
        }
    }
    out
}

/// inferno's height of a level, in pixels.
const FRAME_HEIGHT: u64 = 16;

/// Every frame by level (from 1) and position.
fn layout<'a>(stacks: &'a [DrawnStack], look: &Dress) -> BTreeMap<(u64, u64), Box_<'a>> {
    let mut boxes: BTreeMap<(u64, u64), Box_<'a>> = BTreeMap::new();
    let mut open: Vec<(&str, u64)> = Vec::new();
    let mut at = 0_u64;
    for stack in stacks {
        let same = stack
            .labels
            .iter()
            .zip(&open)
            .take_while(|(a, b)| ***a == *b.0)
            .count();
        open.truncate(same);
        open.extend(stack.labels[same..].iter().map(|l| (&**l, at)));
        for ((label, start), level) in open.iter().zip(1..) {
            let new = !boxes.contains_key(&(level, *start));
            let box_ = boxes.entry((level, *start)).or_default();
            if new {
                box_.told = told(&open[..level as usize], look);
            }
            box_.label = label;
            box_.left = box_.left.saturating_add(stack.left);
            box_.right = box_.right.saturating_add(stack.right);
        }
        at = at.saturating_add(stack.left.max(stack.right));
    }
    boxes
}

/// What is said of the place with these labels.
fn told(open: &[(&str, u64)], look: &Dress) -> Option<Told> {
    let Dress::Difference {
        told: Some(told),
        groups,
        ..
    } = look
    else {
        return None;
    };
    let first = usize::from(open.first().is_some_and(|o| groups.contains(o.0)));
    let path: Vec<String> = open[first..].iter().map(|o| o.0.to_owned()).collect();
    if path.is_empty() {
        return None; // a process group is no place
    }
    Some(told.get(&path).copied().unwrap_or(Told::Unsure))
}

/// Writes one frame: `part` begins with the old tooltip.
fn dressed(
    out: &mut String,
    part: &str,
    box_: &Box_<'_>,
    whole: &Box_<'_>,
    level: u64,
    look: &Dress,
) {
    out.push_str(&escape(&tooltip(box_, whole, look)));
    let rest = part.find("</title>").map_or(part, |at| &part[at..]);
    let Some((before, after)) = rest.split_once("fill=\"") else {
        out.push_str(rest);
        return;
    };
    out.push_str(before);
    let (r, g, b) = match look {
        _ if level == 0 => (230, 230, 230),
        Dress::Plain { groups, .. } if level == 1 && groups.contains(box_.label) => (196, 202, 214),
        Dress::Plain { .. } => kind_colour(box_.label),
        Dress::Difference { scale, .. } => {
            let delta = match scale {
                Difference::Shares => {
                    part_of(box_.right, whole.right) - part_of(box_.left, whole.left)
                }
                Difference::Per { .. } => {
                    let most = whole.left.max(whole.right);
                    part_of(box_.right, most) - part_of(box_.left, most)
                }
            };
            match box_.told {
                Some(Told::Unsure) => unsure_colour(delta),
                _ => difference_colour(delta),
            }
        }
    };
    let _ = write!(out, "fill=\"rgb({r},{g},{b})");
    out.push_str(after.find('"').map_or(after, |at| &after[at..]));
}

/// The tooltip. inferno's script takes what stands before the last bracket as the frame's name.
fn tooltip(box_: &Box_<'_>, whole: &Box_<'_>, look: &Dress) -> String {
    let (name, kind) = split_kind(box_.label);
    let share = 100.0 * part_of(box_.left, whole.left);
    match look {
        Dress::Plain { unit, .. } => {
            format!("{name} ({kind}{} {unit}, {share:.2}%)", count(box_.left))
        }
        Dress::Difference {
            left, right, scale, ..
        } => {
            let mut note = match (box_.left, box_.right) {
                (0, _) => format!(", only in {right}"),
                (_, 0) => format!(", only in {left}"),
                _ => String::new(),
            };
            if box_.told == Some(Told::Unsure) {
                note.push_str(", not to be told from chance");
            }
            let (left, right, note) = (plain(left), plain(right), plain(&note));
            let (was, is, delta) = match scale {
                Difference::Shares => {
                    let other = 100.0 * part_of(box_.right, whole.right);
                    (
                        format!("{share:.2}%"),
                        format!("{other:.2}%"),
                        format!("{:+.2} points", other - share),
                    )
                }
                Difference::Per { unit, .. } => {
                    let (was, is) = (box_.left as f64 / 1e6, box_.right as f64 / 1e6);
                    (
                        format!("{was:.2}"),
                        format!("{is:.2}"),
                        format!("{:+.2} {unit}", is - was),
                    )
                }
            };
            format!("{name} ({kind}{left} {was}, {right} {is}, {delta}{note})")
        }
    }
}

/// Without brackets, which would confuse the picture's script.
fn plain(text: &str) -> String {
    text.replace(['(', ')'], "")
}

#[expect(clippy::cast_precision_loss, reason = "a share for the eye")]
fn part_of(value: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        value as f64 / whole as f64
    }
}

/// A label's name and the kind that its ending tells.
fn split_kind(label: &str) -> (&str, &'static str) {
    for (ending, kind) in [
        ("_[k]", "kernel, "),
        ("_[j]", "JIT, "),
        ("_[i]", "inlined, "),
    ] {
        if let Some(name) = label.strip_suffix(ending) {
            return (name, kind);
        }
    }
    (label, "")
}

/// A colour by the kind of frame, the same for the same name in every picture.
fn kind_colour(label: &str) -> (u8, u8, u8) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in label.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let shade =
        |low: u8, span: u64, bits: u32| low + u8::try_from((hash >> bits) % span).unwrap_or(0);
    let (name, kind) = split_kind(label);
    match kind {
        "kernel, " => (shade(232, 22, 8), shade(158, 34, 20), shade(56, 22, 32)),
        "JIT, " => (shade(58, 30, 8), shade(200, 34, 20), shade(76, 30, 32)),
        "inlined, " => (shade(90, 26, 8), shade(186, 30, 20), shade(192, 30, 32)),
        _ if name.contains(".lua:") || name.contains(".lua ") => {
            (shade(140, 26, 8), shade(188, 26, 20), shade(80, 26, 32))
        }
        _ if ["[pruned]", "[deeper]", "[unknown]"].contains(&name) => (190, 190, 190),
        _ => (shade(226, 24, 8), shade(78, 26, 20), shade(78, 34, 32)),
    }
}

/// Nearly grey, with a breath of the direction: it may be chance.
fn unsure_colour(delta: f64) -> (u8, u8, u8) {
    if delta.abs() < 0.0005 {
        (236, 236, 236)
    } else if delta > 0.0 {
        (240, 228, 226)
    } else {
        (226, 229, 240)
    }
}

/// Red for more, blue for less; full at 25 points, and small differences can still be seen.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "within 0 and 255"
)]
fn difference_colour(delta: f64) -> (u8, u8, u8) {
    if delta.abs() < 0.0005 {
        return (236, 236, 236);
    }
    let strength = (delta.abs() / 0.25).min(1.0).sqrt();
    let faded = (232.0 - 162.0 * strength) as u8;
    if delta > 0.0 {
        (244, faded, faded)
    } else {
        (faded, faded, 244)
    }
}

/// The number after `mark`, up to its first other character.
fn number_after(text: &str, mark: &str) -> Option<u64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

/// Two lines of subtitle where inferno knows one.
fn with_subtitle(head: &str, lines: &[String; 2]) -> String {
    let Some((before, after)) = head.split_once(SUBTITLE) else {
        return head.to_owned();
    };
    let Some(text) = before.rfind("<text ") else {
        return head.to_owned();
    };
    format!(
        "{}<text id=\"subtitle\" fill=\"rgb(90,90,90)\" x=\"50.0000%\" y=\"41.00\">{}<tspan x=\"50.0000%\" dy=\"14\">{}</tspan>{after}",
        &before[..text],
        escape(&lines[0]),
        escape(&lines[1]),
    )
}

/// inferno's script writes a bare `..` into frames that have no room for a letter; with a wider
/// limit they stay empty.
fn without_stubs(head: &str) -> String {
    head.replace("w < 2 * known_font_width", "w < 4 * known_font_width")
        .replace(
            "w < 2 * fontsize * fontwidth",
            "w < 4 * fontsize * fontwidth",
        )
}

/// Text for XML and HTML: without characters that they forbid, and nothing in it is markup.
pub(super) fn escape(text: &str) -> String {
    quoted(&printable(text))
}

/// A document of ours as an attribute of another.
pub(super) fn quoted(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
