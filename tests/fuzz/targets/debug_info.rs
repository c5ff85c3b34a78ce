//! Programs with debug info, as the coordinator reads them for inlined functions and lines: damaged and hostile ones
//! never panic it, never hold it up, and cost no more memory than is allowed.
#![no_main]
#![allow(
    dead_code,
    reason = "the coordinator's own files are compiled in; not all of them is called"
)]

#[path = "../../../coordinator/src/debug_info/address.rs"]
mod address;
#[path = "../../../coordinator/src/debug_info/dwarf.rs"]
mod dwarf;
#[path = "../../../coordinator/src/debug_info/elf.rs"]
mod elf;
#[path = "../../../coordinator/src/debug_info/metered.rs"]
mod metered;
#[path = "../../../coordinator/src/debug_info/symbols.rs"]
mod symbols;

use dwarf::Dwarf;
use elf::{Bytes, Elf};
use libfuzzer_sys::fuzz_target;
use model::format::source::CodePlace;
use symbols::Symbols;

/// Bytes that sections may have unpacked.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;
/// Addresses that are looked up in each function.
const LOOKUPS: u64 = 16;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::from(data.to_vec());
    let Ok(elf) = Elf::parse(&bytes) else {
        return;
    };
    let (layout, mut known, mut names) = (elf.layout(), Symbols::default(), Vec::new());
    elf.each_symbol(|name, symbol| {
        known.add(name, symbol);
        names.push(name.to_vec());
    });
    known.sort();
    let _ = (elf.build_id(), elf.debug_link(), elf.shared_debug_link());
    let Ok(dwarf) = Dwarf::load(&bytes, Some(&bytes), UNPACKED_BYTES_MAX) else {
        return;
    };
    assert!(dwarf.unpacked_bytes() <= 2 * UNPACKED_BYTES_MAX);
    names.truncate(LOOKUPS as usize);
    for name in &names {
        for offset in 0..LOOKUPS {
            let place = CodePlace {
                symbol: name,
                offset: Some(offset),
                ..CodePlace::default()
            };
            if let Ok(found) = address::found(&place, &layout, &known)
                && let Ok(frames) = dwarf.frames(found.address)
            {
                assert!(!frames.is_empty());
                assert!(frames.iter().all(|f| f.function.len() <= 1024 && !f.file.contains('/')));
            }
        }
    }
});
