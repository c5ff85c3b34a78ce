//! The statistics of comparing, on numbers alone.
//!
//! In: for each host its blocks (a worker's five seconds) with what was counted in them, and a seed.
//! Out: intervals, verdicts, and how unlike the rest each host is. Never: a frame's name, a clock, a
//! source of randomness of its own, a dependency. docs/compare.md says in words what is done here.
//!
//! A crate of its own, so that it is compiled with optimisation in tests too: they hold it against
//! hundreds of made-up fleets.

mod blocks;
mod bootstrap;
mod distribution;
mod fleet;
mod locate;
mod sides;
pub mod simulation;
mod variance;

pub use blocks::{Host, Scale, ratio};
pub use bootstrap::{Interval, REPLICATES, Random};
pub use distribution::false_discoveries;
pub use fleet::{Fleet, HOSTS_MIN, Judged, judge};
pub use locate::Place;
pub use sides::{Rests, Verdict, compare_sides, judge_sides};
pub use variance::{Noise, noise};
