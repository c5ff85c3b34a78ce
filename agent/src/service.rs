//! What the agent does on a link: the only file that sees the wire.
//!
//! In: a link to a coordinator. Out: captures that obey it, as far as the policy goes. Never: a
//! capture that ends with its link (it ends with its lease).

use crate::engine::EngineRoom;
use crate::policy::Policy;
use crate::session::{Command, Event, HeldStore, ResumeAt, Session, SessionHandle};
use model::{CaptureOrder, Finding, FindingCode, HostReport, RunId};
use proto::convert::run_id;
use proto::link::AgentLink;
use proto::v1::{self, FromAgent, from_agent::Say, from_coordinator};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the agent says something at least.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which a link is given up. The coordinator opens a new one long before.
const LINK_SILENCE: Duration = Duration::from_secs(10);
/// Events of all captures of a link that wait to be sent.
const EVENTS: usize = 64;

/// Reads the host's policy.
pub type ReadPolicy = Box<dyn Fn() -> Result<Policy, Finding> + Send + Sync>;
/// Looks at the host, under a policy or in spite of a refused one.
pub type Survey = Box<dyn Fn(&Result<Policy, Finding>) -> HostReport + Send + Sync>;

/// Everything an agent is made of.
pub struct Settings {
    /// The host's policy, read anew for each order.
    pub policy: ReadPolicy,
    /// The host's report.
    pub survey: Survey,
    /// What engines are made of.
    pub engines: EngineRoom,
    /// Where the rest of a lost run is held.
    pub held: HeldStore,
    /// CPU time of the agent so far, in nanoseconds.
    pub own_cpu_ns: fn() -> u64,
}

/// An agent. Captures live in it, links come and go.
pub struct Agent {
    settings: Settings,
    sessions: Mutex<BTreeMap<RunId, SessionHandle>>,
    links: AtomicU64,
    heard: Mutex<Instant>,
    told_to_leave: AtomicBool,
}

impl Agent {
    /// An agent without captures.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            sessions: Mutex::default(),
            links: AtomicU64::new(0),
            heard: Mutex::new(Instant::now()),
            told_to_leave: AtomicBool::new(false),
        })
    }

    /// Obeys the coordinator at the other end of `link` until the link ends.
    pub async fn serve(self: &Arc<Self>, link: AgentLink) {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        self.told_to_leave.store(false, Ordering::Relaxed);
        self.hear();
        let (events_tx, events) = mpsc::channel(EVENTS);
        let mut conversation = Conversation {
            agent: Arc::clone(self),
            number,
            events: events_tx,
            mine: Vec::new(),
        };
        conversation.hold(link, events).await;
        for run in conversation.mine {
            if let Some(session) = self.session(run) {
                let _ = session.say(Command::Detach(number)).await;
            }
        }
    }

    /// Whether no capture is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// How long no coordinator has said a word.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// Whether the last coordinator has said that it needs this agent no more.
    #[must_use]
    pub fn was_told_to_leave(&self) -> bool {
        self.told_to_leave.load(Ordering::Relaxed)
    }

    /// Has `folder` removed when this agent is gone, however it goes.
    ///
    /// # Errors
    /// The operating system's, when the keeper cannot be started.
    pub async fn guard_folder(&self, folder: &Path) -> std::io::Result<()> {
        self.settings.engines.processes.guard_folder(folder).await
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Somebody who can only be the coordinator stands at the door. Until it has taken up its runs every lease begins anew:
    /// after a silence the greetings would else cost what is left of it.
    pub async fn coordinator_joins(&self) {
        self.hear();
        for session in self.all_sessions() {
            let _ = session.say(Command::Heard).await;
        }
    }

    /// Ends every capture and holds what is not acknowledged.
    pub async fn shut_down(&self) {
        for session in self.all_sessions() {
            let _ = session.say(Command::Shutdown).await;
        }
        while !self.is_idle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn all_sessions(&self) -> Vec<SessionHandle> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().cloned().collect()
    }

    fn session(&self, run: RunId) -> Option<SessionHandle> {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&run)
            .cloned()
    }

    /// Checks an order and starts its capture.
    fn begin(self: &Arc<Self>, order: CaptureOrder) -> Result<SessionHandle, Vec<Finding>> {
        let policy = (self.settings.policy)().map_err(|f| vec![f])?;
        policy.check(&order)?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = sessions.values().filter(|s| s.is_capturing()).count();
        if busy >= policy.captures_max as usize {
            let said = format!(
                "{busy} captures run already, and the policy allows {}",
                policy.captures_max
            );
            return Err(vec![Finding::new(FindingCode::PolicyRefused, said)]);
        }
        let (engine, recorder) = self
            .settings
            .engines
            .build(&order, &policy)
            .map_err(|f| vec![f])?;
        let run = order.run;
        let (session, handle) = Session::new(
            order,
            engine,
            recorder,
            Arc::clone(&self.settings.engines.clock),
            self.settings.held.clone(),
            self.settings.own_cpu_ns,
        );
        sessions.insert(run, handle.clone());
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            session.run().await;
            agent
                .sessions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&run);
        });
        Ok(handle)
    }
}

