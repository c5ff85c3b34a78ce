//! `fleetflame-agent expand`: what stap would get, by the options of stap++.
//!
//! In: a script, arguments, a target. Out: the expanded script, its modules, or the command that
//! would run it. Never: stap started, a folder made that was not asked for, or an argument in a text
//! before all of them were checked.

use super::USAGE;
use super::script_files::{Given, ModuleFolders};
use crate::host::program::{children_of, libraries_of_process, libraries_of_program, program_of};
use crate::stapxx::{
    self, Bindings, Composed, Expansion, Purpose, Source, check_path, check_value, shell_words,
};
use model::{Finding, FindingCode};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  fleetflame-agent expand lj-lua-stacks.sxx -x 4711 --arg time=10
                                  the script as stap would get it (stap++ --dump-src)
  fleetflame-agent expand sample-bt.sxx --master 4700 --arg time=5 --command
                                  the command that stap++ would run, ready for a shell
  fleetflame-agent expand a.sxx -x 4711 --modules DIR > DIR/a.stp && stap -I DIR -x 4711 DIR/a.stp
                                  without stap++
  fleetflame-agent expand a.sxx -x 4711 --modules DIR --explain stap.err
                                  stap's complaints with lines and columns of a.sxx and its modules
  fleetflame-agent expand a.sxx --hash
                                  the line by which a host's policy allows this very script";

/// Arguments of the verb: those of stap++, and a few of our own.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,
    /// A value for $^arg_NAME
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    values: Vec<String>,
    /// Lists the script's arguments instead (as the verb args does)
    #[arg(long)]
    args: bool,
    /// A process: its program and libraries for $^exec_path and $^libNAME_path
    #[arg(short = 'x', value_name = "PID")]
    process: Option<u32>,
    /// A process whose children are the target
    #[arg(long, value_name = "PID")]
    master: Option<u32>,
    /// A program, run by whatever process
    #[arg(long, value_name = "PATH")]
    exec: Option<PathBuf>,
    /// A process to take the list of libraries from
    #[arg(long, value_name = "PID")]
    sample_pid: Option<u32>,
    /// A file whose debug information stap shall load
    #[arg(short = 'd', value_name = "PATH")]
    debug_info: Vec<String>,
    /// A definition for the C code that stap writes
    #[arg(short = 'D', value_name = "NAME=VALUE")]
    defines: Vec<String>,
    /// A command that stap shall run and end with
    #[arg(short = 'c', value_name = "CMD")]
    shell_command: Option<String>,
    /// Lets stap read 0 where it finds no variable
    #[arg(long)]
    skip_badvars: bool,
    /// Makes stap talk
    #[arg(short = 'v')]
    verbose: bool,
    /// Prints the expanded script: what is done anyway
    #[arg(long)]
    dump_src: bool,
    /// An option of stap itself, from a list of harmless ones: --stap=-t
    #[arg(long = "stap", value_name = "OPTION", allow_hyphen_values = true)]
    passed_on: Vec<String>,
    /// Prints the command that runs the script instead
    #[arg(long)]
    command: bool,
    /// Writes the modules into this folder, for stap -I
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Refuses what is almost surely a mistake
    #[arg(long)]
    strict: bool,
    /// Prints stap's complaints in this file with places in your own files instead
    #[arg(long, value_name = "STDERR", conflicts_with = "command")]
    explain: Option<PathBuf>,
    /// Prints the hash by which a policy allows this script and its modules
    #[arg(long, conflicts_with_all = ["command", "explain"])]
    hash: bool,
}

/// Runs the verb.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    match answer(arguments) {
        Ok(bytes) => match std::io::stdout().lock().write_all(&bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("fleetflame-agent: cannot write: {e}");
                ExitCode::FAILURE
            }
        },
        Err(said) => {
            eprintln!("{said}");
            ExitCode::from(USAGE)
        }
    }
}

