//! Rankings and differences of small fleets, as they are told.

use super::counted::requests;
use super::*;
use model::FindingCode;
use model::format::folded;
use model::profile::{
    CounterKind, CounterSource, Frame, FrameKind, Measure, Process, Profile, Series,
};

/// A fleet from (host, folded text): without seconds.
pub(super) fn fleet(hosts: &[(&str, &str)]) -> Profile {
    let mut profile = Profile::default();
    for (host, text) in hosts {
        profile
            .merge(&folded::parse(text.as_bytes(), host).0)
            .unwrap();
    }
    profile
}

/// Random numbers for made-up captures.
pub(super) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % n
    }
}

/// Adds a host with two workers and 30 seconds: in each second `per_second` stacks, chosen from
/// (stack, weight), a sample worth 10 ms of CPU, and so many requests.
pub(super) fn add_host(
    profile: &mut Profile,
    host: &str,
    stacks: &[(&str, u64)],
    per_second: u64,
    requests: u64,
) {
    let mut random = dice(host.bytes().map(u64::from).sum::<u64>() + per_second);
    let whole: u64 = stacks.iter().map(|s| s.1).sum();
    let mut one = Profile::new("on-cpu", Measure::on_cpu());
    for worker in 0..2 {
        let series = one.series.intern(&Series {
            host: host.into(),
            process: Process {
                pid: 100 + worker,
                role: "nginx: worker".into(),
                ..Process::default()
            },
            engine: "native".into(),
            period_ns: 10_000_000,
            ..Series::default()
        });
        for second in 0..30 {
            let mut rows = std::collections::BTreeMap::new();
            for _ in 0..per_second / 2 {
                let mut at = random(whole);
                let (stack, _) = stacks
                    .iter()
                    .find(|(_, weight)| {
                        let here = at < *weight;
                        at = at.wrapping_sub(*weight);
                        here
                    })
                    .unwrap();
                let node = stack.split(';').fold(model::profile::ROOT, |at, name| {
                    let frame = one
                        .frames
                        .intern(&Frame::named(FrameKind::User, name, "nginx"));
                    one.tree.intern(at, frame)
                });
                let values = rows.entry(node).or_insert([0, 0, 0]);
                values[0] += 1;
                values[1] += 10_000_000;
            }
            one.add_totals(series, rows.iter().map(|(n, v)| (*n, v)));
            let rows = rows.into_iter().collect();
            one.cells
                .insert((series, second), model::profile::Cell::from_rows(rows));
        }
    }
    for second in (0..30).filter(|_| requests > 0) {
        one.count(
            host,
            CounterSource::Host,
            second,
            CounterKind::Requests,
            requests,
        );
    }
    profile.merge(&one).unwrap();
}

pub(super) const USUAL: &[(&str, u64)] = &[
    ("main;loop;route", 50),
    ("main;loop;rate_limit;incr", 20),
    ("main;idle", 30),
];
pub(super) const SLOW: &[(&str, u64)] = &[
    ("main;loop;route", 50),
    ("main;loop;rate_limit;incr", 60),
    ("main;idle", 30),
];

pub(super) fn hosts_with(odd: &str, stacks: &[(&str, u64)], per_second: u64, n: usize) -> Profile {
    let mut profile = Profile::default();
    for i in 0..n {
        let host = format!("h{i}");
        if host == odd {
            add_host(&mut profile, &host, stacks, per_second, 100);
        } else {
            add_host(&mut profile, &host, USUAL, 100, 100);
        }
    }
    profile
}

#[test]
fn the_odd_host_of_many_comes_first_with_its_place_and_its_error_bars() {
    let ranking = rank(&hosts_with("h3", SLOW, 140, 8), Per::Share, 1);
    let odd: Vec<&str> = ranking
        .entries
        .iter()
        .filter(|e| e.odd)
        .map(|e| &*e.host)
        .collect();
    assert_eq!(odd, ["h3"], "{:#?}", ranking.sentences());
    let first = &ranking.entries[0];
    assert_eq!(first.path, ["main", "loop", "rate_limit", "incr"]);
    let gap = first.places[0].gap;
    assert!(gap.low > 15.0 && gap.high < 30.0, "{gap:?}");
    let said = &ranking.sentences()[0];
    assert!(
        said.starts_with("h3 is unlike the other 7 hosts: loop → rate_limit → incr is in 4"),
        "{said}"
    );
    assert!(ranking.sentences()[1].contains("cannot be told from the other 7 hosts"));
    assert_eq!(ranking.findings, []);
    // The same seed gives the same words.
    let again = rank(&hosts_with("h3", SLOW, 140, 8), Per::Share, 1);
    assert_eq!(again, ranking);
}

