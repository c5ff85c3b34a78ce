//! fleetflame's coordinator: what a fleet's agents capture is merged, compared, kept and drawn here.
//!
//! > **spec** parses the job → **fleet** surveys the hosts → **plan** decides one order a host →
//! > **dispatch** opens a **transport** and sends it → batches come back → **merge** adds them up →
//! > **compare** says what differs → **store** keeps the run → **render** draws it.
//!
//! In: a job. Out: a run directory and its record. Never: work of its own; each room does one word.

pub mod cli;
pub mod clock;
pub mod conclude;
pub mod debug_info;
pub mod dispatch;
pub mod fleet;
pub mod merge;
pub mod otlp;
pub mod plan;
pub mod push;
pub mod render;
pub mod spec;
pub mod store;
pub mod transport;

use clock::Clock;
use dispatch::{Dispatch, Watch};
use model::{HostName, JobSpec, RunId};
use std::path::PathBuf;
use store::{HostPlan, Intake, RunDir, RunRecord};
use tokio_util::sync::CancellationToken;
use transport::Connector;

/// What a run needs beside its job.
pub struct Rooms<'a> {
    /// The run directory; must not exist or be empty.
    pub out: PathBuf,
    /// How each host of the job is reached.
    pub connectors: Vec<(HostName, Connector)>,
    /// Our clock.
    pub clock: Clock,
    /// Who watches.
    pub watch: &'a dyn Watch,
    /// Ctrl-C.
    pub cancel: CancellationToken,
}

/// Carries out a job: the sentence above, from plan to pictures.
///
/// # Errors
/// When the run directory cannot be made or written. What goes wrong on hosts is in the record.
pub async fn run(job: &JobSpec, rooms: Rooms<'_>) -> anyhow::Result<RunRecord> {
    let now_ms = clock::wall_unix_ms();
    let id = RunId::from_parts(now_ms, clock::random_bits()?);
    let dir = RunDir::create(rooms.out)?;
    let mut record = RunRecord::begin(id, job.clone(), store::utc_text(now_ms));
    dir.write_record(&record)?;
    let mut timer = conclude::Timer::new(&rooms.clock);

    let mut fleet = fleet::survey(
        rooms.connectors,
        id,
        &rooms.clock,
        rooms.watch,
        &rooms.cancel,
    )
    .await;
    timer.lap(&mut record, "survey");

    let plan = plan::plan(id, job, &fleet.reports());
    for (host, decision) in &plan.hosts {
        let engine = decision
            .order
            .as_ref()
            .map_or_else(String::new, |o| o.engine.to_string());
        let reason = decision.reason.clone();
        record
            .plan
            .insert(host.to_string(), HostPlan { engine, reason });
    }
    dir.write_record(&record)?;

    let intake = Intake::begin(&dir, &job.probe.to_string(), job.measures());
    let context = Dispatch {
        job,
        clock: &rooms.clock,
        watch: rooms.watch,
        cancel: &rooms.cancel,
    };
    let captured = dispatch::dispatch(&mut fleet, &plan, intake, &context).await;
    fleet.close().await;
    timer.lap(&mut record, "capture");

    conclude::conclude(&dir, record, captured, timer)
}

/// Fetches what agents still hold of a run that lost its coordinator, and concludes it again. A run
/// that is settled stays as it is.
///
/// # Errors
/// When the run directory cannot be read or written.
pub async fn collect(dir: &RunDir, rooms: Rooms<'_>) -> anyhow::Result<RunRecord> {
    let mut record = dir.record()?;
    if dir.is_settled() {
        conclude::note_settled(&mut record);
        return Ok(record);
    }
    let mut timer = conclude::Timer::new(&rooms.clock);
    let measures = record.job.measures();
    let (intake, torn) = Intake::resume(dir, &record.job.probe.to_string(), &measures)?;
    record.findings.extend(torn);
    // A coordinator that was killed has written its plan, and no coverage.
    for (host, plan) in &record.plan {
        let coverage = record.coverage.hosts.entry(host.clone()).or_default();
        coverage.engine.clone_from(&plan.engine);
        coverage.engine_reason.clone_from(&plan.reason);
    }
    let mut fleet = fleet::survey(
        rooms.connectors,
        record.id,
        &rooms.clock,
        rooms.watch,
        &rooms.cancel,
    )
    .await;
    let job = record.job.clone();
    let context = Dispatch {
        job: &job,
        clock: &rooms.clock,
        watch: rooms.watch,
        cancel: &rooms.cancel,
    };
    let captured = dispatch::collect(&mut fleet, &record.coverage, intake, &context).await;
    fleet.close().await;
    timer.lap(&mut record, "collect");
    conclude::conclude(dir, record, captured, timer)
}
