//! A login that joins a running agent keeps its captures until the greetings are over, and no longer than a lease.

use super::{Agent, Settings};
use crate::clock::TokioClock;
use crate::engine::EngineRoom;
use crate::policy::{Policy, tests::order};
use crate::process::Processes;
use crate::session::HeldStore;
use model::job::EngineChoice;
use model::{CaptureOrder, HostReport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn who_joins_gets_the_time_of_a_lease_for_its_greetings() {
    let agent = Agent::new(Settings {
        policy: Box::new(|| {
            Ok(Policy {
                engines: vec![EngineChoice::Simulated],
                ..Policy::default()
            })
        }),
        survey: Box::new(|_| HostReport::default()),
        engines: EngineRoom {
            clock: Arc::new(TokioClock::shifted(0)),
            processes: Arc::new(Processes::new(None)),
        },
        held: HeldStore::none(),
        own_cpu_ns: || 0,
    });
    let order = CaptureOrder {
        engine: EngineChoice::Simulated,
        simulated: Some(model::order::Simulated::default()),
        lease_ms: 4_000,
        ..order()
    };
    agent.begin(order).unwrap();
    sleep(Duration::from_millis(3_500)).await;
    agent.coordinator_joins().await;
    sleep(Duration::from_millis(3_500)).await;
    assert!(!agent.is_idle(), "it ended while its coordinator joined");
    assert!(agent.silent_for() < Duration::from_secs(4));
    // Who joins and then says nothing holds it up for one lease only.
    sleep(Duration::from_millis(1_500)).await;
    assert!(agent.is_idle(), "it goes on without a word");
}
