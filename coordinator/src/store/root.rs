//! The directory that runs are kept in. In: a run's id, the beginning of one, or a path. Out: the
//! run, or the list of all. Never: a guess between two runs.

use super::{RunDir, RunRecord, RunStore, StoreError};
use model::RunId;
use std::io;
use std::path::{Path, PathBuf};

/// Where runs are kept when nothing else is said.
pub const DEFAULT_ROOT: &str = "fleetflame-runs";

/// Runs as directories below one root.
#[derive(Clone, Debug)]
pub struct DirStore {
    root: PathBuf,
}

/// One run in a list.
#[derive(Debug)]
pub struct Listed {
    /// Where it lies.
    pub path: PathBuf,
    /// Its record, or why it cannot be read.
    pub record: Result<RunRecord, StoreError>,
}

impl DirStore {
    /// The store below `root`; the directory need not be there.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn by_id(&self, name: &str) -> Result<RunDir, StoreError> {
        let wanted = name.to_ascii_uppercase();
        let mut found: Vec<PathBuf> = self
            .directories()?
            .into_iter()
            .filter(|p| {
                p.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(&wanted))
            })
            .collect();
        let unknown = |why| {
            Err(StoreError::Unknown {
                name: name.to_owned(),
                why,
            })
        };
        match found.len() {
            1 => RunDir::open(found.remove(0)),
            0 => unknown(format!(
                "it is no directory, and {} has no run whose id begins so; `fleetflame runs` lists them",
                self.root.display()
            )),
            n => unknown(format!("{n} runs begin so; give more of the id")),
        }
    }

    fn directories(&self) -> Result<Vec<PathBuf>, StoreError> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("read", &self.root))?,
        };
        let mut found: Vec<PathBuf> = entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.is_dir())
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

impl RunStore for DirStore {
    type Run = RunDir;

    fn create(&self, run: RunId) -> Result<RunDir, StoreError> {
        RunDir::create(self.root.join(run.to_string()))
    }

    fn open(&self, name: &str) -> Result<RunDir, StoreError> {
        let id_like =
            !name.is_empty() && name.len() <= 26 && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if id_like && !Path::new(name).exists() {
            self.by_id(name)
        } else {
            RunDir::open(name)
        }
    }

    fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut runs: Vec<Listed> = self
            .directories()?
            .into_iter()
            .filter_map(|path| {
                let record = RunDir::open(&path).ok()?.record();
                Some(Listed { path, record })
            })
            .collect();
        let when = |run: &Listed| {
            run.record
                .as_ref()
                .map(|r| r.started.clone())
                .unwrap_or_default()
        };
        runs.sort_by(|a, b| when(b).cmp(&when(a)).then_with(|| b.path.cmp(&a.path)));
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::tests::record_of;

    #[test]
    fn runs_are_found_by_the_beginning_of_their_id_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::new(folder.path().join("runs"));
        assert!(store.list().unwrap().is_empty());
        for (at, random) in [(1_000, 1), (2_000_000_000, 2)] {
            let mut record = record_of(&["a"]);
            record.id = RunId::from_parts(at, random);
            record.started = crate::store::utc_text(at);
            store
                .create(record.id)
                .unwrap()
                .write_record(&record)
                .unwrap();
        }
        let early = RunId::from_parts(1_000, 1).to_string();
        let late = RunId::from_parts(2_000_000_000, 2).to_string();
        let runs = store.list().unwrap();
        assert!(runs[0].path.ends_with(&late) && runs[1].path.ends_with(&early));
        assert_eq!(
            store.open(&late[..7].to_lowercase()).unwrap().path(),
            runs[0].path
        );
        let both = store.open(&early[..2]).unwrap_err().to_string();
        assert!(both.contains("2 runs begin so"), "{both}");
        let none = store.open("ZZZ").unwrap_err().to_string();
        assert!(none.contains("fleetflame runs"), "{none}");
        assert!(store.open(runs[1].path.to_str().unwrap()).is_ok());
        assert!(matches!(
            store.create(RunId::from_parts(1_000, 1)),
            Err(StoreError::Taken { .. })
        ));
    }
}