#[test]
fn cpu_per_request_is_told_as_a_person_would_say_it() {
    // 40 samples of 10 ms more for the same 100 requests: 4 ms a request.
    let ranking = rank(&hosts_with("h3", SLOW, 140, 8), Per::Requests, 1);
    let said = &ranking.sentences()[0];
    assert!(said.starts_with("h3 spends 40"), "{said}");
    assert!(
        said.contains(" CPU-ms more per 1,000 requests than the other 7 hosts; ")
            && said.ends_with(" % of it under loop → rate_limit → incr"),
        "{said}"
    );
    let whole = ranking.entries[0].whole.unwrap();
    assert!(whole.low <= 4_000.0 && 4_000.0 <= whole.high, "{whole:?}");
    assert!(!ranking.entries[1].odd);
}

#[test]
fn shares_do_not_see_a_host_that_does_everything_slower_and_requests_do() {
    // Three times as busy for the same requests, in the same proportions.
    let slower = hosts_with("h2", USUAL, 300, 8);
    assert!(rank(&slower, Per::Share, 1).entries.iter().all(|e| !e.odd));
    let ranking = rank(&slower, Per::Requests, 1);
    assert_eq!(
        (&*ranking.entries[0].host, ranking.entries[0].odd),
        ("h2", true)
    );
    // Three times the load is no oddity of a request's cost, though it is one of CPU time.
    let mut busier = hosts_with("", USUAL, 100, 7);
    add_host(&mut busier, "busy", USUAL, 300, 300);
    assert!(
        rank(&busier, Per::Requests, 1)
            .entries
            .iter()
            .all(|e| !e.odd)
    );
    let by_cpu = rank(&busier, Per::Cpu, 1);
    assert_eq!(
        (&*by_cpu.entries[0].host, by_cpu.entries[0].odd),
        ("busy", true)
    );
}

#[test]
fn with_two_or_three_hosts_differences_are_told_and_nobody_is_odd() {
    for n in [2, 3] {
        let ranking = rank(&hosts_with("h1", SLOW, 140, n), Per::Share, 1);
        assert!(ranking.entries.iter().all(|e| !e.odd));
        let said = ranking.sentences();
        let odd = said.iter().find(|s| s.starts_with("h1 ")).unwrap();
        assert!(odd.starts_with("h1 differs from the other"), "{odd}");
        assert!(n == 2 || said[0] == *odd, "{said:?}");
        assert!(
            ranking
                .findings
                .iter()
                .any(|f| f.code == FindingCode::RankingFewHosts)
        );
        let alike = rank(&hosts_with("", SLOW, 140, n), Per::Share, 1);
        assert!(
            alike.sentences()[0].contains("cannot be told from"),
            "{:?}",
            alike.sentences()
        );
    }
}

#[test]
fn a_missing_denominator_is_said_and_not_guessed() {
    let text = fleet(&[("a", "m;x 500\n"), ("b", "m;x 500\n")]);
    let ranking = rank(&text, Per::Cpu, 1);
    assert!(ranking.entries.is_empty());
    assert_eq!(ranking.findings[0].code, FindingCode::DenominatorMissing);
    let mut profile = hosts_with("", USUAL, 100, 5);
    add_host(&mut profile, "mute", USUAL, 100, 0);
    let ranking = rank(&profile, Per::Requests, 1);
    assert_eq!(ranking.entries.len(), 5);
    let said = &ranking.findings[0];
    assert_eq!(
        (said.code, said.host.as_deref()),
        (FindingCode::DenominatorMissing, Some("mute"))
    );
}

#[test]
fn lost_samples_count_for_those_that_were_taken() {
    // Half of one host's samples are lost: by CPU time it would seem half as busy.
    let mut profile = hosts_with("h2", USUAL, 50, 6);
    let odd = |profile: &Profile| rank(profile, Per::Cpu, 1).entries[0].odd;
    assert!(odd(&profile));
    for second in 0..30 {
        profile.count("h2", CounterSource::Host, second, CounterKind::Lost, 50);
    }
    assert!(!odd(&profile));
}

