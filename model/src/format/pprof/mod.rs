//! Google's `profile.proto`: the profile format that most tools read.
//!
//! In: its bytes without gzip. Out: a profile of its own; and back, as gzip. Never: memory without
//! a bound, or a sum that differs from the input's.
//!
//! The fields are those of <https://github.com/google/pprof/blob/main/proto/profile.proto>. They are
//! few, so they are read and written by hand; tests compare with types that prost derives.

mod guess;
mod measures;
mod read;
mod tables;
mod wire;
mod write;

pub use read::PprofReader;
pub use write::{Taken, write, write_taken};

#[cfg(test)]
mod tests;