/// What goes to standard output; talk goes to standard error at once.
pub(super) fn answer(arguments: &Arguments) -> Result<Vec<u8>, String> {
    let values = values(&arguments.values)?;
    let mut options = Vec::new();
    for option in &arguments.passed_on {
        options.push(Composed::allowed_option(option)?.to_owned());
    }
    if arguments.args && !values.is_empty() {
        return Err("No --arg is allowed when --args is specified.".to_owned());
    }
    let (script, folders) = arguments.given.script()?;
    if arguments.args {
        return Ok(super::args::list(&script, &folders, false)?.into_bytes());
    }
    if arguments.hash {
        return hash(&script, &folders).map(|hash| format!("{hash}\n").into_bytes());
    }
    let target = target(arguments, values)?;
    let mut composed = Composed {
        verbose: arguments.verbose,
        debug_info: arguments.debug_info.clone(),
        skip_badvars: arguments.skip_badvars,
        defines: arguments.defines.clone(),
        passed_on: options,
        command: arguments.shell_command.clone(),
        ..target.composed
    };
    target.findings.iter().for_each(tell);
    let find = &mut |name: &str| folders.find(name);
    let done =
        stapxx::expand(&script, &target.bindings, Purpose::Run, find).map_err(|e| e.to_string())?;
    let mistakes: Vec<String> = done
        .notices
        .iter()
        .inspect(|notice| eprintln!("{notice}"))
        .filter(|notice| notice.is_mistake())
        .map(ToString::to_string)
        .collect();
    if arguments.strict && !mistakes.is_empty() {
        let said = mistakes.join("; ");
        return Err(refusal(Finding::new(FindingCode::ScriptSuspicious, said)));
    }
    if target.processes > 0 {
        let filter = stapxx::filter_of(&script.bytes);
        let (_, findings) = stapxx::runs_for(&script.file, filter, target.processes);
        findings.iter().for_each(tell);
    }
    if let Some(folder) = &arguments.modules {
        write_modules(folder, &done)
            .map_err(|e| format!("Cannot write modules to {}: {e}", folder.display()))?;
    }
    composed.module_dir = match &arguments.modules {
        Some(folder) => folder.display().to_string(),
        None => "stapxx-XXXXXXXX".to_owned(),
    };
    if let Some(file) = &arguments.explain {
        return explain(file, &done, &script, &composed.module_dir);
    }
    if arguments.command {
        return Ok(format!("{}\n", shell_words(&composed.argv())).into_bytes());
    }
    Ok(done.script.text)
}

fn refusal(finding: Finding) -> String {
    format!("fleetflame-agent: {finding}")
}

fn unreachable_target(why: String) -> String {
    refusal(Finding::new(FindingCode::ScriptTarget, why))
}

fn tell(finding: &Finding) {
    eprintln!("fleetflame-agent: {finding}");
}

/// `NAME=VALUE` of each `--arg`, all of them checked; the last of a name holds.
fn values(given: &[String]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut values = BTreeMap::new();
    for pair in given {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(format!("--arg {pair}: write NAME=VALUE"));
        };
        check_value(name, value.as_bytes()).map_err(refusal)?;
        values.insert(name.to_owned(), value.as_bytes().to_vec());
    }
    Ok(values)
}

/// What was found of the target.
#[derive(Default)]
struct FoundTarget {
    bindings: Bindings,
    composed: Composed,
    findings: Vec<Finding>,
    /// How many processes are meant; 0 when any may be.
    processes: usize,
}

fn target(arguments: &Arguments, values: BTreeMap<String, Vec<u8>>) -> Result<FoundTarget, String> {
    let mut found = FoundTarget::default();
    found.bindings.arguments = values;
    if let Some(path) = &arguments.exec {
        let text = path.display().to_string();
        check_path(&text).map_err(refusal)?;
        found.add_libraries(libraries_of_program(path)?)?;
        found.bindings.exec_path = Some(text.clone());
        found.composed.exec = Some((text, found.libraries()));
    }
    match (arguments.process, arguments.master) {
        (Some(_), Some(_)) => {
            return Err("-x <pid> and --master <pid> are exclusive.".to_owned());
        }
        (Some(pid), None) => {
            found.add_program(pid)?;
            found.composed.process = Some(pid);
            found.bindings = found.bindings.for_process(pid);
            found.processes = 1;
            found.add_process(pid)?;
            found.composed.libraries = found.libraries();
        }
        (None, Some(master)) => {
            found.add_program(master)?;
            let workers = children_of(master);
            let Some(first) = workers.first() else {
                return Err(format!("No child processes found for {master}."));
            };
            found.bindings = found.bindings.for_processes(&workers);
            found.processes = workers.len();
            found.add_process(*first)?;
            found.composed.libraries = found.libraries();
        }
        (None, None) => {}
    }
    if let Some(pid) = arguments.sample_pid {
        found.add_process(pid)?;
        found.composed.sampled = found.libraries();
    }
    if found.bindings.exec_path.is_some() {
        found.bindings = found.bindings.for_any();
    }
    Ok(found)
}

