//! `diff` by CPU time and by requests as a user types it. In: runs and files. Out: what is drawn and
//! said. Never: a denominator that is guessed because the right one is missing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use assert_cmd::Command;
use fleetflame::store::{PROFILE_FILE, RunDir, RunRecord, RunState, utc_text};
use model::format::ffz::encode_profile;
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::profile::{
    Cell, CounterKind, CounterSource, Frame, FrameKind, Measure, Profile, ROOT, Series,
};
use model::{HostName, JobSpec, RunId};
use std::path::Path;
use std::process::Output;

const SECONDS: u32 = 20;

/// Adds a host that takes so many samples of 10 ms in each second, for so many requests.
fn add(profile: &mut Profile, host: &str, samples: u64, requests: u64) {
    let series = profile.series.intern(&Series {
        host: host.into(),
        ..Series::default()
    });
    let [main, work] = ["main", "work"].map(|name| {
        let frame = Frame::named(FrameKind::User, name, "nginx");
        profile.frames.intern(&frame)
    });
    let main = profile.tree.intern(ROOT, main);
    let work = profile.tree.intern(main, work);
    for second in 0..SECONDS {
        let row = |n: u64| [n, n * 10_000_000, 0];
        let rows = vec![(main, row(samples / 5)), (work, row(samples - samples / 5))];
        profile.add_totals(series, rows.iter().map(|(n, v)| (*n, v)));
        profile
            .cells
            .insert((series, second), Cell::from_rows(rows));
        if requests > 0 {
            let kind = CounterKind::Requests;
            profile.count(host, CounterSource::Host, second, kind, requests);
        }
    }
}

/// A run of three hosts: `b` spends twice as much on a request as `a`; of `c` requests are not counted.
fn run_in(root: &Path) {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    add(&mut profile, "a", 50, 10);
    add(&mut profile, "b", 100, 10);
    add(&mut profile, "c", 30, 0);
    let host = |(name, dc): (&str, &str)| JobHost {
        name: HostName::new(name).unwrap(),
        reach: Reach::Local,
        targets: Vec::new(),
        labels: [("dc".to_owned(), [dc.to_owned()].into())].into(),
    };
    let job = JobSpec {
        title: "Kong".into(),
        hosts: [("a", "bj"), ("b", "sh"), ("c", "bj")].map(host).into(),
        targets: vec![Target::Nginx],
        pick: Pick::All,
        engine: EngineChoice::Auto,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: 99,
        duration_ms: 20_000,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Default::default(),
        arm_timeout_ms: Some(1_000),
        script: None,
        simulated: None,
    };
    let ms = 1_770_000_000_000;
    let mut record = RunRecord::begin(RunId::from_parts(ms, 7), job, utc_text(ms));
    record.state = RunState::Complete;
    let name = record.id.to_string();
    let run = RunDir::create(root.join("fleetflame-runs").join(name)).unwrap();
    run.write(PROFILE_FILE, &encode_profile(&profile).unwrap())
        .unwrap();
    run.write_record(&record).unwrap();
    std::fs::write(root.join("id"), record.id.to_string()).unwrap();
}

fn fleetflame(root: &Path, arguments: &[&str]) -> Output {
    let id = std::fs::read_to_string(root.join("id")).unwrap_or_default();
    let arguments = arguments.iter().map(|a| a.replace("RUN", &id));
    let mut command = Command::cargo_bin("fleetflame").unwrap();
    command.current_dir(root).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn svg(root: &Path, arguments: &[&str]) -> String {
    let output = fleetflame(root, &[arguments, &["-o", "d.svg"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    std::fs::read_to_string(root.join("d.svg")).unwrap()
}

#[test]
fn a_part_of_a_run_is_divided_by_its_own_seconds_and_requests() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    for (arguments, wanted) in [
        (
            ["diff", "RUN:a", "RUN:b", "--by", "cpu"],
            "main (a 500.00, b 1000.00, +500.00 CPU-ms/s)",
        ),
        (
            ["diff", "RUN:rest-of:b", "RUN:b", "--by", "cpu"],
            "main (the rest of b 400.00, b 1000.00, +600.00 CPU-ms/s)",
        ),
        (
            ["diff", "RUN:a", "RUN:b", "--by", "per-1k"],
            "main (a 50000.00, b 100000.00, +50000.00 CPU-ms/1k requests)",
        ),
        // What `c` spent is in the picture as little as in the comparison.
        (
            ["diff", "RUN:rest-of:b", "RUN:b", "--by", "per-1k"],
            "main (the rest of b 50000.00, b 100000.00, +50000.00 CPU-ms/1k requests)",
        ),
    ] {
        let drawn = svg(root.path(), &arguments);
        assert!(drawn.contains(wanted), "{arguments:?}: {wanted} is missing");
    }
    let json = ["diff", "RUN:rest-of:b", "RUN:b", "--by", "per-1k", "--json"];
    let json = fleetflame(root.path(), &json);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["left"]["hosts"], 1);
    let left = json["whole"]["left"].as_f64().unwrap();
    assert!((left - 50_000.0).abs() < 1e-6, "{left}");
    assert!(
        json["findings"]
            .to_string()
            .contains("c has no counter of requests")
    );
}

#[test]
fn a_side_without_a_denominator_is_refused_with_what_it_lacks() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    for host in ["a", "b"] {
        let arguments = [
            "export",
            &format!("RUN:{host}"),
            "-o",
            &format!("{host}.ffz"),
        ];
        assert_eq!(fleetflame(root.path(), &arguments).status.code(), Some(0));
    }
    let mut waits = Profile::new("off-cpu", Measure::off_cpu());
    add(&mut waits, "w", 50, 0);
    std::fs::write(root.path().join("w.ffz"), encode_profile(&waits).unwrap()).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (
            &["RUN:c", "RUN:b", "--by", "per-1k"],
            "c has no counter of requests; use --by share or cpu",
        ),
        (
            &["a.ffz", "b.ffz", "--by", "cpu"],
            "b has no seconds, by which or by whose requests CPU time is divided; use --by share",
        ),
        (
            &["RUN:a", "b.ffz", "--by", "per-1k"],
            "b has no seconds, by which or by whose requests CPU time is divided; use --by share",
        ),
        (
            &["w.ffz", "w.ffz", "--above", "50"],
            "w has no CPU time, so --above cannot tell which seconds were hot",
        ),
    ];
    for (sides, wanted) in cases {
        let output = fleetflame(
            root.path(),
            &[&["diff"], *sides, &["-o", "no.svg"]].concat(),
        );
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{sides:?}: {said}");
        assert!(said.contains(wanted), "{sides:?}: {said}");
        assert!(!root.path().join("no.svg").exists());
    }
    // By shares such files are compared.
    svg(root.path(), &["diff", "a.ffz", "b.ffz"]);
}

#[test]
fn sides_are_hosts_of_a_label() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let drawn = svg(
        root.path(),
        &["diff", "RUN@dc=bj", "RUN@dc=sh", "--by", "cpu"],
    );
    assert!(drawn.contains("main (dc=bj 400.00, dc=sh 1000.00, +600.00 CPU-ms/s)"));
    let top = fleetflame(root.path(), &["top", "RUN@name in (b,c)", "--json"]);
    let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    assert_eq!(top["whole"], 130 * SECONDS);
    for (part, wanted) in [
        (
            "RUN@dc=xx",
            "no host of the run fits dc=xx; its labels are dc (bj, sh)",
        ),
        ("RUN@dc=", "is no part of a selection"),
    ] {
        let output = fleetflame(root.path(), &["top", part]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains(wanted), "{said}");
    }
}
