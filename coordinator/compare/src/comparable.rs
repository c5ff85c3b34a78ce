//! What may be compared with what. In: the circumstances under which sides were taken. Out: findings:
//! nothing where they are alike, a note or a warning where a difference may come from them, an error
//! where the sides must not be compared. Never: a silent comparison of unlike things.
//!
//! | circumstance | rule |
//! |---|---|
//! | another probe or another unit | refused |
//! | another engine, sampling mode, event or rate | warning |
//! | more stacks cut short on one side | warning |
//! | a reload during one side's capture | warning |
//! | another configuration of the gateway | warning |
//! | another build of a module | note: frames are the same by name and module, never by address |

use model::profile::{BuildId, CounterKind, CounterSource, FrameKind, Profile, Series, SeriesId};
use model::{Finding, FindingCode};
use std::collections::{BTreeMap, BTreeSet};

/// By so much may the parts of stacks that were cut short differ.
const TRUNCATED_PART: f64 = 0.01;
/// Modules that are named in a finding.
const MODULES_SHOWN: usize = 4;

/// How a side was taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Circumstances {
    /// Probe, and name and unit of what is compared.
    pub measured: String,
    /// Engine, mode, event and rate of each kind of series, in words.
    pub ways: BTreeSet<String>,
    /// Builds of each module.
    pub builds: BTreeMap<String, BTreeSet<BuildId>>,
    /// Part of the stacks that were cut short, 0 to 1.
    pub truncated: f64,
    /// Hosts whose gateway was reloaded during the capture.
    pub reloaded: BTreeSet<String>,
    /// Hashes of the gateway's configuration; empty where they are not known.
    pub configs: BTreeSet<String>,
}

impl Circumstances {
    /// Those of the wanted part of a profile. Configurations are not in a profile.
    #[must_use]
    pub fn of(profile: &Profile, wanted: impl Fn(&Series) -> bool) -> Self {
        let mut found = Self::default();
        if let Some(measure) = profile.measures.first() {
            found.measured = format!("{} {}/{}", profile.probe, measure.name, measure.unit);
        }
        let series = profile.series.as_slice();
        for one in series.iter().filter(|s| wanted(s)) {
            found.ways.insert(way(one));
            if one.process.generation > 0 {
                found.reloaded.insert(one.host.clone());
            }
        }
        for frame in profile.frames.as_slice() {
            let compiled = matches!(frame.kind, FrameKind::User | FrameKind::Inline);
            if let Some(build) = frame.build_id.filter(|_| compiled) {
                let builds = found.builds.entry(frame.module.clone()).or_default();
                builds.insert(build);
            }
        }
        let hosts: BTreeSet<&str> = series
            .iter()
            .filter(|s| wanted(s))
            .map(|s| &*s.host)
            .collect();
        let mut cut = 0_u64;
        for ((host, source, _, kind), value) in &profile.counters {
            let ours = match source {
                CounterSource::Host => hosts.contains(&**host),
                CounterSource::Series(id) => profile.series.get(*id).is_some_and(&wanted),
            };
            if *kind == CounterKind::Truncated && ours {
                cut = cut.saturating_add(*value);
            }
        }
        let selected = profile.select(&wanted);
        let taken = selected.values().map(|v| v[0]).fold(0, u64::saturating_add);
        found.truncated = statistics::ratio(cut as f64, taken as f64);
        found
    }
}

/// What stands between two sides; an [`model::Severity::Error`] among them refuses the comparison.
#[must_use]
pub fn comparable(left: &Circumstances, right: &Circumstances) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |code, said: String| findings.push(Finding::new(code, said));
    let known = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    if known(&left.measured, &right.measured) {
        let said = format!("{} against {}", left.measured, right.measured);
        found(FindingCode::CompareRefused, said);
    }
    let (was, is) = (words(&left.ways), words(&right.ways));
    if known(&was, &is) {
        found(FindingCode::ComparedUnlike, format!("{was} against {is}"));
    }
    if (left.truncated - right.truncated).abs() > TRUNCATED_PART {
        let said = format!(
            "{:.1} % of the stacks against {:.1} %",
            left.truncated * 100.0,
            right.truncated * 100.0
        );
        found(FindingCode::ComparedTruncated, said);
    }
    if left.reloaded.is_empty() != right.reloaded.is_empty() {
        let hosts = words(if left.reloaded.is_empty() {
            &right.reloaded
        } else {
            &left.reloaded
        });
        found(FindingCode::ComparedReload, hosts);
    }
    let (was, is) = (words(&left.configs), words(&right.configs));
    if known(&was, &is) {
        found(FindingCode::ComparedConfig, format!("{was} against {is}"));
    }
    let other = |(module, builds): &(&String, &BTreeSet<BuildId>)| {
        right.builds.get(*module).is_some_and(|b| b != *builds)
    };
    let modules: Vec<&str> = left
        .builds
        .iter()
        .filter(other)
        .map(|(m, _)| m.as_str())
        .collect();
    if !modules.is_empty() {
        let more = modules.len().saturating_sub(MODULES_SHOWN);
        let mut said = modules[..modules.len() - more].join(", ");
        if more > 0 {
            said.push_str(&format!(" and {more} more"));
        }
        found(FindingCode::ComparedBuilds, said);
    }
    findings
}

