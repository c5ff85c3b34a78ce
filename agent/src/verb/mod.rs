//! Verbs of the command line that are more than a line in `main`: one file each.
//!
//! In: arguments. Out: data on stdout, talk on stderr, an exit code. Never: a capture.

pub mod args;
pub mod build_module;
pub mod expand;
pub mod lua_names;
mod script_files;

#[cfg(test)]
mod tests;

/// Wrong usage, or a script or argument that is refused: the contract's exit code.
pub(crate) const USAGE: u8 = 2;