/// One link's conversation.
struct Conversation {
    agent: Arc<Agent>,
    number: u64,
    events: mpsc::Sender<(RunId, Event)>,
    mine: Vec<RunId>,
}

impl Conversation {
    async fn hold(&mut self, link: AgentLink, mut events: mpsc::Receiver<(RunId, Event)>) {
        let mut link = link;
        let mut held: Vec<String> = self
            .agent
            .settings
            .held
            .runs()
            .iter()
            .map(ToString::to_string)
            .collect();
        held.extend(
            self.agent
                .sessions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .keys()
                .map(ToString::to_string),
        );
        let hello = v1::Hello {
            protocol: proto::PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            held_runs: held,
        };
        if link.tx.send(say(Say::Hello(hello))).await.is_err() {
            return;
        }
        // A second task writes, so that a full network never keeps this one from listening.
        let up = link.tx.clone();
        let writer = tokio::spawn(async move {
            while let Some((run, event)) = events.recv().await {
                if up.send(say(event_to_wire(run, event))).await.is_err() {
                    break;
                }
            }
        });
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut silent_since = Instant::now();
        loop {
            tokio::select! {
                message = link.rx.recv() => {
                    let Some(message) = message else { break };
                    silent_since = Instant::now();
                    self.agent.hear();
                    self.heard().await;
                    if let Some(word) = message.say
                        && !self.obey(word, &link.tx).await
                    {
                        break;
                    }
                }
                _ = beat.tick() => {
                    let _ = link.tx.try_send(say(Say::Heartbeat(v1::Heartbeat {})));
                    if silent_since.elapsed() > LINK_SILENCE {
                        break;
                    }
                }
            }
        }
        writer.abort();
    }

    async fn heard(&self) {
        for run in &self.mine {
            if let Some(session) = self.agent.session(*run) {
                let _ = session.say(Command::Heard).await;
            }
        }
    }

    /// Does what one message asks. Whether to go on with this link.
    async fn obey(&mut self, word: from_coordinator::Say, up: &mpsc::Sender<FromAgent>) -> bool {
        use from_coordinator::Say as Word;
        match word {
            Word::Welcome(w) => return w.protocol == proto::PROTOCOL,
            Word::Heartbeat(_) => {}
            Word::ClockProbe(probe) => {
                let clock = &self.agent.settings.engines.clock;
                let received = clock.now_ns();
                let echo = v1::ClockEcho {
                    coordinator_mono_ns: probe.coordinator_mono_ns,
                    agent_received_mono_ns: received,
                    agent_sent_mono_ns: clock.now_ns(),
                };
                let _ = up.send(say(Say::ClockEcho(echo))).await;
            }
            Word::Survey(_) => {
                let agent = Arc::clone(&self.agent);
                let up = up.clone();
                // Its own task: a slow survey must not keep clock probes waiting.
                tokio::spawn(async move {
                    let policy = (agent.settings.policy)();
                    let report = (agent.settings.survey)(&policy);
                    let _ = up.send(say(Say::Report((&report).into()))).await;
                });
            }
            Word::Arm(order) => return self.arm(*order, up).await,
            Word::Start(s) => self.tell(&s.run, Command::Start(s.agent_mono_ns)).await,
            Word::Stop(s) => self.tell(&s.run, Command::Stop(s.reason)).await,
            Word::Ack(a) => self.acknowledge(&a).await,
            Word::Resume(r) => self.resume(r, up).await,
            Word::Forget(f) => {
                if let Ok(run) = run_id(&f.run) {
                    self.agent.settings.held.remove(run);
                }
                self.tell(&f.run, Command::Forget).await;
            }
            Word::Leave(_) => self.agent.told_to_leave.store(true, Ordering::Relaxed),
        }
        true
    }

