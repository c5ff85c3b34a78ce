//! How often targets are switched, and how many of those switches are sampled. In: the kernel's own
//! counts in /proc, read without any event. Out: for each process every how manyth switch.
//! Never: more than its budget of stacks a second, where the rate stays as it was.

use crate::file::read_proc;
use crate::proc;
use std::collections::BTreeMap;

/// Stacks that are taken in a second on a CPU.
pub const STACKS_A_SECOND_MAX: u64 = 1_000;
/// Threads of one process whose counts are read; the rest is taken to be like these.
const THREADS_MAX: usize = 512;

/// Switch-outs of a process so far, and its threads.
#[must_use]
pub fn switches(pid: u32) -> (u64, usize) {
    let threads = proc::threads(pid);
    let all = threads.len();
    let sum: u64 = threads
        .into_iter()
        .take(THREADS_MAX)
        .filter_map(|tid| read_proc(&format!("/proc/{pid}/task/{tid}/status"), 8192).ok())
        .map(|bytes| parse(&String::from_utf8_lossy(&bytes)))
        .fold(0, u64::saturating_add);
    let read = all.clamp(1, THREADS_MAX);
    (sum.saturating_mul(all as u64) / read as u64, all)
}

/// Both counts of context switches of a thread's status file.
fn parse(status: &str) -> u64 {
    let count = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    count("voluntary_ctxt_switches:").saturating_add(count("nonvoluntary_ctxt_switches:"))
}

/// Counts of processes at two instants.
#[derive(Debug, Default)]
pub struct RateLook {
    before: BTreeMap<u32, (u64, u64)>,
}

impl RateLook {
    /// Switches a second and threads of each process that was there at the look before; `counts`
    /// are what [`switches`] says now. A process whose count fell is left out: a thread ended and
    /// took its switches with it, so that the difference says nothing.
    pub fn look(
        &mut self,
        counts: impl IntoIterator<Item = (u32, (u64, usize))>,
        now_ns: u64,
    ) -> BTreeMap<u32, (u64, usize)> {
        let mut rates = BTreeMap::new();
        let before = std::mem::take(&mut self.before);
        for (pid, (count, threads)) in counts {
            self.before.insert(pid, (count, now_ns));
            if let Some(&(earlier, at)) = before.get(&pid)
                && count >= earlier
            {
                let span = now_ns.saturating_sub(at).max(1);
                let many = u128::from(count - earlier) * 1_000_000_000;
                let rate = u64::try_from(many / u128::from(span)).unwrap_or(u64::MAX);
                rates.insert(pid, (rate, threads));
            }
        }
        rates
    }
}

/// For each process every how manyth switch is sampled, so that `budget` stacks a second are taken
/// on each CPU at most: all of a process that keeps below an even share, the rest shared evenly. A
/// single thread may spend all its switches on one CPU, so a process never gets more than a CPU's
/// budget for each of its threads. Numbers above 1 are primes, so that a program that repeats itself
/// every few switches does not show the same one each time; `turn` varies them.
#[must_use]
pub fn strides(
    rates: &BTreeMap<u32, (u64, usize)>,
    cpus: usize,
    budget: u64,
    turn: u64,
) -> BTreeMap<u32, u64> {
    let mut left = budget.saturating_mul(cpus.max(1) as u64).max(1);
    let mut by_rate: Vec<(u64, usize, u32)> = rates
        .iter()
        .map(|(pid, (rate, threads))| (*rate, *threads, *pid))
        .collect();
    by_rate.sort_unstable();
    let mut strides = BTreeMap::new();
    let count = by_rate.len() as u64;
    for (done, (rate, threads, pid)) in (0_u64..).zip(by_rate) {
        let even = (left / (count - done)).max(1);
        let own = budget.saturating_mul(threads.clamp(1, cpus.max(1)) as u64);
        let share = even.min(own).max(1);
        let stride = rate.div_ceil(share).max(1);
        let stride = if stride == 1 {
            1
        } else {
            prime_from(stride.max(3) + turn % 3 * stride / 8)
        };
        left = left.saturating_sub(rate / stride);
        strides.insert(pid, stride);
    }
    strides
}

/// The smallest odd prime from `n` up.
fn prime_from(n: u64) -> u64 {
    let n = n.clamp(3, 1 << 20) | 1;
    let is_prime = |n: u64| {
        (3..)
            .step_by(2)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
    };
    (n..).step_by(2).find(|&n| is_prime(n)).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_kinds_of_switch_are_counted() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t30\n";
        assert_eq!(parse(status), 42);
        assert_eq!(parse(""), 0);
        assert!(switches(std::process::id()).0 > 0);
    }

    #[test]
    fn a_process_whose_count_fell_with_a_thread_has_no_rate_and_the_next_look_has() {
        let mut look = RateLook::default();
        let second = 1_000_000_000;
        assert!(
            look.look([(1, (90_000, 9)), (2, (10, 1))], second)
                .is_empty()
        );
        let rates = look.look([(1, (50_000, 8)), (2, (10, 1))], 2 * second);
        assert_eq!(rates, BTreeMap::from([(2, (0, 1))]));
        let rates = look.look([(1, (80_000, 8))], 3 * second);
        assert_eq!(rates, BTreeMap::from([(1, (30_000, 8))]));
    }

    #[test]
    fn a_quiet_process_is_seen_whole_beside_a_busy_one() {
        let rates = BTreeMap::from([(1, (50, 1)), (2, (40_000, 1)), (3, (900, 4))]);
        let strides = strides(&rates, 2, 1_000, 0);
        assert_eq!((strides[&1], strides[&3]), (1, 1));
        assert!((40..=60).contains(&strides[&2]), "{strides:?}");
    }

    #[test]
    fn numbers_above_one_are_odd_primes() {
        let primes: Vec<u64> = [2, 3, 4, 8, 9, 24, 90].map(prime_from).to_vec();
        assert_eq!(primes, [3, 3, 5, 11, 11, 29, 97]);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nobody_is_left_out(
            rates in prop::collection::btree_map(
                1_u32..1000, (0_u64..2_000_000, 1_usize..64), 0..40),
            cpus in 1_usize..128,
            turn in any::<u64>(),
        ) {
            let turn = turn % 1000;
            let strides = strides(&rates, cpus, 1_000, turn);
            prop_assert_eq!(strides.len(), rates.len());
            let taken: u64 = rates.iter().map(|(pid, (rate, _))| rate / strides[pid]).sum();
            prop_assert!(taken <= 1_000 * cpus as u64 + rates.len() as u64);
            for (pid, (rate, threads)) in &rates {
                let stride = strides[pid];
                prop_assert!(stride >= 1 && (stride == 1 || stride % 2 == 1));
                prop_assert!(rate / stride <= 1_000 * (*threads).min(cpus) as u64);
            }
        }
    }
}
