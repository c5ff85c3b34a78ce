//! What differs: which host is unlike the others, and which frame makes it so.
//!
//! In: a merged profile. Out: a ranking with its findings, as data. Never: a claim about
//! significance (there are no error bars yet, and every ranking says so), a file.

mod explain;
mod gateway;
mod ranking;
mod rollup;
mod sides;
mod unlike;

pub use ranking::{FEW_SAMPLES, HostDifference, Ranking, rank};
pub use rollup::{By, Top, TopRow, top};
pub use sides::{FrameShare, compared};
pub use unlike::{unlike, unlike_sides};
