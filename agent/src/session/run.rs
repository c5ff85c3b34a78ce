//! The loop that owns one capture.
//!
//! In: commands, the clock, the engine. Out: events for whichever connection is attached. Never: a
//! wait on the network: events go into a queue or stay where they are.

use super::budget;
use super::command::{Command, Event, ResumeAt, SessionHandle};
use super::held::{HeldHead, HeldStore};
use super::outbox::{Batch, Outbox};
use super::state::{Due, State};
use crate::clock::Clock;
use crate::engine::{Engine, SharedRecorder};
use model::coverage::CaptureStats;
use model::format::ffz::{Head, Limits, decode_segment, encode_segment};
use model::profile::CounterKind;
use model::{CaptureOrder, Finding, FindingCode, RunId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the loop looks at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// How often batches are made and progress is told: what a killed agent loses, against what a batch costs.
const BATCH_NS: u64 = 1_000_000_000;
/// Rows of values in one batch: about 100 KiB before compression.
const BATCH_ROWS: usize = 16_384;
/// Most findings kept of one capture.
const FINDINGS_MAX: usize = 64;

/// One capture. See the module.
pub struct Session {
    order: CaptureOrder,
    clock: Clock,
    engine: Option<Box<dyn Engine>>,
    recorder: SharedRecorder,
    held: HeldStore,
    own_cpu_ns: fn() -> u64,
    commands: mpsc::Receiver<Command>,
    capturing: Arc<AtomicBool>,
    attached: Option<(u64, mpsc::Sender<(RunId, Event)>)>,
    state: State,
    heard_ns: u64,
    outbox: Outbox,
    stats: CaptureStats,
    findings: Vec<Finding>,
    new_findings: Vec<Finding>,
    refused: bool,
    started_ns: Option<u64>,
    finished_said: bool,
    complete: bool,
    cpu_at_start_ns: u64,
    reported_samples: u64,
    batched_ns: u64,
}

impl Session {
    /// A capture that is about to arm, and its address.
    #[must_use]
    pub fn new(
        order: CaptureOrder,
        engine: Box<dyn Engine>,
        recorder: SharedRecorder,
        clock: Clock,
        held: HeldStore,
        own_cpu_ns: fn() -> u64,
    ) -> (Self, SessionHandle) {
        let (commands_tx, commands) = mpsc::channel(256);
        let capturing = Arc::new(AtomicBool::new(true));
        let handle = SessionHandle {
            commands: commands_tx,
            capturing: Arc::clone(&capturing),
        };
        let heard_ns = clock.now_ns();
        let session = Self {
            order,
            clock,
            engine: Some(engine),
            recorder,
            held,
            own_cpu_ns,
            commands,
            capturing,
            attached: None,
            state: State::Arming,
            heard_ns,
            outbox: Outbox::default(),
            stats: CaptureStats::default(),
            findings: Vec::new(),
            new_findings: Vec::new(),
            refused: false,
            started_ns: None,
            finished_said: false,
            complete: false,
            cpu_at_start_ns: 0,
            reported_samples: 0,
            batched_ns: 0,
        };
        (session, handle)
    }

    /// Lives until the coordinator says Forget, or the lease is over. Nothing of the capture is
    /// left when it returns.
    pub async fn run(mut self) {
        self.arm().await;
        loop {
            let wait = self.wait();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Forget) => break,
                    Some(Command::Shutdown) | None => {
                        self.finish_alone(None).await;
                        break;
                    }
                    Some(command) => self.obey(command).await,
                },
                () = tokio::time::sleep(wait) => {}
            }
            if !self.look().await {
                break;
            }
        }
        self.end_engine().await;
        self.capturing.store(false, Ordering::Relaxed);
        self.answer_late();
    }

    /// Whoever attached while it ended gets what is held; whoever attaches from now on is told that it has ended.
    fn answer_late(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            let Command::Attach {
                events,
                resume: Some(at),
                ..
            } = command
            else {
                continue;
            };
            let run = self.order.run;
            let held = self.held.replay(run, at.epoch, at.seq);
            let held = held.filter(|_| !at.new_epoch);
            for event in held.unwrap_or_else(|| vec![self.finished()]) {
                let _ = events.try_send((run, event));
            }
        }
    }

    /// Until the next look at the clock.
    fn wait(&self) -> Duration {
        let State::Running { end_ns, .. } = self.state else {
            return TICK;
        };
        let left = end_ns.saturating_sub(self.clock.now_ns());
        TICK.min(Duration::from_nanos(left.max(1_000_000)))
    }

    async fn arm(&mut self) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        let order = self.order.clone();
        let outcome = {
            let mut arming = engine.arm(&order);
            loop {
                tokio::select! {
                    outcome = &mut arming => break outcome,
                    command = self.commands.recv() => match command {
                        Some(Command::Forget | Command::Shutdown | Command::Stop(_)) | None => {
                            break Err(vec![Finding::new(FindingCode::Interrupted, "stopped while arming")]);
                        }
                        Some(command) => self.obey(command).await,
                    },
                    () = tokio::time::sleep(TICK) => {
                        let lease_ns = self.order.lease_ms * 1_000_000;
                        if self.state.due(self.clock.now_ns(), self.heard_ns, lease_ns) == Due::LeaseOver {
                            break Err(vec![Finding::new(FindingCode::LeaseExpired, "lost while arming")]);
                        }
                    }
                }
            }
        };
        self.engine = Some(engine);
        match outcome {
            Ok(findings) => {
                self.state = State::Armed {
                    since_ns: self.clock.now_ns(),
                };
                self.note(findings);
            }
            Err(findings) => {
                self.end().await;
                self.refused = true;
                self.note(findings);
            }
        }
        self.say_state();
    }

    async fn obey(&mut self, command: Command) {
        let now = self.clock.now_ns();
        match command {
            Command::Attach {
                connection,
                events,
                resume,
            } => {
                self.attached = Some((connection, events));
                self.heard_ns = now;
                if let Some(at) = resume {
                    self.resume(at).await;
                }
                self.say_state();
            }
            Command::Detach(connection) => {
                if self.attached.as_ref().is_some_and(|a| a.0 == connection) {
                    self.attached = None;
                }
            }
            Command::Heard => self.heard_ns = now,
            Command::Start(start_ns) => {
                let duration_ns = self.order.duration_ms * 1_000_000;
                if let Some(running) = self.state.start(now, start_ns, duration_ns)
                    && let Some(engine) = &mut self.engine
                {
                    self.cpu_at_start_ns = (self.own_cpu_ns)();
                    let State::Running { start_ns, .. } = running else {
                        return;
                    };
                    engine.start(start_ns);
                    self.state = running;
                }
            }
            Command::Stop(reason) => {
                if matches!(self.state, State::Running { .. } | State::Armed { .. }) {
                    self.note(vec![Finding::new(FindingCode::Interrupted, reason)]);
                    self.end().await;
                }
            }
            Command::Ack(epoch, seq) => self.outbox.ack(epoch, seq),
            Command::Forget | Command::Shutdown => {}
        }
    }

    async fn resume(&mut self, at: ResumeAt) {
        self.outbox.resume(at.epoch, at.seq);
        self.finished_said = false;
        if at.new_epoch {
            let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
            for batch in self.outbox.new_epoch() {
                if let Ok((_, segment)) = decode_segment(&batch.ffz, Limits::FILE) {
                    recorder.put_back(segment);
                }
            }
            recorder.restart_dictionary();
        }
        if at.collect && !matches!(self.state, State::Draining) {
            self.note(vec![Finding::new(
                FindingCode::Interrupted,
                "collected before its end",
            )]);
            self.end().await;
        }
    }

    /// One look at the clock, the engine and the outbox. Whether to go on.
    async fn look(&mut self) -> bool {
        let now = self.clock.now_ns();
        match self
            .state
            .due(now, self.heard_ns, self.order.lease_ms * 1_000_000)
        {
            Due::LeaseOver => {
                let said = format!(
                    "no word from the coordinator for {} ms",
                    self.order.lease_ms
                );
                self.finish_alone(Some(Finding::new(FindingCode::LeaseExpired, said)))
                    .await;
                return false;
            }
            Due::End => {
                self.complete = self.state.complete_at(now);
                self.end().await;
            }
            Due::NeverStarted => {
                self.note(vec![Finding::new(
                    FindingCode::HostLate,
                    "armed, but never started",
                )]);
                self.end().await;
            }
            Due::Nothing => {}
        }
        if let State::Running { start_ns, .. } = self.state {
            self.look_at_engine(now, start_ns).await;
        }
        let running = matches!(self.state, State::Running { .. });
        if !running || now.saturating_sub(self.batched_ns) >= BATCH_NS {
            self.batched_ns = now;
            self.make_batches(false);
            self.progress();
        }
        self.send();
        true
    }

    async fn look_at_engine(&mut self, now: u64, start_ns: u64) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let poll = engine.poll(now);
        if self.started_ns.is_none() && poll.started_mono_ns.is_some() {
            self.started_ns = poll.started_mono_ns;
            self.say_state();
        }
        self.note(poll.findings);
        let used = (self.own_cpu_ns)()
            .saturating_sub(self.cpu_at_start_ns)
            .saturating_add(poll.children_cpu_ns);
        let over = budget::cpu(&self.order.budgets, used, now.saturating_sub(start_ns))
            .or_else(|| budget::output(&self.order.budgets, self.outbox.bytes_made()))
            .or(poll.ended);
        self.complete |= poll.done && over.is_none();
        if over.is_some() || poll.done {
            self.note(over.into_iter().collect());
            self.end().await;
        }
    }

    /// Ends the capture and takes the engine's account of it.
    async fn end(&mut self) {
        self.end_engine().await;
        self.state = State::Draining;
        self.capturing.store(false, Ordering::Relaxed);
    }

    async fn end_engine(&mut self) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        let stopped = engine.stop(self.clock.now_ns()).await;
        self.stats = stopped.stats;
        self.note(stopped.findings);
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        self.stats.samples = recorder.samples();
        self.stats.pruned = recorder.pruned_samples();
        self.stats.target_cpu_ns = recorder.counted(CounterKind::CpuNs);
        let (nodes, joined) = (recorder.nodes(), recorder.joined_series());
        drop(recorder);
        // To what the engine's children used.
        let own_cpu_ns = (self.own_cpu_ns)().saturating_sub(self.cpu_at_start_ns);
        self.stats.own_cpu_ns = self.stats.own_cpu_ns.saturating_add(own_cpu_ns);
        if self.stats.pruned > 0 {
            let said = format!(
                "{} of {} samples; the budget is {nodes} nodes",
                self.stats.pruned, self.stats.samples
            );
            self.note(vec![Finding::new(FindingCode::BudgetStacks, said)]);
        }
        if joined > 0 {
            self.note(vec![Finding::new(
                FindingCode::BudgetSeries,
                format!("{joined} times"),
            )]);
        }
    }

    /// Without a coordinator: ends, and holds what it does not have.
    async fn finish_alone(&mut self, why: Option<Finding>) {
        self.note(why.into_iter().collect());
        self.end().await;
        self.make_batches(true);
        if self.outbox.is_empty() {
            return;
        }
        let head = HeldHead {
            host: self.order.host.to_string(),
            stats: self.stats.clone(),
            findings: self.findings.clone(),
            last: self.outbox.last(),
            complete: self.complete,
        };
        if let Err(e) = self.held.save(self.order.run, &head, self.outbox.unacked()) {
            tracing::warn!(run = %self.order.run, error = %e, "the rest of a run could not be held");
        }
    }

    fn make_batches(&mut self, all: bool) {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let head = Head {
            probe: self.order.probe.to_string(),
            measures: recorder.measures().to_vec(),
        };
        while all || self.outbox.has_room() {
            let segment = recorder.take(BATCH_ROWS);
            if segment.is_empty() {
                return;
            }
            match encode_segment(&head, &segment) {
                Ok(ffz) => self.outbox.push(ffz),
                Err(e) => {
                    tracing::error!(error = %e, "a batch could not be encoded");
                    recorder.put_back(segment);
                    return;
                }
            }
        }
        let over = budget::memory(
            &self.order.budgets,
            recorder.pending_rows(),
            recorder.nodes(),
        );
        if over.is_some() {
            recorder.coalesce();
        }
        drop(recorder);
        self.note(over.into_iter().collect());
    }

    /// Sends what fits into the connection's queue.
    fn send(&mut self) {
        while let Some(Batch { epoch, seq, ffz }) = self.outbox.unsent() {
            let event = Event::Batch {
                epoch: *epoch,
                seq: *seq,
                ffz: ffz.clone(),
            };
            if !self.emit(event) {
                return;
            }
            self.outbox.mark_sent();
        }
        if self.state == State::Draining && !self.refused && !self.finished_said && self.drained() {
            self.finished_said = self.emit(self.finished());
        }
    }

    fn finished(&self) -> Event {
        Event::Finished {
            stats: Box::new(self.stats.clone()),
            findings: self.findings.clone(),
            last: self.outbox.last(),
            complete: self.complete,
        }
    }

    /// Tells how far it is, when there is something new to tell.
    fn progress(&mut self) {
        let samples = self
            .recorder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .samples();
        let news = samples != self.reported_samples || !self.new_findings.is_empty();
        if news && matches!(self.state, State::Running { .. }) {
            let findings = self.new_findings.clone();
            if self.emit(Event::Progress { samples, findings }) {
                self.reported_samples = samples;
                self.new_findings.clear();
            }
        }
    }

    fn drained(&self) -> bool {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        self.outbox.all_sent() && recorder.pending_rows() == 0
    }

    /// Says where the capture stands: to a new connection, or because it changed.
    fn say_state(&mut self) {
        if self.refused {
            self.emit(Event::Refused(self.findings.clone()));
            return;
        }
        if !matches!(self.state, State::Arming) {
            self.emit(Event::Armed(self.findings.clone()));
        }
        if let Some(started_ns) = self.started_ns {
            self.emit(Event::Started(started_ns));
        }
    }

    /// Whether the event went into the attached connection's queue.
    fn emit(&self, event: Event) -> bool {
        self.attached
            .as_ref()
            .is_some_and(|(_, q)| q.try_send((self.order.run, event)).is_ok())
    }

    fn note(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
                self.findings.push(finding.clone());
                self.new_findings.push(finding);
            }
        }
    }
}
