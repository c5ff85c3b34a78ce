//! Tests of the ladder. In: causes, what was set and used. Out: rungs. Never: SystemTap.

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
const LEFT: Left = Left {
    tries: 1,
    left_ms: 60_000,
    armed_in_ms: 10_000,
    loaded_in_ms: 1_000,
};

fn hz(sample_hz: u32) -> Settings {
    Settings::first(SECOND_NS / u64::from(sample_hz), false, false)
}

/// Rungs where `can` of what is possible is done.
fn climb(cause: Code, leave: bool, can: impl Fn(&Step) -> bool) -> Vec<Step> {
    let mut settings = hz(99);
    let causes = BTreeSet::from([cause]);
    let mut steps = Vec::new();
    for tries in 1..10 {
        let used = Sizes::of(DEMAND, &settings.bounds).unwrap();
        let possible = next(
            &causes,
            settings,
            (DEMAND, &used),
            Left { tries, ..LEFT },
            leave,
        );
        let Some(step) = possible.into_iter().find(&can) else {
            break;
        };
        assert_ne!(step.settings, settings, "a rung that changes nothing");
        let sizes = Sizes::of(DEMAND, &step.settings.bounds).unwrap();
        assert_eq!(
            step.needs_module,
            sizes != used || step.settings.unguarded,
            "{cause}: {step:?}"
        );
        settings = step.settings;
        steps.push(step);
    }
    steps
}

fn rates(steps: &[Step]) -> Vec<u64> {
    steps.iter().map(|s| s.settings.sample_hz()).collect()
}

fn used(demand: Demand) -> Sizes {
    Sizes::of(demand, &Bounds::NONE).unwrap()
}

#[test]
fn an_overload_lowers_the_rate_and_never_takes_the_guard_away_without_leave() {
    let steps = climb(Code::StapOverload, false, |_| true);
    assert_eq!(rates(&steps), [49, 24, 12]);
    // Of the samples of the same module every second, fourth, eighth.
    let every: Vec<u64> = steps.iter().map(|step| step.settings.one_in).collect();
    assert_eq!(every, [2, 4, 8]);
    assert!(
        steps
            .iter()
            .all(|s| !s.settings.unguarded && !s.needs_module && !s.said.is_empty())
    );
    // At the lowest rate, with leave.
    let low = hz(10);
    let causes = BTreeSet::from([Code::StapOverload]);
    let at = |settings, leave| next(&causes, settings, (DEMAND, &used(DEMAND)), LEFT, leave);
    let steps = at(low, true);
    assert!(steps[0].settings.unguarded && steps[0].needs_module);
    assert_eq!(at(low, false), []);
    assert_eq!(at(steps[0].settings, true), []);
}

#[test]
fn skipped_samples_lower_the_rate_once_and_then_are_told() {
    let steps = climb(Code::StapSkippedTooMany, true, |_| true);
    assert_eq!(rates(&steps), [49, 49, 24]);
    assert_eq!(steps[0].settings.bounds, Bounds::NONE);
    let four_times = 4 * used(DEMAND).skipped_max;
    assert_eq!(steps[1].settings.bounds.skipped_min, four_times);
    assert!(steps[1].said.contains("ratio is told"));
}

#[test]
fn a_full_map_grows_only_within_the_memory_budget() {
    let step = &climb(Code::StapMapFull, false, |_| true)[0];
    assert_eq!(step.settings.bounds.rows_min, 2 * used(DEMAND).rows);
    let narrow = Demand {
        memory_mb: 2,
        ..DEMAND
    };
    let causes = BTreeSet::from([Code::StapMapFull]);
    let steps = next(&causes, hz(99), (narrow, &used(narrow)), LEFT, false);
    assert_eq!(rates(&steps), [49]);
    assert_eq!(steps[0].settings.bounds, Bounds::NONE);
}

#[test]
fn without_another_module_there_is_half_the_rate() {
    for cause in [
        Code::StapOverload,
        Code::StapMapFull,
        Code::StapMaxAction,
        Code::StapSkippedTooMany,
    ] {
        let steps = climb(cause, true, |step| !step.needs_module);
        assert_eq!(rates(&steps), [49, 24, 12], "{cause}");
    }
}

#[test]
fn there_is_an_end_to_trying() {
    let at = |cause, left| {
        let causes = BTreeSet::from([cause]);
        next(&causes, hz(99), (DEMAND, &used(DEMAND)), left, true).len()
    };
    let last = Left {
        tries: RETRIES_MAX + 1,
        ..LEFT
    };
    assert_eq!(at(Code::StapOverload, last), 0, "tried often enough");
    // No time to build, but to load again; and none at all.
    let short = |left_ms| Left { left_ms, ..LEFT };
    assert_eq!(at(Code::StapMapFull, short(12_000)), 2);
    assert_eq!(at(Code::StapMapFull, short(11_000)), 1);
    assert_eq!(at(Code::StapOverload, short(2_500)), 0);
    for code in [
        Code::StapKernelFiles,
        Code::StapScriptFailed,
        Code::StapNotPermitted,
        Code::StapOneFrame,
    ] {
        assert!(climb(code, true, |_| true).is_empty(), "{code}");
    }
}

#[test]
fn of_waits_and_events_fewer_count_by_chance_whatever_their_length() {
    let settings = Settings::first(70_000, true, false);
    let demand = settings.demand(DEMAND);
    assert_eq!((demand.per_second, demand.waits), (1_000, true));
    let causes = BTreeSet::from([Code::StapOverload]);
    let steps = next(&causes, settings, (demand, &used(demand)), LEFT, false);
    let next = steps[0].settings;
    assert_eq!((next.period_ns, next.one_in), (70_000, 4));
    assert!(
        steps[0].said.contains("one in 4 counts"),
        "{}",
        steps[0].said
    );
    assert!(!steps[0].needs_module);
}

#[test]
fn of_memory_none_is_left_out_and_its_table_may_still_grow() {
    let settings = Settings::first(1, true, true);
    let demand = Demand {
        memory_mb: 1_024,
        ..settings.demand(DEMAND)
    };
    let used = used(demand);
    let steps = |cause| {
        let causes = BTreeSet::from([cause]);
        next(&causes, settings, (demand, &used), LEFT, true)
    };
    assert_eq!(steps(Code::StapOverload), []);
    let grown = steps(Code::StapMapFull);
    assert_eq!(grown.len(), 1);
    assert_eq!(grown[0].settings.bounds.rows_min, 2 * used.rows);
}
