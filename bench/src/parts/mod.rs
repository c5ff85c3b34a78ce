//! What is measured: one file a part.
//!
//! In: a setting. Out: rows, comparisons, failures in its report. Never: a part that keeps another
//! from running.

mod browser;
mod compare;
mod fold;
mod merge;
mod picture;
mod rank;
mod sampler;
mod stream;
mod wire;

use crate::setting::Setting;

/// A part's name and how it is measured.
pub type Part = (&'static str, fn(&mut Setting) -> anyhow::Result<()>);

/// All parts, in the order that they run in.
pub const PARTS: &[Part] = &[
    ("fold", fold::measure),
    ("picture", picture::measure),
    ("merge", merge::measure),
    ("wire", wire::measure),
    ("stream", stream::measure),
    ("browser", browser::measure),
    ("sampler", sampler::measure),
    ("compare", compare::measure),
    ("rank", rank::measure),
];
