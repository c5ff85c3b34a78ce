//! One run's directory. In: file names below it and their bytes. Out: files of mode 0600 in
//! directories of mode 0700, put in place whole by a rename. Never: a file of somebody else
//! overwritten, or written through a symbolic link.

use super::{RunRecord, StoreError};
use model::HostName;
use model::format::ffz::{Limits, Want, decode_profile};
use model::profile::Profile;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The lossless profile of a run.
pub const PROFILE_FILE: &str = "profile.ffz";
const RECORD_FILE: &str = "run.json";
const SPOOL_DIR: &str = "spool";
const SPOOL_SUFFIX: &str = ".spool";

/// A directory that holds one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes a run directory at `path`, which must be absent or an empty directory.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when something is there already.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        if let Some(above) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder
                .create(above)
                .map_err(StoreError::io("create the directory", above))?;
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => take_empty(&path)?,
            Err(e) => return Err(StoreError::io("create the directory", &path)(e)),
        }
        let run = Self { path };
        run.subdirectory(SPOOL_DIR)?;
        Ok(run)
    }

    /// Opens the run directory at `path`.
    ///
    /// # Errors
    /// [`StoreError::NotARun`] when it has no record.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let why = match std::fs::metadata(&path) {
            Err(e) => e.to_string(),
            Ok(m) if !m.is_dir() => "it is not a directory".to_owned(),
            Ok(_) if !path.join(RECORD_FILE).is_file() => format!("it has no {RECORD_FILE}"),
            Ok(_) => return Ok(Self { path }),
        };
        Err(StoreError::NotARun { path, why })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `bytes` in place as `name`, a relative path of plain names such as `hosts/a.svg`.
    ///
    /// # Errors
    /// [`StoreError`]; the file is then as it was before.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.target(name)?;
        self.write_with(name, |sink| {
            sink.write_all(bytes)
                .map_err(StoreError::io("write", &target))
        })
    }

    /// Puts what `fill` writes in place as `name`, after it has reached the disk.
    ///
    /// # Errors
    /// [`StoreError`]; the file is then as it was before.
    pub fn write_with<T>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let target = self.target(name)?;
        let above = target.parent().unwrap_or(&self.path).to_owned();
        let temporary = above.join(format!(
            ".{}.new-{}",
            target.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ));
        let _ = std::fs::remove_file(&temporary); // left over by a crash of the same process id
        let filled = self.fill_and_rename(&temporary, &target, fill);
        if filled.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        let value = filled?;
        sync_directory(&above)?;
        Ok(value)
    }

    fn fill_and_rename<T>(
        &self,
        temporary: &Path,
        target: &Path,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = private().create_new(true).write(true).open(temporary);
        let mut sink = BufWriter::new(file.map_err(StoreError::io("create", temporary))?);
        let value = fill(&mut sink)?;
        let file = sink
            .into_inner()
            .map_err(|e| StoreError::io("write", target)(e.into_error()))?;
        file.sync_all().map_err(StoreError::io("write", target))?;
        drop(file);
        std::fs::rename(temporary, target).map_err(StoreError::io("put in place", target))?;
        Ok(value)
    }

    /// The bytes of `name`.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.path.join(plain(name)?);
        let mut bytes = Vec::new();
        let file = private()
            .read(true)
            .open(&path)
            .map_err(StoreError::io("read", &path))?;
        (&file)
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", &path))?;
        Ok(bytes)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`StoreError`] as for [`RunDir::write`].
    pub fn write_record(&self, record: &RunRecord) -> Result<(), StoreError> {
        let path = self.path.join(RECORD_FILE);
        let mut text = serde_json::to_vec_pretty(record)
            .map_err(|source| StoreError::Record { path, source })?;
        text.push(b'\n');
        self.write(RECORD_FILE, &text)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`StoreError::Schema`] or [`StoreError::Record`] when it cannot be understood.
    pub fn record(&self) -> Result<RunRecord, StoreError> {
        RunRecord::parse(&self.read(RECORD_FILE)?, &self.path.join(RECORD_FILE))
    }

    /// Reads the run's profile; `want` says whether seconds are decoded.
    ///
    /// # Errors
    /// [`StoreError`] when it is absent or damaged.
    pub fn profile(&self, want: Want) -> Result<Profile, StoreError> {
        let bytes = self.read(PROFILE_FILE)?;
        decode_profile(&bytes, Limits::FILE, want).map_err(|source| StoreError::Profile {
            path: self.path.join(PROFILE_FILE),
            source,
        })
    }

    /// Where a host's batches are spooled.
    #[must_use]
    pub fn spool_path(&self, host: &HostName) -> PathBuf {
        self.path
            .join(SPOOL_DIR)
            .join(format!("{host}{SPOOL_SUFFIX}"))
    }

    /// The hosts that have a spool, sorted; none after the profile was written.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder cannot be read.
    pub fn spooled_hosts(&self) -> Result<Vec<HostName>, StoreError> {
        let folder = self.path.join(SPOOL_DIR);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("read", &folder))?,
        };
        let mut hosts: Vec<HostName> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| HostName::new(name.strip_suffix(SPOOL_SUFFIX)?).ok())
            .collect();
        hosts.sort_unstable();
        Ok(hosts)
    }

    /// Whether the profile is all there will ever be: it is written, and the spools that another
    /// one could be made of are gone.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.path.join(PROFILE_FILE).is_file() && !self.path.join(SPOOL_DIR).exists()
    }

    /// Makes the spool's folder anew, for a run that is taken up again by `collect`.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be made.
    pub fn ensure_spool(&self) -> Result<(), StoreError> {
        self.subdirectory(SPOOL_DIR)
    }

    /// Removes the spool's folder. Only when profile, pictures and record are in place: nothing can be
    /// made again after that.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be removed.
    pub fn remove_spool(&self) -> Result<(), StoreError> {
        let folder = self.path.join(SPOOL_DIR);
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &folder)(e))
            }
            _ => Ok(()),
        }
    }

    /// The full path of a file that is to be written; its directory is there afterwards.
    fn target(&self, name: &str) -> Result<PathBuf, StoreError> {
        let name = plain(name)?;
        if let Some(above) = name
            .parent()
            .and_then(Path::to_str)
            .filter(|p| !p.is_empty())
        {
            self.subdirectory(above)?;
        }
        Ok(self.path.join(name))
    }

    fn subdirectory(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(()),
            Err(_) if std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) => Ok(()),
            Err(e) => Err(StoreError::io("create the directory", &path)(e)),
        }
    }
}

