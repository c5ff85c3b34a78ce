//! perf as the trait has it: orders to the task that captures, and what that tells.
//!
//! In: an order. Out: stacks. Never: a wait for perf outside of `arm` and `stop`.

use super::capture::{Capture, Told, Watch};
use super::command::Sampling;
use super::pipeline::Into;
use super::script::Taken;
use super::sources::lock;
use super::tool;
use crate::clock::Clock;
use crate::engine::{BoxFuture, Engine, Poll, SharedRecorder, Stopped, native as native_engine};
use crate::process::Processes;
use model::job::{Event, Target};
use model::{CaptureOrder, Finding, FindingCode};
use native::TargetWatch;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// See the module.
pub struct PerfEngine {
    recorder: SharedRecorder,
    processes: Arc<Processes>,
    clock: Clock,
    told: Arc<Mutex<Told>>,
    task: Option<(Orders, JoinHandle<Stopped>)>,
}

/// How the task hears of start and end; dropping the second ends it.
struct Orders {
    start: Option<oneshot::Sender<u64>>,
    stop: oneshot::Sender<()>,
}

impl PerfEngine {
    /// An engine that fills `recorder`.
    #[must_use]
    pub fn new(recorder: SharedRecorder, processes: Arc<Processes>, clock: Clock) -> Self {
        Self {
            recorder,
            processes,
            clock,
            told: Arc::default(),
            task: None,
        }
    }
}

impl Engine for PerfEngine {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async move {
            let perf = tool::find().map_err(|f| vec![f])?;
            if order.event == Event::Cycles && !tool::has_counters() {
                let said = "this machine has no cycles counter (virtual machines often have none)";
                let finding = Finding::new(FindingCode::EngineUnavailable, said)
                    .with_remedy("Use --event cpu-clock.");
                return Err(vec![finding]);
            }
            let config = native_engine::config(order, false).map_err(|f| vec![f])?;
            let sampling = Sampling::of(order, native::online_cpus().len());
            let taken = Taken {
                host: order.host.to_string(),
                mode: sampling.mode(),
                event: order.event.to_string(),
                kernel: order.kernel,
                period_ns: sampling.period_ns(),
                is_clock: order.event == Event::CpuClock,
            };
            let into = Into {
                recorder: Arc::clone(&self.recorder),
                taken,
            };
            let room = (Arc::clone(&self.processes), Arc::clone(&self.clock));
            let only_pids = order.targets.iter().all(|t| matches!(t, Target::Pid(_)));
            let watch = Watch {
                targets: TargetWatch::new(config),
                only_pids,
            };
            let mut capture = Capture::new(perf, sampling, into, room, watch);
            capture.told = Arc::clone(&self.told);
            let findings = match capture.arm().await {
                Ok(findings) => findings,
                Err(findings) => {
                    capture.finish_all().await;
                    return Err(findings);
                }
            };
            let (start, started) = oneshot::channel();
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(capture.run(started, stopped));
            let start = Some(start);
            self.task = Some((Orders { start, stop }, task));
            Ok(findings)
        })
    }

    fn start(&mut self, start_mono_ns: u64) {
        if let Some((orders, _)) = &mut self.task
            && let Some(start) = orders.start.take()
        {
            let _ = start.send(start_mono_ns);
        }
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        let mut told = lock(&self.told);
        Poll {
            started_mono_ns: told.started_ns.filter(|s| *s <= now_ns),
            findings: std::mem::take(&mut told.findings),
            ended: told.ended.take(),
            children_cpu_ns: told.children_cpu_ns,
        }
    }

    fn stop(&mut self, _now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async move {
            let Some((orders, task)) = self.task.take() else {
                return Stopped::default();
            };
            let _ = orders.stop.send(());
            let mut stopped = task.await.unwrap_or_else(|e| Stopped {
                findings: vec![Finding::new(FindingCode::EngineFailed, e.to_string())],
                ..Stopped::default()
            });
            let told = std::mem::take(&mut lock(&self.told).findings);
            stopped.findings.splice(0..0, told);
            stopped
        })
    }
}
