//! The command line: one file per verb.
//!
//! In: arguments. Out: data on stdout, talk on stderr, an exit code of the contract. Never: work
//! that belongs to another room.

mod capture;
mod compat;
mod demo;
mod diff;
mod example;
mod export;
mod flame;
mod fold;
mod folded_difference;
mod gather;
mod heat;
mod hosts;
mod input;
mod job_flags;
mod merge;
mod output;
mod plan;
mod progress;
mod push;
mod rank;
mod reading;
mod runs;
mod script_file;
mod script_modules;
mod script_unit;
mod seconds;
mod show;
mod source_args;
mod tls;
mod top;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use output::Output;
use std::process::ExitCode;

/// Everything that was asked for is there.
pub const COMPLETE: u8 = 0;
/// Something failed that is not the user's doing, such as a damaged file.
pub const FAILED: u8 = 1;
/// Wrong usage or a wrong job spec.
pub const USAGE: u8 = 2;
/// The result is written, and its findings say what is missing.
pub const PARTIAL: u8 = 3;
/// Nothing was captured, or an input has no stacks.
pub const NOTHING: u8 = 4;
/// Every host refused, by policy or for want of privileges.
pub const REFUSED: u8 = 5;
/// Interrupted; what was captured is kept.
pub const INTERRUPTED: u8 = 130;

/// Profiles a whole gateway cluster at once: one flame graph for the cluster, one for each host,
/// the difference between any two sides, and how far the result can be trusted.
#[derive(Debug, Parser)]
#[command(
    name = "fleetflame",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  fleetflame demo                   a real fleet on this machine, captured and drawn
  fleetflame capture --local --target nginx --duration 10s
  fleetflame show 01JD3K            a run: coverage, findings, top frames
  fleetflame flame stacks.folded -o stacks.svg
  fleetflame diff run:kong-2 run:rest-of:kong-2 -o kong-2.svg

Exit codes: 0 complete, 1 failed, 2 wrong usage or job spec, 3 partial (the findings say what is
missing), 4 nothing captured, 5 every host refused, 130 interrupted."
)]
pub struct Cli {
    /// One JSON document on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// No talk on stderr but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Capture the fleet: plan, dispatch, merge, compare, draw
    Capture(Box<capture::CaptureArgs>),
    /// Show every host's order and why, without touching anything
    Plan(Box<plan::PlanArgs>),
    /// Show what each host can do, what is missing, and what to do about it
    Doctor(Box<plan::DoctorArgs>),
    /// Fetch what agents still hold of a run that lost its coordinator
    Collect(capture::CollectArgs),
    /// List stored runs
    Runs(runs::RunsArgs),
    /// Show one run: coverage, ranking, top frames, findings
    Show(show::ShowArgs),
    /// Show where the samples are, by function or module
    Top(top::TopArgs),
    /// Any known input as folded stacks
    Fold(fold::FoldArgs),
    /// The sum of many inputs
    Merge(merge::MergeArgs),
    /// A run or a file in another format: folded, pprof, speedscope, ffz, OTLP
    Export(export::ExportArgs),
    /// Hand a run to a store of profiles: Pyroscope, Parca
    Push(push::PushArgs),
    /// Draw a flame graph of runs or files
    Flame(flame::FlameArgs),
    /// Draw who was hot when: every worker and second of a run
    Heat(heat::HeatArgs),
    /// Draw the difference of two sides
    Diff(diff::DiffArgs),
    /// Say which host is unlike the others: of runs, or of files from elsewhere
    Rank(rank::RankArgs),
    /// Print a commented file that works
    Example(example::ExampleArgs),
    /// Make certificates for a fleet
    Tls(tls::TlsArgs),
    /// Capture and draw a real fleet on this machine
    Demo(demo::DemoArgs),
}

/// Does what was asked for.
///
/// # Errors
/// Whatever stood in the way; [`finish`] tells it and gives the exit code.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let output = Output::new(cli.json, cli.quiet);
    match cli.verb {
        Verb::Capture(args) => capture::capture(&args, &output),
        Verb::Plan(args) => plan::plan_verb(&args, &output),
        Verb::Doctor(args) => plan::doctor(&args, &output),
        Verb::Collect(args) => capture::collect(&args, &output),
        Verb::Tls(args) => tls::tls(&args, &output),
        Verb::Demo(args) => demo::demo(&args, &output),
        Verb::Runs(args) => runs::runs(&args, &output),
        Verb::Show(args) => show::show(&args, &output),
        Verb::Top(args) => top::top(&args, &output),
        Verb::Fold(args) => fold::fold(&args, &output),
        Verb::Merge(args) => merge::merge(&args, &output),
        Verb::Export(args) => export::export(&args, &output),
        Verb::Push(args) => push::push(&args, &output),
        Verb::Flame(args) => flame::flame(&args, &output),
        Verb::Heat(args) => heat::heat(&args, &output),
        Verb::Diff(args) => diff::diff(&args, &output),
        Verb::Rank(args) => rank::rank(&args, &output),
        Verb::Example(args) => example::example(&args, &output),
    }
}

/// The runtime that verbs with hosts run on.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.context("failed to start the runtime")
}

/// Tells an error with all its causes, and gives the exit code.
pub fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(COMPLETE),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(output::code_of(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound_and_every_verb_has_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands().filter(|v| v.get_name() != "help") {
            let help = verb.clone().render_long_help().to_string();
            assert!(
                help.contains("Examples:\n  fleetflame "),
                "{} has no examples",
                verb.get_name()
            );
        }
    }
}
