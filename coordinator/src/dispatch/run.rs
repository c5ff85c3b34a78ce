//! The one loop that owns a run's state.
//!
//! In: a surveyed fleet and its plan. Out: what was captured, host by host. Never: a wait without
//! a deadline, or a batch acknowledged before it is spooled.

use super::barrier::{Barrier, Verdict};
use super::canary::{Canary, is_put_on_each_event};
use super::host::{HostCommand, Said};
use super::watch::{RunEvent, Watch};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::plan::Plan;
use crate::store::Intake;
use model::coverage::{HostCoverage, HostOutcome};
use model::{CaptureOrder, Coverage, Finding, FindingCode, HostName, JobSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// From the decision to start until the start, at least: the order must have arrived.
const START_LEAD: Duration = Duration::from_millis(400);
/// Hosts get this long after the end to send what they have.
const DRAIN: Duration = Duration::from_secs(20);
/// After Ctrl-C they get this long.
const DRAIN_INTERRUPTED: Duration = Duration::from_secs(5);
/// A clock that is known no better is worth a finding.
const CLOCK_UNCERTAIN_NS: u64 = 100_000_000;

/// What a dispatch needs beside the fleet.
pub struct Dispatch<'a> {
    /// The job.
    pub job: &'a JobSpec,
    /// Our clock.
    pub clock: &'a Clock,
    /// Who watches.
    pub watch: &'a dyn Watch,
    /// Ctrl-C.
    pub cancel: &'a CancellationToken,
}

/// What came of it.
#[derive(Debug)]
pub struct Captured {
    /// The manifest.
    pub coverage: Coverage,
    /// The batches.
    pub intake: Intake,
    /// Somebody ended it early.
    pub interrupted: bool,
    /// The common start on our clock, in nanoseconds; 0 when there was none.
    pub start_ns: u64,
    /// Agents may still hold something: the spools must be kept for `collect`.
    pub remainder_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Arming,
    Armed,
    Capturing,
    Done,
}

pub(super) struct HostState {
    pub(super) phase: Phase,
    /// What it is ordered; none where nothing is.
    pub(super) order: Option<CaptureOrder>,
    /// All of it is here, and it was told so.
    pub(super) may_forget: bool,
    pub(super) coverage: HostCoverage,
    pub(super) findings: Vec<Finding>,
}

pub(super) struct Loop<'a> {
    pub(super) context: &'a Dispatch<'a>,
    pub(super) fleet: &'a mut Fleet,
    pub(super) intake: Intake,
    pub(super) hosts: BTreeMap<HostName, HostState>,
    pub(super) barrier: Barrier,
    pub(super) canary: Canary,
    pub(super) findings: Vec<Finding>,
    pub(super) started: bool,
    pub(super) start_ns: u64,
    pub(super) arm_timeout_ms: u64,
    /// When the first order went.
    pub(super) began: Instant,
    pub(super) collecting: bool,
    pub(super) interrupted: bool,
    pub(super) remainder_held: bool,
}

/// Carries out a plan.
pub async fn dispatch(
    fleet: &mut Fleet,
    plan: &Plan,
    intake: Intake,
    context: &Dispatch<'_>,
) -> Captured {
    let mut run = Loop::new(fleet, intake, context, false);
    run.order(plan);
    run.work().await;
    run.finish()
}

/// Fetches what agents still hold of a run. `coverage` is the run's own, as far as it is known.
pub async fn collect(
    fleet: &mut Fleet,
    coverage: &Coverage,
    intake: Intake,
    context: &Dispatch<'_>,
) -> Captured {
    let mut run = Loop::new(fleet, intake, context, true);
    run.ask_for_rest(coverage);
    run.work().await;
    run.finish()
}

impl<'a> Loop<'a> {
    fn new(
        fleet: &'a mut Fleet,
        intake: Intake,
        context: &'a Dispatch<'a>,
        collecting: bool,
    ) -> Self {
        Self {
            context,
            fleet,
            intake,
            hosts: BTreeMap::new(),
            barrier: Barrier::default(),
            canary: Canary::default(),
            findings: Vec::new(),
            started: collecting,
            start_ns: 0,
            arm_timeout_ms: context.job.arm_timeout_ms(std::iter::empty()),
            began: Instant::now(),
            collecting,
            interrupted: false,
            remainder_held: false,
        }
    }

