//! `fleetflame-agent args`: what a script asks for.
//!
//! In: a script and its modules. Out: each argument with its default, or that it is required. Never:
//! a default shown that does not hold: an argument is required when it is used before its default.

use super::USAGE;
use super::script_files::{Given, ModuleFolders};
use crate::stapxx::{self, Asked, Bindings, Purpose, Source};
use serde::Serialize;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  fleetflame-agent args lj-lua-stacks.sxx
  fleetflame-agent args --json -I tapset a.sxx | jq '.arguments[] | select(.required).name'";

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
#[must_use]
#[expect(clippy::print_stdout, reason = "the list is this verb's output")]
pub fn run(arguments: &Arguments) -> ExitCode {
    match answer(arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(said) => {
            eprintln!("{said}");
            ExitCode::from(USAGE)
        }
    }
}

/// What goes to standard output.
pub(super) fn answer(arguments: &Arguments) -> Result<String, String> {
    let (script, folders) = arguments.given.script()?;
    list(&script, &folders, arguments.json)
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    file: &'a str,
    arguments: Vec<Row<'a>>,
}

/// One argument.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    required: bool,
    /// The default that holds.
    default: Option<String>,
    /// A default that stands too late in the script to hold.
    late_default: Option<String>,
    /// Where it stands first.
    file: &'a str,
    line: u32,
    column: u32,
}

impl<'a> Row<'a> {
    fn new(name: &'a str, asked: &'a Asked) -> Self {
        let text = |bytes: &Option<Vec<u8>>| {
            let bytes = bytes.as_ref()?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        Self {
            name,
            required: asked.default.is_none(),
            default: text(&asked.default),
            late_default: text(&asked.late_default),
            file: &asked.first.file,
            line: asked.first.line,
            column: asked.first.column,
        }
    }

    fn line(&self) -> String {
        let note = match (&self.default, &self.late_default) {
            (Some(default), _) => format!("(default: {default})"),
            (None, Some(late)) => {
                format!("(required: its default {late:?} stands behind its first use)")
            }
            (None, None) => "(required)".to_owned(),
        };
        format!("\t--arg {}=VALUE {note}\n", self.name)
    }
}

/// The list of a script's arguments, for people or as JSON.
///
/// # Errors
/// What is wrong with the script.
pub(super) fn list(script: &Source, folders: &ModuleFolders, json: bool) -> Result<String, String> {
    let find = &mut |name: &str| folders.find(name);
    let done = stapxx::expand(script, &Bindings::default(), Purpose::List, find)
        .map_err(|e| e.to_string())?;
    let rows = done
        .arguments
        .iter()
        .map(|(name, asked)| Row::new(name, asked));
    if !json {
        return Ok(rows.map(|row| row.line()).collect());
    }
    let document = Document {
        file: &script.file,
        arguments: rows.collect(),
    };
    serde_json::to_string_pretty(&document)
        .map(|text| text + "\n")
        .map_err(|e| e.to_string())
}
