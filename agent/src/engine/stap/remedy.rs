//! What is tried when SystemTap ended a run by itself. Pure: a ladder.
//!
//! In: why it ended, what was set, what may be used up, the host's leave. Out: other settings with the reason and the
//! price, or none. Never: a rung that takes a guard of the kernel's away without the host's leave; DEBUG_UNWIND and
//! guru mode at all; a rung twice with the same settings.
//!
//! ```text
//! overload            half the rate ─▶ half again ─▶ (only with leave) without the guard
//! skipped too many    half the rate ─▶ allow four times as many, and tell the ratio
//! map full            twice the rows, if they fit ─▶ half the rate
//! too many actions    four times as many
//! no memory           half the memory
//! ```

use super::sizes::{Demand, Sizes};
use model::FindingCode;
use std::collections::BTreeSet;

/// Tries after the first.
pub(super) const RETRIES_MAX: u32 = 3;
/// Lower rates tell too little to be worth a try.
const HZ_MIN: u64 = 9;
/// A retry must have this much time left to be worth it, in milliseconds.
const LEFT_MS_MIN: u64 = 2_000;

/// What a try is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Samples a second and CPU.
    pub sample_hz: u64,
    /// Times the rows.
    pub rows_factor: u64,
    /// Times the skipped samples that are allowed.
    pub skipped_factor: u64,
    /// Times the statements that a handler may do.
    pub actions_factor: u64,
    /// The memory budget is divided by it.
    pub memory_divisor: u64,
    /// Without the runtime's guard against overload.
    pub unguarded: bool,
}

/// A rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What the next try is made with.
    pub settings: Settings,
    /// What is changed, and what that costs, in words.
    pub said: String,
}

impl Settings {
    /// Of a first try.
    pub(super) fn first(sample_hz: u32) -> Self {
        Self {
            sample_hz: u64::from(sample_hz.max(1)),
            rows_factor: 1,
            skipped_factor: 1,
            actions_factor: 1,
            memory_divisor: 1,
            unguarded: false,
        }
    }

    /// What there is to count with these.
    pub(super) fn demand(&self, demand: Demand) -> Demand {
        Demand {
            per_second: self.sample_hz,
            memory_mb: demand.memory_mb / self.memory_divisor.max(1),
            ..demand
        }
    }

    /// The sizes with these; none when they do not fit.
    pub(super) fn sizes(&self, demand: Demand) -> Option<Sizes> {
        let demand = self.demand(demand);
        let mut sizes = Sizes::of(demand)?;
        sizes.rows *= self.rows_factor;
        sizes.actions *= self.rows_factor * self.actions_factor;
        sizes.skipped_max *= self.skipped_factor;
        demand.fits(&sizes).then_some(sizes)
    }

    /// Nanoseconds between two samples.
    pub(super) fn period_ns(&self) -> u64 {
        1_000_000_000 / self.sample_hz.max(1)
    }
}

