//! The deterministic double of a real engine: scripted stacks at any scale, without a kernel.
//!
//! In: an order's `simulated` part and the clock. Out: the same stacks for the same seed and
//! duration, to the last count. Never: part of the demo, or a choice of `auto`.

use super::{BoxFuture, Engine, Poll, SharedRecorder, Stopped};
use crate::process::{Child, Processes};
use model::coverage::CaptureStats;
use model::order::Simulated;
use model::profile::{
    CounterKind, CounterSource, Frame, FrameId, FrameKind, Process, Series, SeriesId,
};
use model::{CaptureOrder, Finding, FindingCode};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Frames above every simulated stack.
const BASE: [&str; 3] = ["_start", "main", "worker_loop"];

/// See the module.
pub struct SimulatedEngine {
    recorder: SharedRecorder,
    processes: Arc<Processes>,
    child: Option<Child>,
    plan: Simulated,
    series: Vec<SeriesId>,
    stacks: Vec<Vec<FrameId>>,
    period_ns: u64,
    start_ns: Option<u64>,
    end_ns: u64,
    duration_ns: u64,
    taken: u64,
}

impl SimulatedEngine {
    /// An engine that fills `recorder`.
    #[must_use]
    pub fn new(recorder: SharedRecorder, processes: Arc<Processes>) -> Self {
        Self {
            recorder,
            processes,
            child: None,
            plan: Simulated::default(),
            series: Vec::new(),
            stacks: Vec::new(),
            period_ns: 1,
            start_ns: None,
            end_ns: u64::MAX,
            duration_ns: 0,
            taken: 0,
        }
    }

    fn prepare(&mut self, order: &CaptureOrder) {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        self.period_ns = 1_000_000_000 / u64::from(order.sample_hz.max(1));
        self.duration_ns = order.duration_ms * 1_000_000;
        for number in 0..self.plan.processes.max(1) {
            let process = Process {
                pid: 1_000 + number,
                start_ticks: self.plan.seed,
                comm: "simulated".into(),
                role: "simulated: worker".into(),
                worker: Some(number),
                ..Process::default()
            };
            self.series.push(recorder.series(&Series {
                host: order.host.to_string(),
                process,
                thread: "simulated".into(),
                engine: "simulated".into(),
                mode: "scripted".into(),
                event: order.event.to_string(),
                period_ns: self.period_ns,
            }));
        }
        let base: Vec<FrameId> = BASE
            .iter()
            .map(|n| recorder.frame(&Frame::named(FrameKind::User, *n, "simulated")))
            .collect();
        for stack in 0..u64::from(self.plan.stacks.max(1)) {
            let mut frames = base.clone();
            for level in 0..3 + mix(self.plan.seed ^ stack) % 12 {
                let name = format!(
                    "function_{level}_{}",
                    stack >> (12_u64.saturating_sub(level))
                );
                frames.push(recorder.frame(&Frame::named(FrameKind::User, name, "simulated")));
            }
            self.stacks.push(frames);
        }
    }

    /// Plays everything up to `now_ns`, never twice.
    fn play(&mut self, now_ns: u64) {
        let Some(start_ns) = self.start_ns else {
            return;
        };
        let due = now_ns.min(self.end_ns).saturating_sub(start_ns) / self.period_ns;
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        while self.taken < due {
            let bin =
                u32::try_from(self.taken * self.period_ns / 1_000_000_000).unwrap_or(u32::MAX);
            for (number, series) in self.series.iter().enumerate() {
                let random = mix(self.plan.seed ^ (self.taken << 16) ^ number as u64);
                let stack = &self.stacks[usize::try_from(random).unwrap_or(0) % self.stacks.len()];
                recorder.add_stack(*series, bin, stack, &[1, self.period_ns, 0]);
                recorder.count(
                    CounterSource::Series(*series),
                    bin,
                    CounterKind::CpuNs,
                    self.period_ns,
                );
            }
            self.taken += 1;
        }
    }
}

impl Engine for SimulatedEngine {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async move {
            self.plan = order.simulated.clone().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(self.plan.arm_ms)).await;
            if self.plan.child {
                let child = self.processes.spawn(&["sleep".into(), "600".into()]).await;
                self.child = Some(child.map_err(|e| {
                    vec![Finding::new(
                        FindingCode::EngineFailed,
                        format!("sleep: {e}"),
                    )]
                })?);
            }
            self.prepare(order);
            Ok(Vec::new())
        })
    }

    fn start(&mut self, start_mono_ns: u64) {
        self.start_ns = Some(start_mono_ns);
        self.end_ns = start_mono_ns.saturating_add(self.duration_ns);
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        self.play(now_ns);
        Poll {
            started_mono_ns: self.start_ns.filter(|s| *s <= now_ns),
            ..Poll::default()
        }
    }

    fn stop(&mut self, now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async move {
            self.play(now_ns);
            if let Some(child) = self.child.take() {
                child.stop().await;
            }
            let stats = CaptureStats {
                processes: u32::try_from(self.series.len()).unwrap_or(u32::MAX),
                mode: "scripted".into(),
                target_cpu_ns: self.taken * self.period_ns * self.series.len() as u64,
                started_mono_ns: self.start_ns.unwrap_or(0),
                stopped_mono_ns: now_ns.min(self.end_ns),
                ..CaptureStats::default()
            };
            Stopped {
                stats,
                findings: Vec::new(),
            }
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a good mixer of 64 bits.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