impl FoundTarget {
    fn libraries(&self) -> Vec<String> {
        self.bindings.libraries.iter().cloned().collect()
    }

    /// The program of a process, unless `--exec` said it.
    fn add_program(&mut self, pid: u32) -> Result<(), String> {
        let program = program_of(pid)?;
        if self.bindings.exec_path.is_some() {
            return Ok(());
        }
        if program.is_replaced {
            let said = format!(
                "{} was replaced on disk since process {pid} started: \
                 probes would go into the new file, and never be hit",
                program.path
            );
            return Err(unreachable_target(said));
        }
        let path = program
            .visible_path(&program.path)
            .map_err(unreachable_target)?;
        check_path(&path).map_err(refusal)?;
        self.bindings.exec_path = Some(path.clone());
        self.composed.program = Some(path);
        Ok(())
    }

    /// The libraries of a process.
    fn add_process(&mut self, pid: u32) -> Result<(), String> {
        let mapped = libraries_of_process(pid)?;
        for path in mapped.deleted {
            let said = format!(
                "{path} was replaced on disk since process {pid} mapped it; it is left out"
            );
            self.findings
                .push(Finding::new(FindingCode::TargetFile, said));
        }
        let program = program_of(pid)?;
        let mut visible = Vec::new();
        for path in &mapped.libraries {
            match program.visible_path(path) {
                Ok(path) => visible.push(path),
                Err(why) => self
                    .findings
                    .push(Finding::new(FindingCode::TargetFile, why)),
            }
        }
        self.add_libraries(visible)
    }

    fn add_libraries(&mut self, paths: impl IntoIterator<Item = String>) -> Result<(), String> {
        for path in paths {
            check_path(&path).map_err(refusal)?;
            self.bindings.libraries.insert(path);
        }
        Ok(())
    }
}

/// The hash of the script and the modules that it reaches whatever its arguments are.
fn hash(script: &Source, folders: &ModuleFolders) -> Result<String, String> {
    let modules = modules(script, folders)?;
    let modules = modules.iter().map(|(name, source)| (name.as_str(), source));
    Ok(stapxx::script_hash(&script.bytes, modules))
}

/// The modules that a script reaches whatever its arguments are.
pub(super) fn modules(
    script: &Source,
    folders: &ModuleFolders,
) -> Result<BTreeMap<String, Source>, String> {
    let mut modules = BTreeMap::new();
    let find = &mut |name: &str| {
        let source = folders.find(name)?;
        modules.insert(name.to_owned(), source.clone());
        Some(source)
    };
    stapxx::expand(script, &Bindings::default(), Purpose::List, find).map_err(|e| e.to_string())?;
    Ok(modules)
}

/// Names of modules are letters, digits, underscores and dots between them: no path can be made of
/// them.
fn write_modules(folder: &Path, done: &Expansion) -> std::io::Result<()> {
    if !folder.is_dir() {
        std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    }
    for (name, module) in &done.modules {
        std::fs::write(folder.join(format!("{name}.stp")), &module.text)?;
    }
    Ok(())
}

/// Stap's words with the user's places: of a script on standard input, or in a file of its name.
fn explain(
    file: &Path,
    done: &Expansion,
    script: &Source,
    module_dir: &str,
) -> Result<Vec<u8>, String> {
    let said = std::fs::read(file)
        .map_err(|e| format!("Cannot open {} for reading: {e}", file.display()))?;
    let said = String::from_utf8_lossy(&said);
    let stem = Path::new(&script.file).with_extension("stp");
    let as_file = Path::new(module_dir).join(stem.file_name().unwrap_or_default());
    let said = done.map_back(&said, "<input>", module_dir);
    let said = done.map_back(&said, &as_file.display().to_string(), module_dir);
    Ok(said.into_bytes())
}
