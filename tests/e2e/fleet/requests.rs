//! Requests are counted beside the stacks: as many as the load generator made.
//!
//! In: nginx under wrk's bounded load, the master and its workers as targets; its memory, or its page. Out: the counters of the
//! run. Never: a request counted once for each worker, or twice because both tell.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Child, Gateway, GatewayPlace};
use model::FindingCode;
use model::profile::{CounterKind, CounterSource};

use crate::local::Stage;
use crate::{CAPTURE, SECOND, turn};

const CONNECTIONS: u32 = 4;

#[test]
fn the_run_has_as_many_requests_as_the_load_generator_made() -> Result<()> {
    as_many_as_were_made(|_| POLICY.to_owned())
}

#[test]
fn where_the_policy_names_the_gateways_page_that_is_read() -> Result<()> {
    as_many_as_were_made(|gateway| {
        format!(
            "{POLICY}requests_url: http://{}/status\n",
            gateway.address()
        )
    })
}

fn as_many_as_were_made(policy: impl FnOnce(&Gateway<'_>) -> String) -> Result<()> {
    let _turn = turn();
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let policy = policy(&gateway);
    let mut targets = vec![gateway.master()];
    targets.extend(gateway.worker_pids());
    let targets: Vec<String> = targets.iter().map(|pid| format!("'pid:{pid}'")).collect();
    let stage = Stage::with_job(&policy, &format!("targets: [{}]", targets.join(", ")))?;
    let mut capture = Child::spawn(stage.capture(&["--duration", "14s"])?)?;
    // Not for samples: a gateway without load has none. The start lies less than 3 s behind this word.
    capture.wait_for_stdout("\"event\":\"starting\"", CAPTURE)?;
    std::thread::sleep(3 * SECOND);
    let made = gateway
        .load("/plain", CONNECTIONS, Duration::from_secs(4))?
        .finish()?;
    let run = stage.ended(capture, 0)?;
    let counters = &run.profile.counters;
    let requests = counters
        .iter()
        .filter(|((_, source, _, kind), _)| {
            *kind == CounterKind::Requests && *source == CounterSource::Host
        })
        .map(|(_, value)| *value);
    let counted: u64 = requests.sum();
    // What wrk cuts off at its end was begun, and is in nobody's report but nginx's.
    ensure!(
        (made.requests..=made.requests + u64::from(CONNECTIONS)).contains(&counted),
        "wrk made {}, counted {counted}",
        made.requests
    );
    ensure!(!run.has(FindingCode::RequestsUnknown, "local"));
    Ok(())
}
