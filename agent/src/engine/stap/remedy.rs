//! What is tried when SystemTap ended a run by itself. Pure: a ladder.
//!
//! In: why it ended, what was set, the sizes of the module that ran, what may be used up, the host's leave. Out: other settings with the reason and the
//! price, the best first: one that needs another module may be impossible. Never: a rung that takes a guard of the kernel's away without the host's leave; DEBUG_UNWIND and
//! guru mode at all; a rung twice with the same settings.
//!
//! ```text
//! overload            half the rate ─▶ the same again ─▶ (samples, only with leave) without the guard
//! skipped too many    half the rate ─▶ allow four times as many, and tell the ratio
//! map full            twice the rows, if they fit ─▶ half the rate
//! too many actions    four times as many ─▶ half the rate
//! ```
//! Half the rate is the same module with another value of a parameter: of its samples it takes every second one, by chance;
//! of waits and events, whose rate nobody has chosen, one in four, and each stands for all. So it needs neither a compiler
//! nor the time that one takes. Reports have fewer rows then. All other rungs need another module: one that lies ready, or
//! one that is built.
//! Of memory nothing is left out: what was freed is known by what was allocated.
//! What is more or less is so than the module that was loaded had, whoever built it: else the same one would be taken
//! again.

use super::sizes::{Bounds, Demand, Sizes};
use model::FindingCode;
use std::collections::BTreeSet;

/// Tries after the first.
pub(super) const RETRIES_MAX: u32 = 3;
/// Lower rates tell too little to be worth a try.
const HZ_MIN: u64 = 9;
/// Of so many waits or events that counted, the next try counts one.
const WAITS_STEP: u64 = 4;
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
    /// Of so many samples, waits or events one counts, by chance.
    pub one_in: u64,
    /// Waits or events are measured.
    pub waits: bool,
    /// None may be left out.
    pub whole: bool,
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
    /// The module that ran will not do.
    pub needs_module: bool,
}

/// What is left of a capture when a run has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Runs so far.
    pub tries: u32,
    /// Milliseconds of the capture that are left.
    pub left_ms: u64,
    /// What the module took to be found or built, and loaded.
    pub armed_in_ms: u64,
    /// What it took to be loaded.
    pub loaded_in_ms: u64,
}

impl Settings {
    /// Of a first try.
    pub(super) fn first(period_ns: u64, waits: bool, whole: bool) -> Self {
        Self {
            period_ns: period_ns.max(1),
            one_in: 1,
            waits,
            whole,
            bounds: Bounds::NONE,
            unguarded: false,
        }
    }

    /// Samples a second and CPU.
    fn sample_hz(&self) -> u64 {
        SECOND_NS / self.period_ns.saturating_mul(self.one_in)
    }

    /// What there is to count with these. A lower rate later is no other demand: the module stays.
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
}

/// The next rung: what can be tried, the best first. The module that was ended had the sizes `used`.
pub(super) fn next(
    causes: &BTreeSet<FindingCode>,
    settings: Settings,
    (demand, used): (Demand, &Sizes),
    left: Left,
    may_be_unguarded: bool,
) -> Vec<Step> {
    if left.tries > RETRIES_MAX {
        return Vec::new();
    }
    let has = |code| causes.contains(&code);
    let steps = if has(FindingCode::StapOverload) {
        let slower = slower(settings);
        // What fires on every event has no lowest rate, and memory none at all: it stays guarded.
        let last = slower.is_none() && may_be_unguarded && !settings.waits && !settings.unguarded;
        [slower, last.then(|| unguarded(settings))]
    } else if has(FindingCode::StapSkippedTooMany) {
        // Half the rate first: what is skipped depends on other things too.
        let (slower, patient) = (slower(settings), more_patient(settings, used));
        match left.tries {
            1 => [slower, patient],
            _ => [patient, slower],
        }
    } else if has(FindingCode::StapMapFull) {
        [roomier(settings, demand, used), slower(settings)]
    } else if has(FindingCode::StapMaxAction) {
        [longer(settings, used), slower(settings)]
    } else {
        [None, None]
    };
    let has_time = |step: &Step| {
        let takes_ms = match step.needs_module {
            true => left.armed_in_ms,
            false => left.loaded_in_ms,
        };
        left.left_ms >= takes_ms.saturating_add(LEFT_MS_MIN)
    };
    steps.into_iter().flatten().filter(has_time).collect()
}

fn unguarded(settings: Settings) -> Step {
    Step {
        settings: Settings {
            unguarded: true,
            ..settings
        },
        said: "without SystemTap's guard against overload, as the host's policy allows; a CPU may be held up".to_owned(),
        needs_module: true,
    }
}

fn slower(settings: Settings) -> Option<Step> {
    if settings.whole {
        return None;
    }
    let step = if settings.waits { WAITS_STEP } else { 2 };
    let slower = Settings {
        one_in: settings.one_in.saturating_mul(step),
        ..settings
    };
    let said = if settings.waits {
        format!(
            "one in {} counts, by chance, and stands for all; sums are less exact",
            slower.one_in
        )
    } else {
        let (was, sample_hz) = (settings.sample_hz(), slower.sample_hz());
        if sample_hz < HZ_MIN {
            return None;
        }
        format!("{sample_hz} Hz instead of {was}; half as many samples")
    };
    Some(Step {
        settings: slower,
        said,
        needs_module: false,
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
        needs_module: true,
    })
}

/// Four times as many statements, once.
fn longer(settings: Settings, used: &Sizes) -> Option<Step> {
    let bounds = Bounds {
        actions_min: used.actions.saturating_mul(4),
        ..settings.bounds
    };
    (settings.bounds.actions_min == 0).then(|| Step {
        settings: Settings { bounds, ..settings },
        said: "four times as many statements in one report; it takes a CPU longer".to_owned(),
        needs_module: true,
    })
}

/// Twice the rows, where stacks stay as deep.
fn roomier(settings: Settings, demand: Demand, used: &Sizes) -> Option<Step> {
    let bounds = Bounds {
        rows_min: used.rows.saturating_mul(2),
        ..settings.bounds
    };
    let settings = Settings { bounds, ..settings };
    let sizes = Sizes::of(demand, &bounds).filter(|s| s.depth >= used.depth)?;
    Some(Step {
        settings,
        said: format!(
            "{} rows instead of {}; the kernel's memory for them",
            sizes.rows, used.rows
        ),
        needs_module: true,
    })
}

#[cfg(test)]
#[path = "remedy_tests.rs"]
mod tests;
