//! What a number in a profile means. In: names and units. Out: rows of values.
//! Never: two different measures in one sum.

use crate::job::Probe;
use crate::script::Script;
use serde::{Deserialize, Serialize};

/// Most measures that one probe has (off-CPU: events, blocked, runqueue).
pub const MEASURES_MAX: usize = 3;

/// One row of values, in the order of the profile's measures; the rest is 0.
pub type Values = [u64; MEASURES_MAX];

/// Adds `more` to `sum`, saturating: a hostile peer must not be able to wrap a total.
pub fn add_values(sum: &mut Values, more: &Values) {
    for (s, m) in sum.iter_mut().zip(more) {
        *s = s.saturating_add(*m);
    }
}

/// A name and a unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measure {
    /// What is measured, such as `samples`, `cpu`, `blocked`.
    pub name: String,
    /// Its unit, such as `count`, `ns`, `bytes`.
    pub unit: String,
}

impl Measure {
    /// A measure by name and unit.
    #[must_use]
    pub fn new(name: &str, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
        }
    }

    /// The measures of on-CPU sampling: `samples`/count and `cpu`/ns, where a sample's cpu is the
    /// period that it was taken with.
    #[must_use]
    pub fn on_cpu() -> Vec<Self> {
        vec![Self::new("samples", "count"), Self::new("cpu", "ns")]
    }

    /// The measures of off-CPU capture: how often a thread left its CPU, how long it waited for
    /// something, and how long for a CPU.
    #[must_use]
    pub fn off_cpu() -> Vec<Self> {
        vec![
            Self::new("events", "count"),
            Self::new("blocked", "ns"),
            Self::new("runqueue", "ns"),
        ]
    }

    /// The measures of file system traffic: calls, the bytes that they read or wrote, and the time that they took.
    #[must_use]
    pub fn vfs() -> Vec<Self> {
        vec![
            Self::new("calls", "count"),
            Self::new("moved", "bytes"),
            Self::new("latency", "ns"),
        ]
    }

    /// The measures of lock contention: waits for locks that ended, and their time.
    #[must_use]
    pub fn lock() -> Vec<Self> {
        vec![Self::new("waits", "count"), Self::new("waited", "ns")]
    }

    /// The measures of memory that was not freed: allocations, and their bytes.
    #[must_use]
    pub fn alloc() -> Vec<Self> {
        vec![
            Self::new("allocations", "count"),
            Self::new("allocated", "bytes"),
        ]
    }

    /// The measures of a probe; of a script those of the stacks that it prints.
    #[must_use]
    pub fn of(probe: Probe, script: Option<&Script>) -> Vec<Self> {
        match (probe, script) {
            (Probe::OffCpu, _) => Self::off_cpu(),
            (Probe::Vfs, _) => Self::vfs(),
            (Probe::Lock, _) => Self::lock(),
            (Probe::Alloc, _) => Self::alloc(),
            (Probe::Script, Some(script)) => vec![script.stack_unit.measure()],
            _ => Self::on_cpu(),
        }
    }

    /// Which of a profile's measures is drawn and ranked, and what its unit is called: the first
    /// one, except that a count of waits says nothing about their length, and one of calls nothing
    /// about what they moved.
    #[must_use]
    pub fn shown(measures: &[Self]) -> (usize, String) {
        let tells = |m: &Self| matches!(&*m.name, "blocked" | "moved" | "waited" | "allocated");
        let at = measures.iter().position(tells).unwrap_or(0);
        let unit = match measures.get(at) {
            Some(m) if m.unit == "count" => m.name.clone(),
            Some(m) => format!("{} {}", m.unit, m.name),
            None => "samples".to_owned(),
        };
        (at, unit)
    }

    /// The one measure that text formats carry.
    #[must_use]
    pub fn samples_only() -> Vec<Self> {
        vec![Self::new("samples", "count")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::StackUnit;

    #[test]
    fn waits_are_shown_by_their_length_and_samples_by_their_number() {
        let shown = |probe| Measure::shown(&Measure::of(probe, None));
        assert_eq!(shown(Probe::OnCpu), (0, "samples".to_owned()));
        assert_eq!(shown(Probe::OffCpu), (1, "ns blocked".to_owned()));
        assert_eq!(shown(Probe::Vfs), (1, "bytes moved".to_owned()));
        assert_eq!(shown(Probe::Lock), (1, "ns waited".to_owned()));
        assert_eq!(shown(Probe::Alloc), (1, "bytes allocated".to_owned()));
        assert_eq!(Measure::shown(&[]), (0, "samples".to_owned()));
        for (unit, words) in [
            (StackUnit::Samples, "samples"),
            (StackUnit::Us, "ns time"),
            (StackUnit::Bytes, "bytes space"),
            (StackUnit::Sum, "sum"),
        ] {
            let script = Script {
                stack_unit: unit,
                ..Script::default()
            };
            let of = Measure::of(Probe::Script, Some(&script));
            assert_eq!(Measure::shown(&of), (0, words.to_owned()));
        }
    }
}
