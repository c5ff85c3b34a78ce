//! What is measured on: made-up texts and fleets, always the same. In: kinds, sizes, seeds. Out:
//! bytes and profiles. Never: an input from elsewhere, or one that differs from run to run.

pub mod fleet;
pub mod functions;
pub mod random;
pub mod stacks;
pub mod text;

pub use fleet::Fleet;
pub use text::{Kind, Written};
