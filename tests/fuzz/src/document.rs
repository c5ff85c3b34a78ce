//! ffz documents around the fuzzer's bytes: magic, block heads and checksums are right, the blocks'
//! contents are whatever the fuzzer says.
//!
//! In: the fuzzer's bytes. Out: a document. Never: a block that only fails for its checksum.
//!
//! ```text
//! input    = block*            block = op:u8 len:u16le [times:u16le] content:[u8; len]
//! op       = kind (low 3 bits) · 8 repeat the content · 16 a wrong raw length · 32 content is the
//!            compressed form itself
//! ```

use crate::Input;
use model::format::ffz::MAGIC;

/// Most raw bytes of one repeated content.
const REPEATED_BYTES_MAX: usize = 1 << 20;
const REPEAT: u8 = 8;
const WRONG_LENGTH: u8 = 16;
const STORED: u8 = 32;

/// Builds a document from `input`, at most `blocks_max` blocks.
#[must_use]
pub fn document(input: &mut Input<'_>, blocks_max: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for _ in 0..blocks_max {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        let len = usize::from(input.word());
        let times = if op & REPEAT == 0 {
            1
        } else {
            usize::from(input.word())
        };
        let content = input.slice(len);
        let times = times.min(REPEATED_BYTES_MAX / content.len().max(1));
        let raw = content.repeat(times);
        let stored = if op & STORED == 0 {
            zstd_of_raw_blocks(&raw)
        } else {
            content.to_vec()
        };
        let raw_len = raw.len() + usize::from(op & WRONG_LENGTH != 0);
        put_block(&mut out, op & 7, raw_len as u32, &stored);
    }
    out
}

/// One block as model/src/format/ffz/mod.rs lays it out: kind, two lengths, check, stored bytes.
fn put_block(out: &mut Vec<u8>, kind: u8, raw_len: u32, stored: &[u8]) {
    let mut head = vec![kind];
    head.extend_from_slice(&raw_len.to_le_bytes());
    head.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head).update(stored);
    out.extend_from_slice(&head);
    out.extend_from_slice(&hasher.finalize().as_bytes()[..8]);
    out.extend_from_slice(stored);
}

/// A zstd frame of uncompressed blocks (RFC 8878, 3.1.1): no compressor runs for each input.
fn zstd_of_raw_blocks(raw: &[u8]) -> Vec<u8> {
    const BLOCK_BYTES: usize = 128 << 10;
    // Single segment, content size in four bytes.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let mut chunks = raw.chunks(BLOCK_BYTES).peekable();
    if raw.is_empty() {
        out.extend_from_slice(&[1, 0, 0]);
    }
    while let Some(chunk) = chunks.next() {
        let last = u32::from(chunks.peek().is_none());
        let head = last | (chunk.len() as u32) << 3;
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(chunk);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::ffz::{Limits, decode_segment};

    #[test]
    fn the_framing_is_the_model_s() {
        let head = b"\x01p\x01\x01s\x05count\x00\x01\x00";
        let mut input = vec![1, head.len() as u8, 0];
        input.extend_from_slice(head);
        input.extend_from_slice(&[6, 1, 0, 0]);
        let bytes = document(&mut Input::new(&input), 8);
        let (head, segment) = decode_segment(&bytes, Limits::BATCH).expect("a good document");
        assert_eq!((head.probe.as_str(), segment.base_nodes), ("p", 1));
    }

    #[test]
    fn large_contents_take_several_zstd_blocks() {
        let mut input = vec![2 | REPEAT, 2, 0, 0xff, 0xff, 7, 7];
        input.extend_from_slice(&[6, 1, 0, 0]);
        let bytes = document(&mut Input::new(&input), 8);
        let error = decode_segment(&bytes, Limits::BATCH).unwrap_err();
        assert_eq!(
            error.to_string(),
            "damaged content: the first block is not a head"
        );
        assert!(bytes.len() > 128 << 10);
    }
}
