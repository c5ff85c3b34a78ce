//! How far the loading of a script's module is, and what it costs.
//!
//! In: looks at the kernel and at staprun's CPU time. Out: what the capture has used beside it. Never: a budget that loading
//! alone uses up, or a module that is free of charge for ever.

use std::time::Duration;

/// How long after it was seen in the kernel a module may still be setting up its probes.
const SET_UP: Duration = Duration::from_secs(10);

/// How far loading is. What it costs is not held against the capture's budget: with built-in probes it is over before the
/// start, and a script begins by it.
#[derive(Debug, Default)]
pub(super) struct Loading {
    /// CPU time at the last look, and when it was, in nanoseconds.
    last: (u64, u64),
    /// When the module was seen in the kernel.
    loaded_ns: Option<u64>,
    /// CPU time that it took; final when it is over.
    cpu_ns: u64,
    is_over: bool,
}

impl Loading {
    /// What the capture has used, when staprun has used `cpu_ns` at `now_ns`. It is over when staprun, whose work it is,
    /// has used less than half of a CPU since the last look.
    pub(super) fn used(&mut self, is_loaded: bool, cpu_ns: u64, now_ns: u64) -> u64 {
        let (before_ns, looked_ns) = std::mem::replace(&mut self.last, (cpu_ns, now_ns));
        if is_loaded {
            self.loaded_ns.get_or_insert(now_ns);
        }
        if !self.is_over {
            self.cpu_ns = cpu_ns;
            let loaded_ns = self.loaded_ns.unwrap_or(now_ns);
            let is_late = u128::from(now_ns.saturating_sub(loaded_ns)) >= SET_UP.as_nanos();
            let rests = cpu_ns.saturating_sub(before_ns) < now_ns.saturating_sub(looked_ns) / 2;
            self.is_over = is_late || (is_loaded && rests && looked_ns > 0);
        }
        cpu_ns.saturating_sub(self.cpu_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_is_not_held_against_the_capture_and_what_follows_is() {
        const MS: u64 = 1_000_000;
        let mut loading = Loading::default();
        // Busy while it is loaded and sets up its probes.
        for (is_loaded, cpu_ms, at_ms) in [(false, 150, 200), (true, 320, 400), (true, 500, 600)] {
            assert_eq!(loading.used(is_loaded, cpu_ms * MS, at_ms * MS), 0);
        }
        assert_eq!(loading.used(true, 520 * MS, 800 * MS), 0);
        assert_eq!(loading.used(true, 700 * MS, 1_000 * MS), 180 * MS);
        // One that never rests is charged in the end.
        let mut loading = Loading::default();
        let used = (1..=60).map(|n| loading.used(true, n * 200 * MS, n * 200 * MS));
        assert_eq!(used.last(), Some((12_000 - 10_200) * MS));
    }
}
