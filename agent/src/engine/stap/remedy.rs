//! What is tried when SystemTap ended a run by itself. Pure: a ladder.
//!
//! In: why it ended, what was set, the sizes of the module that ran, what may be used up, the host's leave. Out: other settings with the reason and the
//! price, or none. Never: a rung that takes a guard of the kernel's away without the host's leave; DEBUG_UNWIND and
//! guru mode at all; a rung twice with the same settings.
//!
//! ```text
//! overload            half the rate, reports half as large ─▶ the same again ─▶ (only with leave) without the guard
//! skipped too many    half the rate ─▶ allow four times as many, and tell the ratio
//! map full            twice the rows, if they fit ─▶ half the rate
//! too many actions    four times as many
//! ```
//! What is more or less is so than the module that was loaded had, whoever built it: else the same one would be taken
//! again.

use super::sizes::{Bounds, Demand, SLICE_MS_MIN, Sizes};
use model::FindingCode;
use std::collections::BTreeSet;

/// Tries after the first.
pub(super) const RETRIES_MAX: u32 = 3;
/// Lower rates tell too little to be worth a try.
const HZ_MIN: u64 = 9;
/// What a minimum of waits is raised to at least: less would leave as many as there were.
const WAIT_STEP_NS_MIN: u64 = 100_000;
/// Longer minima tell too little.
const WAIT_NS_MAX: u64 = 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Different stacks of waits that a second is expected to have on a CPU: their table has a row for each, however often
/// they come.
const WAIT_STACKS_A_SECOND: u64 = 1_000;
/// A retry must have this much time left to be worth it, in milliseconds.
const LEFT_MS_MIN: u64 = 2_000;

/// What a try is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Nanoseconds between two samples; of waits, of the shortest that counts.
    pub period_ns: u64,
    /// Waits are measured.
    pub waits: bool,
    /// What the next module's sizes must keep to.
    pub bounds: Bounds,
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
    pub(super) fn first(period_ns: u64, waits: bool) -> Self {
        Self {
            period_ns: period_ns.max(1),
            waits,
            bounds: Bounds::NONE,
            unguarded: false,
        }
    }

    /// Samples a second and CPU.
    fn sample_hz(&self) -> u64 {
        SECOND_NS / self.period_ns
    }

    /// What there is to count with these.
    pub(super) fn demand(&self, demand: Demand) -> Demand {
        Demand {
            per_second: if self.waits {
                WAIT_STACKS_A_SECOND
            } else {
                self.sample_hz()
            },
            waits: self.waits,
            ..demand
        }
    }

    /// The sizes with these; none when they do not fit.
    fn sizes(&self, demand: Demand) -> Option<Sizes> {
        Sizes::of(self.demand(demand), &self.bounds)
    }
}

/// The next rung, after `tries` tries, with `left_ms` of the capture left, of which a build takes `build_ms`. The module
/// that was ended had the sizes `used`.
pub(super) fn next(
    causes: &BTreeSet<FindingCode>,
    settings: Settings,
    (demand, used): (Demand, &Sizes),
    (tries, left_ms, build_ms): (u32, u64, u64),
    may_be_unguarded: bool,
) -> Option<Step> {
    if tries > RETRIES_MAX || left_ms < build_ms.saturating_add(LEFT_MS_MIN) {
        return None;
    }
    let has = |code| causes.contains(&code);
    if has(FindingCode::StapOverload) {
        return calmer(settings, used).or_else(|| {
            (may_be_unguarded && !settings.unguarded).then(|| Step {
                settings: Settings {
                    unguarded: true,
                    ..settings
                },
                said: "without SystemTap's guard against overload, as the host's policy allows; a CPU may be held up".to_owned(),
            })
        });
    }
    if has(FindingCode::StapSkippedTooMany) {
        // Half the rate once: what is skipped depends on other things too.
        let first = (tries == 1).then(|| slower(settings)).flatten();
        return first.or_else(|| more_patient(settings, used));
    }
    if has(FindingCode::StapMapFull) {
        return roomier(settings, demand, used).or_else(|| slower(settings));
    }
    if has(FindingCode::StapMaxAction) && settings.bounds.actions_min == 0 {
        let bounds = Bounds {
            actions_min: used.actions.saturating_mul(4),
            ..settings.bounds
        };
        return Some(Step {
            settings: Settings { bounds, ..settings },
            said: "four times as many statements in one report; it takes a CPU longer".to_owned(),
        });
    }
    None
}

