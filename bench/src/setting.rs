//! What all parts share: arguments, the scratch folder, inputs, peers, the report. In: arguments.
//! Out: interleaved runs. Never: inputs or outputs left behind (`--keep` keeps them).

use crate::Arguments;
use crate::inputs::{Kind, Written, text};
use crate::measure::{Cost, Job};
use crate::peers::{Peers, ours, said};
use crate::table::Report;
use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The seed of all texts.
const SEED: u64 = 7;

/// A run of the benchmark.
#[derive(Debug)]
pub struct Setting {
    /// What was asked for.
    pub arguments: Arguments,
    /// The tools of the field.
    pub peers: Peers,
    /// What was found.
    pub report: Report,
    /// Where inputs and outputs lie.
    pub folder: PathBuf,
    texts: BTreeMap<Kind, (PathBuf, Written)>,
    bar: ProgressBar,
}

impl Setting {
    /// Makes the scratch folder beside the built programs.
    pub fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("no target directory")?;
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let bar = ProgressBar::new_spinner();
        if std::io::stderr().is_terminal() {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Ok(Self {
            report: Report::new(!arguments.quick),
            peers: Peers::new(target.join("bench-peers")),
            folder,
            texts: BTreeMap::new(),
            bar,
            arguments,
        })
    }

    /// The machine, the versions and the day, in a few lines for the record.
    pub fn head(&self) -> anyhow::Result<String> {
        let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find(|l| l.starts_with("model name"));
        let model = model.and_then(|l| l.split(':').nth(1)).unwrap_or("unknown");
        let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
        let load = read("/proc/loadavg");
        let day = said(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        Ok(format!(
            "{day}, {cpus} × {}, Linux {}, load average {} at the start; {} rounds, median (min–max).\n{}; {}.",
            model.trim(),
            read("/proc/sys/kernel/osrelease").trim(),
            load.split(' ').next().unwrap_or("unknown"),
            self.arguments.pairs,
            said(Command::new(ours("fleetflame")?).arg("--version"))?,
            self.peers.versions()
        ))
    }

    /// Says what is done now.
    pub fn step(&self, what: impl Into<String>) {
        let what = what.into();
        if self.bar.is_hidden() {
            let _ = writeln!(std::io::stderr().lock(), "{what}");
        } else {
            self.bar.set_message(what);
        }
    }

    /// Takes the progress line away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }

    /// Removes what lies in the scratch folder.
    pub fn clean(&self) {
        if !self.arguments.keep {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    /// Bytes of a large text.
    pub fn text_bytes(&self) -> u64 {
        if self.arguments.quick {
            40_000_000
        } else {
            400_000_000
        }
    }

    /// The size of a large text in words.
    pub fn size(&self) -> String {
        format!("{} MB", self.text_bytes() / 1_000_000)
    }

    /// A large text, made when it is first asked for.
    pub fn text(&mut self, kind: Kind) -> anyhow::Result<(PathBuf, Written)> {
        if let Some(made) = self.texts.get(&kind) {
            return Ok(made.clone());
        }
        let path = self.out(kind.word());
        self.step(format!("making {} of {}", self.size(), kind.word()));
        let mut sink = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let written = text::write(&mut sink, kind, self.text_bytes(), SEED)
            .with_context(|| format!("writing {}", path.display()))?;
        self.texts.insert(kind, (path.clone(), written));
        Ok((path, written))
    }

    /// A file in the scratch folder.
    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A job of fleetflame, its output in the scratch folder.
    pub fn fleetflame<'a>(
        &self,
        out: &str,
        arguments: impl IntoIterator<Item = &'a std::ffi::OsStr>,
    ) -> anyhow::Result<Job> {
        Ok(Job::to(self.out(out)).pipe(&ours("fleetflame")?, arguments))
    }

    /// A peer, or a line in the report that says what to install.
    pub fn peer<T>(
        &mut self,
        part: &'static str,
        what: &str,
        peer: anyhow::Result<T>,
    ) -> Option<T> {
        peer.map_err(|e| self.report.not_run(part, what, format!("{e:#}")))
            .ok()
    }

    /// Runs all jobs in turn, as often as pairs were asked for; each second time in reverse order.
    /// One list of costs for each job.
    pub fn rounds(&self, what: &str, jobs: &[&Job]) -> anyhow::Result<Vec<Vec<Cost>>> {
        self.rounds_of(self.arguments.pairs, what, jobs)
    }

    /// The same with a number of rounds.
    pub fn rounds_of(
        &self,
        rounds: usize,
        what: &str,
        jobs: &[&Job],
    ) -> anyhow::Result<Vec<Vec<Cost>>> {
        let mut costs = vec![Vec::new(); jobs.len()];
        for round in 0..rounds {
            for place in 0..jobs.len() {
                let number = if round % 2 == 0 {
                    place
                } else {
                    jobs.len() - 1 - place
                };
                self.step(format!(
                    "{what}: round {} of {rounds}, {} of {}",
                    round + 1,
                    place + 1,
                    jobs.len()
                ));
                costs[number].push(jobs[number].run()?);
            }
        }
        Ok(costs)
    }

    /// Whether this machine has room for something large: `bytes` of memory and twice as many on disk.
    pub fn room_for(&self, bytes: u64) -> anyhow::Result<()> {
        ensure!(
            self.arguments.large(),
            "--no-large and --quick leave it out"
        );
        let about = std::fs::read_to_string("/proc/meminfo")?;
        let line = about.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let memory = kib.context("no MemAvailable in /proc/meminfo")? << 10;
        let disk = nix::sys::statvfs::statvfs(&self.folder)?;
        let disk = disk.blocks_available() * disk.fragment_size();
        ensure!(
            memory >= bytes && disk >= 2 * bytes,
            "it needs {} GiB of memory and {} GiB of disk, there are {} and {}",
            bytes >> 30,
            bytes >> 29,
            memory >> 30,
            disk >> 30
        );
        Ok(())
    }

    /// Does a piece of a part; an error is reported, and the rest goes on.
    pub fn attempt(
        &mut self,
        part: &'static str,
        what: &str,
        work: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) {
        if let Err(e) = work(self) {
            self.report.failed(part, what, &e);
        }
    }
}

/// CPU seconds.
pub fn cpu_s(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|c| c.cpu_s).collect()
}

/// Peaks in MiB.
pub fn peaks_mib(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(Cost::peak_mib).collect()
}

/// Arguments of any kind of text as one list.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsStr::new($arg)),*] };
}