#[test]
fn without_seconds_counting_alone_makes_the_intervals_and_a_finding_says_so() {
    let usual = "main;loop;route 500\nmain;loop;rate_limit;incr 200\nmain;idle 300\n";
    let slow = "main;loop;route 250\nmain;loop;rate_limit;incr 600\nmain;idle 150\n";
    let ranking = rank(&fleet(&[("a", usual), ("b", slow)]), Per::Share, 1);
    assert_eq!(
        ranking.sentences()[0],
        "a differs from the other host: loop → rate_limit → incr is in 20.0 % of its samples, 60.0 % elsewhere (-40.0 ± 3.9 points)"
    );
    assert!(
        ranking
            .findings
            .iter()
            .any(|f| f.code == FindingCode::NoSeconds)
    );
}

#[test]
fn one_host_none_and_idle_ones_are_said_and_not_ranked() {
    let share = |profile: &Profile| rank(profile, Per::Share, 1);
    assert_eq!(
        share(&Profile::default()).note,
        "no host has samples, so there is nothing to compare"
    );
    let one = share(&fleet(&[("a", "m;x 500\n")]));
    assert!(one.entries.is_empty() && one.note.contains("only a has samples"));
    let ranking = share(&fleet(&[
        ("a", "m;x 500\n"),
        ("b", "m;x 500\n"),
        ("idle", "m 0\n"),
    ]));
    assert_eq!(ranking.without_samples, ["idle"]);
    assert!(ranking.entries[0].frame.is_none());
    assert_eq!(
        ranking.sentences()[0],
        "a is like the other host: no frame differs"
    );
}

#[test]
fn a_frame_on_many_paths_is_counted_wherever_it_stands_and_once_a_stack() {
    let own = "m;x;lock;lock 300\nm;y;lock 300\nm;z 400\n";
    let rest = "m;x 300\nm;y 300\nm;z 400\n";
    let ranking = rank(
        &fleet(&[("a", own), ("b", rest), ("c", rest)]),
        Per::Share,
        1,
    );
    let a = ranking.entries.iter().find(|e| e.host == "a").unwrap();
    assert_eq!((a.frame.as_deref(), a.anywhere), (Some("lock"), true));
    assert!((a.host_share - 0.6).abs() < 1e-9, "{}", a.host_share);
}

/// With all the seconds that it has.
pub(super) fn whole<'a>(profile: &'a Profile, series: &'a dyn Fn(&Series) -> bool) -> Side<'a> {
    Side {
        profile,
        series,
        picked: false,
    }
}

fn sides(left: &Profile, right: &Profile, per: Per) -> Compared {
    let all = |_: &Series| true;
    compared(&whole(left, &all), &whole(right, &all), per, 1).unwrap()
}

#[test]
fn two_sides_tell_more_less_new_gone_and_what_they_cannot_tell() {
    let mut before = Profile::default();
    add_host(
        &mut before,
        "a",
        &[("m;f;f", 20), ("m;g", 70), ("m;old", 10)],
        100,
        100,
    );
    let mut after = Profile::default();
    add_host(
        &mut after,
        "a",
        &[("m;f;f", 40), ("m;g", 50), ("m;fresh", 10)],
        100,
        100,
    );
    let found = sides(&before, &after, Per::Share);
    let told = |frame: &str, kind: &str| {
        let row = found
            .frames
            .iter()
            .find(|f| f.frame == frame && f.kind == kind);
        row.map(|r| r.told)
    };
    assert_eq!(told("f", "total"), Some(Told::More));
    assert_eq!(told("g", "self"), Some(Told::Less));
    assert_eq!(
        (told("old", "self"), told("fresh", "total")),
        (Some(Told::Gone), Some(Told::New))
    );
    assert_eq!(told("m", "total"), None, "all of both sides");
    let row = found
        .frames
        .iter()
        .find(|f| f.frame == "f" && f.kind == "total")
        .unwrap();
    assert!(
        row.low < 20.0 && 20.0 < row.high && row.low > 10.0,
        "recursion counts once: {row:?}"
    );
    assert!((row.relative.unwrap() - 1.0).abs() < 0.4);
    // By request, where everything together differs too.
    let found = sides(&before, &after, Per::Requests);
    assert_eq!(found.whole.as_ref().map(|w| w.told), Some(Told::Unsure));
    // A side against itself.
    let found = sides(&before, &before, Per::Share);
    assert!(found.frames.is_empty(), "{:?}", found.frames);
}

