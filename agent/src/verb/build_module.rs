//! `fleetflame-agent build-module`: a module for hosts that cannot build one.
//!
//! In: a built-in probe, or a script with its arguments; a kernel, files. Out: the module's file on standard output, talk
//! on standard error. Never: a module loaded.

use super::script_files::Given;
use crate::engine::{OfflineBuild, OfflineScript, build_offline, build_script_offline};
use crate::process::Processes;
use crate::stapxx::PROCESSES_MAX;
use anyhow::Context;
use model::Finding;
use model::script::{Script, ScriptModule};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  fleetflame-agent build-module --cpus 8 --kernel 6.1.0-56-amd64 --image /usr/sbin/nginx --out ./modules
                                  a built-in probe
  fleetflame-agent build-module --script slow.sxx --arg limit_us=1000 --exec /usr/sbin/nginx \\
      --kernel 6.1.0-56-amd64 --out ./modules
                                  a script, for capture --probe script:slow.sxx --arg limit_us=1000";

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The built-in probe: oncpu-user, oncpu-mixed (with kernel stacks), offcpu-user, offcpu-mixed, lua, vfs,
    /// lock
    #[arg(long, default_value = "oncpu-mixed", conflicts_with = "script")]
    probe: String,
    /// A script instead
    #[arg(long, value_name = "FILE", requires = "exec")]
    script: Option<PathBuf>,
    /// A value for the script's $^arg_NAME
    #[arg(long = "arg", value_name = "NAME=VALUE", requires = "script")]
    values: Vec<String>,
    /// A folder with modules for the script's @use, as for expand
    #[arg(short = 'I', value_name = "DIR", requires = "script")]
    include: Vec<PathBuf>,
    /// The program that the script is for: $^exec_path
    #[arg(long, value_name = "FILE", requires = "script")]
    exec: Option<String>,
    /// Most processes for which the script is loaded at once, where it has $^pid_ok
    #[arg(long, value_name = "N", default_value_t = 16, requires = "script",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    processes: u32,
    /// Samples a second and CPU of the jobs that it is for
    #[arg(long, default_value_t = 99, conflicts_with = "script")]
    hz: u32,
    /// Microseconds of the shortest wait or call that counts, of an offcpu probe, vfs or lock: the jobs'
    /// --min-wait
    #[arg(
        long,
        value_name = "US",
        default_value_t = 0,
        conflicts_with = "script"
    )]
    min_wait_us: u32,
    /// CPUs of the largest host that it is for
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "script",
        conflicts_with = "script"
    )]
    cpus: Option<u32>,
    /// The jobs' memory_mb_max
    #[arg(long, default_value_t = 256, conflicts_with = "script")]
    memory_mb: u32,
    /// The kernel: its release, or the folder of its build files
    #[arg(long, value_name = "RELEASE|DIR")]
    kernel: PathBuf,
    /// Another runtime than SystemTap's own (stap -R)
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// A file that targets have mapped as code; may be given often. Of a script's program the libraries
    /// that the loader takes, unless some are named
    #[arg(long, value_name = "FILE")]
    image: Vec<String>,
    /// Where NAME.ko and NAME.json go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Builds it; gives the module's file.
///
/// # Errors
/// That it was not built; why stands on standard error.
pub async fn run(asked: Arguments, processes: &Processes) -> anyhow::Result<PathBuf> {
    let built = match (&asked.script, &asked.exec) {
        (Some(file), Some(exec)) => {
            let offline = OfflineScript {
                script: script(file, &asked)?,
                exec: exec.clone(),
                images: asked.image.clone(),
                processes: asked.processes,
                kernel: asked.kernel,
                runtime: asked.runtime,
                out: asked.out,
            };
            build_script_offline(processes, &offline).await
        }
        _ => {
            let offline = OfflineBuild {
                probe: asked.probe,
                sample_hz: asked.hz,
                min_wait_us: asked.min_wait_us,
                cpus: asked.cpus.unwrap_or(1),
                memory_mb: asked.memory_mb,
                kernel: asked.kernel,
                runtime: asked.runtime,
                images: asked.image,
                out: asked.out,
            };
            build_offline(processes, &offline).await
        }
    };
    let (Ok((_, findings)) | Err(findings)) = &built;
    findings.iter().for_each(|f: &Finding| eprintln!("{f}"));
    let (file, _) = built.map_err(|_| anyhow::anyhow!("the module was not built"))?;
    Ok(file)
}

/// The script with its modules, as an order would bring them.
fn script(file: &Path, asked: &Arguments) -> anyhow::Result<Script> {
    let text = |bytes: Vec<u8>, of: &str| {
        String::from_utf8(bytes).with_context(|| format!("{of} is not UTF-8"))
    };
    let given = Given::of_file(file, &asked.include);
    let (source, folders) = given.script().map_err(anyhow::Error::msg)?;
    let used = super::expand::modules(&source, &folders).map_err(anyhow::Error::msg)?;
    let mut script = Script {
        file: file
            .file_name()
            .unwrap_or(file.as_os_str())
            .to_string_lossy()
            .into_owned(),
        text: text(source.bytes, &source.file)?,
        ..Script::default()
    };
    for (name, module) in used {
        let text = text(module.bytes, &module.file)?;
        let file = module.file;
        script.modules.insert(name, ScriptModule { file, text });
    }
    for pair in &asked.values {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("--arg {pair}: write NAME=VALUE"))?;
        script.arguments.insert(name.to_owned(), value.to_owned());
    }
    Ok(script)
}