/// How one host of many was taken.
#[derive(Default)]
struct OfHost {
    ways: BTreeSet<String>,
    reloaded: bool,
    cut: u64,
    taken: u64,
}

/// The findings for hosts of one profile that were taken in different ways.
#[must_use]
pub fn unlike(profile: &Profile, wanted: impl Fn(&Series) -> bool) -> Vec<Finding> {
    let mut hosts: BTreeMap<&str, OfHost> = BTreeMap::new();
    for series in profile.series.as_slice().iter().filter(|s| wanted(s)) {
        let of = hosts.entry(&series.host).or_default();
        of.ways.insert(way(series));
        of.reloaded |= series.process.generation > 0;
    }
    let series = |id: &SeriesId| profile.series.get(*id).filter(|s| wanted(s));
    for ((host, source, _, kind), value) in &profile.counters {
        let host = match source {
            CounterSource::Host => Some(&**host),
            CounterSource::Series(id) => series(id).map(|s| &*s.host),
        };
        let of = host.and_then(|host| hosts.get_mut(host));
        if let Some(of) = of.filter(|_| *kind == CounterKind::Truncated) {
            of.cut = of.cut.saturating_add(*value);
        }
    }
    for (id, totals) in &profile.totals {
        let of = series(id).and_then(|s| hosts.get_mut(&*s.host));
        if let Some(of) = of {
            let samples = totals.values().map(|v| v[0]);
            of.taken = samples.fold(of.taken, u64::saturating_add);
        }
    }
    let mut findings = Vec::new();
    let mut hosts_by_way: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (mut reloaded, mut truncated) = (Vec::new(), Vec::new());
    for (host, of) in &hosts {
        hosts_by_way.entry(words(&of.ways)).or_default().push(host);
        if of.reloaded {
            reloaded.push(*host);
        }
        truncated.push((statistics::ratio(of.cut as f64, of.taken as f64), *host));
    }
    if hosts_by_way.len() > 1 {
        let said: Vec<String> = hosts_by_way
            .into_iter()
            .map(|(way, hosts)| format!("{}: {way}", hosts.join(", ")))
            .collect();
        findings.push(Finding::new(FindingCode::ComparedUnlike, said.join("; ")));
    }
    if !reloaded.is_empty() && reloaded.len() < hosts.len() {
        findings.push(Finding::new(
            FindingCode::ComparedReload,
            reloaded.join(", "),
        ));
    }
    truncated.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some(least), Some(most)) = (truncated.first(), truncated.last())
        && most.0 - least.0 > TRUNCATED_PART
    {
        let said = format!(
            "from {:.1} % of the stacks ({}) to {:.1} % ({})",
            least.0 * 100.0,
            least.1,
            most.0 * 100.0,
            most.1
        );
        findings.push(Finding::new(FindingCode::ComparedTruncated, said));
    }
    findings
}

