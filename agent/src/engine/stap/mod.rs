//! SystemTap as an engine.
//!
//! ```text
//!  targets ─▶ files ─▶ module (found or built by stap -p4) ─▶ staprun ─pipe─▶ report ─▶ stacks ─▶ recorder
//!     └──────── +PID, -PID, go ─────▶ /proc/systemtap/NAME/control
//! ```
//! In: an order. Out: stacks. Never: a shell; guru mode or another option that takes the kernel's guards away; a second
//! capture on the machine; a module that outlives its capture.
//!
//! How it is asked: `--engine stap`, where the host's policy lists it (`engines: [native, perf, stap]`). The agent takes
//! a module that lies in /var/lib/fleetflame/modules (`NAME.ko` with `NAME.json`, owned by root and closed to others;
//! `fleetflame-agent build-module` makes both, on any machine) if it is of this kernel, probe, rate and script; else it
//! builds one with the stap and the kernel headers of the host. Without stap it needs staprun only.
//!
//! `messages` and `diagnose` say what SystemTap's words mean, `remedy` what is tried then, `sizes` how large its tables
//! are, `command` what it is asked, `report` reads what a probe prints (all pure); `probes` embeds the scripts; `module`
//! finds built ones, `build` builds, `offline` for other hosts; `tool` knows the machine; `run` holds one loaded module,
//! `last` asks for its last report, `recover` gets what is left of one whose reader was killed; `stacks` names what comes; `capture` is a capture's life,
//! `again` what follows a run that SystemTap ended, `engine` the trait; `script` does the same for a script of the user's,
//! `script_bind` says for whom, `script_module` finds one that was built elsewhere, `script_offline` builds it there.
//! Samples of the probe `lua` are copied and unwound here: `vms` tells its module where LuaJIT's VMs are. Probes that fire on
//! every event are looked at before the start: `rate`. `heap` finds the file with malloc. `kernel_tree` lists the functions
//! that they are put on.

mod again;
mod build;
mod capture;
mod command;
mod diagnose;
mod engine;
mod heap;
mod kernel_tree;
mod last;
mod messages;
mod module;
mod offline;
mod probes;
mod rate;
mod recover;
mod remedy;
mod report;
mod run;
mod script;
mod script_bind;
mod script_loading;
mod script_module;
mod script_offline;
mod script_stacks;
mod sizes;
mod stacks;
mod tool;
mod vms;

pub use engine::StapEngine;
pub use offline::{OfflineBuild, build_offline};
pub(super) use probes::PROBES;
pub use script::ScriptEngine;
pub use script_offline::{OfflineScript, build_script_offline};
pub(super) use tool::survey;

/// What SystemTap's words on standard error mean.
#[must_use]
pub fn stap_meaning(stderr: &str) -> Vec<model::Finding> {
    diagnose::diagnose(stderr).findings
}