/// The next rung, after `tries` tries, with `left_ms` of the capture left, of which a build takes `build_ms`.
pub(super) fn next(
    causes: &BTreeSet<FindingCode>,
    settings: Settings,
    demand: Demand,
    (tries, left_ms, build_ms): (u32, u64, u64),
    may_be_unguarded: bool,
) -> Option<Step> {
    if tries > RETRIES_MAX || left_ms < build_ms.saturating_add(LEFT_MS_MIN) {
        return None;
    }
    let slower = || {
        let sample_hz = settings.sample_hz / 2;
        (sample_hz >= HZ_MIN).then(|| Step {
            settings: Settings {
                sample_hz,
                ..settings
            },
            said: format!(
                "{sample_hz} Hz instead of {}; half as many samples",
                settings.sample_hz
            ),
        })
    };
    let has = |code| causes.contains(&code);
    if has(FindingCode::StapOverload) {
        let unguarded = || {
            (may_be_unguarded && !settings.unguarded).then(|| Step {
                settings: Settings {
                    unguarded: true,
                    ..settings
                },
                said: "without SystemTap's guard against overload, as the host's policy allows; a CPU may be held up".to_owned(),
            })
        };
        return slower().or_else(unguarded);
    }
    if has(FindingCode::StapSkippedTooMany) {
        let patient = || {
            (settings.skipped_factor == 1).then(|| Step {
                settings: Settings {
                    skipped_factor: 4,
                    ..settings
                },
                said: "four times as many samples may be skipped; shares may be wrong, the ratio is told".to_owned(),
            })
        };
        // Half the rate once: what is skipped depends on other things too.
        return if tries == 1 {
            slower().or_else(patient)
        } else {
            patient()
        };
    }
    if has(FindingCode::StapMapFull) {
        let more = Settings {
            rows_factor: settings.rows_factor * 2,
            ..settings
        };
        let roomier = more.sizes(demand).map(|sizes| Step {
            settings: more,
            said: format!(
                "{} rows instead of {}; twice the kernel's memory for them",
                sizes.rows,
                sizes.rows / 2
            ),
        });
        return roomier.or_else(slower);
    }
    if has(FindingCode::StapMaxAction) && settings.actions_factor == 1 {
        return Some(Step {
            settings: Settings {
                actions_factor: 4,
                ..settings
            },
            said: "four times as many statements in one report; it takes a CPU longer".to_owned(),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use FindingCode as Code;

    const DEMAND: Demand = Demand {
        per_second: 99,
        duration_ms: 60_000,
        cpus: 2,
        running: 2,
        kernel: false,
        memory_mb: 256,
        cpu_pct: 10,
    };

    fn climb(cause: Code, leave: bool) -> Vec<Step> {
        let mut settings = Settings::first(99);
        let causes = BTreeSet::from([cause]);
        let mut steps = Vec::new();
        for tries in 1..10 {
            let Some(step) = next(&causes, settings, DEMAND, (tries, 60_000, 10_000), leave) else {
                break;
            };
            assert_ne!(step.settings, settings, "a rung that changes nothing");
            settings = step.settings;
            steps.push(step);
        }
        steps
    }

    #[test]
    fn an_overload_lowers_the_rate_and_never_takes_the_guard_away_without_leave() {
        let rates =
            |steps: &[Step]| -> Vec<u64> { steps.iter().map(|s| s.settings.sample_hz).collect() };
        let steps = climb(Code::StapOverload, false);
        assert_eq!(rates(&steps), [49, 24, 12]);
        assert!(
            steps
                .iter()
                .all(|s| !s.settings.unguarded && !s.said.is_empty())
        );
        // At the lowest rate, with leave.
        let low = Settings::first(10);
        let causes = BTreeSet::from([Code::StapOverload]);
        let step = next(&causes, low, DEMAND, (1, 60_000, 0), true).unwrap();
        assert!(step.settings.unguarded);
        assert_eq!(next(&causes, low, DEMAND, (1, 60_000, 0), false), None);
        assert_eq!(
            next(&causes, step.settings, DEMAND, (2, 60_000, 0), true),
            None
        );
    }

    #[test]
    fn skipped_samples_lower_the_rate_once_and_then_are_told() {
        let steps = climb(Code::StapSkippedTooMany, true);
        assert_eq!(steps.len(), 2);
        assert_eq!(
            (
                steps[0].settings.sample_hz,
                steps[0].settings.skipped_factor
            ),
            (49, 1)
        );
        assert_eq!(
            (
                steps[1].settings.sample_hz,
                steps[1].settings.skipped_factor
            ),
            (49, 4)
        );
        assert!(steps[1].said.contains("ratio is told"));
    }

    #[test]
    fn a_full_map_grows_only_within_the_memory_budget() {
        let step = &climb(Code::StapMapFull, false)[0];
        assert_eq!(step.settings.rows_factor, 2);
        let narrow = Demand {
            memory_mb: 2,
            ..DEMAND
        };
        let causes = BTreeSet::from([Code::StapMapFull]);
        let step = next(&causes, Settings::first(99), narrow, (1, 60_000, 0), false).unwrap();
        assert_eq!(
            (step.settings.rows_factor, step.settings.sample_hz),
            (1, 49)
        );
    }

    #[test]
    fn there_is_an_end_to_trying() {
        let causes = BTreeSet::from([Code::StapOverload]);
        let first = Settings::first(99);
        let at = |tries, left_ms, build_ms| {
            next(&causes, first, DEMAND, (tries, left_ms, build_ms), true)
        };
        assert!(at(1, 60_000, 10_000).is_some());
        assert!(
            at(RETRIES_MAX + 1, 60_000, 10_000).is_none(),
            "tried often enough"
        );
        assert!(at(1, 11_000, 10_000).is_none(), "no time to build");
        for code in [
            Code::StapKernelFiles,
            Code::StapScriptFailed,
            Code::StapNotPermitted,
            Code::StapOneFrame,
        ] {
            assert!(climb(code, true).is_empty(), "{code}");
        }
    }
}
