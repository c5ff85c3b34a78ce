//! What an installed agent keeps of a run that lost its coordinator.
//!
//! ```text
//! STATE/held/RUN   0600:  "fleetflame-held 1\n" · JSON line (HeldHead) · (epoch u32 seq u64 len u32 ffz)*
//! ```
//! In: unacknowledged batches. Out: the same, for `collect`. Never: more than 64 MiB in all, longer
//! than 24 h, or through a symlink.

use super::command::Event;
use super::outbox::Batch;
use model::coverage::CaptureStats;
use model::{Finding, RunId};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAGIC: &[u8] = b"fleetflame-held 1\n";
/// All held runs together.
const BYTES_MAX: u64 = 64 << 20;
/// After this they are removed.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A file that is still being written after this belongs to a dead agent.
const HALF_WRITTEN_MAX: Duration = Duration::from_secs(60);

/// What stands beside the batches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct HeldHead {
    pub(super) host: String,
    pub(super) stats: CaptureStats,
    pub(super) findings: Vec<Finding>,
    pub(super) last: (u32, u64),
    pub(super) complete: bool,
}

/// A run that is held.
pub(super) struct Held {
    pub(super) head: HeldHead,
    pub(super) batches: Vec<Batch>,
}

/// The folder of held runs; none for an agent that is not installed.
#[derive(Clone, Debug, Default)]
pub struct HeldStore {
    folder: Option<PathBuf>,
}

impl HeldStore {
    /// Opens (and makes, 0700) `STATE/held`, and removes what is too old.
    ///
    /// # Errors
    /// The operating system's, when the folder cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("held");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let store = Self {
            folder: Some(folder),
        };
        store.purge();
        Ok(store)
    }

    /// Holds nothing: what is unacknowledged when the lease ends is lost, and counted as missing
    /// by the coordinator.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Runs that are held.
    #[must_use]
    pub fn runs(&self) -> Vec<RunId> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names
            .filter_map(|e| RunId::parse(e.file_name().to_str()?).ok())
            .collect()
    }

    pub(super) fn save<'a>(
        &self,
        run: RunId,
        head: &HeldHead,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        self.purge();
        let mut bytes = MAGIC.to_vec();
        serde_json::to_writer(&mut bytes, head)?;
        bytes.push(b'\n');
        for batch in batches {
            let len = u32::try_from(batch.ffz.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&batch.epoch.to_le_bytes());
            bytes.extend_from_slice(&batch.seq.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&batch.ffz);
        }
        let others: u64 = sizes(folder).map(|(_, size, _)| size).sum();
        if others + bytes.len() as u64 > BYTES_MAX {
            return Err(io::Error::other("the 64 MiB for held runs are full"));
        }
        let part = folder.join(format!(".{run}.part"));
        let _ = fs::remove_file(&part);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&part, folder.join(run.to_string()))
    }

    pub(super) fn load(&self, run: RunId) -> Option<Held> {
        let path = self.folder.as_ref()?.join(run.to_string());
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let mut bytes = Vec::new();
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .ok()?;
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
        parse(&bytes)
    }

    /// What a capture would have said: the batches after (epoch, seq), and its end. None when
    /// nothing of this run is held.
    #[must_use]
    pub fn replay(&self, run: RunId, epoch: u32, seq: u64) -> Option<Vec<Event>> {
        let Held { head, batches } = self.load(run)?;
        let later = batches
            .into_iter()
            .filter(|b| (b.epoch, b.seq) > (epoch, seq));
        let mut events: Vec<Event> = later
            .map(|b| Event::Batch {
                epoch: b.epoch,
                seq: b.seq,
                ffz: b.ffz,
            })
            .collect();
        events.push(Event::Finished {
            stats: Box::new(head.stats),
            findings: head.findings,
            last: head.last,
            complete: head.complete,
        });
        Some(events)
    }

    /// Forgets a run.
    pub fn remove(&self, run: RunId) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(folder.join(run.to_string()));
        }
    }

    fn purge(&self) {
        let Some(folder) = &self.folder else { return };
        for (path, _, age) in sizes(folder) {
            let half_written = path.extension().is_some_and(|e| e == "part");
            if age > AGE_MAX || (half_written && age > HALF_WRITTEN_MAX) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn sizes(folder: &Path) -> impl Iterator<Item = (PathBuf, u64, Duration)> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            let age = meta.modified().ok()?.elapsed().unwrap_or_default();
            Some((entry.path(), meta.len(), age))
        })
}

fn parse(bytes: &[u8]) -> Option<Held> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let line = rest.iter().position(|b| *b == b'\n')?;
    let head = serde_json::from_slice(&rest[..line]).ok()?;
    let mut rest = &rest[line + 1..];
    let mut batches = Vec::new();
    while let Some((front, tail)) = rest.split_at_checked(16) {
        let epoch = u32::from_le_bytes(front[..4].try_into().ok()?);
        let seq = u64::from_le_bytes(front[4..12].try_into().ok()?);
        let len = u32::from_le_bytes(front[12..].try_into().ok()?) as usize;
        let (ffz, tail) = tail.split_at_checked(len)?;
        batches.push(Batch {
            epoch,
            seq,
            ffz: ffz.to_vec(),
        });
        rest = tail;
    }
    rest.is_empty().then_some(Held { head, batches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_held_comes_back_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = HeldStore::open(dir.path()).unwrap();
        let run = RunId::from_parts(5, 6);
        let batches: Vec<Batch> = (1..4)
            .map(|seq| Batch {
                epoch: 1,
                seq,
                ffz: vec![7; 10 * seq as usize],
            })
            .collect();
        let head = HeldHead {
            host: "a".into(),
            last: (1, 3),
            ..HeldHead::default()
        };
        store.save(run, &head, batches.iter()).unwrap();
        assert_eq!(store.runs(), [run]);
        let mode = fs::metadata(dir.path().join("held").join(run.to_string()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let held = store.load(run).unwrap();
        assert_eq!((held.batches, held.head.last), (batches, (1, 3)));
        store.remove(run);
        assert!(store.load(run).is_none() && store.runs().is_empty());
    }

    #[test]
    fn a_damaged_file_is_nothing_and_too_much_is_refused() {
        assert!(parse(b"fleetflame-held 1\n{}").is_none());
        let dir = tempfile::tempdir().unwrap();
        let store = HeldStore::open(dir.path()).unwrap();
        let batch = Batch {
            epoch: 1,
            seq: 1,
            ffz: vec![0; 40 << 20],
        };
        let head = HeldHead::default();
        store
            .save(RunId::from_parts(1, 1), &head, [&batch].into_iter())
            .unwrap();
        assert!(
            store
                .save(RunId::from_parts(1, 2), &head, [&batch].into_iter())
                .is_err()
        );
    }
}
