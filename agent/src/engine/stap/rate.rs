//! Probes that fire on every event: for whom, and whether that is not too often, before the start.
//!
//! In: the processes, a look of half a second in which the module counts events and takes no stack. Out: leave to go on.
//! Never: a capture whose stacks would take more of a CPU than the guard allows: it would be ended at once.

use super::capture::Capture;
use super::report::Missed;
use super::run::Told;
use super::sizes::Demand;
use crate::engine::task::lock;
use crate::host::program::parent_of;
use model::{Finding, FindingCode};
use std::time::Duration;

/// How long events are counted.
const LOOK_MS: u64 = 500;
/// SystemTap arms probes in user space that have a condition at most this long after it holds (STP_ON_THE_FLY_INTERVAL).
const ARMED_MS: u64 = 100;
/// How long its count may take to come.
const ANSWER_MS: u64 = 3_000;
const STEP_MS: u64 = 50;
/// What one event takes of a CPU, in nanoseconds: its probes and an unwound stack. 43 frames are 340,000 instructions (`make
/// lab-cost`), at 3 GHz and one to two in a cycle 60 to 110 µs.
const EVENT_NS: u64 = 100_000;

impl Capture {
    /// Whether the module can be told all processes.
    ///
    /// # Errors
    /// `probe-unavailable`: there are too many.
    pub(super) fn few_enough(&self) -> Result<(), Vec<Finding>> {
        let (probe, count) = (self.plan.wanted.probe, self.pids.len());
        let most = probe.targets_max();
        if !probe.events {
            return Ok(());
        }
        if count <= most && self.near().is_none() {
            let said = format!("{count} processes match, and they have no parent in common");
            let remedy = "Name one process, or a gateway's workers.";
            return Err(vec![
                Finding::new(FindingCode::ProbeUnavailable, said).with_remedy(remedy),
            ]);
        }
        if count <= most {
            return Ok(());
        }
        let said = format!(
            "{count} processes match, and the probe {} takes {most}",
            probe.name
        );
        let remedy = format!("Name fewer, such as --pick busiest:{most}.");
        Err(vec![
            Finding::new(FindingCode::ProbeUnavailable, said).with_remedy(remedy),
        ])
    }

    /// What the module is told when it is loaded.
    pub(super) fn told_module(&self) -> Told {
        let probe = self.plan.wanted.probe;
        let first = self.pids.keys().next().copied();
        Told {
            target: first.filter(|_| probe.heap),
            near: self.near().filter(|_| probe.events),
            parameters: match probe.events {
                true => probe.parameters(self.pids.keys().copied()),
                false => Vec::new(),
            }
            .into_iter()
            .chain(probe.thinned(self.plan.settings.one_in))
            .collect(),
        }
    }

    /// The one process, or the parent that all have in common.
    fn near(&self) -> Option<u32> {
        let mut pids = self.pids.keys().copied();
        let first = pids.next()?;
        if self.pids.len() == 1 {
            return Some(first);
        }
        let parent = parent_of(first)?;
        pids.all(|pid| parent_of(pid) == Some(parent))
            .then_some(parent)
    }

    /// Looks how many events there are, where each will have its stack taken.
    ///
    /// # Errors
    /// `stap-rate`: too many.
    pub(super) async fn look_at_rate(&mut self) -> Result<(), Vec<Finding>> {
        if !self.plan.wanted.probe.waits {
            return Ok(());
        }
        let tell = |word: &str| {
            // The module may be gone; that is noticed elsewhere.
            let _ = self.run.as_ref().map(|run| run.tell(word));
        };
        let began_ns = self.clock.now_ns();
        tell("look");
        tokio::time::sleep(Duration::from_millis(ARMED_MS + LOOK_MS)).await;
        tell("quiet");
        let passed_ms = self.clock.now_ns().saturating_sub(began_ns) / 1_000_000;
        // Of the others the condition is asked when they fire.
        let late_ms = if self.plan.wanted.probe.heap {
            ARMED_MS
        } else {
            0
        };
        let look_ms = passed_ms.saturating_sub(late_ms);
        let mut seen = None;
        for _ in 0..ANSWER_MS / STEP_MS {
            seen = self.stacks.as_ref().and_then(|stacks| lock(stacks).seen);
            if seen.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(STEP_MS)).await;
        }
        let said = match seen {
            Some(events) => judge((events, look_ms), self.pids.len(), &self.plan.wanted.demand),
            None => Err("the module did not say how many events it had seen".to_owned()),
        };
        said.map_err(|said| vec![Finding::new(FindingCode::StapRate, said)])
    }

    /// What is not in the result: processes that came later, memory that was not followed.
    pub(super) fn told_of_events(&self) -> Vec<Finding> {
        let missed = self.stacks.as_ref().and_then(|stacks| lock(stacks).missed);
        let Missed {
            freed,
            allocated,
            bytes,
        } = missed.unwrap_or_default();
        let late = self.late;
        let told = [
            (
                late,
                FindingCode::StapTargetLate,
                format!("{late} processes of the target came after the module was loaded"),
            ),
            (
                freed,
                FindingCode::StapFreedBefore,
                format!("{freed} times something was freed that was not seen allocated"),
            ),
            (
                allocated,
                FindingCode::StapUntracked,
                format!("{allocated} allocations of {bytes} bytes were not followed"),
            ),
        ];
        let told = told.into_iter().filter(|(count, ..)| *count > 0);
        told.map(|(_, code, said)| Finding::new(code, said))
            .collect()
    }
}

/// Whether so many events within so many milliseconds are few enough.
///
/// # Errors
/// What they would take, and what they may.
fn judge((events, ms): (u64, u64), processes: usize, demand: &Demand) -> Result<(), String> {
    let per_second = events.saturating_mul(1_000) / ms.max(1);
    // Percent of one CPU.
    let takes = per_second.saturating_mul(EVENT_NS) / 10_000_000;
    // Of all CPUs together: stacks are taken one at a time.
    let may = demand.probes_pct_max();
    if takes <= may {
        return Ok(());
    }
    Err(format!(
        "{per_second} events a second in {processes} processes; with {} us for the stack of each they would take {takes} % \
         of a CPU, and {may} % are allowed",
        EVENT_NS / 1_000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_events_than_the_guard_allows_are_refused_with_their_number() {
        let demand = Demand {
            per_second: 1_000,
            duration_ms: 10_000,
            cpus: 8,
            running: 2,
            kernel: false,
            waits: true,
            copies: false,
            memory_mb: 256,
            cpu_pct: 10,
        };
        // 40 % of one CPU: 4,000 a second.
        assert_eq!(judge((2_000, 500), 2, &demand), Ok(()));
        let said = judge((2_060, 500), 2, &demand).unwrap_err();
        assert!(
            said.starts_with("4120 events a second in 2 processes")
                && said.contains("41 % of a CPU, and 40 % are allowed"),
            "{said}"
        );
        // Whatever the budget: never more than half of a CPU.
        let rich = Demand {
            cpu_pct: 400,
            ..demand
        };
        assert!(judge((2_500, 500), 2, &rich).is_ok() && judge((2_560, 500), 2, &rich).is_err());
        assert!(judge((u64::MAX, 0), 2, &rich).is_err());
    }
}
