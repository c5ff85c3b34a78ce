//! SystemTap as the trait has it: orders to the task that captures, and what that tells.
//!
//! In: an order. Out: stacks. Never: a wait for SystemTap outside of `arm` and `stop`.

use super::capture::{Capture, Plan};
use super::module::{Wanted, require_closed};
use super::probes::BuiltIn;
use super::remedy::Settings;
use super::sizes::{Bounds, Demand};
use super::stacks::Taken;
use super::tool;
use crate::clock::Clock;
use crate::engine::task::CaptureTask;
use crate::engine::{BoxFuture, Engine, Poll, SharedRecorder, Stopped, native as native_engine};
use crate::process::Processes;
use model::job::Event;
use model::{CaptureOrder, Finding, FindingCode};
use native::TargetWatch;
use std::path::PathBuf;
use std::sync::Arc;

/// See the module.
pub struct StapEngine {
    recorder: SharedRecorder,
    processes: Arc<Processes>,
    clock: Clock,
    runtime: Option<PathBuf>,
    may_be_unguarded: bool,
    /// While it arms: whoever gives up waiting for that finds here what is to be ended.
    arming: Option<Capture>,
    task: CaptureTask,
}

impl StapEngine {
    /// An engine that fills `recorder`. `runtime` is what the policy names in place of SystemTap's own runtime, and
    /// `may_be_unguarded` its leave to go without the guard against overload.
    #[must_use]
    pub fn new(
        recorder: SharedRecorder,
        processes: Arc<Processes>,
        clock: Clock,
        runtime: Option<PathBuf>,
        may_be_unguarded: bool,
    ) -> Self {
        Self {
            recorder,
            processes,
            clock,
            runtime,
            may_be_unguarded,
            arming: None,
            task: CaptureTask::default(),
        }
    }

    /// What the order comes to on this machine. Blocks for some milliseconds.
    fn plan(&self, order: &CaptureOrder) -> Result<Plan, Finding> {
        let probe = BuiltIn::of(order)?;
        if !probe.waits && order.event != Event::CpuClock {
            let said = format!("the engine stap has no event {}", order.event);
            return Err(Finding::new(FindingCode::EngineUnavailable, said)
                .with_remedy("Use --event cpu-clock, or --engine perf."));
        }
        let staprun = tool::find("staprun")?;
        if let Some(finding) = tool::lockdown() {
            return Err(finding);
        }
        if let Some(runtime) = &self.runtime {
            require_closed(runtime).map_err(|e| {
                let said = format!("stap_runtime {}: {e}", runtime.display());
                Finding::new(FindingCode::PolicyUnsafe, said)
            })?;
        }
        let kernel = tool::kernel();
        let translator = match tool::translator() {
            Ok(_) if !tool::has_headers(&kernel.0) => {
                Err(format!("there are no headers of {} here", kernel.0))
            }
            Ok((stap, (major, minor))) => {
                Ok((stap, format!("{major}.{minor}"), self.runtime.clone()))
            }
            Err(finding) => Err(finding.evidence),
        };
        let period_ns = probe.period_ns(order.sample_hz, order.min_wait_us);
        let cpus = native::online_cpus().len();
        let settings = Settings::first(period_ns, probe.waits, probe.heap);
        Ok(Plan {
            staprun,
            translator,
            settings,
            duration_ms: order.duration_ms,
            may_be_unguarded: self.may_be_unguarded,
            wanted: Wanted {
                probe,
                kernel,
                period_ns,
                demand: settings.demand(Demand {
                    copies: probe.copies,
                    ..Demand::of(order, cpus, cpus)
                }),
                bounds: Bounds::NONE,
                unguarded: false,
                images: Vec::new(),
                heap: None,
            },
            taken: Taken {
                host: order.host.to_string(),
                mode: probe.name.to_owned(),
                event: match probe.events {
                    true => order.probe.to_string(),
                    false => order.event.to_string(),
                },
                period_ns,
                one_in: 1,
                waits: probe.waits,
                slice_ms: 0,
                depth: usize::MAX,
            },
        })
    }
}

impl Engine for StapEngine {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async move {
            let plan = self.plan(order).map_err(|f| vec![f])?;
            let config = native_engine::config(order, false).map_err(|f| vec![f])?;
            let staprun = plan.staprun.clone();
            let turn = tokio::task::spawn_blocking(move || {
                let turn = tool::take_turn(&staprun)?;
                Ok((turn, tool::unload_left(&staprun)))
            });
            let turn = turn
                .await
                .map_err(|e| vec![Finding::new(FindingCode::EngineFailed, e.to_string())])?;
            let (turn, mut findings) = turn.map_err(|f| vec![f])?;
            let room = (Arc::clone(&self.processes), Arc::clone(&self.clock));
            let watch = TargetWatch::new(config);
            let recorder = Arc::clone(&self.recorder);
            let mut capture = Capture::new(plan, room, recorder, watch, turn);
            capture.told = Arc::clone(&self.task.told);
            let outcome = self.arming.insert(capture).arm().await;
            let Some(mut capture) = self.arming.take() else {
                return Err(findings);
            };
            match outcome {
                Ok(more) => findings.extend(more),
                Err(more) => {
                    findings.extend(more);
                    findings.extend(capture.abandon().await);
                    return Err(findings);
                }
            }
            self.task
                .run(|started, stopped| capture.run(started, stopped));
            Ok(findings)
        })
    }

    fn start(&mut self, start_mono_ns: u64) {
        self.task.start(start_mono_ns);
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        self.task.poll(now_ns)
    }

    fn stop(&mut self, _now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async move {
            if let Some(mut capture) = self.arming.take() {
                capture.abandon().await;
            }
            self.task.stop().await
        })
    }
}
