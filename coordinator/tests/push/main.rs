//! Runs pushed to stores over real connections, some of which break. In: a run of three hosts. Out: every host exactly once
//! in the store, with its labels and its sums. Never: a store that is asked less than the real one would be.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod broken_ways;
mod from_outside;
mod store;

use fleetflame::push::link::Dialler;
use fleetflame::push::{self, Headers, Ledger, Outcome, Parcels, Policy, Sender, Target, Way};
use fleetflame::store::{PROFILE_FILE, RunDir, RunRecord, RunState, utc_text};
use model::format::ffz::encode_profile;
use model::format::import::{ImportOptions, import};
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target as JobTarget};
use model::profile::{Frame, FrameKind, Measure, Process, Profile, Series, Values};
use model::{HostCoverage, HostName, HostOutcome, JobSpec, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{ALL, Knows, StoreServer, Taken};

const MS: u64 = 1_770_000_000_000;
const HOSTS: [&str; 3] = ["kong-1", "kong-2", "kong-3"];

/// Three hosts with two workers each; host n has n times the samples of the first.
fn fleet() -> Profile {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let frames = ["main", "rate_limit", "route"];
    let frames = frames.map(|n| {
        profile
            .frames
            .intern(&Frame::named(FrameKind::User, n, "nginx"))
    });
    for (times, host) in (1_u64..).zip(HOSTS) {
        for worker in 0..2_u32 {
            let series = profile.series.intern(&Series {
                host: host.into(),
                process: Process {
                    pid: 800 + worker,
                    start_ticks: 77,
                    comm: "nginx".into(),
                    role: "nginx: worker".into(),
                    worker: Some(worker),
                    ..Process::default()
                },
                thread: "nginx".into(),
                engine: "native".into(),
                period_ns: 10_101_010,
                ..Series::default()
            });
            for (leaf, samples) in [(1, 30), (2, 12)] {
                let samples = samples * times;
                let values = [samples, samples * 10_101_010, 0];
                profile.add_stack(series, &[frames[0], frames[leaf]], &values);
            }
        }
    }
    profile
}

fn record() -> RunRecord {
    let hosts = HOSTS.map(|h| JobHost {
        targets: vec![],
        name: HostName::new(h).unwrap(),
        reach: Reach::Local,
        labels: [("data-center".to_owned(), BTreeSet::from(["bj".to_owned()]))].into(),
    });
    let job = JobSpec {
        title: "Kong".into(),
        hosts: hosts.into(),
        targets: vec![JobTarget::Nginx],
        pick: Pick::All,
        engine: EngineChoice::Auto,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: 99,
        duration_ms: 10_000,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Default::default(),
        arm_timeout_ms: Some(1_000),
        script: None,
        simulated: None,
    };
    let mut record = RunRecord::begin(RunId::from_parts(MS, 7), job, utc_text(MS));
    record.captured_from = Some(utc_text(MS + 1_500));
    for host in HOSTS {
        let coverage = HostCoverage {
            outcome: HostOutcome::Complete,
            engine: "native".into(),
            captured: true,
            ..HostCoverage::default()
        };
        record.coverage.hosts.insert(host.into(), coverage);
    }
    record.state = RunState::Complete;
    record
}

/// A run directory.
fn run_in(root: &Path) -> PathBuf {
    let run = RunDir::create(root.join("kong-cpu")).unwrap();
    run.write(PROFILE_FILE, &encode_profile(&fleet()).unwrap())
        .unwrap();
    run.write_record(&record()).unwrap();
    run.path().to_owned()
}

/// Bounds for tests: a hang ends, and nothing waits longer than it must.
fn quick() -> Policy {
    Policy {
        attempt: Duration::from_millis(1_500),
        attempts: 4,
        first_pause: Duration::from_millis(1),
        most_pause: Duration::from_millis(4),
    }
}

/// Pushes the fleet in this process.
fn push_to(server: &StoreServer, kind: &str, ledger: &mut Ledger) -> (Outcome, Option<Way>) {
    let (profile, record) = (fleet(), record());
    let parcels = Parcels::new(&profile, &record, BTreeMap::new()).unwrap();
    let target: Target = format!("{kind}:http://{}", server.address).parse().unwrap();
    let dialler = Dialler::new(&target, None).unwrap();
    let mut sender = Sender::new(target, dialler, Headers::default());
    let keep = |ledger: &mut Ledger, parcel: &push::Parcel, target: &str| {
        ledger.note(target, parcel, utc_text(MS));
        Ok::<_, std::convert::Infallible>(())
    };
    let (hosts, policy) = (parcels.hosts(), quick());
    let how = (&policy, false);
    let pushing = push::push(&parcels, &hosts, &mut sender, ledger, how, keep);
    let outcome = server.block_on(pushing).unwrap();
    (outcome, sender.way())
}

/// The sums of a payload, read by our own reader.
fn sums(payload: &[u8]) -> Values {
    let imported = import(payload, ImportOptions::new("pushed")).unwrap();
    imported.profile.grand_total()
}

fn sums_of_host(host: &str) -> Values {
    let rows = fleet().select(|s| s.host == host);
    rows.values().fold(Values::default(), |mut sum, values| {
        model::profile::add_values(&mut sum, values);
        sum
    })
}

/// What the store would have, where it keeps the same labels, time and bytes once: every host, with its sums.
fn assert_each_host_once(taken: &[Taken]) {
    let kept: BTreeSet<_> = taken
        .iter()
        .map(|t| (&t.labels, &t.uri, &t.payload, &t.id))
        .collect();
    assert_eq!(kept.len(), HOSTS.len(), "{} came", taken.len());
    let mut hosts = BTreeSet::new();
    for (labels, uri, payload, _) in kept {
        let in_uri = |h: &&&str| uri.contains(&format!("host%3D{h}%2C"));
        let by_uri = HOSTS.iter().find(in_uri).map(|h| (*h).to_owned());
        let host = labels.get("host").cloned().or(by_uri).unwrap();
        assert_eq!(sums(payload), sums_of_host(&host), "{host}");
        hosts.insert(host);
    }
    assert!(hosts.iter().eq(HOSTS.iter()), "{hosts:?}");
}

#[test]
fn pyroscope_has_every_host_with_its_labels() {
    let server = StoreServer::start(ALL);
    let (outcome, way) = push_to(&server, "pyroscope", &mut Ledger::default());
    assert_eq!(
        (outcome.sent, way),
        (HOSTS.map(str::to_owned).to_vec(), Some(Way::Rpc))
    );
    let taken = server.taken();
    assert_each_host_once(&taken);
    assert_eq!(taken.len(), 3);
    let labels = [
        ("__name__", "process_cpu"),
        ("data_center", "bj"),
        ("engine", "native"),
        ("host", "kong-1"),
        ("job_id", &record().id.to_string()),
        ("probe", "on-cpu"),
        ("service_name", "nginx"),
    ];
    let labels: BTreeMap<String, String> = labels.map(|(n, v)| (n.into(), v.into())).into();
    assert_eq!(taken[0].labels, labels);
    assert_eq!(taken[0].id.len(), 36);
    // No process ids: each would be a series of its own in the store.
    let read = import(&taken[0].payload, ImportOptions::new("pushed")).unwrap();
    let series = read.profile.series.as_slice();
    assert_eq!(series.len(), 2);
    assert!(
        series
            .iter()
            .all(|s| s.process.pid == 0 && s.process.worker.is_some())
    );
}

#[test]
fn parca_has_every_host() {
    let server = StoreServer::start(ALL);
    let (outcome, way) = push_to(&server, "parca", &mut Ledger::default());
    assert_eq!((outcome.failed, way), (vec![], Some(Way::Rpc)));
    assert_each_host_once(&server.taken());
}

#[test]
fn a_pyroscope_that_does_not_know_the_method_or_http_2_gets_it_by_ingest() {
    let without = [
        Knows {
            pusher: false,
            ..ALL
        },
        Knows {
            http2: false,
            ..ALL
        },
    ];
    for knows in without {
        let server = StoreServer::start(knows);
        let (outcome, way) = push_to(&server, "pyroscope", &mut Ledger::default());
        assert_eq!(
            (outcome.failed, way),
            (vec![], Some(Way::Ingest)),
            "{knows:?}"
        );
        let taken = server.taken();
        assert_each_host_once(&taken);
        let uri = &taken[0].uri;
        assert!(
            uri.starts_with("/ingest?name=nginx%7Bdata_center%3Dbj%2C"),
            "{uri}"
        );
        assert!(
            uri.contains("&from=1770000001&until=1770000011&sampleRate=99&format=pprof"),
            "{uri}"
        );
    }
    let server = StoreServer::start(Knows {
        http2: false,
        ..ALL
    });
    let (outcome, _) = push_to(&server, "parca", &mut Ledger::default());
    assert_eq!(outcome.failed.len(), 3);
    assert!(
        outcome.failed[0].said.contains("HTTP/2"),
        "{:?}",
        outcome.failed
    );
}
