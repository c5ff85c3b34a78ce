//! `fleetflame example`: files that work. In: which. Out: its text. Never: an example that no
//! test reads.

use super::COMPLETE;
use super::output::Output;
use crate::spec::{CAPTURE, FLEET, POLICY};
use clap::{Args, ValueEnum};
use serde_json::json;

/// Arguments of `example`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame example capture > job.yaml
  fleetflame example fleet > fleet.yaml
  fleetflame example policy | sudo tee /etc/fleetflame/policy.yaml")]
pub struct ExampleArgs {
    /// Which file
    #[arg(value_name = "FILE")]
    which: Which,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// A job: what to capture, where, how long
    Capture,
    /// A host's policy: what its agent may do
    Policy,
    /// An inventory of hosts with labels
    Fleet,
}

pub fn example(args: &ExampleArgs, output: &Output) -> anyhow::Result<u8> {
    let text = match args.which {
        Which::Capture => CAPTURE,
        Which::Policy => POLICY,
        Which::Fleet => FLEET,
    };
    if output.json {
        output.document(&json!({ "text": text }))?
    } else {
        output.data(text)?
    }
    Ok(COMPLETE)
}
