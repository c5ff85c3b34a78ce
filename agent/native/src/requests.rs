//! How many requests a gateway has served, from its own memory: no HTTP, no configuration.
//!
//! In: where a process keeps nginx's `ngx_stat_requests`. Out: requests since the last reading, of
//! all gateways among the targets together. Never: a gateway counted twice because several of its
//! processes are targets, a guess where it has no such counter.
//!
//! nginx with its stub_status module counts every request at its beginning, in memory that all its
//! workers share; the pointer to it is exported for modules, so that stripping leaves it.

use crate::{maps, sys};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Where processes keep the pointer: process and address. Found by the thread that parses their
/// files, read by the one that counts.
pub type RequestSources = Mutex<BTreeMap<u32, u64>>;

/// What tells one gateway's counter from another's: the device and inode of the shared memory, and
/// the address in it.
type Counter = (u64, u64, u64);

/// Reads the counters. See the module.
#[derive(Debug, Default)]
pub struct RequestMeter {
    last: BTreeMap<Counter, u64>,
    backing: BTreeMap<(u32, u64), Option<(u64, u64)>>,
    /// Whether there ever was a counter.
    pub found: bool,
}

impl RequestMeter {
    /// Requests since the last reading. A counter that is new begins with what it says now.
    pub fn read(&mut self, sources: &BTreeMap<u32, u64>) -> u64 {
        self.backing.retain(|key, _| sources.contains_key(&key.0));
        let mut seen: BTreeMap<Counter, u64> = BTreeMap::new();
        for (&pid, &address) in sources {
            let Some(pointer) = word(pid, address) else {
                continue;
            };
            let backing = self
                .backing
                .entry((pid, pointer))
                .or_insert_with(|| maps::backing(pid, pointer));
            // Before its start is done the pointer leads to the process's own memory.
            let Some((dev, ino)) = *backing else { continue };
            if let Some(value) = word(pid, pointer) {
                seen.insert((dev, ino, pointer), value);
            }
        }
        self.found |= !seen.is_empty();
        let since = seen.iter().map(|(counter, value)| {
            let before = self.last.get(counter).copied().unwrap_or(*value);
            value.saturating_sub(before)
        });
        let sum = since.fold(0, u64::saturating_add);
        // A worker that could not be read for once does not begin anew.
        self.last.extend(seen);
        sum
    }
}

fn word(pid: u32, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (sys::read_process(pid, address, &mut bytes) == 8).then(|| u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn private_memory_is_no_counter() {
        let value = Box::new(AtomicU64::new(7));
        let pointer: Box<*const AtomicU64> = Box::new(&raw const *value);
        let address = (&raw const *pointer) as u64;
        let mut meter = RequestMeter::default();
        let sources = BTreeMap::from([(std::process::id(), address)]);
        assert_eq!(meter.read(&sources), 0);
        value.fetch_add(5, Relaxed);
        assert_eq!(meter.read(&sources), 0);
        assert!(!meter.found);
    }

    #[test]
    fn a_counter_that_cannot_be_read_counts_nothing() {
        let mut meter = RequestMeter::default();
        assert_eq!(meter.read(&BTreeMap::from([(std::process::id(), 16)])), 0);
        assert_eq!(meter.read(&BTreeMap::from([(u32::MAX, 4096)])), 0);
        assert!(!meter.found);
    }
}
