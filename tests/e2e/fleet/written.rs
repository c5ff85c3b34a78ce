//! What a run has written: its record, its profile, its folded stacks. In: a run directory. Out:
//! counts by host. Never: a count that only one of the files knows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fleetflame::store::{RunDir, RunRecord};
use model::format::ffz::Want;
use model::profile::Profile;
use model::{FindingCode, HostCoverage};

/// A run directory that was read.
pub struct Written {
    /// Where it lies.
    pub path: PathBuf,
    /// `run.json`.
    pub record: RunRecord,
    /// `profile.ffz`, with every second.
    pub profile: Profile,
}

impl Written {
    /// Reads the run in `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let dir = RunDir::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            record: dir.record()?,
            profile: dir.profile(Want::Cells)?,
        })
    }

    /// A host's part of the coverage.
    pub fn host(&self, name: &str) -> Result<&HostCoverage> {
        let host = self.record.coverage.hosts.get(name);
        host.with_context(|| format!("run.json has no host {name}"))
    }

    /// Samples of one host in the profile's totals.
    pub fn samples(&self, host: &str) -> u64 {
        let of_host = self.profile.select(|series| series.host == host);
        of_host.values().map(|values| values[0]).sum()
    }

    /// Samples of one host by second.
    pub fn seconds(&self, host: &str) -> BTreeMap<u32, u64> {
        let mut seconds = BTreeMap::new();
        for ((series, bin), cell) in &self.profile.cells {
            if self
                .profile
                .series
                .get(*series)
                .is_some_and(|s| s.host == host)
            {
                *seconds.entry(*bin).or_default() += cell.values.iter().map(|v| v[0]).sum::<u64>();
            }
        }
        seconds
    }

    /// Whether a finding of this code is about `host`.
    pub fn has(&self, code: FindingCode, host: &str) -> bool {
        let findings = self.record.all_findings();
        findings
            .iter()
            .any(|f| f.code == code && f.host.as_deref() == Some(host))
    }

    /// Fails unless every way of adding the run up gives the same: totals, seconds, merged stacks,
    /// hosts' stacks.
    pub fn check_sums(&self) -> Result<u64> {
        let total = self.profile.grand_total()[0];
        let cells = self.profile.cells.values().flat_map(|cell| &cell.values);
        let seconds: u64 = cells.map(|values| values[0]).sum();
        ensure!(
            seconds == total,
            "seconds add up to {seconds}, totals to {total}"
        );
        let merged = self.folded("merged.folded")?;
        let mut hosts = BTreeMap::<String, u64>::new();
        for name in self.profile.hosts() {
            let samples = self.samples(&name);
            if samples == 0 {
                continue; // known by name only: nothing was drawn of it
            }
            let folded = self.folded(&format!("hosts/{name}.folded"))?;
            let sum: u64 = folded.values().sum();
            ensure!(
                sum == samples,
                "{name}: {sum} in its folded file, {samples} in the profile"
            );
            for (stack, count) in folded {
                *hosts.entry(stack).or_default() += count;
            }
        }
        ensure!(
            merged == hosts,
            "merged.folded is not the sum of hosts/*.folded"
        );
        let sum: u64 = merged.values().sum();
        ensure!(
            sum == total,
            "merged.folded adds up to {sum}, the profile to {total}"
        );
        Ok(total)
    }

    /// A folded file, by stack.
    pub fn folded(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = fs::read_to_string(self.path.join(name)).with_context(|| name.to_owned())?;
        let line = |line: &str| {
            let (stack, count) = line.rsplit_once(' ').context("a line without count")?;
            Ok((stack.to_owned(), count.parse()?))
        };
        text.lines().map(line).collect()
    }

    /// The mode of a file below the run directory.
    pub fn mode(&self, name: &str) -> Result<u32> {
        let meta = fs::symlink_metadata(self.path.join(name)).with_context(|| name.to_owned())?;
        Ok(meta.mode() & 0o777)
    }
}
