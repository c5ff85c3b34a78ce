//! From spools to the profile. In: a run's spools. Out: the live merge as it was, or `profile.ffz`
//! with every second of every host. Never: all seconds of all hosts in memory at once, or a profile
//! whose totals on disk are not those that were merged.

use super::{PROFILE_FILE, RunDir, SpoolReader, StoreError, Tail};
use crate::merge::LiveMerge;
use model::format::ffz::{FfzError, ProfileWriter, Want};
use model::profile::{Keep, Measure, Profile, Values, add_values};
use model::{Finding, FindingCode, HostName};
use std::io::{self, Write};

/// A compacted run.
#[derive(Debug)]
pub struct Compacted {
    /// The merged profile: totals and counters, no seconds (those are in `profile.ffz`).
    pub profile: Profile,
    /// Torn spools and batches that could not be taken.
    pub findings: Vec<Finding>,
}

/// Replays the spools of `hosts` into a live merge: totals and positions are as they were when the
/// last whole batch had been taken.
///
/// # Errors
/// [`StoreError::Io`] when a spool cannot be read. A torn or damaged one is a finding.
pub fn rebuild_from_spool(
    run: &RunDir,
    probe: &str,
    measures: &[Measure],
    hosts: &[HostName],
) -> Result<(LiveMerge, Vec<Finding>), StoreError> {
    let mut live = LiveMerge::new(probe, measures.to_vec());
    let mut findings = Vec::new();
    for host in hosts {
        findings.extend(replay(run, host, &mut live)?);
    }
    Ok((live, findings))
}

/// Writes `profile.ffz` from the spools of `hosts`, which stay.
///
/// # Errors
/// [`StoreError`]; it can be tried again.
pub fn compact(
    run: &RunDir,
    probe: &str,
    measures: &[Measure],
    hosts: &[HostName],
) -> Result<Compacted, StoreError> {
    let (live, findings) = rebuild_from_spool(run, probe, measures, hosts)?;
    let profile = run.write_with(PROFILE_FILE, |sink| {
        let path = run.path().join(PROFILE_FILE);
        let mut sink = Remembering { sink, error: None };
        let written = write_profile(run, live.into_profile(), hosts, &mut sink);
        written.map_err(|failure| match (failure, sink.error) {
            (Failure::Ffz(FfzError::Write(_)), Some(source)) => StoreError::Io {
                what: "write",
                path,
                source,
            },
            (Failure::Ffz(source), _) => StoreError::Profile { path, source },
            (Failure::Store(error), _) => error,
        })
    })?;
    check(run, &profile)?;
    Ok(Compacted { profile, findings })
}

enum Failure {
    Ffz(FfzError),
    Store(StoreError),
}

impl From<FfzError> for Failure {
    fn from(error: FfzError) -> Self {
        Self::Ffz(error)
    }
}

/// Dictionary and totals first, then the seconds of one host after the other. Replaying a host
/// over the finished dictionary gives the same numbers again, since tables are append-only.
fn write_profile(
    run: &RunDir,
    mut profile: Profile,
    hosts: &[HostName],
    sink: &mut impl Write,
) -> Result<Profile, Failure> {
    let mut writer = ProfileWriter::begin(sink, &profile)?;
    let totals = std::mem::take(&mut profile.totals);
    let counters = std::mem::take(&mut profile.counters);
    let mut cells_sum = Values::default();
    for host in hosts {
        let mut one = LiveMerge::over(profile, Keep::Cells);
        replay(run, host, &mut one).map_err(Failure::Store)?;
        profile = one.into_profile();
        profile.totals.clear();
        profile.counters.clear();
        for ((series, bin), cell) in std::mem::take(&mut profile.cells) {
            cell.values
                .iter()
                .for_each(|v| add_values(&mut cells_sum, v));
            writer.cell(series, bin, &cell)?;
        }
    }
    writer.finish()?;
    (profile.totals, profile.counters) = (totals, counters);
    if profile.grand_total() == cells_sum {
        return Ok(profile);
    }
    Err(Failure::Store(StoreError::Unequal {
        path: run.path().join(PROFILE_FILE),
        found: format!("{cells_sum:?}"),
        expected: format!("{:?}", profile.grand_total()),
    }))
}

/// Reads the totals back from the disk.
fn check(run: &RunDir, profile: &Profile) -> Result<(), StoreError> {
    let found = run.profile(Want::Totals)?.grand_total();
    let expected = profile.grand_total();
    if found == expected {
        return Ok(());
    }
    Err(StoreError::Unequal {
        path: run.path().join(PROFILE_FILE),
        found: format!("{found:?}"),
        expected: format!("{expected:?}"),
    })
}

