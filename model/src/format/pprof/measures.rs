//! Sample types and measures. In: pprof's pair of type and unit. Out: the model's measure and what
//! one of pprof's units is in the model's; and back. Never: two units in one sum.

use crate::profile::Measure;

/// Units that the model has another word or another size for: pprof's, the model's, factor.
const UNITS: &[(&str, &str, u64)] = &[
    ("nanoseconds", "ns", 1),
    ("nanosecond", "ns", 1),
    ("microseconds", "ns", 1_000),
    ("us", "ns", 1_000),
    ("milliseconds", "ns", 1_000_000),
    ("ms", "ns", 1_000_000),
    ("seconds", "ns", 1_000_000_000),
    ("s", "ns", 1_000_000_000),
    ("byte", "bytes", 1),
    ("kilobytes", "bytes", 1 << 10),
    ("kb", "bytes", 1 << 10),
    ("megabytes", "bytes", 1 << 20),
    ("mb", "bytes", 1 << 20),
];

/// The measure of a sample type, and how many of its units one of pprof's is.
pub(super) fn measure(kind: &str, unit: &str) -> (Measure, u64) {
    let lower = unit.to_ascii_lowercase();
    let known = UNITS.iter().find(|(theirs, ..)| *theirs == lower);
    let (unit, factor) = known.map_or((lower.as_str(), 1), |(_, ours, factor)| (*ours, *factor));
    let name = if unit == "count" && matches!(kind, "sample" | "samples" | "") {
        "samples"
    } else {
        kind
    };
    (Measure::new(name, unit), factor)
}

/// pprof's word for a unit of the model.
pub(super) fn unit(ours: &str) -> &str {
    match ours {
        "ns" => "nanoseconds",
        other => other,
    }
}

/// What was probably measured, where the file does not say.
pub(super) fn probe(measures: &[Measure]) -> &'static str {
    let has = |names: &[&str]| measures.iter().any(|m| names.contains(&m.name.as_str()));
    if has(&["blocked", "runqueue"]) {
        "off-cpu"
    } else if has(&["moved"]) {
        "vfs"
    } else if has(&["contentions", "delay", "waited"]) {
        // Go's block and mutex profiles.
        "lock"
    } else if measures.iter().any(|m| m.unit == "bytes") {
        "alloc"
    } else {
        "on-cpu"
    }
}
