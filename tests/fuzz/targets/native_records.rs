//! Records of a perf ring, damaged ones: parsing never panics, and nothing that a record says
//! reaches beyond its bytes.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the sampler's own files are compiled in; not all of them is called"
)]

#[path = "../../../agent/native/src/arch.rs"]
mod arch;
#[path = "../../../agent/native/src/record.rs"]
mod record;

use libfuzzer_sys::fuzz_target;
use record::{HEADER_BYTES, Record, parse};

fuzz_target!(|data: &[u8]| {
    check(data);
    // The same bytes with a size that is right, so that the fuzzer need not find it.
    if let Ok(size) = u16::try_from(data.len())
        && data.len() >= HEADER_BYTES
    {
        let mut sized = data.to_vec();
        sized[6..8].copy_from_slice(&size.to_ne_bytes());
        check(&sized);
    }
});

fn check(bytes: &[u8]) {
    if let Record::Sample(sample) = parse(bytes) {
        assert!(sample.stack.len() <= bytes.len());
        assert!(sample.kernel_chain().count() <= bytes.len() / 8);
        assert!(sample.stack_asked as usize <= bytes.len());
        let _ = sample.stack_is_full();
    }
}
