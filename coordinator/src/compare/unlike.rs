//! Whether sides were taken alike. In: the series of a profile. Out: a finding when engine, mode,
//! event or rate differ between hosts. Never: a silent comparison of unlike things.

use model::profile::{Profile, Series};
use model::{Finding, FindingCode};
use std::collections::{BTreeMap, BTreeSet};

/// The finding for hosts whose stacks were taken in different ways; none when all are alike.
#[must_use]
pub fn unlike(profile: &Profile, wanted: impl Fn(&Series) -> bool) -> Option<Finding> {
    let mut ways: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for series in profile.series.as_slice().iter().filter(|s| wanted(s)) {
        ways.entry(&series.host).or_default().insert(way(series));
    }
    let mut hosts_by_way: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (host, ways) in ways {
        let ways: Vec<String> = ways.into_iter().collect();
        hosts_by_way
            .entry(ways.join(" and "))
            .or_default()
            .push(host);
    }
    if hosts_by_way.len() < 2 {
        return None;
    }
    let said: Vec<String> = hosts_by_way
        .into_iter()
        .map(|(way, hosts)| format!("{}: {way}", hosts.join(", ")))
        .collect();
    Some(Finding::new(FindingCode::ComparedUnlike, said.join("; ")))
}

/// A profile and which of its series are one side.
type SideOf<'a> = (&'a Profile, &'a dyn Fn(&Series) -> bool);

/// The same for two sides of a difference, each of which may have many hosts.
#[must_use]
pub fn unlike_sides(left: SideOf<'_>, right: SideOf<'_>) -> Option<Finding> {
    let ways = |(profile, wanted): SideOf<'_>| -> String {
        let ways: BTreeSet<String> = profile
            .series
            .as_slice()
            .iter()
            .filter(|s| wanted(s))
            .map(way)
            .collect();
        ways.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let (left, right) = (ways(left), ways(right));
    let unlike = !left.is_empty() && !right.is_empty() && left != right;
    unlike.then(|| {
        Finding::new(
            FindingCode::ComparedUnlike,
            format!("{left} against {right}"),
        )
    })
}

/// Engine, mode, event and rate of a series in words.
fn way(series: &Series) -> String {
    let mut words: Vec<String> = [&series.engine, &series.mode, &series.event]
        .into_iter()
        .filter(|w| !w.is_empty())
        .cloned()
        .collect();
    if let Some(hz) = 1_000_000_000_u64.checked_div(series.period_ns) {
        words.push(format!("{hz} Hz"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::Measure;

    #[test]
    fn hosts_by_another_engine_are_named() {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let series = |host: &str, mode: &str| Series {
            host: host.into(),
            engine: "native".into(),
            mode: mode.into(),
            period_ns: 10_101_010,
            ..Series::default()
        };
        profile.series.intern(&series("a", "B"));
        profile.series.intern(&series("b", "B"));
        assert_eq!(unlike(&profile, |_| true), None);
        profile.series.intern(&series("c", "E"));
        let finding = unlike(&profile, |_| true).unwrap();
        assert_eq!(finding.evidence, "a, b: native B 99 Hz; c: native E 99 Hz");
        assert_eq!(unlike(&profile, |s| s.host != "c"), None);
    }
}
