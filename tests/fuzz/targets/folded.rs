//! Folded text, any bytes: every count that was read is written again, and writing is stable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::format::folded;

fuzz_target!(|data: &[u8]| {
    let (profile, stats) = folded::parse(data, "h");
    let lines = data.split(|b| *b == b'\n').count() as u64;
    assert!(stats.stacks + stats.skipped <= lines);
    let write =
        |p: &model::profile::Profile| folded::write(&p.tree, &p.frames, &p.select(|_| true), 0);
    let once = write(&profile);
    let (back, stats) = folded::parse(once.as_bytes(), "h");
    assert_eq!(
        stats.skipped, 0,
        "own output was not read: {:?}",
        stats.examples
    );
    assert_eq!(
        back.grand_total(),
        profile.grand_total(),
        "counts were lost in {once:?}"
    );
    assert_eq!(write(&back), once);
});
