//! What a number in a profile means. In: names and units. Out: rows of values.
//! Never: two different measures in one sum.

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

    /// The one measure that text formats carry.
    #[must_use]
    pub fn samples_only() -> Vec<Self> {
        vec![Self::new("samples", "count")]
    }
}
