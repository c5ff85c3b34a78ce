//! Off-CPU on a gateway: what keeps a worker from its event loop is told apart from its waits for the
//! next event.
//!
//! In: nginx whose handler sleeps, once with the whole worker and once with the request alone. Out:
//! waits inside the request, or waits of the event loop. Never: an idle worker that looks blocked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Binaries, Child, Gateway, GatewayPlace};

use crate::written::Written;
use crate::{CAPTURE, turn};

/// Nanoseconds blocked in the event loop, and blocked elsewhere, under load on `path`.
fn blocked(path: &str) -> Result<(u64, u64)> {
    let programs = Binaries::find()?;
    let gateway = Gateway::start_with_workers(GatewayPlace::Here, 1)?;
    let worker = *gateway.worker_pids().first().context("no worker")?;
    let stage = tempfile::tempdir()?;
    let (out, job) = (stage.path().join("run"), stage.path().join("job.yaml"));
    let policy = stage.path().join("policy.yaml");
    std::fs::write(&policy, POLICY)?;
    std::fs::write(
        &job,
        format!(
            "version: 1\nlocal: true\ntargets: ['pid:{worker}']\nprobe: off-cpu\nmin_wait: 50us\n\
             budgets: {{cpu_pct_max: 100}}\n"
        ),
    )?;
    let load = gateway.load(path, 2, Duration::from_secs(15))?;
    let mut command = programs.coordinator();
    command
        .arg("capture")
        .arg(&job)
        .args([
            "--json",
            "--duration",
            "4s",
            "--arm-timeout",
            "40s",
            "--out",
        ])
        .arg(&out)
        .arg("--agent-policy")
        .arg(&policy);
    let said = Child::spawn(command)?.finish(CAPTURE)?;
    ensure!(
        said.status.code() == Some(0),
        "{:?}\n{}\n{}",
        said.status,
        said.stdout,
        said.stderr
    );
    drop(load);
    let run = Written::read(&out)?;
    let (mut loop_ns, mut request_ns) = (0, 0);
    for (stack, ns) in run.folded("merged.folded")? {
        if stack.contains("[event loop]") {
            loop_ns += ns;
        } else if stack.contains("nanosleep") {
            request_ns += ns;
        }
    }
    Ok((loop_ns, request_ns))
}

#[test]
fn a_handler_that_keeps_the_worker_waiting_is_seen_outside_of_the_event_loop() -> Result<()> {
    let _turn = turn();
    let (loop_ns, request_ns) = blocked("/blocking")?;
    let share = request_ns as f64 / (loop_ns + request_ns) as f64;
    ensure!(
        share > 0.8,
        "in requests {request_ns} ns, in the event loop {loop_ns} ns"
    );
    Ok(())
}

#[test]
fn a_handler_that_only_waits_itself_leaves_the_worker_in_its_event_loop() -> Result<()> {
    let _turn = turn();
    let (loop_ns, request_ns) = blocked("/waiting")?;
    ensure!(
        loop_ns > 2_000_000_000 && request_ns < loop_ns / 100,
        "in requests {request_ns} ns, in the event loop {loop_ns} ns"
    );
    Ok(())
}
