//! Imitations of other tools' output, byte for byte, for those who compare with old files.
//!
//! In: the text that the other tool reads. Out: what it would write. Never: a use of them inside
//! fleetflame, whose own readers lose nothing.

pub mod difference;
pub mod perf;
pub mod stap;
