//! Byte formats: bytes in, profile out, and back. Streaming where the format allows it.
//!
//! Never: a file, a socket, or memory without a bound that the caller set.

pub mod bpftrace;
pub mod compat;
pub mod dtrace;
pub mod ffz;
pub mod fold;
pub mod folded;
pub mod histogram;
pub mod import;
pub mod in_order;
mod known_lines;
pub mod lines;
pub mod perf_script;
pub mod pprof;
pub mod script_output;
pub mod script_stacks;
pub mod source;
pub mod speedscope;
pub mod stap;
