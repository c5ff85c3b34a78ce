//! `make bench`: fleetflame beside the tools of the field, on the same work, in one run.
//!
//! In: built binaries, the system's perf, a C compiler. Out: a table of CPU seconds and ratios.
//! Never: a number from elsewhere, a peer that is left out in silence (NOT RUN, and exit 3), or a
//! verdict by wall clock.

mod figures;
mod sampler;
mod wire;

use clap::Parser;
use figures::Report;
use std::process::ExitCode;

/// What to measure, and how long.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Interleaved pairs
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of each capture
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Only these parts: sampler, wire
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|o| o == part);
    let mut report = Report::default();
    println!("{}", figures::machine());
    if wanted("wire") {
        wire::measure(&mut report);
    }
    if wanted("sampler")
        && let Err(e) = sampler::measure(&arguments, &mut report)
    {
        report.not_run("sampler", &format!("{e:#}"));
    }
    println!("{report}");
    if report.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    }
}
