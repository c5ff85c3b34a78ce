//! Namespaces: apart from the machine, and gone with everything in them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result};
use fleetflame_tests::procfs::{self, Identity};
use fleetflame_tests::{Child, NetNamespace};

use crate::{SECOND, command, within};

#[test]
fn a_namespace_has_its_own_loopback_and_nothing_else() -> Result<()> {
    let namespace = NetNamespace::new("apart")?;
    let links = namespace
        .spawn(command("ip", &["-o", "link"]))?
        .finish(5 * SECOND)?
        .stdout;
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(
        links.contains("lo:") && links.contains("LOOPBACK,UP"),
        "{links}"
    );

    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let refused = namespace.enter(|| TcpStream::connect_timeout(&outside, SECOND));
    assert_eq!(
        refused.expect_err("another loopback").kind(),
        ErrorKind::ConnectionRefused
    );

    let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let inside = listener.local_addr()?;
    namespace.enter(|| TcpStream::connect_timeout(&inside, SECOND))?;
    Ok(())
}

#[test]
fn dropping_a_namespace_kills_what_runs_in_it_and_only_that() -> Result<()> {
    let namespace = NetNamespace::new("doomed")?;
    let other = NetNamespace::new("spared")?;
    let spared = other.spawn(command("sleep", &["60"]))?;
    // A daemon: its own session, its parent gone, its environment empty.
    let daemon = "env -i setsid sleep 61 >/dev/null 2>&1 & exec sleep 62";
    let shell = namespace.spawn(command("sh", &["-c", daemon]))?;
    assert!(
        within(5 * SECOND, || namespace.pids().len() == 2),
        "{:?}",
        namespace.pids()
    );
    let doomed: Vec<Identity> = namespace
        .pids()
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    let file = Path::new("/run/netns").join(namespace.name());
    assert!(file.exists());

    drop(namespace);
    assert!(doomed.iter().all(|process| !process.alive()), "{doomed:?}");
    assert!(!file.exists());
    assert!(Identity::of(spared.pid()).is_some_and(|process| process.alive()));
    drop(shell);
    Ok(())
}

#[test]
fn what_a_killed_test_run_left_behind_is_swept_up() -> Result<()> {
    // A process that stands for the test process, and a namespace with its name.
    let mut owner = Child::spawn(command("sleep", &["60"]))?;
    let identity = Identity::of(owner.pid()).context("it runs")?;
    let name = &format!(
        "fleetflame.{}.{}.0.orphan",
        identity.pid, identity.start_ticks
    );
    let file = Path::new("/run/netns").join(name);
    let ip = |arguments: &[&str]| Child::spawn(command("ip", arguments));
    let added = ip(&["netns", "add", name])?.finish(5 * SECOND)?;
    assert!(added.status.success(), "{}", added.stderr);
    let mut left = ip(&["netns", "exec", name, "sleep", "60"])?;
    let sleeps = || procfs::comm(left.pid()).as_deref() == Some("sleep");
    assert!(within(5 * SECOND, sleeps), "{}", left.stderr());

    NetNamespace::sweep();
    assert!(file.exists(), "its owner lives");
    owner.kill_alone()?;
    NetNamespace::sweep();
    assert!(!file.exists());
    assert!(!left.wait(SECOND)?.success(), "sleep was killed");
    Ok(())
}
