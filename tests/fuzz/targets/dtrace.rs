//! DTrace aggregations, any bytes: what is counted is written and read back, and pieces do not show.
#![no_main]

use fleetflame_fuzz::read_text;
use libfuzzer_sys::fuzz_target;
use model::format::import::Format;

fuzz_target!(|data: &[u8]| read_text(Format::Dtrace, data));
