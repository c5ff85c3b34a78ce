//! Engines: how stacks are taken on a host.
//!
//! In: an order. Out: stacks in a recorder, and an account of what was seen. Never: a stack that
//! was not taken (the simulated engine plays only when it was ordered by name and the policy lists
//! it).

mod native;
mod perf;
mod program;
mod simulated;
mod stap;
mod status_page;
mod task;

pub use native::NativeEngine;
pub use perf::PerfEngine;
pub use simulated::SimulatedEngine;
pub use stap::{
    OfflineBuild, OfflineScript, ScriptEngine, StapEngine, build_offline, build_script_offline,
    stap_meaning,
};

use crate::clock::Clock;
use crate::policy::Policy;
use crate::process::Processes;
use model::coverage::CaptureStats;
use model::host::EngineReport;
use model::job::{EngineChoice, Probe};
use model::profile::{Measure, Recorder, RecorderLimits};
use model::{CaptureOrder, Finding, FindingCode};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// A future that a trait object can give.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an engine puts its stacks and the session takes them from.
pub type SharedRecorder = Arc<Mutex<Recorder>>;

/// What an engine tells when it is looked at.
#[derive(Debug, Default)]
pub struct Poll {
    /// When sampling began, once it has.
    pub started_mono_ns: Option<u64>,
    /// What is new.
    pub findings: Vec<Finding>,
    /// Why it has stopped by itself.
    pub ended: Option<Finding>,
    /// It has done what it was to do before its time: a script that ended by itself. The capture is complete.
    pub done: bool,
    /// CPU time that children of the engine have used since the start, in nanoseconds.
    pub children_cpu_ns: u64,
}

/// An engine's account at its end.
#[derive(Debug, Default)]
pub struct Stopped {
    /// What was seen. Samples and pruned are filled in from the recorder; `own_cpu_ns` is that of
    /// the engine's children, and the agent's own comes to it.
    pub stats: CaptureStats,
    /// What weakens it.
    pub findings: Vec<Finding>,
}

/// One way of taking stacks, for one capture.
pub trait Engine: Send {
    /// Opens everything; samples nothing.
    ///
    /// # Errors
    /// Why it cannot capture; nothing is left open then.
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>>;

    /// Samples from this instant on.
    fn start(&mut self, start_mono_ns: u64);

    /// How it goes.
    fn poll(&mut self, now_ns: u64) -> Poll;

    /// Ends, puts the last stacks into the recorder and closes everything. Also called when arming
    /// failed, and then does nothing.
    fn stop(&mut self, now_ns: u64) -> BoxFuture<'_, Stopped>;
}

/// What engines are made of.
#[derive(Clone)]
pub struct EngineRoom {
    /// The session's clock.
    pub clock: Clock,
    /// The room that starts children.
    pub processes: Arc<Processes>,
}

impl EngineRoom {
    /// The engine of an order, and the recorder that it fills.
    ///
    /// # Errors
    /// `engine-unavailable` or `probe-unavailable` with the reason.
    pub fn build(
        &self,
        order: &CaptureOrder,
        policy: &Policy,
    ) -> Result<(Box<dyn Engine>, SharedRecorder), Finding> {
        let has_probe = match order.engine {
            EngineChoice::Native => native::PROBES.contains(&order.probe),
            EngineChoice::Stap => {
                stap::PROBES.contains(&order.probe) || order.probe == Probe::Script
            }
            EngineChoice::Simulated => matches!(order.probe, Probe::OnCpu | Probe::OffCpu),
            _ => order.probe == Probe::OnCpu,
        };
        if !has_probe {
            let said = format!(
                "probe {} is not part of engine {} in this version",
                order.probe, order.engine
            );
            return Err(Finding::new(FindingCode::ProbeUnavailable, said));
        }
        let limits = RecorderLimits {
            nodes_max: order.budgets.stacks_max as usize,
            ..RecorderLimits::default()
        };
        let recorder = Recorder::new(
            order.host.as_str(),
            Measure::of(order.probe, order.script.as_ref()),
            limits,
        );
        let recorder = Arc::new(Mutex::new(recorder));
        let engine: Box<dyn Engine> = match order.engine {
            EngineChoice::Native => Box::new(NativeEngine::new(
                Arc::clone(&recorder),
                policy.allow_ptrace,
                policy.requests_url.is_none(),
            )),
            EngineChoice::Simulated => Box::new(SimulatedEngine::new(
                Arc::clone(&recorder),
                Arc::clone(&self.processes),
            )),
            EngineChoice::Perf => Box::new(PerfEngine::new(
                Arc::clone(&recorder),
                Arc::clone(&self.processes),
                Arc::clone(&self.clock),
            )),
            EngineChoice::Stap if order.probe == Probe::Script => Box::new(ScriptEngine::new(
                Arc::clone(&recorder),
                Arc::clone(&self.processes),
                Arc::clone(&self.clock),
                policy.stap_runtime.clone(),
            )),
            EngineChoice::Stap => Box::new(StapEngine::new(
                Arc::clone(&recorder),
                Arc::clone(&self.processes),
                Arc::clone(&self.clock),
                policy.stap_runtime.clone(),
                policy.allow_stap_unguarded,
            )),
            EngineChoice::Auto => {
                let said = format!("engine {} is not part of this version", order.engine);
                return Err(Finding::new(FindingCode::EngineUnavailable, said));
            }
        };
        let engine: Box<dyn Engine> = match &policy.requests_url {
            Some(page) => Box::new(status_page::WithStatusPage::new(
                engine,
                page.clone(),
                Arc::clone(&recorder),
                Arc::clone(&self.clock),
            )),
            None => engine,
        };
        Ok((engine, recorder))
    }
}

/// Which engines can run here under `policy`, and why not.
#[must_use]
pub fn survey(policy: &Policy) -> Vec<EngineReport> {
    let absent = |engine: EngineChoice| EngineReport {
        engine: engine.to_string(),
        can_run: false,
        how: "not part of this version".to_owned(),
        findings: Vec::new(),
        events: Vec::new(),
        probes: Vec::new(),
    };
    let simulated = policy.engines.contains(&EngineChoice::Simulated);
    let mut native = native::survey();
    let may_sample = native.can_run;
    if !policy.engines.contains(&EngineChoice::Native) {
        native.can_run = false;
        "the host's policy does not list it".clone_into(&mut native.how);
    }
    let perf = if policy.engines.contains(&EngineChoice::Perf) {
        // A trial costs 0.2 s of CPU: only where it decides something.
        perf::survey(may_sample && policy.engines.contains(&EngineChoice::Native))
    } else {
        EngineReport {
            how: "the host's policy does not list it".to_owned(),
            ..absent(EngineChoice::Perf)
        }
    };
    vec![
        native,
        if policy.engines.contains(&EngineChoice::Stap) {
            stap::survey()
        } else {
            EngineReport {
                how: "the host's policy does not list it".to_owned(),
                ..absent(EngineChoice::Stap)
            }
        },
        perf,
        EngineReport {
            engine: EngineChoice::Simulated.to_string(),
            can_run: simulated,
            how: if simulated {
                "listed in the policy"
            } else {
                "not listed in the policy"
            }
            .to_owned(),
            findings: Vec::new(),
            events: Vec::new(),
            probes: Vec::new(),
        },
    ]
}