fn slower(settings: Settings) -> Option<Step> {
    let (period_ns, said) = if settings.waits {
        let period_ns = (settings.period_ns.saturating_mul(2)).max(WAIT_STEP_NS_MIN);
        let said = format!(
            "only waits of {} µs and more; shorter ones are left out",
            period_ns / 1_000
        );
        ((period_ns <= WAIT_NS_MAX).then_some(period_ns)?, said)
    } else {
        let (was, sample_hz) = (settings.sample_hz(), settings.sample_hz() / 2);
        if sample_hz < HZ_MIN {
            return None;
        }
        let said = format!("{sample_hz} Hz instead of {was}; half as many samples");
        (SECOND_NS / sample_hz, said)
    };
    let settings = Settings {
        period_ns,
        ..settings
    };
    Some(Step { settings, said })
}

/// Half the rate, and reports of half the time: the memory that becomes free must not go into deeper stacks or longer
/// slices, with which a report would cost what it did.
fn calmer(settings: Settings, used: &Sizes) -> Option<Step> {
    let slice_ms_max = (used.slice_ms / 2).max(SLICE_MS_MIN);
    let bounds = Bounds {
        slice_ms_max,
        depth_max: used.depth,
        ..settings.bounds
    };
    slower(settings).map(|step| Step {
        settings: Settings {
            bounds,
            ..step.settings
        },
        said: format!("{}, reported every {slice_ms_max} ms", step.said),
    })
}

/// Four times as many skipped samples, once.
fn more_patient(settings: Settings, used: &Sizes) -> Option<Step> {
    let skipped_min = used.skipped_max.saturating_mul(4);
    let bounds = Bounds {
        skipped_min,
        ..settings.bounds
    };
    (settings.bounds.skipped_min == 0).then(|| Step {
        settings: Settings { bounds, ..settings },
        said: "four times as many samples may be skipped; shares may be wrong, the ratio is told"
            .to_owned(),
    })
}

