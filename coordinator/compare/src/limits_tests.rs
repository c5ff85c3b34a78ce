//! What is compared at its limits: denominators that are missing, hostile counts, long captures, and
//! fleets that are counted once.

use super::counted::{Gaps, Wanted, count};
use super::tests::{SLOW, USUAL, add_host, dice, fleet, hosts_with, whole};
use super::*;
use model::FindingCode;
use model::profile::{
    CounterKind, CounterSource, Frame, FrameKind, Measure, Process, Profile, Series,
};

#[test]
fn what_has_no_seconds_is_divided_by_nothing() {
    let mut profile = hosts_with("h1", SLOW, 140, 5);
    profile.cells.clear();
    for per in [Per::Cpu, Per::Requests] {
        let ranking = rank(&profile, per, 1);
        assert!(ranking.entries.is_empty() && ranking.without_samples.is_empty());
        assert_eq!(ranking.findings.len(), 5);
        let first = &ranking.findings[0];
        assert_eq!(first.code, FindingCode::DenominatorMissing);
        assert!(first.evidence.starts_with("h0 has no seconds"), "{first}");
        assert_eq!(
            ranking.note,
            "fewer than two hosts have what values are divided by"
        );
    }
    assert_eq!(rank(&profile, Per::Share, 1).entries.len(), 5);
    // Requests that came in other seconds than those that were picked are no denominator either.
    let mut profile = hosts_with("", USUAL, 100, 4);
    add_host(&mut profile, "late", USUAL, 100, 0);
    profile.count("late", CounterSource::Host, 31, CounterKind::Requests, 5);
    let counted = count(&profile, Per::Requests, Wanted::Places, Gaps::Absent).unwrap();
    let said = &counted.findings[0];
    assert_eq!(
        said.evidence,
        "late has no requests in the seconds that have samples"
    );
}

#[test]
fn hostile_counts_neither_panic_nor_wrap() {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let most = u64::MAX;
    for (pid, host) in (0_u32..6).zip(["a", "b", "c", "d", "d", "d"]) {
        let series = profile.series.intern(&Series {
            host: host.into(),
            process: Process {
                pid,
                ..Process::default()
            },
            ..Series::default()
        });
        let frames = ["main", "work"].map(|name| {
            let frame = Frame::named(FrameKind::User, name, "nginx");
            profile.frames.intern(&frame)
        });
        let main = profile.tree.intern(model::profile::ROOT, frames[0]);
        let work = profile.tree.intern(main, frames[1]);
        let rows = vec![(main, [most, most, most]), (work, [most, 1, 0])];
        for second in [0, 1, u32::MAX] {
            profile.add_totals(series, rows.iter().map(|(n, v)| (*n, v)));
            let cell = model::profile::Cell::from_rows(rows.clone());
            profile.cells.insert((series, second), cell);
            for kind in [
                CounterKind::Lost,
                CounterKind::Dropped,
                CounterKind::Requests,
                CounterKind::Truncated,
            ] {
                for source in [CounterSource::Host, CounterSource::Series(series)] {
                    profile.count(host, source, second, kind, most);
                }
            }
        }
    }
    let all = |_: &Series| true;
    let side = || whole(&profile, &all);
    for per in [Per::Share, Per::Cpu, Per::Requests] {
        let ranking = rank(&profile, per, 1);
        assert_eq!(ranking.entries.len(), 4, "{ranking:?}");
        for entry in &ranking.entries {
            let gap = entry.whole.unwrap_or_default();
            assert!(gap.low <= gap.high && entry.distance <= 1.0, "{entry:?}");
        }
        assert_eq!(ranking.sentences().len(), 4);
        assert_eq!(compared(&side(), &side(), per, 1).unwrap().hosts.0.len(), 4);
    }
    assert!(Rests::of(&profile).is_some());
}

#[test]
fn an_hour_is_sixty_blocks_of_a_worker() {
    let mut profile = hosts_with("", USUAL, 100, 4);
    // The same samples spread over an hour.
    let cells = std::mem::take(&mut profile.cells);
    let spread = cells
        .into_iter()
        .map(|((id, second), cell)| ((id, second * 120), cell));
    profile.cells = spread.collect();
    let counted = count(&profile, Per::Cpu, Wanted::Places, Gaps::Absent);
    let counted = counted.unwrap();
    assert!(
        counted
            .hosts
            .iter()
            .all(|h| (50..=60).contains(&h.weights.len()))
    );
    assert!(
        counted
            .hosts
            .iter()
            .all(|h| (h.weight() - 30.0).abs() < 1e-9)
    );
}

#[test]
fn a_fleet_that_is_counted_once_says_of_each_host_what_two_sides_say() {
    for (n, seed) in [(2, 7), (3, 8), (9, 9), (30, 10)] {
        let mut random = dice(seed);
        let mut profile = Profile::default();
        for i in 0..n {
            let stacks: Vec<(String, u64)> = (0..12)
                .map(|s| {
                    (
                        format!("m;a{};b{};f{s}", s % 2, s % 5),
                        1 + random(9) / 7 * 20,
                    )
                })
                .collect();
            let stacks: Vec<(&str, u64)> = stacks.iter().map(|(s, w)| (&**s, *w)).collect();
            add_host(&mut profile, &format!("h{i}"), &stacks, 40 + random(60), 0);
        }
        if n == 3 {
            profile.cells.clear();
        }
        let rests = Rests::of(&profile).unwrap();
        let mut kinds = std::collections::BTreeMap::new();
        for host in profile.hosts() {
            let (rest, own) = (|s: &Series| s.host != host, |s: &Series| s.host == host);
            let (left, right) = (whole(&profile, &rest), whole(&profile, &own));
            let slowly = compared(&left, &right, Per::Share, 1).unwrap();
            let quickly = rests.told(&host).unwrap();
            assert_eq!(quickly, slowly.places, "{n} hosts, {host}");
            for told in quickly.into_values() {
                *kinds.entry(told.word()).or_insert(0) += 1;
            }
        }
        assert!(kinds.len() >= 3, "{kinds:?}");
    }
    assert!(
        Rests::of(&fleet(&[("a", "m;x 500\n")]))
            .unwrap()
            .told("a")
            .is_none()
    );
}

#[test]
fn a_second_without_samples_was_an_idle_one_unless_seconds_were_picked() {
    let mut profile = hosts_with("", USUAL, 100, 4);
    // The host `lazy` works in each third second only, for requests that come in each.
    add_host(&mut profile, "lazy", USUAL, 100, 100);
    let series = profile.series.clone();
    let lazy = |id| series.get(id).is_some_and(|s| s.host == "lazy");
    profile
        .cells
        .retain(|(id, second), _| !lazy(*id) || second % 3 == 0);
    for (per, usual, lazy_weight, picked_weight) in [
        // Its requests say that it was there before its first sample and after its last.
        (Per::Cpu, 30.0, 30.0, 10.0),
        (Per::Requests, 3.0, 3.0, 1.0),
    ] {
        for (gaps, wanted) in [(Gaps::Idle, lazy_weight), (Gaps::Absent, picked_weight)] {
            let counted = count(&profile, per, Wanted::Places, gaps).unwrap();
            let weights = counted.names.iter().zip(&counted.hosts);
            for (name, host) in weights {
                let due = if name == "lazy" { wanted } else { usual };
                assert!(
                    (host.weight() - due).abs() < 1e-9,
                    "{per:?} {gaps:?} {name}"
                );
            }
        }
    }
}
