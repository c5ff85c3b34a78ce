//! ffz documents, hostile ones: decoding never panics, and what decodes is written and read back
//! the same. In: the fuzzer's bytes. Never: a document that only fails for its checksums.
#![no_main]

use fleetflame_fuzz::{Input, document};
use libfuzzer_sys::fuzz_target;
use model::format::ffz::{
    Limits, MAGIC, Want, decode_profile, decode_segment, encode_profile, encode_segment,
};

/// Small enough that an honest decoder stays below the fuzzer's memory limit.
const LIMITS: Limits = Limits {
    block_raw_bytes_max: 4 << 20,
    total_raw_bytes_max: 8 << 20,
};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let bytes = match input.byte() % 4 {
        0 => input.rest().to_vec(),
        1 => [&MAGIC, input.rest()].concat(),
        _ => document(&mut input, 16),
    };
    segment(&bytes);
    profile(&bytes);
});

fn segment(bytes: &[u8]) {
    let Ok((head, segment)) = decode_segment(bytes, LIMITS) else {
        return;
    };
    let again = encode_segment(&head, &segment).expect("what was decoded can be encoded");
    let back = decode_segment(&again, LIMITS).expect("what was encoded can be decoded");
    assert_eq!(back, (head, segment));
}

fn profile(bytes: &[u8]) {
    let Ok(profile) = decode_profile(bytes, LIMITS, Want::Cells) else {
        return;
    };
    let once = encode_profile(&profile).expect("what was decoded can be encoded");
    let back = decode_profile(&once, LIMITS, Want::Cells).expect("what was encoded can be decoded");
    assert_eq!(back.canonical(), profile.canonical());
    assert_eq!(encode_profile(&back).expect("again"), once);
    let totals = decode_profile(&once, LIMITS, Want::Totals).expect("totals can be decoded alone");
    assert_eq!(totals.grand_total(), profile.grand_total());
    assert!(totals.cells.is_empty());
}
