//! How the event clock stands to our own. In: nothing. Out: an offset with its uncertainty.
//! Never: wall-clock time. In a time namespace our `CLOCK_MONOTONIC` is shifted and perf's is not,
//! and without `use_clockid` perf counts `sched_clock`.

use crate::attr::{self, Features};
use crate::record::{self, Record};
use crate::ring::Ring;
use crate::sys;
use std::io;

/// Event time minus our `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Add it (wrapping) to `CLOCK_MONOTONIC` to get event time.
    pub offset_ns: u64,
    /// Half of the interval that the truth lies in.
    pub uncertainty_ns: u64,
}

/// Renames a short-lived thread of ours between two readings of the clock and reads the time that
/// perf put on it. The best of several tries.
///
/// # Errors
/// What the kernel says when such an event cannot be opened.
pub fn calibrate(features: Features) -> io::Result<ClockOffset> {
    let tries = std::thread::Builder::new()
        .name("ff-clock".to_owned())
        .spawn(move || {
            let fd = attr::open_dummy(features, None)?;
            let mut ring = Ring::map(&fd, 1)?;
            sys::perf_enable(&fd)?;
            let mut best: Option<ClockOffset> = None;
            for _ in 0..16 {
                let before = sys::mono_ns();
                sys::set_thread_name(c"ff-clock");
                let after = sys::mono_ns();
                if let Some(time) = last_name_time(&mut ring) {
                    let middle = before + (after - before) / 2;
                    let found = ClockOffset {
                        offset_ns: time.wrapping_sub(middle),
                        uncertainty_ns: (after - before).div_ceil(2),
                    };
                    if best.is_none_or(|b| found.uncertainty_ns < b.uncertainty_ns) {
                        best = Some(found);
                    }
                }
            }
            best.ok_or_else(|| io::Error::other("no comm record came"))
        })?;
    tries
        .join()
        .map_err(|_| io::Error::other("the calibration thread ended"))?
}

fn last_name_time(ring: &mut Ring) -> Option<u64> {
    let mut found = None;
    while let Ok(Some(header)) = ring.peek() {
        let mut bytes = [0; 256];
        if ring.copy(header, &mut bytes)
            && let Some(record) = bytes.get(..usize::from(header.size))
            && let Record::Named { time, .. } = record::parse(record)
        {
            found = Some(time);
        }
        ring.advance(header);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_the_monotonic_clock_the_offset_is_within_its_uncertainty() {
        let Ok(found) = calibrate(Features::all(false)) else {
            return;
        };
        // Outside a time namespace both clocks are the same one.
        if std::fs::read_to_string("/proc/self/timens_offsets")
            .is_ok_and(|t| t.contains("monotonic           0         0"))
        {
            let off = found.offset_ns.cast_signed().unsigned_abs();
            assert!(off <= found.uncertainty_ns, "{found:?}");
        }
    }
}
