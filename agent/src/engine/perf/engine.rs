//! perf as the trait has it: orders to the task that captures, and what that tells.
//!
//! In: an order. Out: stacks. Never: a wait for perf outside of `arm` and `stop`.

use super::capture::{Capture, Watch};
use super::command::Sampling;
use super::pipeline::Into;
use super::script::Taken;
use super::tool;
use crate::clock::Clock;
use crate::engine::task::CaptureTask;
use crate::engine::{BoxFuture, Engine, Poll, SharedRecorder, Stopped, native as native_engine};
use crate::process::Processes;
use model::job::{Event, Target};
use model::{CaptureOrder, Finding, FindingCode};
use native::TargetWatch;
use std::sync::Arc;

/// See the module.
pub struct PerfEngine {
    recorder: SharedRecorder,
    processes: Arc<Processes>,
    clock: Clock,
    task: CaptureTask,
}

impl PerfEngine {
    /// An engine that fills `recorder`.
    #[must_use]
    pub fn new(recorder: SharedRecorder, processes: Arc<Processes>, clock: Clock) -> Self {
        Self {
            recorder,
            processes,
            clock,
            task: CaptureTask::default(),
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
            capture.told = Arc::clone(&self.task.told);
            let findings = match capture.arm().await {
                Ok(findings) => findings,
                Err(findings) => {
                    capture.finish_all().await;
                    return Err(findings);
                }
            };
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
        Box::pin(self.task.stop())
    }
}
