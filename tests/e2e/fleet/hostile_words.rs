//! An agent that speaks the rpc and lies: each lie is a finding, and the other host is complete.
//!
//! In: batches that are damaged, forged or out of order, and numbers that no agent counts to. Out:
//! the finding that fits. Never: a panic, a doubled count, or a sample under another host's name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetflame::clock::TokioClock;
use fleetflame::store::{RunDir, RunRecord};
use fleetflame::transport::{BoxFuture, Connect};
use fleetflame::{Rooms, conclude};
use fleetflame_tests::simulated::SimulatedHost;
use model::coverage::HostOutcome;
use model::format::ffz::{Head, Want, encode_segment};
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::order::{Budgets, Simulated};
use model::profile::{Frame, FrameKind, Measure, Process, Recorder, RecorderLimits, Series};
use model::{Finding, FindingCode, HostName, JobSpec};
use proto::link::{AgentLink, CoordinatorLink, in_process_pair};
use proto::v1::{self, FromAgent, from_agent::Say, from_coordinator::Say as Told};
use tokio_util::sync::CancellationToken;

const HOSTILE: &str = "hostile";
const HONEST: &str = "honest";

/// What the hostile agent says once the capture runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    WrongHash,
    NoDocument,
    OtherHost,
    HelloTwice,
    NumberZero,
    NumberFarAhead,
    NumbersTooBig,
    StatsTooBig,
    NothingButFinished,
}

struct Liar(Lie);

