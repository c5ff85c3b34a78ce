//! The story of a fleet whose network and hosts fail in every way, told under paused time: whatever
//! happens, counts are exact, nobody is left capturing, and what was lost is said.

use fleetflame::clock::TokioClock;
use fleetflame::store::{RunDir, RunRecord, RunState};
use fleetflame::{Rooms, conclude};
use fleetflame_tests::simulated::{Fault, SimulatedHost};
use model::coverage::HostOutcome;
use model::format::ffz::Want;
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::order::{Budgets, Simulated};
use model::{FindingCode, JobSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

mod canary;

const HZ: u32 = 50;
const PROCESSES: u32 = 2;

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

fn job(hosts: &[SimulatedHost], duration_ms: u64, seed: u64) -> JobSpec {
    let reach = || Reach::Direct("simulated:1".into());
    let host = |h: &SimulatedHost| JobHost::new(h.name.clone(), reach());
    JobSpec {
        title: "simulated".into(),
        hosts: hosts.iter().map(host).collect(),
        targets: vec![Target::Nginx],
        pick: Pick::All,
        engine: EngineChoice::Simulated,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: HZ,
        duration_ms,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Budgets::default(),
        arm_timeout_ms: Some(5_000),
        script: None,
        simulated: Some(Simulated {
            seed,
            processes: PROCESSES,
            stacks: 8,
            child: false,
            arm_ms: 100,
        }),
    }
}

fn rooms(hosts: &[SimulatedHost], out: &Path, cancel: CancellationToken) -> Rooms<'static> {
    Rooms {
        out: out.to_owned(),
        connectors: hosts.iter().map(SimulatedHost::connector).collect(),
        clock: Arc::new(TokioClock::default()),
        watch: &(),
        cancel,
    }
}

async fn run(hosts: &[SimulatedHost], out: &Path, duration_ms: u64, seed: u64) -> RunRecord {
    let job = job(hosts, duration_ms, seed);
    fleetflame::run(&job, rooms(hosts, out, CancellationToken::new()))
        .await
        .expect("a run")
}

/// Samples that one host takes in a whole capture.
fn whole(duration_ms: u64) -> u64 {
    u64::from(HZ) * u64::from(PROCESSES) * duration_ms / 1_000
}

/// What is in the profile of one host, and that every way of adding it up agrees.
fn taken(out: &Path, host: &str) -> u64 {
    let dir = RunDir::open(out).expect("the run directory");
    let profile = dir.profile(Want::Cells).expect("the profile");
    let by_host: Vec<u64> = profile
        .hosts()
        .iter()
        .map(|h| {
            profile
                .select(|s| s.host == *h)
                .values()
                .map(|v| v[0])
                .sum()
        })
        .collect();
    assert_eq!(
        by_host.iter().sum::<u64>(),
        profile.grand_total()[0],
        "merged is the sum of hosts"
    );
    let cells: u64 = profile
        .cells
        .values()
        .flat_map(|c| &c.values)
        .map(|v| v[0])
        .sum();
    assert_eq!(
        cells,
        profile.grand_total()[0],
        "totals are the sum of seconds"
    );
    profile
        .select(|s| s.host == host)
        .values()
        .map(|v| v[0])
        .sum()
}

fn has(record: &RunRecord, code: FindingCode, host: &str) -> bool {
    record
        .all_findings()
        .iter()
        .any(|f| f.code == code && f.host.as_deref() == Some(host))
}

