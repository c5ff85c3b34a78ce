//! A worker of a real gateway under load: stacks from the library that Lua called up to the program's start.

use anyhow::{Result, ensure};
use fleetflame_tests::lab::case::Case;
use fleetflame_tests::lab::stacks;
use fleetflame_tests::{GuestSetup, Lab};

/// What a stack of a regular expression that Lua asked for goes through, from the inside out: PCRE, Lua's
/// machine, the module, nginx, the C library's start, the program's first instructions.
const OUTWARD: [&str; 6] = [
    "libpcre.so.3",
    "libluajit-5.1.so.2",
    "ngx_http_lua_module.so",
    "nginx",
    "libc.so.6",
    "nginx",
];

#[test]
fn stacks_of_a_gateway_go_from_a_library_to_its_start() -> Result<()> {
    let case = Case::named("gateway")?;
    let lab = Lab::with_one_guest(case.prepare(GuestSetup::bare())?)?;
    let guest = lab.guest()?;
    let recording = case.run(guest, lab.kit)?;
    recording.require_code(0)?;
    let maps = String::from_utf8_lossy(&recording.maps).into_owned();
    let stacks = stacks::read_addresses(&recording.stdout(), &maps)?;
    let (all, in_lua) = stacks::share(&stacks, OUTWARD[2]);
    ensure!(all > 60, "only {all} samples: {}", recording.stderr());
    let whole = |frames: &[String]| {
        let mut outward = frames.iter();
        OUTWARD
            .iter()
            .all(|name| outward.any(|frame| frame.starts_with(name)))
    };
    let matching: u64 = stacks
        .iter()
        .filter(|stack| whole(&stack.frames))
        .map(|stack| stack.count)
        .sum();
    ensure!(
        matching > 0,
        "of {all} samples none has all of {OUTWARD:?}: {stacks:#?}"
    );
    // What Lua has compiled has no unwind data; everything else is whole.
    ensure!(
        in_lua > all / 4,
        "of {all} samples only {in_lua} reach the Lua module"
    );
    ensure!(recording.left.is_empty(), "{:?}", recording.left);
    guest.check_kernel()
}
