//! `fleetflame-agent lua-names`: stacks with the names of Lua functions instead of files and lines.
//!
//! In: what a script printed, and the Lua sources of this host. Out: the same text with names. Never: a
//! line lost, a wait on a FIFO, or an end because a source is gone: its frames stay as they are.

use crate::stapxx::{BYTES_MAX, LuaNames};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  stap++ lj-lua-stacks.sxx -x PID --arg time=5 | fleetflame-agent lua-names > a.bt
  fleetflame-agent lua-names a.bt | fleetflame flame - -o a.svg";

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The stacks; standard input without it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the verb.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let input: Box<dyn Read> = match &arguments.file {
        None => Box::new(io::stdin()),
        Some(path) => match File::open(path) {
            Ok(file) => Box::new(file),
            Err(e) => {
                eprintln!("fleetflame-agent: {}: {e}", path.display());
                return ExitCode::from(super::USAGE);
            }
        },
    };
    match rename(BufReader::new(input), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("fleetflame-agent: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Every line, renamed where it is a Lua frame with a source.
pub(super) fn rename(mut input: impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let mut names = LuaNames::default();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let text = std::str::from_utf8(line.trim_ascii_end()).unwrap_or_default();
        match names.rename(text, &mut |path| source(path)) {
            Some(renamed) => writeln!(output, "{renamed}")?,
            None => output.write_all(&line)?,
        }
        line.clear();
    }
    output.flush()
}

/// A Lua source: the paths come out of stacks, so it may be anything.
fn source(path: &str) -> Option<Vec<u8>> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
