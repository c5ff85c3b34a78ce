//! What a capture was, in numbers. In: what the threads counted. Out: a value. Never: a loss that
//! is not in it.

use crate::offcpu::{Recorded, WaitTotals};
use crate::registry::Window;
use model::finding::{Finding, FindingCode};

/// Durations in buckets of 1/8 of a power of two; the answer is within 13 %.
#[derive(Clone, Debug)]
pub struct Durations {
    buckets: Box<[u64; 512]>,
    count: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; 512]),
            count: 0,
        }
    }
}

impl Durations {
    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
    }

    /// The duration below which this share (0 to 1) of them lies; 0 when there is none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let mut left = (self.count as f64 * share).ceil().max(1.0) as u64;
        for (index, &n) in self.buckets.iter().enumerate() {
            if n >= left {
                return upper(index);
            }
            left -= n;
        }
        0
    }
}

fn bucket(ns: u64) -> usize {
    if ns < 8 {
        return ns as usize;
    }
    let log = 63 - ns.leading_zeros() as usize;
    (log - 2) * 8 + ((ns >> (log - 3)) & 7) as usize
}

fn upper(index: usize) -> u64 {
    if index < 8 {
        return index as u64;
    }
    let (log, eighth) = (index / 8 + 2, (index % 8) as u64);
    ((8 + eighth + 1) << (log - 3)) - 1
}

/// The end of a capture.
#[derive(Clone, Debug, Default)]
pub struct NativeSummary {
    /// How it was taken, such as `cpu-wide/fifo`.
    pub mode: String,
    /// Samples that are in the recorder.
    pub samples: u64,
    /// Records that the kernel could not deliver.
    pub lost: u64,
    /// Times the kernel throttled.
    pub throttled: u64,
    /// Samples dropped because handling took over 1 ms.
    pub dropped_late: u64,
    /// Samples dropped because no buffer was free.
    pub dropped_full: u64,
    /// Stacks that were cut short.
    pub truncated: u64,
    /// Stacks with user frames.
    pub user_stacks: u64,
    /// Those whose outermost frame was reached.
    pub rooted: u64,
    /// User frames in all stacks.
    pub user_frames: u64,
    /// User frames that are neither named nor known by their function's start.
    pub unknown_frames: u64,
    /// Deepest stack.
    pub depth_max: usize,
    /// Stacks with Lua frames.
    pub lua_stacks: u64,
    /// Runs of Lua frames between C code.
    pub lua_segments: u64,
    /// Those of them that were read while the target could run on.
    pub lua_racy: u64,
    /// Those of them that could not be followed.
    pub lua_failed: u64,
    /// CPU time of the sampler's own threads.
    pub own_cpu_ns: u64,
    /// From a sample to its handling, median and 99th percentile, in nanoseconds.
    pub latency_ns: (u64, u64),
    /// Handling of a sample, median and 99th percentile. With the latency it is what a sample
    /// takes from the target.
    pub work_ns: (u64, u64),
    /// Target processes and when they were captured.
    pub windows: Vec<Window>,
    /// When sampling began, in `CLOCK_MONOTONIC` nanoseconds of this process; 0 if it never did.
    pub started_mono_ns: u64,
    /// When it was stopped.
    pub stopped_mono_ns: u64,
    /// Where waits were measured: the account of all switches, and what was written down.
    pub waits: Option<(WaitTotals, Recorded)>,
    /// Everything that weakens the result.
    pub findings: Vec<Finding>,
}

impl NativeSummary {
    /// Whether more Lua stacks than usual could not be followed.
    #[must_use]
    pub(crate) fn lua_finding(&self) -> Option<Finding> {
        lua_finding(self.lua_segments, self.lua_racy, self.lua_failed)
    }
}

/// The same of these runs of Lua frames: all, read while the target ran on, not followed.
pub(crate) fn lua_finding(all: u64, racy: u64, failed: u64) -> Option<Finding> {
    // One in two hundred, and not one or two of a handful.
    let many = failed >= 5 && failed.saturating_mul(200) > all;
    many.then(|| {
        let evidence = format!(
            "{failed} of {all} runs of Lua frames could not be followed, {racy} were read while \
             the target ran on"
        );
        Finding::new(FindingCode::LuaUnwindFailed, evidence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lua_stacks_that_could_not_be_followed_are_said_when_they_are_many() {
        let of = |lua_segments, lua_failed| {
            let summary = NativeSummary {
                lua_segments,
                lua_failed,
                ..NativeSummary::default()
            };
            summary.lua_finding().map(|f| f.evidence)
        };
        assert_eq!(of(10_000, 50), None);
        assert_eq!(of(20, 2), None, "a handful says nothing");
        let said = of(10_000, 51).unwrap();
        assert!(said.starts_with("51 of 10000 runs"), "{said}");
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let mut d = Durations::default();
        (1..=1000).for_each(|us| d.add(us * 1000));
        let p50 = d.quantile(0.5);
        let p99 = d.quantile(0.99);
        assert!((500_000..=565_000).contains(&p50), "{p50}");
        assert!((990_000..=1_120_000).contains(&p99), "{p99}");
        assert_eq!(Durations::default().quantile(0.5), 0);
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for ns in [0, 7, 8, 9, 255, 256, 1 << 20, u64::MAX] {
            let index = bucket(ns);
            assert!(index < 512);
            if ns < u64::MAX {
                assert!(upper(index) >= ns, "{ns}");
            }
        }
    }
}
