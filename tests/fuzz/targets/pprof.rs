//! pprof, any bytes: reading ends, and what was read is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::format::fold::FoldLimits;
use model::format::import::{Format, ImportOptions, Imported, import};
use model::format::pprof;
use model::profile::{Profile, Values};

/// Small budgets, so that the fuzzer meets them.
const LIMITS: FoldLimits = FoldLimits {
    nodes_max: 2_000,
    text_bytes_max: 64 << 10,
    depth_max: 64,
    series_max: 50,
};

fn read(bytes: &[u8], limits: FoldLimits) -> Option<Imported> {
    let options = ImportOptions {
        format: Some(Format::Pprof),
        limits,
        ..ImportOptions::new("h")
    };
    import(bytes, options).ok()
}

/// Everything with a value, without numbers of frames and nodes.
fn stacks(profile: &Profile) -> Vec<String> {
    let stacks = profile.canonical().stacks;
    let worth = stacks.iter().filter(|(_, v)| **v != Values::default());
    worth
        .map(|(key, values)| format!("{key:?} {values:?}"))
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let Some(read_once) = read(data, LIMITS) else {
        return;
    };
    let (profile, stats) = (&read_once.profile, &read_once.stats);
    assert!(profile.series.len() <= LIMITS.series_max + 1);
    assert!(profile.tree.len() <= LIMITS.nodes_max + stats.stacks as usize + 1);
    let bytes = pprof::write(profile);
    let again = read(&bytes, FoldLimits::default()).expect("what was written can be read");
    assert_eq!(again.profile.measures, profile.measures);
    assert_eq!(again.profile.grand_total(), profile.grand_total());
    assert_eq!(stacks(&again.profile), stacks(profile));
    assert_eq!(pprof::write(&again.profile), bytes);
});
