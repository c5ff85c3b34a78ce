//! The doors to the clocks: CLOCK_MONOTONIC for instants, the wall clock for dates in records.
//!
//! In: nothing. Out: nanoseconds, milliseconds. Never: a duration from the wall clock; it steps.

use std::sync::Arc;

/// A monotonic clock; the double is driven by a test's paused time.
pub trait MonotonicClock: Send + Sync {
    /// Nanoseconds since an arbitrary instant; never goes back.
    fn now_ns(&self) -> u64;
}

/// The clock that a run shares.
pub type Clock = Arc<dyn MonotonicClock>;

/// CLOCK_MONOTONIC.
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

/// A clock on tokio's time, for fleets under paused time.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl MonotonicClock for TokioClock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since 1970, for ids and dates.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the door to the wall clock"
)]
pub fn wall_unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// 128 random bits from the kernel, for run ids.
///
/// # Errors
/// The operating system's, when /dev/urandom cannot be read.
pub fn random_bits() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