/// Feeds a host's spool to a merge; what is torn or refused becomes a finding.
fn replay(run: &RunDir, host: &HostName, live: &mut LiveMerge) -> Result<Vec<Finding>, StoreError> {
    let path = run.spool_path(host);
    let mut reader = match SpoolReader::open(&path) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        reader => reader?,
    };
    let mut findings = Vec::new();
    for record in reader.by_ref() {
        let record = record?;
        if let Err(error) = live.absorb(host.as_str(), record.epoch, record.seq, &record.payload) {
            findings.push(error.finding(host.as_str()));
        }
    }
    findings.dedup_by_key(|f| f.code); // one cause refuses every batch after it
    if let Tail::Torn { at, bytes } = reader.tail() {
        let said =
            format!("the spool is whole up to byte {at}; the {bytes} bytes after it were not read");
        findings.push(Finding::new(FindingCode::BatchDamaged, said).on(host.as_str()));
    }
    Ok(findings)
}

/// Passes bytes on and remembers the system's error, which ffz tells only in words.
struct Remembering<W> {
    sink: W,
    error: Option<io::Error>,
}

impl<W: Write> Write for Remembering<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink
            .write(bytes)
            .inspect_err(|e| self.error = e.raw_os_error().map(io::Error::from_raw_os_error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink
            .flush()
            .inspect_err(|e| self.error = e.raw_os_error().map(io::Error::from_raw_os_error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests_support::Feeder;
    use crate::store::Intake;
    use proptest::prelude::*;

    fn names(hosts: &[&str]) -> Vec<HostName> {
        hosts.iter().map(|h| HostName::new(*h).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_profile_on_disk_is_exactly_the_live_merge_with_its_seconds(
            rows in prop::collection::vec((0_usize..3, 0_u32..4, 0_usize..4, 1_u64..50, any::<bool>()), 1..30),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let run = RunDir::create(folder.path().join("run")).unwrap();
            let hosts = names(&["a", "b", "c"]);
            let mut feeders: Vec<Feeder> = hosts.iter().map(|h| Feeder::new(h.as_str())).collect();
            let mut intake = Intake::begin(&run, "on-cpu", Measure::on_cpu());
            let stacks: [&[&str]; 4] = [&["m"], &["m", "x"], &["m", "x", "y"], &["m", "z"]];
            let mut reference = Profile::new("on-cpu", Measure::on_cpu());
            for (host, bin, stack, samples, new_epoch) in rows {
                let (feeder, name) = (&mut feeders[host], &hosts[host]);
                let (mut epoch, mut seq) = intake.live().position(name.as_str());
                if new_epoch {
                    feeder.recorder.restart_dictionary();
                    (epoch, seq) = (epoch + 1, 1);
                }
                feeder.add(bin, stacks[stack], samples);
                intake.receive(name, epoch, seq, &feeder.batch()).unwrap();
                // The same samples, recorded apart and never spooled.
                let mut twin = Feeder::new(name.as_str());
                twin.add(bin, stacks[stack], samples);
                let segment = twin.recorder.take(usize::MAX);
                reference.absorb(&mut Default::default(), name.as_str(), &segment, Keep::Cells).unwrap();
            }
            let live = intake.into_live();
            let (again, findings) = rebuild_from_spool(&run, "on-cpu", &Measure::on_cpu(), &hosts).unwrap();
            prop_assert!(findings.is_empty());
            prop_assert_eq!(again.profile().canonical(), live.profile().canonical());
            for host in &hosts {
                prop_assert_eq!(again.position(host.as_str()), live.position(host.as_str()));
            }
            let done = compact(&run, "on-cpu", &Measure::on_cpu(), &hosts).unwrap();
            prop_assert!(done.findings.is_empty());
            prop_assert_eq!(done.profile.canonical(), live.profile().canonical());
            prop_assert_eq!(run.profile(Want::Cells).unwrap().canonical(), reference.canonical());
            prop_assert!(!run.is_settled());
            run.remove_spool().unwrap();
            prop_assert!(run.spooled_hosts().unwrap().is_empty() && run.is_settled());
        }
    }

    #[test]
    fn a_torn_spool_gives_what_is_whole_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let hosts = names(&["a", "b"]);
        let mut intake = Intake::begin(&run, "on-cpu", Measure::on_cpu());
        let mut a = Feeder::new("a");
        for seq in 1..=3 {
            a.add(0, &["m"], 10);
            intake.receive(&hosts[0], 0, seq, &a.batch()).unwrap();
        }
        drop(intake);
        let path = run.spool_path(&hosts[0]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let done = compact(&run, "on-cpu", &Measure::on_cpu(), &hosts).unwrap();
        assert_eq!(done.profile.grand_total()[0], 20);
        assert_eq!(done.findings.len(), 1);
        assert_eq!(done.findings[0].code, FindingCode::BatchDamaged);
    }
}
