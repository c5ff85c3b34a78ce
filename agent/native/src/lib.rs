//! The native engine: samples stacks of running processes with the kernel's own timer, or of
//! waiting ones at their context switches, and unwinds and names them here. No foreign tool, no debuginfo, no kernel module.
//!
//! In: a [`NativeConfig`] (which processes, how often). Out: rows in a
//! [`model::profile::Recorder`], a [`NativeSummary`], findings.
//! Never: a target stopped, a target's file mapped, work at real-time priority beyond taking a
//! record and reading memory within a millisecond.
//!
//! ```text
//!  perf ring ─▶ capture (pinned, FIFO) ─▶ queue ─▶ drain ─▶ unwind ─▶ fold ─▶ recorder
//!                                          scan: targets, schedstat ─────────▲
//! ```
//! The only unsafe code is in `sys` (system calls) and `ring` (memory shared with the kernel).

mod addresses;
mod arch;
mod arming;
mod attr;
mod budget;
mod capture;
mod cfi;
mod cgroup;
mod check;
mod clock;
mod config;
mod copied;
mod cycle;
mod dither;
mod drain;
mod elf;
mod file;
mod fold;
mod host;
mod interpose;
mod kallsyms;
mod live;
mod luajit;
mod maps;
mod mode;
mod modules;
mod offcpu;
mod privileges;
mod proc;
mod process;
mod quality;
mod record;
mod registry;
mod request_path;
mod requests;
mod ring;
mod sampler;
mod scan;
mod schedstat;
mod space;
mod steps;
mod summary;
mod symbols;
mod sys;
mod targets;
mod tasks;
mod unwind;
mod words;

pub use addresses::{AddressNames, MappedImage};
pub use arch::Regs;
pub use budget::{Budget, BudgetRequest, plan as plan_budget};
pub use cgroup::{GroupSelector, Groups};
pub use check::{NativeReport, check};
pub use clock::ClockOffset;
pub use config::{NativeConfig, Pick, TargetSelector};
pub use copied::{CopiedSample, VmPlace};
pub use file::read_in_root_of;
pub use host::{GatewayProcess, gateways, give_usual_priority, lower_own_priority};
pub use mode::{Mode, Priority};
pub use offcpu::{Recorded, WaitTotals};
pub use privileges::{no_new_privileges, root_would_have};
pub use proc::{cpu_ns, online_cpus, sysctl, thread_name, threads};
pub use registry::Window;
pub use sampler::{Armed, Sampler};
pub use steps::PeriodSteps;
pub use summary::NativeSummary;
pub use sys::{mono_ns, read_process};
pub use targets::{TargetUse, TargetWatch};
