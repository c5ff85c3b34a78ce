//! What SystemTap puts on every event is tried on one host alone before the others.
//!
//! In: fleets of two and three, links that break and fall silent. Out: who got ready when, and what is said of those that were not
//! begun. Never: a second host that has begun anything after the first fell silent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetflame::clock::TokioClock;
use fleetflame::dispatch::{RunEvent, Watch};
use fleetflame::{Rooms, conclude};
use fleetflame_tests::simulated::{Fault, SimulatedHost};
use model::FindingCode;
use model::job::Probe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::secs;

/// Who was ready when.
#[derive(Default)]
struct Ready(Mutex<Vec<(String, Instant)>>);

impl Watch for Ready {
    fn on(&self, event: RunEvent) {
        if let RunEvent::Armed { host } = event {
            self.0
                .lock()
                .expect("nobody panics with it")
                .push((host, Instant::now()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_put_on_every_event_is_tried_on_one_host_before_the_others() {
    let dir = tempfile::tempdir().unwrap();
    // The link of one that waits for its turn breaks meanwhile.
    let cut = vec![Fault::Cut {
        at: secs(1.0),
        lasts: secs(0.5),
    }];
    let hosts = [
        SimulatedHost::new("a", 0, None, vec![]),
        SimulatedHost::new("b", 0, None, cut),
        SimulatedHost::new("c", 0, None, vec![]),
    ];
    let mut job = crate::job(&hosts, 2_000, 9);
    job.probe = Probe::OffCpu;
    // Longer than a lease: an agent without an order has none.
    job.simulated.as_mut().expect("simulated").arm_ms = 4_500;
    let ready = Ready::default();
    let rooms = Rooms {
        out: dir.path().join("run"),
        connectors: hosts.iter().map(SimulatedHost::connector).collect(),
        clock: Arc::new(TokioClock::default()),
        watch: &ready,
        cancel: CancellationToken::new(),
    };
    let record = fleetflame::run(&job, rooms).await.unwrap();
    assert_eq!(
        conclude::exit_code(&record),
        0,
        "{:#?}",
        record.all_findings()
    );
    let ready = ready.0.into_inner().unwrap();
    assert_eq!(ready[0].0, "a");
    assert_eq!(ready.len(), 3);
    // Two times of getting ready, not one and not three.
    for (_, at) in &ready[1..] {
        let later = *at - ready[0].1;
        assert!(later >= secs(4.5) && later < secs(6.0), "{ready:?}");
    }

    // One that falls silent over it, until the time is up or for so long that it is given up as lost: nobody else has
    // begun anything.
    for (at, arm_timeout_ms, why) in [
        (0.5, 5_000, "was not ready in time"),
        (0.5, 600_000, "was lost"),
    ] {
        let deaf = vec![Fault::Silent {
            at: secs(at),
            lasts: secs(900.0),
        }];
        let hosts = [
            SimulatedHost::new("a", 0, None, deaf),
            SimulatedHost::new("b", 0, None, vec![]),
        ];
        job.hosts.truncate(2);
        job.arm_timeout_ms = Some(arm_timeout_ms);
        let out = dir.path().join(why);
        let record = fleetflame::run(&job, crate::rooms(&hosts, &out, CancellationToken::new()))
            .await
            .unwrap();
        let findings = record.all_findings();
        let held = findings.iter().find(|f| f.code == FindingCode::HostHeld);
        assert!(
            held.is_some_and(|f| f.evidence.ends_with(why)),
            "{findings:#?}"
        );
        assert!(!record.coverage.hosts["b"].armed);
        assert!(hosts.iter().all(|host| host.agent.is_idle()));
        assert_eq!(conclude::exit_code(&record), 4);
    }
}

/// The order may be on a link from which the host hears nothing any more.
#[tokio::test(start_paused = true)]
async fn an_order_that_was_not_heard_is_said_again() {
    let dir = tempfile::tempdir().unwrap();
    // The second host's order goes when the first one is ready, after one second.
    for at_ms in (250..1_500).step_by(50) {
        let deaf = Fault::HalfDeaf {
            at: Duration::from_millis(at_ms),
            lasts: secs(2.0),
            deaf: secs(60.0),
        };
        let hosts = [
            SimulatedHost::new("a", 0, None, vec![]),
            SimulatedHost::new("b", 0, None, vec![deaf]),
        ];
        let mut job = crate::job(&hosts, 2_000, 10);
        job.simulated.as_mut().expect("simulated").arm_ms = 800;
        job.probe = Probe::OffCpu;
        job.arm_timeout_ms = Some(20_000);
        let out = dir.path().join(at_ms.to_string());
        let rooms = crate::rooms(&hosts, &out, CancellationToken::new());
        let record = fleetflame::run(&job, rooms).await.unwrap();
        assert_eq!(
            conclude::exit_code(&record),
            0,
            "deaf at {at_ms} ms: {:#?}",
            record.all_findings()
        );
        assert!(record.coverage.hosts.values().all(|host| host.armed));
    }
}
