//! What differs: which host is unlike the others, by how much, where, and how sure that is.
//!
//! In: merged profiles with their seconds, and a seed. Out: rankings, differences and findings, as
//! data. Never: a claim without its interval, sides that were taken differently compared in silence,
//! a file. The statistics are in `coordinator/statistics`; docs/compare.md explains them.

mod comparable;
mod counted;
mod features;
mod gateway;
mod heat;
#[cfg(test)]
mod limits_tests;
mod lines;
mod per;
mod place;
mod ranking;
mod rests;
mod rollup;
mod sentence;
mod sides;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod ways_tests;

pub use comparable::{Circumstances, comparable, unlike};
pub use heat::{Heat, HeatRow, heat, of_seconds};
pub use lines::{Lines, lines_of};
pub use per::Per;
pub use ranking::{FALSE_MAX, FEW_SAMPLES, Gap, HostDifference, PlaceGap, Ranking, rank};
pub use rests::Rests;
pub use rollup::{By, Top, TopRow, grouped, top};
pub use sides::{
    Compared, FrameDifference, NotCompared, Side, Told, compared, denominator_missing,
};

/// The seed for resampling a run: the same run always gives the same intervals.
#[must_use]
pub fn seed(run: &model::RunId) -> u64 {
    let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    run.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}
