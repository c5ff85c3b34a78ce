//! ffz: fleetflame's own byte format. What goes over the wire is what is stored.
//!
//! ```text
//! file  = "ffz" version:u8(1) block*
//! block = kind:u8 raw_len:u32le stored_len:u32le check:[u8;8] stored:[u8; stored_len]
//! kinds = 1 head · 2 dictionary · 3 totals · 4 cells · 5 counters · 6 end
//! ```
//! `stored` is one zstd frame of `raw_len` bytes; `check` is the first 8 bytes of BLAKE3 over kind,
//! both lengths and `stored`. Numbers inside blocks are LEB128 varints. A batch is a head, a
//! dictionary that counts on from the head's base, cells and counters; a file adds totals by
//! series. Many small cells share a block of up to 64 KiB, so that a cell costs no header of its
//! own; the end block lists where the cell blocks lie and which seconds they hold.
//!
//! In: profiles and segments; bytes from anywhere, hostile ones too. Out: the other of the two.
//! Never: more memory than [`Limits`] allow, a panic on damaged bytes, or a value changed.

mod add;
mod block;
mod decode;
mod encode;
mod known;
mod varint;

pub use add::{AddError, add_rows, add_totals};
pub use block::{FfzError, Limits};
pub use decode::{Want, decode_head, decode_profile, decode_segment};
pub use encode::{ProfileWriter, encode_profile, encode_segment};
pub use known::Known;

use crate::profile::Measure;

/// First bytes of every ffz file or batch; the fourth is the version.
pub const MAGIC: [u8; 4] = *b"ffz\x01";

/// What a document is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The probe's word.
    pub probe: String,
    /// What the numbers mean; 1 to [`crate::profile::MEASURES_MAX`].
    pub measures: Vec<Measure>,
}

#[cfg(test)]
mod tests;

/// Reads ffz as an import: totals only.
#[derive(Debug)]
pub struct FfzReader;

impl super::import::WholeReader for FfzReader {
    const WORD: &'static str = "ffz";

    fn read(
        &self,
        bytes: &[u8],
        _: &mut super::import::Intake,
    ) -> Result<Option<crate::profile::Profile>, super::import::ImportError> {
        let profile = decode_profile(bytes, Limits::FILE, Want::Totals);
        let profile = profile.map_err(|e| super::import::ImportError::Damaged {
            format: Self::WORD,
            at: 0,
            what: e.to_string(),
        })?;
        Ok(Some(profile))
    }
}
