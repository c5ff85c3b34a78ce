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

/// Counters whose last values are kept; a hostile target may move its own each second.
const COUNTERS_MAX: usize = 4096;
/// Doublings of the readings after which memory that is not shared is looked at again.
const DOUBLINGS_MAX: u32 = 6;

/// Which shared memory lies behind a process's pointer. To find out is to read all that the process
/// has mapped, so an answer is kept; while there is none, it is asked for less and less often.
#[derive(Clone, Copy, Debug)]
enum Backing {
    Shared(u64, u64),
    None { again: u64, tries: u32 },
}

/// Reads the counters. See the module.
#[derive(Debug, Default)]
pub struct RequestMeter {
    last: BTreeMap<Counter, u64>,
    backing: BTreeMap<(u32, u64), Backing>,
    readings: u64,
    found: bool,
    had_sources: bool,
    had_private: bool,
}

impl RequestMeter {
    /// Requests since the last reading. A counter that is new begins with what it says now.
    pub fn read(&mut self, sources: &BTreeMap<u32, u64>) -> u64 {
        self.readings += 1;
        self.had_sources |= !sources.is_empty();
        self.backing.retain(|key, _| sources.contains_key(&key.0));
        let mut seen: BTreeMap<Counter, u64> = BTreeMap::new();
        for (&pid, &address) in sources {
            let Some(pointer) = word(pid, address) else {
                continue;
            };
            // Before its start is done the pointer leads to the process's own memory.
            let look = || maps::backing(pid, pointer);
            let Some((dev, ino)) = self.backing_of((pid, pointer), look) else {
                continue;
            };
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
        if self.last.len() > COUNTERS_MAX {
            self.last.clear();
        }
        // A worker that could not be read for once does not begin anew.
        self.last.extend(seen);
        sum
    }

    fn backing_of(
        &mut self,
        key: (u32, u64),
        look: impl FnOnce() -> Option<(u64, u64)>,
    ) -> Option<(u64, u64)> {
        let tries = match self.backing.get(&key) {
            Some(&Backing::Shared(dev, ino)) => return Some((dev, ino)),
            Some(&Backing::None { again, .. }) if self.readings < again => return None,
            Some(&Backing::None { tries, .. }) => tries + 1,
            None => 0,
        };
        let found = look();
        let backing = match found {
            Some((dev, ino)) => Backing::Shared(dev, ino),
            None => {
                self.had_private = true;
                let again = self.readings + (1 << tries.min(DOUBLINGS_MAX));
                Backing::None { again, tries }
            }
        };
        self.backing.insert(key, backing);
        found
    }

    /// Why nothing was ever counted; none when something was.
    #[must_use]
    pub fn why_uncounted(&self) -> Option<&'static str> {
        if self.found {
            None
        } else if !self.had_sources {
            Some(
                "its executable exports no ngx_stat_requests (built without stub_status, or no access)",
            )
        } else if self.had_private {
            Some(
                "its counter is not in memory that its workers share (it runs as a single process, or had not started)",
            )
        } else {
            Some("its memory could not be read")
        }
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
        let why = meter.why_uncounted().unwrap();
        assert!(
            why.contains("not in memory that its workers share"),
            "{why}"
        );
    }

    #[test]
    fn memory_that_is_not_shared_yet_is_looked_at_again_but_less_and_less_often() {
        let mut meter = RequestMeter::default();
        let mut looks = Vec::new();
        for reading in 1..=200 {
            meter.readings = reading;
            let shared = (reading == 195).then_some((1, 2));
            let found = meter.backing_of((7, 16), || {
                looks.push(reading);
                shared
            });
            assert_eq!(found, None);
        }
        assert_eq!(looks, [1, 2, 4, 8, 16, 32, 64, 128, 192]);
        meter.readings = 256;
        assert_eq!(meter.backing_of((7, 16), || Some((1, 2))), Some((1, 2)));
        meter.readings = 1_000_000;
        let found = meter.backing_of((7, 16), || panic!("it is known"));
        assert_eq!(found, Some((1, 2)));
    }

    #[test]
    fn a_counter_that_cannot_be_read_counts_nothing() {
        let mut meter = RequestMeter::default();
        assert_eq!(meter.read(&BTreeMap::new()), 0);
        assert!(
            meter
                .why_uncounted()
                .unwrap()
                .contains("exports no ngx_stat_requests")
        );
        assert_eq!(meter.read(&BTreeMap::from([(u32::MAX, 4096)])), 0);
        assert!(meter.why_uncounted().unwrap().contains("could not be read"));
        assert_eq!(meter.read(&BTreeMap::from([(std::process::id(), 16)])), 0);
    }
}
