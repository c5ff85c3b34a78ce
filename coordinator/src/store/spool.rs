//! The spool: a host's batches in the order of their arrival, before they are acknowledged.
//!
//! ```text
//! record = len:u32le epoch:u32le seq:u64le check:[u8;8] payload:[u8; len]
//! ```
//! `check` is the first 8 bytes of BLAKE3 over the first 16 bytes and the payload. Appending
//! returns when the bytes are with the operating system; a crash of this program loses nothing, a
//! crash of the machine may lose the last records, and the reader stops before a torn one.
//!
//! In: batches. Out: the same batches, up to the last whole one. Never: a torn record taken for a
//! whole one, or a record after a torn one.

use super::StoreError;
use super::dir::private;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Largest payload of a record.
pub const RECORD_BYTES_MAX: u32 = 64 << 20;
const HEAD_BYTES: usize = 24;

/// One host's spool, open for appending.
#[derive(Debug)]
pub struct HostSpool {
    file: File,
    path: PathBuf,
    len: u64,
    before_last: u64,
}

impl HostSpool {
    /// Opens the spool at `path` for appending; it is made when it is absent. A torn end that a
    /// crash left is cut off.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be opened or read.
    pub fn open(path: &Path) -> Result<(Self, Tail), StoreError> {
        let opened = private().create(true).read(true).append(true).open(path);
        let file = opened.map_err(StoreError::io("open", path))?;
        let mut reader = SpoolReader::over(file, path)?;
        for record in reader.by_ref() {
            record?;
        }
        let (len, tail) = (reader.at, reader.tail());
        let file = reader.input.into_inner();
        let spool = Self {
            file,
            path: path.to_owned(),
            len,
            before_last: len,
        };
        if tail != Tail::Whole {
            spool.cut(len)?;
        }
        Ok((spool, tail))
    }

    /// Appends a batch. When it returns, the bytes are with the operating system.
    ///
    /// # Errors
    /// [`StoreError::Io`], such as a full disk; the spool is then as it was before.
    pub fn append(&mut self, epoch: u32, seq: u64, payload: &[u8]) -> Result<(), StoreError> {
        let len = u32::try_from(payload.len())
            .ok()
            .filter(|len| *len <= RECORD_BYTES_MAX);
        let len = len.ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the batch is too large");
            StoreError::io("write", &self.path)(source)
        })?;
        let mut bytes = head(len, epoch, seq, payload).to_vec();
        bytes.extend_from_slice(payload);
        if let Err(source) = self.file.write_all(&bytes) {
            self.cut(self.len)?;
            return Err(StoreError::io("write", &self.path)(source));
        }
        self.before_last = self.len;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Takes back the batch that was appended last.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the file cannot be cut.
    pub fn retract(&mut self) -> Result<(), StoreError> {
        self.cut(self.before_last)?;
        self.len = self.before_last;
        Ok(())
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.len
    }

    fn cut(&self, len: u64) -> Result<(), StoreError> {
        self.file
            .set_len(len)
            .map_err(StoreError::io("cut", &self.path))
    }
}

/// One batch as spooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolRecord {
    /// The sender's epoch.
    pub epoch: u32,
    /// Its number within the epoch, from 1.
    pub seq: u64,
    /// The ffz bytes.
    pub payload: Vec<u8>,
}

/// How a spool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole record, or empty.
    Whole,
    /// With bytes that are no whole, good record.
    Torn {
        /// Where the last good record ends.
        at: u64,
        /// Bytes after it.
        bytes: u64,
    },
}

/// Reads a spool record by record; ask [`SpoolReader::tail`] at the end.
#[derive(Debug)]
pub struct SpoolReader {
    input: BufReader<File>,
    path: PathBuf,
    at: u64,
    len: u64,
    done: bool,
}

