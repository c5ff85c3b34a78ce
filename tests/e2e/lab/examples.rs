//! Our own examples of scripts: their arguments in the lab, their hashes, their modules.
//!
//! In: the files of agent/probes/examples. Out: what a policy says to allow them, modules for the guests' kernel by the agent's
//! own verb. Never: a module that is built twice: they lie in the lab's folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::lab::Kit;
use fleetflame_tests::{Binaries, Child};

use crate::stap_engine::SAFE;

pub(crate) const NGINX: &str = "/usr/sbin/nginx";
pub(crate) const BUILD: Duration = Duration::from_mins(4);
pub(crate) const TIME: &str = "time=5";

/// One example for each kind of output: its file, what it is for, the values of its arguments.
pub(crate) const EXAMPLES: [(&str, &[&str]); 6] = [
    ("syscall-latency.sxx", &[TIME]),
    ("syscall-results.sxx", &[TIME, "to=200", "step=5"]),
    ("syscall-rate.sxx", &[TIME]),
    ("syscall-top.sxx", &[TIME, "limit=5"]),
    ("slow-syscalls.sxx", &[TIME, "limit_us=20"]),
    ("stacks.sxx", &[TIME]),
];

pub(crate) fn example(script: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("agent/probes/examples").join(script)
}

/// What the owner of a host would be told to write into its policy.
pub(crate) fn hash(script: &str) -> Result<String> {
    let mut command = Binaries::find()?.agent();
    command.args(["expand", "--hash"]).arg(example(script));
    let done = Child::spawn(command)?.finish(SAFE)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(done.stdout.trim().to_owned())
}

pub(crate) fn policy(scripts: &[&str]) -> Result<String> {
    let mut policy = format!("{}scripts:\n", crate::stap_engine::POLICY);
    for script in scripts {
        policy.push_str(&format!("  - {}\n", hash(script)?));
    }
    Ok(policy)
}

/// Modules of all examples, of the one with stacks for `program` and of the others for nginx: two at a time, a compiler is
/// one process.
pub(crate) fn build_all(kit: &Kit, program: &Path) -> Result<Vec<PathBuf>> {
    let wanted = EXAMPLES.map(|(script, arguments)| match script {
        "stacks.sxx" => (script, arguments, program),
        _ => (script, arguments, Path::new(NGINX)),
    });
    let (left, right) = wanted.split_at(wanted.len() / 2);
    let build_each = |wanted: &[(&str, &[&str], &Path)]| -> Result<Vec<PathBuf>> {
        let each = wanted.iter();
        each.map(|(script, arguments, exec)| build(kit, script, arguments, exec, &[]))
            .collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| build_each(left));
        let mut built = build_each(right)?;
        built.extend(other.join().ok().context("a panic")??);
        Ok(built)
    })
}

/// Builds a script's module with the agent's own verb, for the guests' kernel; one that was built before is taken.
pub(crate) fn build(
    kit: &Kit,
    script: &str,
    arguments: &[&str],
    exec: &Path,
    more: &[&str],
) -> Result<PathBuf> {
    let mut command = build_command(kit, &example(script), exec)?;
    command.args(arguments.iter().flat_map(|value| ["--arg", value]));
    command
        .args(more)
        .arg("--out")
        .arg(kit.folder("agent-modules")?);
    let done = Child::spawn(command)?.finish(BUILD)?;
    ensure!(done.status.success(), "{}", done.stderr);
    Ok(PathBuf::from(done.stdout.trim()))
}

pub(crate) fn build_command(kit: &Kit, script: &Path, exec: &Path) -> Result<Command> {
    let mut command = Binaries::find()?.agent();
    command.arg("build-module").arg("--script").arg(script);
    command.arg("--exec").arg(exec);
    command.arg("--kernel").arg(kit.kernel.headers());
    command.arg("--runtime").arg(&kit.runtime);
    Ok(command)
}
