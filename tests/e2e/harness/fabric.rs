//! The fabric: every host reaches the coordinator, by its link alone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use fleetflame_tests::{Direction, Fabric, LinkConditions};

use crate::SECOND;

#[test]
fn hosts_reach_the_coordinator_at_one_address_and_nobody_else() -> Result<()> {
    let fabric = Fabric::new(3, LinkConditions::default())?;
    let slow = &fabric.hosts[1];
    slow.link.change(Direction::AToB, |conditions| {
        conditions.delay = Duration::from_millis(60)
    });

    let listener = fabric
        .coordinator
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7443)))?;
    let port = listener.local_addr()?.port();
    for (n, host) in fabric.hosts.iter().enumerate() {
        for address in [Fabric::COORDINATOR, host.coordinator_address] {
            let start = Instant::now();
            let to = SocketAddr::from((address, port));
            host.namespace
                .enter(|| TcpStream::connect_timeout(&to, 2 * SECOND))?;
            let took = start.elapsed();
            assert_eq!(
                took >= Duration::from_millis(60),
                n == 1,
                "host {n}: {took:?}"
            );
        }
    }
    // The coordinator dials the hosts as well.
    let agent = slow
        .namespace
        .enter(|| TcpListener::bind((slow.address, 7444)))?;
    let to = agent.local_addr()?;
    fabric
        .coordinator
        .enter(|| TcpStream::connect_timeout(&to, 2 * SECOND))?;
    let other = fabric.hosts[0]
        .namespace
        .enter(|| TcpStream::connect_timeout(&to, SECOND));
    assert!(other.is_err(), "a host reaches another host");
    Ok(())
}

#[test]
fn a_cut_host_leaves_the_others_alone() -> Result<()> {
    let fabric = Fabric::new(2, LinkConditions::default())?;
    let listener = fabric
        .coordinator
        .enter(|| TcpListener::bind((Fabric::COORDINATOR, 7443)))?;
    let to = listener.local_addr()?;
    fabric.hosts[0].link.cut();
    let reach = |n: usize| {
        fabric.hosts[n]
            .namespace
            .enter(|| TcpStream::connect_timeout(&to, SECOND / 2))
    };
    assert!(reach(0).is_err());
    assert!(reach(1).is_ok());
    fabric.hosts[0].link.heal();
    assert!(reach(0).is_ok());
    Ok(())
}