    /// Sends every order; a host without one is out.
    fn order(&mut self, plan: &Plan) {
        let orders = plan.hosts.values().filter_map(|d| d.order.as_ref());
        self.arm_timeout_ms = self.context.job.arm_timeout_ms(orders.map(|o| o.engine));
        for (name, line) in &self.fleet.hosts {
            let mut state = HostState::new(Phase::Done);
            if let Some(report) = &line.report {
                state
                    .coverage
                    .agent_version
                    .clone_from(&report.agent_version);
                state.coverage.kernel.clone_from(&report.kernel);
            }
            match (plan.hosts.get(name), &line.lost) {
                (_, Some(lost)) => state.findings.push(lost.clone()),
                (Some(decision), None) => {
                    state.coverage.engine_reason.clone_from(&decision.reason);
                    state.findings.extend(decision.findings.iter().cloned());
                    if let Some(order) = &decision.order {
                        state.coverage.engine = order.engine.to_string();
                        state.phase = Phase::Arming;
                        self.barrier.expect(name.clone());
                        state.order = Some(order.clone());
                        if is_put_on_each_event(order.engine, order.probe) {
                            self.canary.hold(name.clone());
                        } else {
                            line.say(HostCommand::Arm(Box::new(order.clone())));
                        }
                    } else {
                        state.coverage.outcome = HostOutcome::Refused;
                    }
                }
                (None, None) => {}
            }
            self.hosts.insert(name.clone(), state);
        }
    }

    fn ask_for_rest(&mut self, coverage: &Coverage) {
        for (name, line) in &self.fleet.hosts {
            let mut state = HostState::new(Phase::Done);
            if let Some(known) = coverage.hosts.get(name.as_str()) {
                state.coverage = known.clone();
            }
            if let Some(report) = &line.report {
                let coverage = &mut state.coverage;
                coverage.agent_version.clone_from(&report.agent_version);
                coverage.kernel.clone_from(&report.kernel);
            }
            match &line.lost {
                _ if state.coverage.outcome == HostOutcome::Complete => {}
                Some(lost) => {
                    state.findings.push(lost.clone());
                    self.remainder_held = true;
                }
                None => {
                    state.phase = Phase::Capturing;
                    let (epoch, next) = self.intake.live().position(name.as_str());
                    line.say(HostCommand::Resume {
                        epoch,
                        seq: next - 1,
                        collect: true,
                    });
                }
            }
            self.hosts.insert(name.clone(), state);
        }
    }

    async fn work(&mut self) {
        let arm_deadline = Instant::now() + Duration::from_millis(self.arm_timeout_ms);
        let mut deadline = if self.collecting {
            Instant::now() + DRAIN
        } else {
            arm_deadline
        };
        self.look_at_barrier(false, &mut deadline);
        while self.hosts.values().any(|h| h.phase != Phase::Done) {
            tokio::select! {
                event = self.fleet.events.recv() => {
                    let Some((name, said)) = event else { break };
                    self.hear(&name, said);
                    self.look_at_barrier(false, &mut deadline);
                }
                () = sleep_until(deadline) => {
                    if self.started {
                        self.give_up_waiting();
                        break;
                    }
                    self.look_at_barrier(true, &mut deadline);
                }
                () = self.context.cancel.cancelled(), if !self.interrupted => {
                    self.interrupted = true;
                    deadline = Instant::now() + DRAIN_INTERRUPTED;
                    self.stop_all("interrupted by the operator");
                }
            }
        }
    }

    pub(super) fn stop_all(&mut self, reason: &str) {
        let never_started = !self.started;
        self.started = true;
        for name in self.canary.give_up() {
            self.done(&name);
        }
        for (name, state) in &mut self.hosts {
            if state.phase == Phase::Done {
                continue;
            }
            if let Some(line) = self.fleet.hosts.get(name) {
                line.say(HostCommand::Stop(reason.to_owned()));
                if never_started {
                    line.say(HostCommand::Forget);
                    state.phase = Phase::Done;
                }
            }
        }
    }

    fn look_at_barrier(&mut self, deadline_passed: bool, deadline: &mut Instant) {
        if self.started {
            return;
        }
        if deadline_passed {
            self.give_up_on_held("was not ready in time");
        } else {
            self.order_next(deadline);
        }
        match self.barrier.verdict(deadline_passed) {
            Verdict::Wait => {}
            Verdict::Nobody { late } => {
                self.started = true;
                self.give_up_on(late);
                self.hosts.values_mut().for_each(|h| h.phase = Phase::Done);
            }
            Verdict::Start { armed, late } => {
                self.started = true;
                self.give_up_on(late);
                let lead = u64::try_from(START_LEAD.as_nanos()).unwrap_or(0);
                self.start_ns = self.context.clock.now_ns() + lead;
                for name in &armed {
                    self.say(name, HostCommand::Start(self.start_ns));
                    if let Some(state) = self.hosts.get_mut(name) {
                        state.phase = Phase::Capturing;
                    }
                }
                let duration_ms = self.context.job.duration_ms;
                *deadline =
                    Instant::now() + START_LEAD + Duration::from_millis(duration_ms) + DRAIN;
                self.context.watch.on(RunEvent::Starting {
                    hosts: armed.len(),
                    duration_ms,
                });
            }
        }
    }

