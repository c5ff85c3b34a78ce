//! The thread that carries a link's packets from one TUN device to the other.
//!
//! In: two open devices, a pipe that wakes it and whose end stops it, and the shared conditions.
//! Out: packets, when `impairment` says that they are due. Never: a decision about a packet.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::conditions::Direction;
use super::impairment::Lane;
use super::{Elapsed, Shared};

/// At most this many packets of one direction before the other has its turn.
const TURN: usize = 64;
/// Larger than any packet of a device with an MTU of 1500.
const PACKET_BYTES: usize = 4096;

/// Starts the thread. `ends` are the devices of sides a and b, both non-blocking.
pub(super) fn start(
    ends: [File; 2],
    woken: PipeReader,
    shared: Arc<Mutex<Shared>>,
) -> Result<JoinHandle<()>> {
    let seed = lock(&shared).conditions.seed;
    let lanes = Direction::BOTH.map(|direction| Lane::new(seed.wrapping_mul(2) + direction as u64));
    let mut pump = Pump {
        ends,
        woken,
        shared,
        lanes,
        start: Instant::now(),
    };
    Ok(thread::Builder::new()
        .name("link".into())
        .spawn(move || while pump.turn() {})?)
}

struct Pump {
    ends: [File; 2],
    woken: PipeReader,
    shared: Arc<Mutex<Shared>>,
    lanes: [Lane; 2],
    start: Instant,
}

impl Pump {
    /// One round: deliver what is due, wait, take in what has come. False when the link has ended.
    fn turn(&mut self) -> bool {
        for direction in Direction::BOTH {
            self.deliver(direction);
        }
        let next = self.lanes.iter().filter_map(Lane::next_due).min();
        let Some([a, b, wake]) = self.wait(next) else {
            return false;
        };
        if wake && !self.read_wake() {
            return false;
        }
        (!a || self.take_in(Direction::AToB)) && (!b || self.take_in(Direction::BToA))
    }

    /// Waits for a packet, a wake-up, or the time at which the next packet is due.
    fn wait(&self, next: Option<Elapsed>) -> Option<[bool; 3]> {
        let timeout = next.map(|due| TimeSpec::from(due.saturating_sub(self.start.elapsed())));
        let [a, b] = &self.ends;
        let mut fds =
            [a.as_fd(), b.as_fd(), self.woken.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => Some(fds.map(|fd| fd.any().unwrap_or(false))),
            Err(_) => None,
        }
    }

    fn read_wake(&mut self) -> bool {
        matches!(self.woken.read(&mut [0; 64]), Ok(1..))
    }

    fn take_in(&mut self, direction: Direction) -> bool {
        let lane = &mut self.lanes[direction as usize];
        let mut shared = lock(&self.shared);
        let (conditions, counters) = shared.direction(direction);
        let mut packet = [0; PACKET_BYTES];
        for _ in 0..TURN {
            match (&self.ends[direction as usize]).read(&mut packet) {
                Ok(0) => return false,
                Ok(n) => {
                    let packet = packet.get(..n).unwrap_or_default();
                    lane.enter(self.start.elapsed(), packet, &conditions, counters);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                // The device is gone with its namespace, or down for good.
                Err(_) => return false,
            }
        }
        true
    }

    fn deliver(&mut self, direction: Direction) {
        let lane = &mut self.lanes[direction as usize];
        let mut receiver = &self.ends[1 - direction as usize];
        let mut shared = lock(&self.shared);
        let (conditions, counters) = shared.direction(direction);
        while let Some(packet) = lane.leave(self.start.elapsed(), &conditions, counters) {
            match receiver.write(&packet) {
                // A TUN device takes a packet whole or not at all.
                Ok(bytes) => {
                    counters.delivered += 1;
                    counters.delivered_bytes += bytes as u64;
                }
                Err(_) => counters.undeliverable += 1,
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
