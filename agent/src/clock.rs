//! The one door to CLOCK_MONOTONIC. In: nothing. Out: nanoseconds.
//! Never: the wall clock; it steps.

use std::sync::Arc;

/// A monotonic clock. The double is driven by a test's paused time.
pub trait MonotonicClock: Send + Sync {
    /// Nanoseconds since an arbitrary instant; never goes back.
    fn now_ns(&self) -> u64;
}

/// The clock that sessions share.
pub type Clock = Arc<dyn MonotonicClock>;

/// CLOCK_MONOTONIC of this process's time namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl MonotonicClock for SystemClock {
    fn now_ns(&self) -> u64 {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
            let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
            seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
        })
    }
}

/// A clock on tokio's time, shifted: paused time moves it, and every host of a simulated fleet can
/// have a shift of its own.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    zero: tokio::time::Instant,
    shift_ns: u64,
}

impl TokioClock {
    /// A clock that shows `shift_ns` now.
    #[must_use]
    pub fn shifted(shift_ns: u64) -> Self {
        Self {
            zero: tokio::time::Instant::now(),
            shift_ns,
        }
    }
}

impl MonotonicClock for TokioClock {
    fn now_ns(&self) -> u64 {
        let passed = u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.shift_ns.saturating_add(passed)
    }
}
