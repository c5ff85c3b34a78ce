//! ELF files: our own, damaged ones, and those that linkers lay out in their own way.

use super::*;
use proptest::prelude::*;

fn own() -> Vec<u8> {
    std::fs::read("/proc/self/exe").expect("own executable")
}

#[test]
fn our_own_executable_has_functions_and_frames() {
    let elf = parse(&own(), Want::All).expect("elf");
    assert!(elf.cfi.functions() > 100 && elf.symbols.len() > 100);
    let entry = elf.function(elf.entry);
    assert_eq!((entry.start, entry.name), (elf.entry, Some("_start")));
    assert!(!elf.loads.is_empty());
}

#[test]
fn the_build_id_is_found_among_other_notes() {
    let mut notes = Vec::new();
    for (owner, kind, body) in [
        (&b"GNU\0"[..], 1_u32, &[9_u8; 16][..]),
        (b"GNU\0", 3, &[5; 20]),
    ] {
        notes.extend((u32::try_from(owner.len()).expect("small")).to_le_bytes());
        notes.extend((u32::try_from(body.len()).expect("small")).to_le_bytes());
        notes.extend(kind.to_le_bytes());
        notes.extend(owner);
        notes.extend(body);
    }
    assert_eq!(build_id(&notes), BuildId::new(&[5; 20]));
    assert_eq!(build_id(&notes[..40]), None);
    assert_eq!(build_id(&[0xff; 64]), None);
}

#[test]
fn a_file_cut_anywhere_gives_an_error_or_less() {
    let whole = std::fs::read("/bin/true").expect("true");
    for cut in (0..whole.len()).step_by(997) {
        if let Ok(elf) = parse(&whole[..cut].to_vec(), Want::All) {
            let _ = elf.function(elf.entry);
        }
    }
    assert!(parse(&b"#!/bin/sh\n".repeat(20), Want::All).is_err());
}

#[test]
fn the_segment_of_code_places_a_mapping_and_not_the_one_that_ends_in_its_first_page() {
    let load = |offset, address, length, is_code| Load {
        offset,
        address,
        length,
        is_code,
    };
    let elf = Elf {
        loads: vec![
            load(0, 0, 0x1234, false),
            load(0x1240, 0x2240, 0x800, true),
            load(0x1a40, 0x3a40, 0x200, false),
        ],
        ..Elf::default()
    };
    assert_eq!(elf.bias(0x7000_1000, 0x1000, 0x1000), Some(0x6fff_f000));
    assert_eq!(elf.bias(0x7000_1000, 0x8000, 0x1000), None);
}

#[test]
fn symbols_that_share_one_endless_name_cost_no_more_than_others() {
    let strings = vec![b'a'; 1 << 20];
    assert_eq!(text_at(&strings, 5, NAME_BYTES_MAX).len(), NAME_BYTES_MAX);
    assert_eq!(text_at(b"one\0two\0", 4, 64), b"two");
    assert_eq!(text_at(b"one", u32::MAX, 64), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((any::<u32>(), any::<u8>()), 1..80)) {
        let mut bytes = std::fs::read("/bin/true").expect("true");
        for (at, value) in flips {
            // Half of the damage goes to the headers.
            let reach = if at % 2 == 0 { 1024 } else { bytes.len() };
            let at = at as usize / 2 % reach;
            bytes[at] = value;
        }
        if let Ok(elf) = parse(&bytes, Want::All) {
            let mut context = gimli::UnwindContext::new();
            let mut left = usize::MAX;
            for address in (0..0x10000).step_by(61) {
                let _ = elf.function(address);
                let _ = elf.cfi.rule(address, &mut context, &mut left);
            }
        }
    }
}
