//! A link between two namespaces that can be slow, narrow, lossy, or cut without a word.
//!
//! In: two namespaces, an address on each side, and [`LinkConditions`] that may change at any time.
//! Out: a point-to-point network between them, and [`Counters`] of what happened to its packets.
//! Never: a reset, an ICMP error or a link-down event when it is cut: packets vanish, as they do
//! between machines.
//!
//! Each side is a TUN device; a thread of the test process carries the packets across ([`pump`]). The
//! fate of a packet follows from the seed, the direction and its number ([`impairment`]).

use std::io::{PipeWriter, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::namespace::{self, NetNamespace};

mod conditions;
mod impairment;
mod pump;
mod tun;

pub use conditions::{Conditions, Counters, Direction, LinkConditions};

const ADDRESS_DEADLINE: Duration = Duration::from_secs(5);

/// A running link. Dropping it removes both devices.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Mutex<Shared>>,
    wake: Option<PipeWriter>,
    pump: Option<JoinHandle<()>>,
    /// Each side's namespace and device, by name.
    devices: [(String, String); 2],
}

/// What the pump and the test both touch.
#[derive(Debug)]
struct Shared {
    conditions: LinkConditions,
    counters: [Counters; 2],
}

impl Link {
    /// Joins `a` and `b`. Each side gets a device named after the other side's address.
    pub fn between(
        a: &NetNamespace,
        address_a: IpAddr,
        b: &NetNamespace,
        address_b: IpAddr,
        conditions: LinkConditions,
    ) -> Result<Self> {
        if address_a.is_ipv4() != address_b.is_ipv4() {
            bail!("{address_a} and {address_b} are of different families");
        }
        let ends = [
            open_end(a, address_a, address_b)?,
            open_end(b, address_b, address_a)?,
        ];
        let shared = Shared {
            conditions,
            counters: [Counters::default(); 2],
        };
        let shared = Arc::new(Mutex::new(shared));
        let (woken, wake) = std::io::pipe()?;
        let pump = pump::start(ends, woken, Arc::clone(&shared))?;
        let devices = [(a, address_b), (b, address_a)]
            .map(|(side, other)| (side.name().to_owned(), device_name(other)));
        Ok(Self {
            shared,
            wake: Some(wake),
            pump: Some(pump),
            devices,
        })
    }

    /// The conditions as they are now.
    pub fn conditions(&self) -> LinkConditions {
        self.lock().conditions
    }

    /// Changes the conditions of one direction, from the next packet on.
    pub fn change(&self, direction: Direction, change: impl FnOnce(&mut Conditions)) {
        change(self.lock().conditions.of_mut(direction));
        self.wake();
    }

    /// Changes the conditions of both directions alike.
    pub fn change_both(&self, change: impl Fn(&mut Conditions)) {
        for direction in Direction::BOTH {
            self.change(direction, &change);
        }
    }

    /// From now on packets vanish, both ways, those that are under way as well.
    pub fn cut(&self) {
        self.change_both(|conditions| conditions.cut = true);
    }

    /// Ends a cut; all other conditions stay as they were.
    pub fn heal(&self) {
        self.change_both(|conditions| conditions.cut = false);
    }

    /// What has happened to the packets of one direction so far.
    pub fn counters(&self, direction: Direction) -> Counters {
        self.lock().counters[direction as usize]
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(mut wake) = self.wake.as_ref() {
            let _ = wake.write(b".");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.wake = None;
        let ended = self.pump.take().map(JoinHandle::join);
        // They go with their last descriptor, and a program that is just being started may hold a copy.
        for (namespace, device) in &self.devices {
            let _ = namespace::ip(&["-n", namespace, "link", "delete", "dev", device]);
        }
        if !thread::panicking() && matches!(ended, Some(Err(_))) {
            panic!("the thread that carries a link's packets panicked");
        }
    }
}

/// Makes one side's device, inside the namespace, with its addresses and nothing else on it.
fn open_end(inside: &NetNamespace, own: IpAddr, other: IpAddr) -> Result<std::fs::File> {
    let name = device_name(other);
    let device = inside
        .enter(|| tun::open(&name))
        .with_context(|| format!("cannot make device {name} in {}", inside.name()))?;
    // No link-local address: its router solicitations would be traffic that the test did not make.
    inside.ip(&["link", "set", "dev", &name, "addrgenmode", "none"])?;
    inside.ip(&["link", "set", "dev", &name, "txqueuelen", "4000", "up"])?;
    // Up before it has an address: the kernel makes an IPv6 peer's route only then.
    let (local, peer) = (own.to_string(), other.to_string());
    let mut address = vec!["address", "add", &local, "peer", &peer, "dev", &name];
    if own.is_ipv6() {
        address.push("nodad");
    }
    inside.ip(&address)?;
    if own.is_ipv6() {
        wait_for_local_route(inside, &local)?;
    }
    Ok(device)
}

/// The kernel accepts packets for a new IPv6 address a moment after the address was added.
fn wait_for_local_route(inside: &NetNamespace, local: &str) -> Result<()> {
    let end = Instant::now() + ADDRESS_DEADLINE;
    while inside
        .ip(&["-6", "route", "show", "table", "local", local])?
        .is_empty()
    {
        ensure!(
            Instant::now() < end,
            "{local} does not become usable in {}",
            inside.name()
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Unique in its namespace, at most 15 bytes, and readable: `to-10.77.0.2`, `to6-` and the last words of IPv6.
fn device_name(other: IpAddr) -> String {
    match other {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            format!("to-{b}.{c}.{d}")
        }
        IpAddr::V6(v6) => {
            let [.., y, z] = v6.segments();
            format!("to6-{y:x}.{z:x}")
        }
    }
}

impl Shared {
    fn direction(&mut self, direction: Direction) -> (Conditions, &mut Counters) {
        (
            self.conditions.of(direction),
            &mut self.counters[direction as usize],
        )
    }
}

/// The time that the pump counts from its start.
type Elapsed = Duration;
