//! `lab-record CASE FOLDER`: runs a case in a guest and writes what came of it. `lab-record` alone only fetches and
//! fits what all guests need, so that no test waits for the network.
//!
//! In: a case of `tests/lab/cases`. Out: `CASE.stdout`, `CASE.stderr`, `CASE.meta` and, where there are any,
//! `CASE.ps`, `CASE.sigtime`, `CASE.proc-pid-maps`. Never: a recording of a guest whose kernel complained.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use fleetflame_tests::lab::Kit;
use fleetflame_tests::lab::case::Case;
use fleetflame_tests::{GuestSetup, Lab};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = match arguments.as_slice() {
        [] => return Kit::find().map(drop),
        [name, folder] => [name, folder],
        _ => bail!("usage: lab-record [CASE FOLDER]"),
    };
    let case = Case::named(name)?;
    let lab = Lab::with_one_guest(case.prepare(GuestSetup::bare())?)?;
    let guest = lab.guest()?;
    let recording = case.run(guest, lab.kit)?;
    guest.check_kernel()?;
    recording.write(Path::new(folder), name)?;
    let mut stdout = io::stdout();
    writeln!(
        stdout,
        "{name}: exit code {}, {} bytes of output, {:.1} s; the guest booted in {:.1} s\nwritten to {folder}",
        recording.code(),
        recording.stdout.len(),
        recording.wall.as_secs_f64(),
        guest.boot_time().as_secs_f64()
    )?;
    Ok(())
}