#[tokio::test(start_paused = true)]
async fn a_healthy_fleet_is_complete_to_the_last_sample_whatever_its_clocks() {
    let dir = tempfile::tempdir().unwrap();
    let hosts: Vec<SimulatedHost> = (0..5_u64)
        .map(|i| {
            let slow = vec![Fault::SlowUp(Duration::from_millis(30 * i))];
            SimulatedHost::new(&format!("h{i}"), i * 3_600_000_000_000, None, slow)
        })
        .collect();
    let out = dir.path().join("run");
    let record = run(&hosts, &out, 3_000, 1).await;
    assert_eq!(
        record.state,
        RunState::Complete,
        "{:#?}",
        record.all_findings()
    );
    assert_eq!(conclude::exit_code(&record), 0);
    for (i, host) in hosts.iter().enumerate() {
        let name = host.name.as_str();
        assert_eq!(taken(&out, name), whole(3_000));
        let coverage = &record.coverage.hosts[name];
        let true_offset = i128::from(i as u64 * 3_600_000_000_000_u64);
        let off = (i128::from(coverage.clock_offset_ns) - true_offset).unsigned_abs();
        assert!(
            off <= u128::from(coverage.clock_uncertainty_ns) + 1_000_000,
            "{name}: {off} ns off"
        );
        assert!(
            coverage.start_error_ns.unsigned_abs() < 70_000_000,
            "{name} started late"
        );
        assert!(host.agent.is_idle(), "{name} still captures");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_wire_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let silent = vec![Fault::Silent {
        at: secs(2.0),
        lasts: secs(3.0),
    }];
    let cut = vec![Fault::Cut {
        at: secs(2.0),
        lasts: secs(2.0),
    }];
    // The old connection speaks, but it does not hear: with it alone the lease would be over.
    let deaf = vec![Fault::HalfDeaf {
        at: secs(2.0),
        lasts: secs(2.5),
        deaf: secs(3.5),
    }];
    let hosts = [
        SimulatedHost::new("good", 0, None, vec![]),
        SimulatedHost::new("silent", 5, None, silent),
        SimulatedHost::new("cut", 9, None, cut),
        SimulatedHost::new("deaf", 7, None, deaf),
    ];
    let out = dir.path().join("run");
    let record = run(&hosts, &out, 6_000, 2).await;
    assert_eq!(
        record.state,
        RunState::Complete,
        "{:#?}",
        record.all_findings()
    );
    for host in &hosts {
        assert_eq!(
            taken(&out, host.name.as_str()),
            whole(6_000),
            "{}",
            host.name
        );
    }
    assert!(
        hosts[1..].iter().all(|host| host.connections() > 1),
        "nothing was resumed"
    );
    assert!(has(&record, FindingCode::ConnectionResumed, "silent"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_lost_for_good_stops_by_itself_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let gone = vec![Fault::Cut {
        at: secs(2.0),
        lasts: secs(1e6),
    }];
    let hosts = [
        SimulatedHost::new("good", 0, None, vec![]),
        SimulatedHost::new("gone", 0, None, gone),
    ];
    let out = dir.path().join("run");
    let capture = run(&hosts, &out, 30_000, 3);
    let watch = async {
        tokio::time::sleep(secs(1.9)).await;
        assert!(!hosts[1].agent.is_idle(), "it never captured");
        // The wire breaks at 2 s, the lease is 4 s, teardown 1 s.
        tokio::time::sleep(secs(5.1)).await;
        assert!(
            hosts[1].agent.is_idle(),
            "it captures on without a coordinator"
        );
    };
    let (record, ()) = tokio::join!(capture, watch);
    assert_eq!(record.state, RunState::Partial);
    assert_eq!(conclude::exit_code(&record), 3);
    assert_eq!(
        taken(&out, "good"),
        whole(30_000),
        "the others are complete"
    );
    assert!(taken(&out, "gone") > 0 && taken(&out, "gone") < whole(30_000));
    assert!(has(&record, FindingCode::HostLost, "gone"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_coordinator_leaves_nobody_capturing_and_collect_fetches_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |n: &str| dir.path().join(n);
    let hosts = [
        SimulatedHost::new("a", 0, Some(&folder("state-a")), vec![]),
        SimulatedHost::new("b", 7, Some(&folder("state-b")), vec![]),
    ];
    let out = folder("run");
    let died_after = secs(3.3);
    {
        let job = job(&hosts, 20_000, 4);
        let coordinator = fleetflame::run(&job, rooms(&hosts, &out, CancellationToken::new()));
        let died = tokio::time::timeout(died_after, coordinator).await;
        assert!(died.is_err(), "it should have been killed in mid-capture");
    }
    tokio::time::sleep(secs(5.0)).await;
    for host in &hosts {
        assert!(
            host.agent.is_idle(),
            "{} captures without a coordinator",
            host.name
        );
    }
    let run_dir = RunDir::open(&out).unwrap();
    let record = fleetflame::collect(&run_dir, rooms(&hosts, &out, CancellationToken::new()))
        .await
        .unwrap();
    assert!(
        has(&record, FindingCode::LeaseExpired, "a"),
        "{:#?}",
        record.all_findings()
    );
    for name in ["a", "b"] {
        // Everything up to the end of the lease, to the last sample the agent counted.
        assert_eq!(
            taken(&out, name),
            record.coverage.hosts[name].stats.samples,
            "{name}"
        );
        assert!(
            taken(&out, name) > whole(5_000),
            "{name}: {}",
            taken(&out, name)
        );
        assert_eq!(record.coverage.hosts[name].outcome, HostOutcome::Partial);
        assert_eq!(record.coverage.hosts[name].missing_batches, 0);
    }
    // Once it is collected, nothing is held any more, and collecting again changes nothing.
    let before = ["a", "b"].map(|name| taken(&out, name));
    let again = fleetflame::collect(&run_dir, rooms(&hosts, &out, CancellationToken::new())).await;
    assert!(has(&again.unwrap(), FindingCode::RemainderGone, "a"));
    assert_eq!(["a", "b"].map(|name| taken(&out, name)), before);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_keeps_what_was_captured_and_cleans_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = [
        SimulatedHost::new("a", 0, None, vec![]),
        SimulatedHost::new("b", 0, None, vec![]),
    ];
    let out = dir.path().join("run");
    let cancel = CancellationToken::new();
    let job = job(&hosts, 60_000, 5);
    let capture = fleetflame::run(&job, rooms(&hosts, &out, cancel.clone()));
    let press = async {
        tokio::time::sleep(secs(4.0)).await;
        cancel.cancel();
    };
    let (record, ()) = tokio::join!(capture, press);
    let record = record.unwrap();
    assert_eq!(record.state, RunState::Interrupted);
    assert_eq!(conclude::exit_code(&record), 130);
    for host in &hosts {
        let samples = taken(&out, host.name.as_str());
        assert!(
            samples >= whole(3_000) && samples < whole(5_000),
            "{samples}"
        );
        assert_eq!(
            samples,
            record.coverage.hosts[host.name.as_str()].stats.samples
        );
        assert!(host.agent.is_idle());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_or_is_late_does_not_hold_up_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let late = vec![Fault::Silent {
        at: secs(0.2),
        lasts: secs(20.0),
    }];
    let hosts = [
        SimulatedHost::new("good", 0, None, vec![]),
        SimulatedHost::new("late", 0, None, late),
    ];
    let out = dir.path().join("run");
    let record = run(&hosts, &out, 2_000, 6).await;
    assert_eq!(taken(&out, "good"), whole(2_000));
    assert_eq!(
        record.coverage.hosts["late"].outcome,
        HostOutcome::Failed,
        "{:#?}",
        record.coverage
    );
    assert_eq!(conclude::exit_code(&record), 3);
    // Everybody is late: no run, and the reason is said for each host.
    let hosts = [SimulatedHost::new("late", 0, None, vec![])];
    let mut slow = job(&hosts, 2_000, 8);
    slow.simulated.as_mut().expect("simulated").arm_ms = 2 * slow.arm_timeout_ms.expect("set");
    let out = dir.path().join("all-late");
    let record = fleetflame::run(&slow, rooms(&hosts, &out, CancellationToken::new()))
        .await
        .unwrap();
    assert!(
        has(&record, FindingCode::HostLate, "late"),
        "{:#?}",
        record.all_findings()
    );
    assert_eq!(conclude::exit_code(&record), 4);
    // An order that every policy refuses: exit 5, and no run is left behind on the host.
    let host = [SimulatedHost::new("strict", 0, None, vec![])];
    let mut strict = job(&host, 1_000, 7);
    strict.budgets.cpu_pct_max = 99;
    let out = dir.path().join("refused");
    let record = fleetflame::run(&strict, rooms(&host, &out, CancellationToken::new()))
        .await
        .unwrap();
    assert!(
        has(&record, FindingCode::PolicyRefused, "strict"),
        "{:#?}",
        record.all_findings()
    );
    assert_eq!(conclude::exit_code(&record), 5);
}

/// Seeded random faults over many hosts: 50 seeds in five parts, more with `FLEETFLAME_SEEDS`.
async fn two_hundred_hosts_with_seeded_faults(part: u64) {
    let all: u64 = std::env::var("FLEETFLAME_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(50);
    for seed in (0..all).filter(|s| s % 5 == part) {
        two_hundred_hosts_are_exact(seed).await;
    }
}

macro_rules! parts {
    ($($name:ident $part:literal),*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            two_hundred_hosts_with_seeded_faults($part).await;
        }
    )*};
}

parts!(
    two_hundred_hosts_with_seeded_faults_are_exact_0 0,
    two_hundred_hosts_with_seeded_faults_are_exact_1 1,
    two_hundred_hosts_with_seeded_faults_are_exact_2 2,
    two_hundred_hosts_with_seeded_faults_are_exact_3 3,
    two_hundred_hosts_with_seeded_faults_are_exact_4 4
);

async fn two_hundred_hosts_are_exact(seed: u64) {
    // In memory: two hundred run directories' worth of fsync is not what is tested here.
    let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
    let mut random = Random(seed + 1);
    let hosts: Vec<SimulatedHost> = (0..200).map(|i| random.host(i)).collect();
    let out = dir.path().join("run");
    let record = run(&hosts, &out, 5_000, seed).await;
    let dir = RunDir::open(&out).expect("the run directory");
    let profile = dir.profile(Want::Totals).expect("the profile");
    let mut sum = 0;
    for host in &hosts {
        let name = host.name.as_str();
        let coverage = &record.coverage.hosts[name];
        let samples: u64 = profile
            .select(|s| s.host == name)
            .values()
            .map(|v| v[0])
            .sum();
        sum += samples;
        if coverage.outcome == HostOutcome::Complete {
            assert_eq!(samples, whole(5_000), "seed {seed} {name}: {coverage:?}");
        } else {
            assert!(samples <= whole(5_000), "seed {seed} {name} counted twice");
            let said = record
                .all_findings()
                .iter()
                .any(|f| f.host.as_deref() == Some(name));
            assert!(
                said,
                "seed {seed} {name} is not complete and nothing says why"
            );
        }
    }
    assert_eq!(sum, profile.grand_total()[0], "seed {seed}");
    let complete = record
        .coverage
        .hosts
        .values()
        .filter(|h| h.outcome == HostOutcome::Complete)
        .count();
    assert!(complete >= 100, "seed {seed}: only {complete} are complete");
    tokio::time::sleep(secs(10.0)).await;
    let busy = hosts.iter().filter(|h| !h.agent.is_idle()).count();
    assert_eq!(busy, 0, "seed {seed}: {busy} agents capture on");
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(500 + self.below(6_000))
    }

    fn host(&mut self, number: u64) -> SimulatedHost {
        let mut faults = Vec::new();
        match self.below(10) {
            0 => faults.push(Fault::Silent {
                at: self.moment(),
                lasts: Duration::from_millis(self.below(3_000)),
            }),
            1 => faults.push(Fault::Cut {
                at: self.moment(),
                lasts: Duration::from_millis(self.below(3_000)),
            }),
            2 => faults.push(Fault::Cut {
                at: self.moment(),
                lasts: secs(1e6),
            }),
            3 => {
                faults.push(Fault::Silent {
                    at: self.moment(),
                    lasts: Duration::from_millis(self.below(6_000)),
                });
                faults.push(Fault::Cut {
                    at: self.moment(),
                    lasts: Duration::from_millis(self.below(1_000)),
                });
            }
            _ => {}
        }
        faults.push(Fault::SlowUp(Duration::from_millis(self.below(80))));
        faults.push(Fault::SlowDown(Duration::from_millis(self.below(80))));
        let clock_ns = self.below(1 << 30) * 10_000;
        SimulatedHost::new(&format!("h{number:03}"), clock_ns, None, faults)
    }
}
