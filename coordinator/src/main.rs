//! The program `fleetflame`. In: arguments. Out: an exit code. Never: logic.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    fleetflame::cli::finish(fleetflame::cli::run(fleetflame::cli::Cli::parse()))
}
