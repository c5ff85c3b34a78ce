//! Off-CPU on a gateway: what keeps a worker from its event loop is told apart from its waits for the
//! next event.
//!
//! In: nginx whose handler sleeps, once with the whole worker and once with the request alone. Out:
//! waits inside the request, or waits of the event loop. Never: an idle worker that looks blocked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Gateway, GatewayPlace};

use crate::local::Stage;
use crate::turn;

/// Nanoseconds blocked under load on one path.
#[derive(Debug, Default)]
struct Blocked {
    event_loop: u64,
    /// Everywhere else that is known.
    elsewhere: u64,
    /// Of that, in a sleep of the whole worker.
    asleep: u64,
}

fn blocked(path: &str) -> Result<Blocked> {
    let gateway = Gateway::start_with_workers(GatewayPlace::Here, 1)?;
    let worker = *gateway.worker_pids().first().context("no worker")?;
    let job = format!("targets: ['pid:{worker}']\nprobe: off-cpu\nmin_wait: 50us");
    let stage = Stage::with_job(POLICY, &job)?;
    let load = gateway.load(path, 2, Duration::from_secs(15))?;
    let run = stage.captured(stage.capture(&["--duration", "4s"])?, 0)?;
    drop(load);
    let mut blocked = Blocked::default();
    for (stack, ns) in run.folded("merged.folded")? {
        if stack.contains("[event loop]") {
            blocked.event_loop += ns;
        } else if !stack.contains("[already waiting]") {
            blocked.elsewhere += ns;
            if stack.contains("nanosleep") {
                blocked.asleep += ns;
            }
        }
    }
    Ok(blocked)
}

#[test]
fn a_handler_that_keeps_the_worker_waiting_is_seen_outside_of_the_event_loop() -> Result<()> {
    let _turn = turn();
    let blocked = blocked("/blocking")?;
    println!("{blocked:?}");
    let all = blocked.event_loop + blocked.elsewhere;
    ensure!(blocked.asleep * 10 > all * 8, "{blocked:?}");
    Ok(())
}

#[test]
fn a_handler_that_only_waits_itself_leaves_the_worker_in_its_event_loop() -> Result<()> {
    let _turn = turn();
    let blocked = blocked("/waiting")?;
    println!("{blocked:?}");
    ensure!(
        blocked.event_loop > 2_000_000_000 && blocked.elsewhere < blocked.event_loop / 100,
        "{blocked:?}"
    );
    Ok(())
}
