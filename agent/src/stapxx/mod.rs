//! stap++, the macro language over SystemTap: scripts (`.sxx`) become what stap is given.
//!
//! ```text
//!  script ─┐                       ┌─▶ script.text      stap's standard input
//!  modules ┼─▶ expand ─▶ Expansion ┼─▶ modules          a folder for stap's -I
//!  Bindings┘                       ├─▶ notices          what to tell the user
//!                                  └─▶ map_back         stap's complaints, with the user's lines
//! ```
//! In: bytes and values. Out: bytes and values. Never: a file, a process, a shell. Everything here
//! is a pure function; `agent/src/verb` (the verbs `expand` and `args`) is one caller, an engine
//! another. An engine that runs a script on a host goes this way:
//!
//! 1. [`check_value`] for each `--arg`, before anything else: what it refuses never reaches a text.
//! 2. [`script_hash`] of the script and its modules against the host's policy.
//! 3. [`filter_of`] and [`runs_for`]: whether the script keeps processes apart, hence one run for all
//!    processes or one for each; the findings go to the user before anything is compiled.
//! 4. For each run [`Bindings`] (`for_process`, `for_processes`, `for_any`) with the libraries of
//!    [`libraries_of_maps`], then [`expand`]; its error is a `script-invalid` finding.
//! 5. [`Composed`] gives stap's argument list. `script.text` goes to its standard input, each module to
//!    `NAME.stp` in the folder named there.
//! 6. [`Expansion::map_back`] over stap's standard error.
//!
//! `ordered` goes it for the script of an order. A module that is built elsewhere is of [`expand_ahead`] in place of 4: its processes are told when it is loaded.

mod ahead;
mod bindings;
mod command;
mod expand;
mod line_map;
mod lua_names;
mod maps;
mod notice;
mod ordered;
mod review;
mod scan;
mod traced;
mod value;

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

pub use ahead::{Ahead, PROCESSES_MAX, parameters_for};
pub use bindings::Bindings;
pub use command::{Composed, shell_words};
pub use expand::{Asked, BYTES_MAX, Expanded, Expansion, Purpose, Source, expand};
pub use line_map::{LineMap, Place, Run};
pub use lua_names::LuaNames;
pub use maps::{Mapped, libraries_of_ldd, libraries_of_maps};
pub use notice::{ExpandError, Notice, NoticeKind};
pub use ordered::{
    expand_script, expand_script_ahead, filter_of_script, hash_of, require_no_process_number,
};
pub use review::{
    Filter, Runs, filter_of, filter_of_all, invalid, line_of_process_number, runs_for, script_hash,
};
pub use value::{ValueKind, check_path, check_value};
