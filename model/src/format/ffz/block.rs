//! Blocks: framing, compression, checksums. In: raw bytes or a file's bytes. Out: the other.
//! Never: a block larger than the limits, or one whose checksum is wrong.

use super::MAGIC;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    // Setting up a context costs far more than a small block does: one of each a thread.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(compressor) => compressor.compress(raw),
        None => zstd::bulk::compress(raw, ZSTD_LEVEL),
    })
}

fn decompress(stored: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress(stored, capacity),
        None => zstd::bulk::decompress(stored, capacity),
    })
}

/// Block kinds, as stored.
pub(super) const HEAD: u8 = 1;
pub(super) const DICTIONARY: u8 = 2;
pub(super) const TOTALS: u8 = 3;
pub(super) const CELLS: u8 = 4;
pub(super) const COUNTERS: u8 = 5;
pub(super) const END: u8 = 6;

/// Bytes before a block's stored bytes: kind, two lengths, checksum.
pub(super) const BLOCK_HEAD_BYTES: usize = 1 + 4 + 4 + 8;

/// zstd level 3: the knee of size against speed for these dictionaries (docs/performance.md).
const ZSTD_LEVEL: i32 = 3;

/// What a reader will take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Raw bytes of one block.
    pub block_raw_bytes_max: usize,
    /// Raw bytes of all blocks that are decoded.
    pub total_raw_bytes_max: usize,
}

impl Limits {
    /// For files: 64 MiB a block, 4 GiB in all.
    pub const FILE: Limits = Limits {
        block_raw_bytes_max: 64 << 20,
        total_raw_bytes_max: 4 << 30,
    };
    /// For batches from the wire: 8 MiB in all.
    pub const BATCH: Limits = Limits {
        block_raw_bytes_max: 8 << 20,
        total_raw_bytes_max: 8 << 20,
    };
}

/// Why bytes are not an ffz document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FfzError {
    /// It does not begin as one.
    #[error("this is not an ffz file (it does not begin with \"ffz\")")]
    NotFfz,
    /// It is one of another version.
    #[error(
        "this ffz file has version {0}, and this program reads version 1: use the version of fleetflame that wrote it"
    )]
    Version(u8),
    /// It ends too early.
    #[error("the file ends at byte {at} in the middle of a block: it was cut short")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// A checksum is wrong.
    #[error("the block at byte {at} is damaged (its checksum is wrong)")]
    Checksum {
        /// Where.
        at: usize,
    },
    /// A length is beyond the limits.
    #[error("the block at byte {at} claims {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Where.
        at: usize,
        /// Claimed.
        bytes: usize,
        /// Allowed.
        limit: usize,
    },
    /// Its content makes no sense.
    #[error("damaged content: {0}")]
    Malformed(&'static str),
    /// It could not be written.
    #[error("could not be written: {0}")]
    Write(String),
}

/// Appends one block.
pub(super) fn put_block(out: &mut Vec<u8>, kind: u8, raw: &[u8]) -> Result<(), FfzError> {
    let stored = compress(raw).map_err(|e| FfzError::Write(e.to_string()))?;
    let too_large = |_| FfzError::Malformed("a block is larger than 4 GiB");
    let raw_len = u32::try_from(raw.len()).map_err(too_large)?;
    let stored_len = u32::try_from(stored.len()).map_err(too_large)?;
    out.push(kind);
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&stored_len.to_le_bytes());
    out.extend_from_slice(&check(kind, raw_len, stored_len, &stored));
    out.extend_from_slice(&stored);
    Ok(())
}

fn check(kind: u8, raw_len: u32, stored_len: u32, stored: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&raw_len.to_le_bytes());
    hasher.update(&stored_len.to_le_bytes());
    hasher.update(stored);
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    out
}

/// A block that was framed but not yet decompressed.
pub(super) struct Block<'a> {
    pub(super) kind: u8,
    at: usize,
    raw_len: u32,
    check: [u8; 8],
    stored: &'a [u8],
}

/// Walks over the blocks of a document.
pub(super) struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    raw_left: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: Limits) -> Result<Self, FfzError> {
        if bytes.len() < MAGIC.len() || bytes[..3] != MAGIC[..3] {
            return Err(FfzError::NotFfz);
        }
        if bytes[3] != MAGIC[3] {
            return Err(FfzError::Version(bytes[3]));
        }
        Ok(Self {
            bytes,
            at: MAGIC.len(),
            limits,
            raw_left: limits.total_raw_bytes_max,
        })
    }

    /// The next block; none after the last byte.
    pub(super) fn next(&mut self) -> Result<Option<Block<'a>>, FfzError> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let Some((head, body)) = rest.split_at_checked(BLOCK_HEAD_BYTES) else {
            return Err(FfzError::Truncated {
                at: self.bytes.len(),
            });
        };
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let stored_len = word(5) as usize;
        let Some(stored) = body.get(..stored_len) else {
            return Err(FfzError::Truncated {
                at: self.bytes.len(),
            });
        };
        self.at += BLOCK_HEAD_BYTES + stored_len;
        let mut check = [0; 8];
        check.copy_from_slice(&head[9..17]);
        Ok(Some(Block {
            kind: head[0],
            at,
            raw_len: word(1),
            check,
            stored,
        }))
    }

    /// Checks and decompresses a block.
    pub(super) fn unpack(&mut self, block: &Block<'_>) -> Result<Vec<u8>, FfzError> {
        let at = block.at;
        let bytes = block.raw_len as usize;
        let limit = self.limits.block_raw_bytes_max.min(self.raw_left);
        if bytes > limit {
            return Err(FfzError::TooLarge { at, bytes, limit });
        }
        let stored_len = u32::try_from(block.stored.len()).unwrap_or(u32::MAX);
        if check(block.kind, block.raw_len, stored_len, block.stored) != block.check {
            return Err(FfzError::Checksum { at });
        }
        self.raw_left -= bytes;
        let raw = decompress(block.stored, bytes)
            .map_err(|_| FfzError::Malformed("a block cannot be decompressed"))?;
        if raw.len() == bytes {
            Ok(raw)
        } else {
            Err(FfzError::Malformed("a block has the wrong length"))
        }
    }
}
