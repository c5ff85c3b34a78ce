//! Byte formats: bytes in, profile out, and back. Streaming where the format allows it.
//!
//! Never: a file, a socket, or memory without a bound that the caller set.

pub mod ffz;
pub mod folded;