/// Twice the rows, where stacks stay as deep.
fn roomier(settings: Settings, demand: Demand, used: &Sizes) -> Option<Step> {
    let bounds = Bounds {
        rows_min: used.rows.saturating_mul(2),
        ..settings.bounds
    };
    let settings = Settings { bounds, ..settings };
    let sizes = settings.sizes(demand).filter(|s| s.depth >= used.depth)?;
    Some(Step {
        settings,
        said: format!(
            "{} rows instead of {}; the kernel's memory for them",
            sizes.rows, used.rows
        ),
    })
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
        copies: false,
        waits: false,
        memory_mb: 256,
        cpu_pct: 10,
    };

    fn hz(sample_hz: u32) -> Settings {
        Settings::first(SECOND_NS / u64::from(sample_hz), false)
    }

    fn climb(cause: Code, leave: bool) -> Vec<Step> {
        let mut settings = hz(99);
        let causes = BTreeSet::from([cause]);
        let mut steps = Vec::new();
        for tries in 1..10 {
            let used = settings.sizes(DEMAND).unwrap();
            let time = (tries, 60_000, 10_000);
            let Some(step) = next(&causes, settings, (DEMAND, &used), time, leave) else {
                break;
            };
            assert_ne!(step.settings, settings, "a rung that changes nothing");
            let sizes = step.settings.sizes(DEMAND).unwrap();
            assert!(
                sizes != used || step.settings.unguarded,
                "{cause}: the same module: {step:?}"
            );
            settings = step.settings;
            steps.push(step);
        }
        steps
    }

    /// What the module of a first try at this rate has.
    fn used(sample_hz: u32, demand: Demand) -> Sizes {
        hz(sample_hz).sizes(demand).unwrap()
    }

    #[test]
    fn an_overload_lowers_the_rate_and_never_takes_the_guard_away_without_leave() {
        let rates =
            |steps: &[Step]| -> Vec<u64> { steps.iter().map(|s| s.settings.sample_hz()).collect() };
        let steps = climb(Code::StapOverload, false);
        assert_eq!(rates(&steps), [49, 24, 12]);
        assert!(
            steps
                .iter()
                .all(|s| !s.settings.unguarded && !s.said.is_empty())
        );
        // At the lowest rate, with leave.
        let low = hz(10);
        let causes = BTreeSet::from([Code::StapOverload]);
        let used = used(10, DEMAND);
        let at = |settings, tries, leave| {
            next(
                &causes,
                settings,
                (DEMAND, &used),
                (tries, 60_000, 0),
                leave,
            )
        };
        let step = at(low, 1, true).unwrap();
        assert!(step.settings.unguarded);
        assert_eq!(at(low, 1, false), None);
        assert_eq!(at(step.settings, 2, true), None);
    }

    #[test]
    fn an_overload_makes_reports_smaller_even_where_half_the_rate_would_make_room_for_longer_ones()
    {
        // Memory bounds the slices here: half the rate alone would double them again, for as many rows as before.
        let demand = Demand {
            cpus: 64,
            running: 8,
            kernel: true,
            waits: false,
            memory_mb: 1_024,
            ..DEMAND
        };
        let mut settings = hz(99);
        let half = hz(49).sizes(demand).unwrap();
        assert!(half.rows * 10 > settings.sizes(demand).unwrap().rows * 9);
        let causes = BTreeSet::from([Code::StapOverload]);
        for tries in 1..=2 {
            let used = settings.sizes(demand).unwrap();
            let step = next(
                &causes,
                settings,
                (demand, &used),
                (tries, 60_000, 0),
                false,
            )
            .unwrap();
            let then = step.settings.sizes(demand).unwrap();
            assert!(then.rows * 2 <= used.rows, "{used:?} {then:?}");
            assert!(then.depth <= used.depth && then.slice_ms <= used.slice_ms);
            settings = step.settings;
        }
    }

    #[test]
    fn skipped_samples_lower_the_rate_once_and_then_are_told() {
        let steps = climb(Code::StapSkippedTooMany, true);
        assert_eq!(steps.len(), 2);
        let first = &steps[0].settings;
        assert_eq!((first.sample_hz(), first.bounds), (49, Bounds::NONE));
        let second = &steps[1].settings;
        let four_times = 4 * first.sizes(DEMAND).unwrap().skipped_max;
        assert_eq!(
            (second.sample_hz(), second.bounds.skipped_min),
            (49, four_times)
        );
        assert!(steps[1].said.contains("ratio is told"));
    }

    #[test]
    fn a_full_map_grows_only_within_the_memory_budget() {
        let step = &climb(Code::StapMapFull, false)[0];
        assert_eq!(step.settings.bounds.rows_min, 2 * used(99, DEMAND).rows);
        let narrow = Demand {
            memory_mb: 2,
            ..DEMAND
        };
        let causes = BTreeSet::from([Code::StapMapFull]);
        let first = hz(99);
        let step = next(
            &causes,
            first,
            (narrow, &used(99, narrow)),
            (1, 60_000, 0),
            false,
        )
        .unwrap();
        assert_eq!(
            (step.settings.bounds, step.settings.sample_hz()),
            (Bounds::NONE, 49)
        );
    }

    #[test]
    fn there_is_an_end_to_trying() {
        let causes = BTreeSet::from([Code::StapOverload]);
        let (first, used) = (hz(99), used(99, DEMAND));
        let at = |tries, left_ms, build_ms| {
            let time = (tries, left_ms, build_ms);
            next(&causes, first, (DEMAND, &used), time, true)
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

    #[test]
    fn of_waits_the_shorter_ones_are_left_out_first_and_their_table_stays_bounded() {
        let settings = Settings::first(70_000, true);
        let demand = settings.demand(DEMAND);
        assert_eq!((demand.per_second, demand.waits), (1_000, true));
        let used = Sizes::of(demand, &settings.bounds).unwrap();
        let causes = BTreeSet::from([FindingCode::StapOverload]);
        let step = next(
            &causes,
            settings,
            (DEMAND, &used),
            (1, 60_000, 1_000),
            false,
        )
        .unwrap();
        assert_eq!(step.settings.period_ns, 140_000);
        assert!(
            step.said.contains("waits of 140 µs and more"),
            "{}",
            step.said
        );
    }
}