fn words(set: &BTreeSet<String>) -> String {
    set.iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" and ")
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
    use model::Severity;
    use model::profile::{Frame, Measure, Process};

    fn series(host: &str, mode: &str) -> Series {
        Series {
            host: host.into(),
            engine: "native".into(),
            mode: mode.into(),
            period_ns: 10_101_010,
            ..Series::default()
        }
    }

    /// A profile of one host with a hundred samples, changed by `change`.
    fn one(change: impl Fn(&mut Profile, &mut Series, &mut Frame)) -> Circumstances {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let mut of = series("a", "B");
        let mut frame = Frame::named(FrameKind::User, "main", "nginx");
        frame.build_id = BuildId::new(&[1; 20]);
        change(&mut profile, &mut of, &mut frame);
        let id = profile.series.intern(&of);
        let frame = profile.frames.intern(&frame);
        profile.add_stack(id, &[frame], &[100, 0, 0]);
        Circumstances::of(&profile, |_| true)
    }

    #[test]
    fn every_circumstance_has_its_rule() {
        let usual = one(|_, _, _| {});
        assert_eq!(comparable(&usual, &usual.clone()), []);
        let with_config = |hash: &str| Circumstances {
            configs: [hash.to_owned()].into(),
            ..usual.clone()
        };
        let engine = one(|_, s, _| s.engine = "perf".into());
        let mode = one(|_, s, _| s.mode = "E".into());
        let event = one(|_, s, _| s.event = "cycles".into());
        let rate = one(|_, s, _| s.period_ns = 1_000_000);
        let unit = one(|p, _, _| p.measures = vec![Measure::new("blocked", "ns")]);
        let probe = one(|p, _, _| p.probe = "off-cpu".into());
        let build = one(|_, _, f| f.build_id = BuildId::new(&[2; 20]));
        let reload = one(|_, s, _| s.process.generation = 1);
        let cut = one(|p, _, _| {
            p.count("a", CounterSource::Host, 0, CounterKind::Truncated, 2);
        });
        for (other, code, severity, evidence) in [
            (
                &engine,
                FindingCode::ComparedUnlike,
                Severity::Warning,
                "native B 99 Hz against perf B 99 Hz",
            ),
            (
                &mode,
                FindingCode::ComparedUnlike,
                Severity::Warning,
                "native B 99 Hz against native E 99 Hz",
            ),
            (
                &event,
                FindingCode::ComparedUnlike,
                Severity::Warning,
                "native B 99 Hz against native B cycles 99 Hz",
            ),
            (
                &rate,
                FindingCode::ComparedUnlike,
                Severity::Warning,
                "native B 99 Hz against native B 1000 Hz",
            ),
            (
                &unit,
                FindingCode::CompareRefused,
                Severity::Error,
                "on-cpu samples/count against on-cpu blocked/ns",
            ),
            (
                &probe,
                FindingCode::CompareRefused,
                Severity::Error,
                "on-cpu samples/count against off-cpu samples/count",
            ),
            (&build, FindingCode::ComparedBuilds, Severity::Note, "nginx"),
            (&reload, FindingCode::ComparedReload, Severity::Warning, "a"),
            (
                &cut,
                FindingCode::ComparedTruncated,
                Severity::Warning,
                "0.0 % of the stacks against 2.0 %",
            ),
        ] {
            let found = comparable(&usual, other);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].code, found[0].severity()), (code, severity));
            assert_eq!(found[0].evidence, evidence);
        }
        let found = comparable(&with_config("1f"), &with_config("2e"));
        assert_eq!(found[0].code, FindingCode::ComparedConfig);
        // What is not known is not held against anybody.
        assert_eq!(comparable(&with_config("1f"), &usual), []);
    }

    #[test]
    fn hosts_of_one_run_that_were_taken_otherwise_are_named() {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        profile.series.intern(&series("a", "B"));
        profile.series.intern(&series("b", "B"));
        assert_eq!(unlike(&profile, |_| true), []);
        profile.series.intern(&series("c", "E"));
        profile.series.intern(&Series {
            process: Process {
                generation: 1,
                ..Process::default()
            },
            ..series("b", "B")
        });
        let found = unlike(&profile, |_| true);
        let said: Vec<(FindingCode, &str)> = found
            .iter()
            .map(|f| (f.code, f.evidence.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (
                    FindingCode::ComparedUnlike,
                    "a, b: native B 99 Hz; c: native E 99 Hz"
                ),
                (FindingCode::ComparedReload, "b")
            ]
        );
        assert_eq!(unlike(&profile, |s| s.host == "a"), []);
        // Cut stacks are those of a host and of its series, among what was taken there.
        let mut cut = Profile::new("on-cpu", Measure::on_cpu());
        let main = cut
            .frames
            .intern(&Frame::named(FrameKind::User, "main", "nginx"));
        for host in ["a", "b"] {
            let id = cut.series.intern(&series(host, "B"));
            cut.add_stack(id, &[main], &[100, 0, 0]);
            let source = CounterSource::Series(id);
            cut.count(host, source, 0, CounterKind::Truncated, 2);
        }
        assert_eq!(unlike(&cut, |_| true), []);
        cut.count("b", CounterSource::Host, 0, CounterKind::Truncated, 5);
        let said = &unlike(&cut, |_| true)[0].evidence;
        assert_eq!(said, "from 2.0 % of the stacks (a) to 7.0 % (b)");
    }
}