#[test]
fn chance_alone_is_told_of_few_frames() {
    let stacks: Vec<String> = (0..50).map(|i| format!("m;a{};f{i}", i % 7)).collect();
    let stacks: Vec<(&str, u64)> = stacks.iter().map(|s| (s.as_str(), 2)).collect();
    let (mut left, mut right) = (Profile::default(), Profile::default());
    add_host(&mut left, "a", &stacks, 100, 0);
    add_host(&mut right, "b", &stacks, 102, 0);
    let found = sides(&left, &right, Per::Share);
    assert!(found.frames.len() > 80);
    assert!(found.frames.iter().all(|f| f.told == Told::Unsure));
}

#[test]
fn seconds_are_chosen_by_heat_and_counts_are_those_of_the_seconds() {
    let mut profile = Profile::default();
    add_host(&mut profile, "a", USUAL, 100, 100);
    add_host(&mut profile, "b", USUAL, 20, 100);
    let warm = heat(&profile, |_| true);
    assert_eq!(
        (warm.rows.len(), warm.rows[0].busy.len(), warm.cpus),
        (4, 30, true)
    );
    assert_eq!(warm.rows[0].worker, "nginx: worker 100");
    assert_eq!(warm.rows[0].busy[3], Some(0.5));
    let hot = warm.hotter(0.4);
    assert!(hot.contains(&("a", 3)) && !hot.contains(&("b", 3)) && !hot.contains(&("a", 99)));
    let some = of_seconds(profile, |host, second| host == "a" && second < 10);
    assert_eq!(some.grand_total(), [1_000, 10_000_000_000, 0]);
    assert_eq!(requests(&some, "a").len(), 10);
}

/// Adds a host whose worker waits some 10,000 times for 10 µs in 30 seconds, and for a whole second in
/// each of the seconds that are `long`.
fn add_waiting_host(profile: &mut Profile, host: &str, long: &[u32]) {
    let mut random = dice(host.bytes().map(u64::from).sum());
    let mut one = Profile::new("off-cpu", Measure::off_cpu());
    let series = one.series.intern(&Series {
        host: host.into(),
        ..Series::default()
    });
    let [short, slow] = ["epoll_wait", "connect"].map(|name| {
        let [main, here] = ["main", name].map(|n| {
            let frame = Frame::named(FrameKind::User, n, "nginx");
            one.frames.intern(&frame)
        });
        let main = one.tree.intern(model::profile::ROOT, main);
        one.tree.intern(main, here)
    });
    for second in 0..30 {
        let waits = 320 + random(20);
        let mut rows = vec![(short, [waits, waits * 10_000, 0])];
        if long.contains(&second) {
            rows.push((slow, [1, 1_000_000_000, 0]));
        }
        one.add_totals(series, rows.iter().map(|(n, v)| (*n, v)));
        one.cells
            .insert((series, second), model::profile::Cell::from_rows(rows));
    }
    profile.merge(&one).unwrap();
}

#[test]
fn ten_waits_of_a_second_count_more_than_ten_thousand_of_ten_microseconds() {
    let mut profile = Profile::default();
    for i in 0..8 {
        let host = format!("h{i}");
        let long: &[u32] = &[1, 4, 7, 10, 13, 16, 19, 22, 25, 28];
        add_waiting_host(&mut profile, &host, if i == 3 { long } else { &[] });
    }
    let ranking = rank(&profile, Per::Share, 1);
    let odd: Vec<&HostDifference> = ranking.entries.iter().filter(|e| e.odd).collect();
    assert_eq!(odd.len(), 1, "{:#?}", ranking.sentences());
    let first = odd[0];
    assert_eq!(
        (&*first.host, first.path.last().map(String::as_str)),
        ("h3", Some("connect"))
    );
    // By their length, not by their number, which stays what it is.
    assert!(first.host_share > 0.98, "{first:#?}");
    assert!(first.places[0].gap.delta > 98.0, "{first:#?}");
    assert!((9_600..10_300).contains(&first.samples_host), "{first:#?}");
    // Two sides as well.
    let part = |odd: bool| move |s: &Series| (s.host == "h3") == odd;
    let (rest, own) = (part(false), part(true));
    let (left, right) = (whole(&profile, &rest), whole(&profile, &own));
    let found = compared(&left, &right, Per::Share, 1).unwrap();
    let row = found.frames.iter().find(|f| f.frame == "connect").unwrap();
    assert_eq!(row.told, Told::New, "{row:?}");
}
