//! Taking batches in: first into the spool, then into the live merge, then they may be
//! acknowledged. In: batches. Out: whether each was new. Never: a batch that is acknowledged and
//! not on disk, or on disk and not in the merge.

use super::compact::rebuild_from_spool;
use super::{HostSpool, RunDir, StoreError};
use crate::merge::{AbsorbError, Absorbed, LiveMerge};
use model::profile::Measure;
use model::{Finding, HostName};
use std::collections::BTreeMap;

/// Why a batch was not taken in. It must not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The batch is bad or comes too early.
    #[error(transparent)]
    Batch(#[from] AbsorbError),
    /// It could not be spooled, such as for a full disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IntakeError {
    /// The finding that stands for it.
    #[must_use]
    pub fn finding(&self, host: &HostName) -> Finding {
        match self {
            Self::Batch(error) => error.finding(host.as_str()),
            Self::Store(error) => error.finding().on(host.as_str()),
        }
    }
}

/// The spools and the merge of a running capture.
#[derive(Debug)]
pub struct Intake {
    run: RunDir,
    live: LiveMerge,
    spools: BTreeMap<HostName, HostSpool>,
}

impl Intake {
    /// For a run that begins.
    #[must_use]
    pub fn begin(run: &RunDir, probe: &str, measures: Vec<Measure>) -> Self {
        Self {
            run: run.clone(),
            live: LiveMerge::new(probe, measures),
            spools: BTreeMap::new(),
        }
    }

    /// For a run that lost its coordinator: positions and totals come from the spools.
    ///
    /// # Errors
    /// [`StoreError`] when a spool cannot be read.
    pub fn resume(
        run: &RunDir,
        probe: &str,
        measures: &[Measure],
    ) -> Result<(Self, Vec<Finding>), StoreError> {
        run.ensure_spool()?;
        let hosts = run.spooled_hosts()?;
        let (live, findings) = rebuild_from_spool(run, probe, measures, &hosts)?;
        Ok((
            Self {
                run: run.clone(),
                live,
                spools: BTreeMap::new(),
            },
            findings,
        ))
    }

    /// Takes in one batch. When it returns [`Absorbed::New`] or [`Absorbed::Duplicate`], the batch
    /// may be acknowledged.
    ///
    /// # Errors
    /// [`IntakeError`]; nothing has changed then.
    pub fn receive(
        &mut self,
        host: &HostName,
        epoch: u32,
        seq: u64,
        ffz: &[u8],
    ) -> Result<Absorbed, IntakeError> {
        if self.live.expect(host.as_str(), epoch, seq)? == Absorbed::Duplicate {
            return Ok(Absorbed::Duplicate);
        }
        let spool = match self.spools.entry(host.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(HostSpool::open(&self.run.spool_path(host))?.0)
            }
        };
        spool.append(epoch, seq, ffz)?;
        match self.live.absorb(host.as_str(), epoch, seq, ffz) {
            Ok(absorbed) => Ok(absorbed),
            Err(error) => {
                spool.retract()?;
                Err(error.into())
            }
        }
    }

    /// The sum so far, and where each host stands.
    #[must_use]
    pub fn live(&self) -> &LiveMerge {
        &self.live
    }

    /// Closes the spools.
    #[must_use]
    pub fn into_live(self) -> LiveMerge {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests_support::Feeder;
    use model::FindingCode;

    #[test]
    fn a_refused_batch_leaves_no_trace_and_a_restart_goes_on_where_it_stood() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let host = HostName::new("a").unwrap();
        let mut feeder = Feeder::new("a");
        feeder.add(0, &["m", "x"], 3);
        let first = feeder.batch();
        feeder.add(1, &["m", "y"], 4);
        let second = feeder.batch();
        let mut intake = Intake::begin(&run, "on-cpu", Measure::on_cpu());
        intake.receive(&host, 2, 1, &first).unwrap();
        let bad = intake.receive(&host, 2, 2, b"ffz\x01rubbish").unwrap_err();
        assert_eq!(bad.finding(&host).code, FindingCode::BatchDamaged);
        assert_eq!(
            intake.receive(&host, 2, 1, &first).unwrap(),
            Absorbed::Duplicate
        );
        drop(intake);
        let (mut intake, findings) = Intake::resume(&run, "on-cpu", &Measure::on_cpu()).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(intake.live().position("a"), (2, 2));
        intake.receive(&host, 2, 2, &second).unwrap();
        assert_eq!(intake.live().profile().grand_total()[0], 7);
    }

    #[test]
    fn a_spool_that_cannot_be_written_is_a_finding() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        std::fs::remove_dir(run.path().join("spool")).unwrap();
        let mut feeder = Feeder::new("a");
        feeder.add(0, &["m"], 3);
        let host = HostName::new("a").unwrap();
        let mut intake = Intake::begin(&run, "on-cpu", Measure::on_cpu());
        let error = intake.receive(&host, 0, 1, &feeder.batch()).unwrap_err();
        assert_eq!(error.finding(&host).code, FindingCode::DiskFull);
        assert_eq!(intake.live().position("a"), (0, 1));
    }
}