    async fn tell(&self, run: &str, command: Command) {
        if let Ok(run) = run_id(run)
            && let Some(session) = self.agent.session(run)
        {
            let _ = session.say(command).await;
        }
    }

    async fn acknowledge(&self, ack: &v1::Ack) {
        self.tell(&ack.run, Command::Ack(ack.epoch, ack.seq)).await;
    }

    async fn arm(&mut self, order: v1::CaptureOrder, up: &mpsc::Sender<FromAgent>) -> bool {
        let run = order.run.clone();
        let begun = CaptureOrder::try_from(order)
            .map_err(|e| vec![Finding::new(FindingCode::HostProtocol, e.to_string())])
            .and_then(|order| {
                let id = order.run;
                // An order that is repeated after a broken link is the same capture.
                match self.agent.session(id) {
                    Some(session) => Ok((id, session)),
                    None => self.agent.begin(order).map(|session| (id, session)),
                }
            });
        match begun {
            Ok((id, session)) => {
                let _ = self.attach(id, &session, None).await;
                true
            }
            Err(findings) => {
                let refused = v1::Refused {
                    run,
                    findings: findings.iter().map(Into::into).collect(),
                };
                up.send(say(Say::Refused(refused))).await.is_ok()
            }
        }
    }

    /// Whether the capture goes on with this connection; false when it has ended meanwhile.
    async fn attach(
        &mut self,
        run: RunId,
        session: &SessionHandle,
        resume: Option<ResumeAt>,
    ) -> bool {
        if !self.mine.contains(&run) {
            self.mine.push(run);
        }
        let (connection, events) = (self.number, self.events.clone());
        session
            .say(Command::Attach {
                connection,
                events,
                resume,
            })
            .await
    }

    async fn resume(&mut self, word: v1::Resume, up: &mpsc::Sender<FromAgent>) {
        let Ok(run) = run_id(&word.run) else { return };
        if let Some(session) = self.agent.session(run) {
            let at = ResumeAt {
                epoch: word.epoch,
                seq: word.seq,
                new_epoch: word.new_epoch,
                collect: word.collect,
            };
            if self.attach(run, &session, Some(at)).await {
                return;
            }
        }
        let messages = self.agent.settings.held.replay(run, word.epoch, word.seq);
        let messages = messages.filter(|_| !word.new_epoch);
        match messages {
            Some(events) => {
                for event in events {
                    if up.send(say(event_to_wire(run, event))).await.is_err() {
                        return;
                    }
                }
            }
            None => {
                let _ = up
                    .send(say(Say::NotHeld(v1::NotHeld { run: word.run })))
                    .await;
            }
        }
    }
}

fn say(word: Say) -> FromAgent {
    FromAgent { say: Some(word) }
}

fn event_to_wire(run: RunId, event: Event) -> Say {
    let run = run.to_string();
    let wire = |findings: &[Finding]| findings.iter().map(Into::into).collect();
    match event {
        Event::Armed(findings) => Say::Armed(v1::Armed {
            run,
            findings: wire(&findings),
        }),
        Event::Refused(findings) => Say::Refused(v1::Refused {
            run,
            findings: wire(&findings),
        }),
        Event::Started(agent_mono_ns) => Say::Started(v1::Started { run, agent_mono_ns }),
        Event::Batch { epoch, seq, ffz } => {
            let blake3 = blake3::hash(&ffz).as_bytes().to_vec();
            Say::Batch(v1::Batch {
                run,
                epoch,
                seq,
                ffz: ffz.into(),
                blake3,
            })
        }
        Event::Progress { samples, findings } => Say::Progress(v1::Progress {
            run,
            samples,
            findings: wire(&findings),
        }),
        Event::Finished {
            stats,
            findings,
            last,
            complete,
        } => Say::Finished(v1::Finished {
            run,
            stats: Some((&*stats).into()),
            findings: wire(&findings),
            epoch: last.0,
            last_seq: last.1,
            complete,
        }),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
