//! Two guests at once: each obeys, has a port of its own, loads the same module, and ends alone.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleetflame_tests::lab::RemoteChild;
use fleetflame_tests::lab::case::Case;
use fleetflame_tests::lab::stacks;
use fleetflame_tests::{Guest, GuestSetup, Lab};

const SOON: Duration = Duration::from_mins(3);

#[test]
fn two_guests_obey_and_load_the_same_module() -> Result<()> {
    let case = Case::named("sigint")?;
    let setup = case.prepare(GuestSetup::bare())?;
    let mut lab = Lab::start(&[setup.clone(), setup])?;
    for guest in &lab.guests {
        obeys(guest)?;
    }
    // Both sample at the same time, with one file for a module.
    let running = lab
        .guests
        .iter()
        .map(|guest| case.start(guest, lab.kit))
        .collect::<Result<Vec<_>>>()?;
    for guest in &lab.guests {
        let modules = guest.modules()?;
        ensure!(
            modules.iter().any(|module| module.users > 0),
            "{}: {modules:?}",
            guest.name
        );
    }
    for (guest, running) in lab.guests.iter().zip(running) {
        let recording = running.finish(guest)?;
        recording.require_code(0)?;
        let stacks = stacks::read_addresses(&recording.stdout(), "")?;
        ensure!(!stacks.is_empty(), "no samples of {}", guest.name);
        ensure!(
            guest.left_behind()?.is_empty(),
            "{:?}",
            guest.left_behind()?
        );
        guest.check_kernel()?;
    }
    // Each is reached by a port of its own, until its cable is pulled.
    for guest in &lab.guests {
        ensure!(says(&lab, guest)? == guest.name);
    }
    let (first, second) = (&lab.guests[0], &lab.guests[1]);
    first.set_link(false)?;
    let server = serves(first)?;
    ensure!(
        hears(&lab, first).is_err(),
        "an answer through a cable that was pulled"
    );
    drop(server);
    ensure!(says(&lab, second)? == second.name);
    first.set_link(true)?;
    ensure!(says(&lab, first)? == first.name);
    // A power cut ends one of them, and nothing of it is left on this machine.
    let both = lab.namespace.pids().len();
    lab.guests.remove(0).kill()?;
    ensure!(
        lab.namespace.pids().len() == both - 1,
        "{:?}",
        lab.namespace.pids()
    );
    obeys(&lab.guests[0])
}

fn obeys(guest: &Guest) -> Result<()> {
    let output = guest.run(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], SOON)?;
    ensure!(output.status.code() == Some(3), "{}", output.status);
    ensure!((output.stdout(), output.stderr()) == ("out\n".into(), "err\n".into()));
    // Arguments are no shell's.
    let words = guest.run(&["/bin/echo", "$HOME", "a  b;"], SOON)?;
    ensure!(words.stdout() == "$HOME a  b;\n", "{}", words.stdout());
    // Files come back as they were put.
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    guest.put("/mnt/deep/er/bytes", &bytes)?;
    ensure!(guest.get("/mnt/deep/er/bytes")? == bytes);
    // What does not end in time is ended, in the guest too.
    let late = guest.run(&["/bin/sleep", "1000"], Duration::from_secs(1));
    let said = late
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(said.contains("still runs"), "{said:?}");
    let end = Instant::now() + SOON;
    while !guest.pids_of("sleep")?.is_empty() {
        ensure!(Instant::now() < end, "a command outlives its connection");
    }
    let nothing = guest.run(&["/no/such/program"], SOON);
    ensure!(nothing.is_err(), "a program that is not there was started");
    Ok(())
}

/// What a guest answers on the port of its agent.
fn says(lab: &Lab, guest: &Guest) -> Result<String> {
    let _server = serves(guest)?;
    hears(lab, guest)
}

/// Something in the guest that answers once, at the agent's port.
fn serves(guest: &Guest) -> Result<RemoteChild> {
    let server = guest.start(&["/bin/sh", "-c", "nc -l -p 7443 </etc/hostname"])?;
    guest.sh(
        "until netstat -ltn | grep -q :7443; do sleep 0.1; done",
        SOON,
    )?;
    Ok(server)
}

fn hears(lab: &Lab, guest: &Guest) -> Result<String> {
    let mut text = String::new();
    lab.namespace.enter(|| {
        let mut stream =
            TcpStream::connect_timeout(&guest.agent_address(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.read_to_string(&mut text)
    })?;
    Ok(text.trim().to_owned())
}
