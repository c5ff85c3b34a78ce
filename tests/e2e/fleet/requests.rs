//! Requests are counted beside the stacks: as many as the load generator made.
//!
//! In: nginx under wrk's bounded load, the master and its workers as targets. Out: the counters of the
//! run. Never: a request counted once for each worker.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Binaries, Child, Gateway, GatewayPlace};
use model::FindingCode;
use model::profile::{CounterKind, CounterSource};

use crate::written::Written;
use crate::{CAPTURE, SECOND, turn};

const CONNECTIONS: u32 = 4;

#[test]
fn the_run_has_as_many_requests_as_the_load_generator_made() -> Result<()> {
    let _turn = turn();
    let programs = Binaries::find()?;
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let stage = tempfile::tempdir()?;
    let (out, job) = (stage.path().join("run"), stage.path().join("job.yaml"));
    let policy = stage.path().join("policy.yaml");
    std::fs::write(&policy, POLICY)?;
    let mut targets = vec![format!("'pid:{}'", gateway.master())];
    targets.extend(
        gateway
            .worker_pids()
            .iter()
            .map(|pid| format!("'pid:{pid}'")),
    );
    std::fs::write(
        &job,
        format!(
            "version: 1\nlocal: true\ntargets: [{}]\nbudgets: {{cpu_pct_max: 100}}\n",
            targets.join(", ")
        ),
    )?;
    let mut command = programs.coordinator();
    command
        .arg("capture")
        .arg(&job)
        .args([
            "--json",
            "--duration",
            "14s",
            "--arm-timeout",
            "40s",
            "--out",
        ])
        .arg(&out)
        .arg("--agent-policy")
        .arg(&policy);
    let mut capture = Child::spawn(command)?;
    // Not for samples: a gateway without load has none. The start lies less than 3 s behind this word.
    capture.wait_for_stdout("\"event\":\"starting\"", CAPTURE)?;
    std::thread::sleep(3 * SECOND);
    let made = gateway
        .load("/plain", CONNECTIONS, Duration::from_secs(4))?
        .finish()?;
    let said = capture.finish(CAPTURE)?;
    ensure!(
        said.status.code() == Some(0),
        "{}\n{}",
        said.stdout,
        said.stderr
    );
    let run = Written::read(&out)?;
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