impl SpoolReader {
    /// Opens the spool at `path`.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = private()
            .read(true)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        Self::over(file, path)
    }

    fn over(mut file: File, path: &Path) -> Result<Self, StoreError> {
        let len = file.metadata().map_err(StoreError::io("read", path))?.len();
        file.seek(SeekFrom::Start(0))
            .map_err(StoreError::io("read", path))?;
        Ok(Self {
            input: BufReader::new(file),
            path: path.to_owned(),
            at: 0,
            len,
            done: false,
        })
    }

    /// How it ended, as far as it was read.
    #[must_use]
    pub fn tail(&self) -> Tail {
        match self.len.saturating_sub(self.at) {
            0 => Tail::Whole,
            bytes => Tail::Torn { at: self.at, bytes },
        }
    }

    /// The next good record; none at the end and before a torn one.
    fn read_record(&mut self) -> Result<Option<SpoolRecord>, StoreError> {
        let left = self.len.saturating_sub(self.at);
        let mut head = [0; HEAD_BYTES];
        if left < HEAD_BYTES as u64 || !self.fill(&mut head)? {
            return Ok(None);
        }
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (len, epoch) = (word(0), word(4));
        let seq = u64::from(word(8)) | u64::from(word(12)) << 32;
        if len > RECORD_BYTES_MAX || u64::from(len) > left - HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; len as usize];
        if !self.fill(&mut payload)? || self::head(len, epoch, seq, &payload) != head {
            return Ok(None);
        }
        self.at += HEAD_BYTES as u64 + u64::from(len);
        Ok(Some(SpoolRecord {
            epoch,
            seq,
            payload,
        }))
    }

    /// Fills `bytes`; false when the file ends first.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, StoreError> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(StoreError::io("read", &self.path)(e)),
        }
    }
}

impl Iterator for SpoolReader {
    type Item = Result<SpoolRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read_record().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

fn head(len: u32, epoch: u32, seq: u64, payload: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..8].copy_from_slice(&epoch.to_le_bytes());
    head[8..16].copy_from_slice(&seq.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..16]).update(payload);
    head[16..].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(path: &Path, batches: &[Vec<u8>]) -> Vec<SpoolRecord> {
        let (mut spool, tail) = HostSpool::open(path).unwrap();
        assert_eq!(tail, Tail::Whole);
        let records: Vec<SpoolRecord> = (1..)
            .zip(batches)
            .map(|(seq, p)| SpoolRecord {
                epoch: 7,
                seq,
                payload: p.clone(),
            })
            .collect();
        for record in &records {
            spool
                .append(record.epoch, record.seq, &record.payload)
                .unwrap();
        }
        assert_eq!(spool.bytes(), std::fs::metadata(path).unwrap().len());
        records
    }

    fn read(path: &Path) -> (Vec<SpoolRecord>, Tail) {
        let mut reader = SpoolReader::open(path).unwrap();
        let records = reader.by_ref().map(Result::unwrap).collect();
        (records, reader.tail())
    }

    #[test]
    fn cut_at_every_byte_the_whole_records_before_it_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.spool");
        let records = written(&path, &[b"first".to_vec(), vec![], vec![9; 40]]);
        let bytes = std::fs::read(&path).unwrap();
        let mut ends = vec![0];
        for record in &records {
            ends.push(ends[ends.len() - 1] + HEAD_BYTES + record.payload.len());
        }
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|e| **e > 0 && **e <= cut).count();
            let (back, tail) = read(&path);
            assert_eq!(back, records[..whole], "cut at {cut}");
            assert_eq!(tail == Tail::Whole, ends.contains(&cut), "cut at {cut}");
            // Taken up again, the torn end is gone and appending goes on behind the last good one.
            let (mut spool, _) = HostSpool::open(&path).unwrap();
            spool.append(8, 1, b"after").unwrap();
            let (back, tail) = read(&path);
            assert_eq!((back.len(), tail), (whole + 1, Tail::Whole), "cut at {cut}");
            assert_eq!(back[whole].payload, b"after");
        }
    }

    #[test]
    fn a_batch_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.spool");
        let (mut spool, _) = HostSpool::open(&path).unwrap();
        spool.append(1, 1, b"kept").unwrap();
        spool.append(1, 2, b"refused").unwrap();
        spool.retract().unwrap();
        spool.append(1, 2, b"good").unwrap();
        let (back, tail) = read(&path);
        assert_eq!(tail, Tail::Whole);
        assert_eq!(
            back.iter()
                .map(|r| r.payload.as_slice())
                .collect::<Vec<_>>(),
            [b"kept", b"good"]
        );
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_so() {
        let mut spool = HostSpool {
            file: File::options().write(true).open("/dev/full").unwrap(),
            path: "/dev/full".into(),
            len: 0,
            before_last: 0,
        };
        // The device cannot be cut either; what counts is that the error comes out.
        assert!(spool.append(1, 1, b"x").is_err());
        assert_eq!(spool.bytes(), 0);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_ends_the_spool_before_it(
            batches in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
            at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("h.spool");
            let records = written(&path, &batches);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let (back, tail) = read(&path);
            prop_assert!(back.len() < records.len());
            prop_assert_eq!(&back[..], &records[..back.len()]);
            let torn_before = matches!(tail, Tail::Torn { at: end, .. } if end <= at as u64);
            prop_assert!(torn_before);
        }
    }
}
