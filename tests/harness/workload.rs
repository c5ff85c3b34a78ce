//! C programs whose profile is known beforehand.
//!
//! In: the name of a source in `workloads/`, and how to build it. Out: a compiled program, kept in the
//! target folder under a name that contains a hash of everything that went into it.
//! Never: a program that outlives its duration or its parent (each source sees to that itself).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Child;
use crate::requirements;
use crate::target_dir::TargetDir;

const COMPILE_DEADLINE: Duration = Duration::from_mins(2);

/// The programs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// `SECONDS DEPTH`: 70 % of its CPU time in `seventy`, 30 % in `thirty`, under a recursion `descend`.
    Split,
    /// A master and workers with a gateway's stacks; options in the source.
    FleetWorker,
    /// `COUNT PARALLEL`: that many children that work for about a millisecond each.
    Spawner,
    /// `COUNT SECONDS`: that many mappings, then work in `work_among_mappings`.
    ManyMappings,
    /// Prints what CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME say, in seconds, and ends.
    Clocks,
    /// `COUNT SECONDS`: threads named `pool-0`, `pool-1`, …, each in its own `work_of_pool`.
    Threads,
    /// `SECONDS`: asleep, 70 % of the time in `sleep70`, 30 % in `sleep30`.
    Waits,
    /// `SECONDS`: bytes written 3 to 1 in `write_most` and `write_less`, a lock waited for 70 to 30 in `wait70` and `wait30`.
    Traffic,
    /// `SECONDS DEPTH [TURNS]`: another of 8^DEPTH stacks each time, with a read of one byte in its `leaf`.
    Stacks,
    /// `SECONDS EVENT DEPTH`: one event again and again; each second how many there were and what CPU they took.
    Paced,
    /// `SECONDS`: bytes that stay allocated, 3 to 1 in `leak_most` and `leak_less`; `free_all` gives back what it takes.
    Leaks,
}

/// How a program is built. The default is what distributions ship: optimised, no frame pointers, symbols kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Build {
    /// Keep frame pointers.
    pub frame_pointers: bool,
    /// No symbol table.
    pub stripped: bool,
    /// No dynamic linking.
    pub statically_linked: bool,
}

impl Workload {
    fn source(self) -> &'static str {
        match self {
            Self::Split => "split.c",
            Self::FleetWorker => "fleet_worker.c",
            Self::Spawner => "spawner.c",
            Self::ManyMappings => "many_mappings.c",
            Self::Clocks => "clocks.c",
            Self::Threads => "threads.c",
            Self::Waits => "waits.c",
            Self::Traffic => "traffic.c",
            Self::Stacks => "stacks.c",
            Self::Paced => "paced.c",
            Self::Leaks => "leaks.c",
        }
    }

    /// The compiled program, ready for arguments.
    pub fn command(self, build: Build) -> Result<Command> {
        Ok(Command::new(self.compile(build)?))
    }

    /// The path of the compiled program; compiled only when its source, headers or flags have changed.
    pub fn compile(self, build: Build) -> Result<PathBuf> {
        // The demo's workload ships with the product.
        let folder = if matches!(self, Workload::FleetWorker) {
            "../coordinator/src/cli"
        } else {
            "workloads"
        };
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let source = sources.join(self.source());
        let folder = TargetDir::current()?.root.join("workloads");
        let stem = source
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("no name")?;
        let compiled = folder.join(format!("{stem}-{:016x}", self.hash_of(&source, build)?));
        if compiled.is_file() {
            return Ok(compiled);
        }
        fs::create_dir_all(&folder)?;
        // Tests compile at the same time, in threads and processes: each into its own folder, then one rename.
        let scratch = tempfile::tempdir_in(&folder)?;
        let output = scratch.path().join(stem);
        let mut gcc = Command::new(requirements::command("gcc")?);
        gcc.args(build.flags()).arg("-o").arg(&output).arg(&source);
        let done = Child::spawn(gcc)?.finish(COMPILE_DEADLINE)?;
        if !done.status.success() {
            bail!("gcc cannot compile {}:\n{}", source.display(), done.stderr);
        }
        fs::rename(&output, &compiled)?;
        Ok(compiled)
    }

    fn hash_of(self, source: &Path, build: Build) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        build.flags().hash(&mut hasher);
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/lifetime.h");
        for file in [source, &header] {
            fs::read(file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

impl Build {
    fn flags(self) -> Vec<&'static str> {
        let mut flags = vec!["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];
        flags.push(match self.frame_pointers {
            true => "-fno-omit-frame-pointer",
            false => "-fomit-frame-pointer",
        });
        flags.extend(self.stripped.then_some("-s"));
        flags.extend(self.statically_linked.then_some("-static"));
        flags
    }
}