    /// These were not ready in time.
    fn give_up_on(&mut self, late: BTreeSet<HostName>) {
        for name in late {
            let said = format!("not ready in {} ms", self.arm_timeout_ms);
            self.out(&name, Finding::new(FindingCode::HostLate, said));
            self.say(&name, HostCommand::Stop("late".into()));
            self.say(&name, HostCommand::Forget);
        }
    }

    fn hear(&mut self, name: &HostName, said: Said) {
        let Some(state) = self.hosts.get_mut(name) else {
            return;
        };
        match said {
            Said::Armed(findings) => {
                if !state.coverage.armed {
                    self.context.watch.on(RunEvent::Armed {
                        host: name.to_string(),
                    });
                }
                state.coverage.armed = true;
                self.barrier.armed(name);
                self.note(name, findings);
                if let Some(state) = self.hosts.get_mut(name)
                    && state.phase == Phase::Arming
                {
                    state.phase = Phase::Armed;
                }
            }
            Said::Refused(findings) => {
                state.coverage.outcome = HostOutcome::Refused;
                // That is no refusal: it heard nothing of us while it got ready.
                if findings.iter().any(|f| f.code == FindingCode::LeaseExpired) {
                    self.ended_early(name);
                }
                self.note(name, findings);
                self.say(name, HostCommand::Forget);
                self.barrier.out(name);
                self.done(name);
            }
            Said::Started(agent_ns, estimate) => {
                let coverage = &mut state.coverage;
                coverage.clock_offset_ns = estimate.offset_ns;
                coverage.clock_uncertainty_ns = estimate.uncertainty_ns;
                coverage.start_error_ns = estimate.error_ns(agent_ns, self.start_ns);
                if estimate.uncertainty_ns > CLOCK_UNCERTAIN_NS {
                    let said = format!("±{} ms", estimate.uncertainty_ns / 1_000_000);
                    self.note(name, vec![Finding::new(FindingCode::ClockUncertain, said)]);
                }
            }
            Said::Batch { epoch, seq, ffz } => self.take_in(name, epoch, seq, &ffz),
            Said::Progress(samples, findings) => {
                self.context.watch.on(RunEvent::Progress {
                    host: name.to_string(),
                    samples,
                });
                self.note(name, findings);
            }
            Said::Finished {
                stats,
                findings,
                last,
                complete,
            } => {
                state.coverage.stats = *stats;
                self.note(name, findings);
                self.ended_early(name);
                self.finished(name, last, complete);
            }
            Said::NotHeld => {
                self.ended_early(name);
                self.note(
                    name,
                    vec![Finding::new(
                        FindingCode::RemainderGone,
                        "the agent holds nothing of it",
                    )],
                );
                self.done(name);
            }
            Said::LinkDown => {
                self.context.watch.on(RunEvent::Link {
                    host: name.to_string(),
                    up: false,
                });
            }
            Said::LinkUp => self.take_up(name),
            Said::Lost(finding) => {
                self.remainder_held |= self.started && self.holds_rest(name);
                if self.canary.alone() == Some(name) {
                    self.give_up_on_held("was lost");
                }
                self.out(name, finding);
            }
            Said::Reported(_) | Said::News(_) => {}
        }
    }

    /// A new link: the host hears where to go on.
    fn take_up(&mut self, name: &HostName) {
        self.context.watch.on(RunEvent::Link {
            host: name.to_string(),
            up: true,
        });
        let Some(state) = self.hosts.get_mut(name) else {
            return;
        };
        if state.phase == Phase::Done {
            // The word may have been on the broken link.
            if state.may_forget {
                self.say(name, HostCommand::Forget);
            }
            return;
        }
        state.coverage.reconnects += 1;
        if self.canary.holds(name) {
            return;
        }
        // So may the order to get ready have been.
        if state.phase == Phase::Arming {
            self.arm(name);
            return;
        }
        let (epoch, next) = self.intake.live().position(name.as_str());
        let collect = self.collecting;
        self.say(
            name,
            HostCommand::Resume {
                epoch,
                seq: next - 1,
                collect,
            },
        );
        // The order to start may have been on the broken link.
        if state_capturing(&self.hosts, name) && !self.collecting {
            self.say(name, HostCommand::Start(self.start_ns));
        }
    }
}

fn state_capturing(hosts: &BTreeMap<HostName, HostState>, name: &HostName) -> bool {
    hosts.get(name).is_some_and(|h| h.phase == Phase::Capturing)
}

impl HostState {
    fn new(phase: Phase) -> Self {
        Self {
            phase,
            order: None,
            may_forget: false,
            coverage: HostCoverage::default(),
            findings: Vec::new(),
        }
    }
}
