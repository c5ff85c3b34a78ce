//! A coordinator and N hosts, each in a network of its own, joined by links that can misbehave.
//!
//! In: how many hosts, and the conditions of their links. Out: namespaces with addresses in 10.77.0.0/16
//! that exist nowhere else. Never: a way out: no host reaches the machine's network or another host.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};

use crate::link::{Link, LinkConditions};
use crate::namespace::NetNamespace;

/// Links with four addresses each fit below 10.77.254.0.
const HOSTS_MAX: usize = 254 * 64;

/// A star: the coordinator in the middle, a link to each host.
#[derive(Debug)]
pub struct Fabric {
    /// The hosts, in order.
    pub hosts: Vec<FabricHost>,
    /// Where the coordinator runs.
    pub coordinator: NetNamespace,
}

/// One host of a [`Fabric`] and its link. Direction `AToB` is coordinator to host.
#[derive(Debug)]
pub struct FabricHost {
    /// The link to the coordinator.
    pub link: Link,
    /// Where the host's programs run.
    pub namespace: NetNamespace,
    /// The host's address.
    pub address: Ipv4Addr,
    /// The coordinator's address on this link.
    pub coordinator_address: Ipv4Addr,
}

impl Fabric {
    /// The coordinator's one address that every host reaches, whatever its link.
    pub const COORDINATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 254, 1);

    /// Makes `hosts` hosts with the same conditions; each link has its own seed.
    pub fn new(hosts: usize, conditions: LinkConditions) -> Result<Self> {
        ensure!(
            hosts <= HOSTS_MAX,
            "{hosts} hosts do not fit: at most {HOSTS_MAX}"
        );
        let coordinator = NetNamespace::new("coordinator")?;
        coordinator.ip(&[
            "address",
            "add",
            &Self::COORDINATOR.to_string(),
            "dev",
            "lo",
        ])?;
        let hosts = (0..hosts).map(|n| FabricHost::join(&coordinator, n, conditions));
        Ok(Self {
            hosts: hosts.collect::<Result<_>>()?,
            coordinator,
        })
    }
}

impl FabricHost {
    fn join(coordinator: &NetNamespace, n: usize, conditions: LinkConditions) -> Result<Self> {
        let (coordinator_address, address) = addresses(n);
        let namespace = NetNamespace::new(&format!("host-{n}"))?;
        let seed = conditions.seed.wrapping_add(n as u64);
        let (a, b) = (IpAddr::V4(coordinator_address), IpAddr::V4(address));
        let link = Link::between(coordinator, a, &namespace, b, conditions.seeded(seed))?;
        let (to, via) = (
            Fabric::COORDINATOR.to_string(),
            coordinator_address.to_string(),
        );
        namespace.ip(&["route", "add", &to, "via", &via])?;
        Ok(Self {
            link,
            namespace,
            address,
            coordinator_address,
        })
    }
}

/// The two addresses of the n-th network of four: the coordinator's and the host's.
fn addresses(n: usize) -> (Ipv4Addr, Ipv4Addr) {
    let base =
        u32::from(Ipv4Addr::new(10, 77, 0, 0)) + 4 * u32::try_from(n).unwrap_or(u32::MAX / 8);
    (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_a_network_of_four_addresses() {
        assert_eq!(
            addresses(0),
            (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2))
        );
        assert_eq!(
            addresses(64),
            (Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 1, 2))
        );
        assert!(addresses(HOSTS_MAX - 1).1 < Fabric::COORDINATOR);
    }
}