impl Connect for Liar {
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>> {
        Box::pin(async {
            let (ours, theirs) = in_process_pair();
            tokio::spawn(lie(ours, self.0));
            Ok(theirs)
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

/// One sample of `host`, as an honest agent sends it.
fn document(host: &str, samples: u64) -> Vec<u8> {
    let mut recorder = Recorder::new(host, Measure::on_cpu(), RecorderLimits::default());
    let series = recorder.series(&Series {
        host: host.into(),
        process: Process {
            pid: 7,
            comm: "nginx".into(),
            ..Process::default()
        },
        thread: "nginx".into(),
        engine: "simulated".into(),
        mode: "scripted".into(),
        event: "cpu-clock".into(),
        period_ns: 1,
    });
    let main = recorder.frame(&Frame::named(FrameKind::User, "main", "nginx"));
    recorder.add_stack(series, 0, &[main], &[samples, samples, 0]);
    let head = Head {
        probe: "on-cpu".into(),
        measures: Measure::on_cpu(),
    };
    encode_segment(&head, &recorder.take(16)).expect("a document")
}

async fn lie(mut link: AgentLink, lie: Lie) {
    let say = async |word| drop(link.tx.send(FromAgent { say: Some(word) }).await);
    let hello = || {
        Say::Hello(v1::Hello {
            protocol: proto::PROTOCOL,
            ..v1::Hello::default()
        })
    };
    say(hello()).await;
    let mut run = String::new();
    while let Some(message) = link.rx.recv().await {
        match message.say {
            Some(Told::Survey(_)) => {
                let engine = v1::EngineReport {
                    engine: "simulated".into(),
                    can_run: true,
                    ..v1::EngineReport::default()
                };
                say(Say::Report(v1::HostReport {
                    engines: vec![engine],
                    ..v1::HostReport::default()
                }))
                .await;
            }
            Some(Told::ClockProbe(probe)) => {
                let now = probe.coordinator_mono_ns;
                say(Say::ClockEcho(v1::ClockEcho {
                    coordinator_mono_ns: now,
                    agent_received_mono_ns: now,
                    agent_sent_mono_ns: now,
                }))
                .await;
            }
            Some(Told::Arm(order)) => {
                run = order.run;
                say(Say::Armed(v1::Armed {
                    run: run.clone(),
                    findings: Vec::new(),
                }))
                .await;
            }
            Some(Told::Start(start)) => {
                let agent_mono_ns = if lie == Lie::StatsTooBig {
                    u64::MAX
                } else {
                    start.agent_mono_ns
                };
                say(Say::Started(v1::Started {
                    run: run.clone(),
                    agent_mono_ns,
                }))
                .await;
                for word in words(lie, &run) {
                    say(word).await;
                }
                if lie == Lie::HelloTwice {
                    say(hello()).await;
                }
            }
            Some(Told::Heartbeat(_)) => say(Say::Heartbeat(v1::Heartbeat {})).await,
            _ => {}
        }
    }
}

fn words(lie: Lie, run: &str) -> Vec<Say> {
    let batch = |epoch, seq, ffz: Vec<u8>| {
        let blake3 = blake3::hash(&ffz).as_bytes().to_vec();
        v1::Batch {
            run: run.to_owned(),
            epoch,
            seq,
            ffz: ffz.into(),
            blake3,
        }
    };
    let finished = |stats, last_seq| {
        Say::Finished(v1::Finished {
            run: run.to_owned(),
            stats: Some(stats),
            findings: Vec::new(),
            epoch: 1,
            last_seq,
            complete: true,
        })
    };
    let one = v1::CaptureStats {
        samples: 1,
        ..v1::CaptureStats::default()
    };
    let too_big = v1::CaptureStats {
        samples: u64::MAX,
        lost: u64::MAX,
        throttled: u64::MAX,
        dropped: u64::MAX,
        pruned: u64::MAX,
        started_mono_ns: u64::MAX,
        ..v1::CaptureStats::default()
    };
    match lie {
        Lie::WrongHash => {
            let mut damaged = batch(1, 1, document(HOSTILE, 1));
            damaged.blake3[0] ^= 1;
            vec![Say::Batch(damaged), finished(one, 1)]
        }
        Lie::NoDocument => vec![
            Say::Batch(batch(1, 1, b"ffz\x01rubbish".to_vec())),
            finished(one, 1),
        ],
        Lie::OtherHost => vec![
            Say::Batch(batch(1, 1, document(HONEST, 1_000_000))),
            finished(one, 1),
        ],
        Lie::HelloTwice => vec![Say::Batch(batch(1, 1, document(HOSTILE, 1)))],
        Lie::NumberZero => vec![
            Say::Batch(batch(1, 0, document(HOSTILE, 1))),
            finished(one, 1),
        ],
        Lie::NumberFarAhead => {
            let far = batch(u32::MAX, u64::MAX, document(HOSTILE, 1));
            vec![Say::Batch(far), finished(one, u64::MAX)]
        }
        Lie::NumbersTooBig => vec![
            Say::Batch(batch(1, 1, document(HOSTILE, u64::MAX))),
            finished(one, 1),
        ],
        Lie::StatsTooBig => vec![
            Say::Batch(batch(1, 1, document(HOSTILE, 1))),
            finished(too_big, u64::MAX),
        ],
        Lie::NothingButFinished => vec![finished(one, 0)],
    }
}

/// A run over an honest host and one that lies.
async fn run(out: &Path, told: Lie) -> RunRecord {
    let honest = SimulatedHost::new(HONEST, 0, None, Vec::new());
    let hostile = HostName::new(HOSTILE).expect("a name");
    let host = |name: &HostName| JobHost {
        name: name.clone(),
        reach: Reach::Direct("simulated:1".into()),
        targets: Vec::new(),
        labels: Default::default(),
    };
    let job = JobSpec {
        title: "hostile".into(),
        hosts: vec![host(&honest.name), host(&hostile)],
        targets: vec![Target::Nginx],
        pick: Pick::All,
        engine: EngineChoice::Simulated,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: 50,
        duration_ms: 2_000,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Budgets::default(),
        arm_timeout_ms: Some(5_000),
        script: None,
        simulated: Some(Simulated {
            seed: 1,
            processes: 2,
            stacks: 8,
            child: false,
            arm_ms: 0,
        }),
    };
    let rooms = Rooms {
        out: out.to_owned(),
        connectors: vec![honest.connector(), (hostile, Arc::new(Liar(told)))],
        clock: Arc::new(TokioClock::default()),
        watch: &(),
        cancel: CancellationToken::new(),
    };
    let bounded = tokio::time::timeout(Duration::from_secs(60), fleetflame::run(&job, rooms));
    bounded
        .await
        .expect("the run ends in bounded time")
        .expect("a run")
}

#[tokio::test(start_paused = true)]
async fn each_lie_is_a_finding_and_costs_nobody_else() {
    let cases = [
        (Lie::WrongHash, FindingCode::BatchDamaged),
        (Lie::NoDocument, FindingCode::BatchDamaged),
        (Lie::OtherHost, FindingCode::HostProtocol),
        (Lie::HelloTwice, FindingCode::HostProtocol),
        (Lie::NumberZero, FindingCode::HostProtocol),
        (Lie::NumberFarAhead, FindingCode::BatchGap),
        (Lie::NumbersTooBig, FindingCode::HostProtocol),
        (Lie::StatsTooBig, FindingCode::BatchGap),
        (Lie::NothingButFinished, FindingCode::NothingCaptured),
    ];
    for (told, code) in cases {
        let stage = tempfile::tempdir().expect("a folder");
        let out = stage.path().join("run");
        let record = run(&out, told).await;
        let findings = record.all_findings();
        let said = findings
            .iter()
            .any(|f| f.code == code && f.host.as_deref() == Some(HOSTILE));
        assert!(said, "{told:?}: {findings:#?}");
        let complete = |host: &str| record.coverage.hosts[host].outcome == HostOutcome::Complete;
        assert!(
            complete(HONEST) && !complete(HOSTILE),
            "{told:?}: {findings:#?}"
        );
        assert_eq!(conclude::exit_code(&record), 3, "{told:?}");
        let profile = RunDir::open(&out)
            .and_then(|dir| dir.profile(Want::Totals))
            .expect("a profile");
        let honest: u64 = profile
            .select(|s| s.host == HONEST)
            .values()
            .map(|v| v[0])
            .sum();
        assert_eq!(honest, 200, "{told:?}");
    }
}