/// Options for files that only the owner may read and that are no symbolic links.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// Makes a rename or a new name reach the disk.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(StoreError::io("write", path))
}

/// An existing directory is taken when it is empty and no symbolic link.
fn take_empty(path: &Path) -> Result<(), StoreError> {
    let taken = || StoreError::Taken {
        path: path.to_owned(),
    };
    let about = std::fs::symlink_metadata(path).map_err(StoreError::io("look at", path))?;
    if !about.is_dir() {
        return Err(taken());
    }
    let mut entries = std::fs::read_dir(path).map_err(StoreError::io("read", path))?;
    if entries.next().is_some() {
        return Err(taken());
    }
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(StoreError::io("make private", path))
}

fn plain(name: &str) -> Result<&Path, StoreError> {
    let path = Path::new(name);
    let good = !name.is_empty() && path.components().all(|c| matches!(c, Component::Normal(_)));
    if good {
        Ok(path)
    } else {
        Err(StoreError::Name(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn a_run_is_private_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path().join("runs/one")).unwrap();
        run.write("hosts/a.svg", b"<svg/>").unwrap();
        run.write("hosts/a.svg", b"<svg></svg>").unwrap();
        assert_eq!(run.read("hosts/a.svg").unwrap(), b"<svg></svg>");
        assert_eq!(mode(run.path()), 0o700);
        assert_eq!(mode(&root.path().join("runs")), 0o700);
        assert_eq!(mode(&run.path().join("hosts")), 0o700);
        assert_eq!(mode(&run.path().join("hosts/a.svg")), 0o600);
        assert_eq!(
            std::fs::read_dir(run.path().join("hosts")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_place_that_is_taken_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let full = root.path().join("full");
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join("letter"), "mine").unwrap();
        let error = RunDir::create(&full).unwrap_err();
        assert!(error.to_string().contains("give another --out"), "{error}");
        let link = root.path().join("link");
        std::fs::create_dir(root.path().join("empty")).unwrap();
        symlink(root.path().join("empty"), &link).unwrap();
        assert!(matches!(
            RunDir::create(&link),
            Err(StoreError::Taken { .. })
        ));
        RunDir::create(root.path().join("empty")).unwrap();
        assert_eq!(mode(&root.path().join("empty")), 0o700);
        assert!(matches!(
            RunDir::open(&full),
            Err(StoreError::NotARun { .. })
        ));
    }

    #[test]
    fn nothing_is_written_through_a_link_or_outside() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path().join("run")).unwrap();
        let victim = root.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        symlink(&victim, run.path().join("report.md")).unwrap();
        run.write("report.md", b"report").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(run.read("report.md").unwrap(), b"report");
        std::fs::create_dir(root.path().join("elsewhere")).unwrap();
        symlink(root.path().join("elsewhere"), run.path().join("hosts")).unwrap();
        assert!(run.write("hosts/a.svg", b"x").is_err());
        for bad in ["../x", "/etc/x", "a/../../x", "", "."] {
            assert!(
                matches!(run.write(bad, b"x"), Err(StoreError::Name(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path().join("run")).unwrap();
        run.write("report.md", b"old").unwrap();
        let failed: Result<(), _> = run.write_with("report.md", |sink| {
            sink.write_all(b"half").unwrap();
            Err(StoreError::Io {
                what: "write",
                path: "report.md".into(),
                source: io::Error::from_raw_os_error(libc::ENOSPC),
            })
        });
        let error = failed.unwrap_err();
        assert!(error.is_disk_full());
        assert_eq!(error.finding().code, model::FindingCode::DiskFull);
        assert_eq!(run.read("report.md").unwrap(), b"old");
        assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 2);
    }
}
