//! What the fuzz targets share: reading choices off the fuzzer's bytes, and framing ffz documents
//! whose checksums are right, so that the fuzzer gets past them to what lies inside.
//!
//! In: bytes of the fuzzer. Out: choices, documents. Never: randomness of its own (an input must
//! do the same thing every time).

mod document;
mod input;
mod source;
mod text;

pub use document::document;
pub use input::Input;
pub use source::Guess;
pub use text::read_text;
