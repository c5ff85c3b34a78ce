//! One host's conversation: the only file of dispatch that sees the wire.
//!
//! In: commands of the loop, messages of one agent. Out: events for the loop. Never: a decision
//! about the run; it opens links again, keeps the clock estimate, checks hashes, and passes on.

use super::clock_sync::{ClockEstimate, ClockSync};
use crate::clock::Clock;
use crate::transport::{Connector, News};
use model::coverage::CaptureStats;
use model::{CaptureOrder, Finding, FindingCode, HostName, HostReport, RunId};
use proto::convert::finding::from_wire;
use proto::link::CoordinatorLink;
use proto::v1::{self, FromCoordinator, from_agent, from_coordinator::Say};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often we say something at least.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which a new link is opened: TCP's own retry is too slow.
const SILENCE: Duration = Duration::from_millis(1_500);
/// The same for a link that cannot be opened again: giving it up loses the host, and an agent that
/// yields to a busy gateway may be late.
const SILENCE_ALONE: Duration = Duration::from_secs(10);
/// An agent that was sent for the run gets this long to clean up and close.
const LEAVE: Duration = Duration::from_secs(3);
/// Any agent gets this long to hear our last words and close: what a starved host has not read when we go is lost,
/// and with it the word that it may forget what it holds.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Round trips before a host counts as surveyed.
const SURVEY_TRIPS: usize = 8;
/// Heartbeats between two probes of a surveyed host.
const PROBE_BEATS: u32 = 8;
/// A host that has reported but does not answer probes is taken with the clock it has.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// What the loop tells a host's task.
#[derive(Clone, Debug)]
pub enum HostCommand {
    /// Get ready.
    Arm(Box<CaptureOrder>),
    /// Begin at this instant of our clock, in nanoseconds.
    Start(u64),
    /// End now.
    Stop(String),
    /// Spooled up to (epoch, seq).
    Ack(u32, u64),
    /// Take the run up again from (epoch, seq).
    Resume {
        /// We have everything up to this epoch
        epoch: u32,
        /// and this number.
        seq: u64,
        /// Only what is held is wanted.
        collect: bool,
    },
    /// The run is safe with us.
    Forget,
    /// End the conversation.
    Close,
}

/// What a host's task tells the loop.
#[derive(Clone, Debug)]
pub enum Said {
    /// It answered, and this is what it is.
    Reported(Box<HostReport>),
    /// How far the way to it is open.
    News(News),
    /// Ready.
    Armed(Vec<Finding>),
    /// It will not.
    Refused(Vec<Finding>),
    /// Sampling began at this instant of its own clock, which stands so to ours.
    Started(u64, ClockEstimate),
    /// Stacks, unspoilt.
    Batch {
        /// Epoch of the dictionary.
        epoch: u32,
        /// Number within the epoch.
        seq: u64,
        /// The ffz document.
        ffz: Vec<u8>,
    },
    /// Where it stands.
    Progress(u64, Vec<Finding>),
    /// Ended; the last batch had this (epoch, seq).
    Finished {
        /// What was seen.
        stats: Box<CaptureStats>,
        /// What weakens it.
        findings: Vec<Finding>,
        /// The last batch.
        last: (u32, u64),
        /// For the whole ordered time.
        complete: bool,
    },
    /// It holds nothing of this run.
    NotHeld,
    /// The link broke; a new one is being opened.
    LinkDown,
    /// A new link is open; tell it where to go on.
    LinkUp,
    /// The conversation is over for good.
    Lost(Finding),
}

/// An event with the host it came from.
pub type HostEvent = (HostName, Said);

/// One host's task.
pub struct HostTask {
    /// The host.
    pub name: HostName,
    /// How it is reached.
    pub connector: Connector,
    /// The run that is talked about.
    pub run: RunId,
    /// Our clock.
    pub clock: Clock,
    /// To the loop.
    pub events: mpsc::Sender<HostEvent>,
    /// From the loop.
    pub commands: mpsc::Receiver<HostCommand>,
}

enum End {
    Closed,
    Broken(Finding),
}

pub(super) struct Talk {
    pub(super) task: HostTask,
    sync: ClockSync,
    pub(super) heard: Instant,
    report: Option<(Box<HostReport>, Instant)>,
    surveyed: bool,
}

impl HostTask {
    /// Talks until it is told to close, or the host is lost.
    pub async fn run(self) {
        let heard = Instant::now();
        let talk = Talk {
            task: self,
            sync: ClockSync::default(),
            heard,
            report: None,
            surveyed: false,
        };
        talk.run().await;
    }
}

impl Talk {
    async fn run(mut self) {
        let mut link = match self.first_link().await {
            Ok(link) => link,
            Err(finding) => return self.lost(finding).await,
        };
        say(&link, Say::Survey(v1::Survey {})).await;
        self.probe(&link).await;
        loop {
            match self.converse(&mut link).await {
                End::Closed => break,
                End::Broken(why) => {
                    let old = Some(link).filter(|_| self.task.connector.old_link_may_live());
                    self.tell(Said::LinkDown).await;
                    match self.new_link(old, why).await {
                        Ok(new) => link = new,
                        Err(finding) => return self.lost(finding).await,
                    }
                    if !self.surveyed {
                        say(&link, Say::Survey(v1::Survey {})).await;
                    }
                    self.tell(Said::LinkUp).await;
                }
            }
        }
        if self.task.connector.agent_leaves() {
            say(&link, Say::Leave(v1::Leave {})).await;
            let gone = async { while link.rx.recv().await.is_some() {} };
            let _ = timeout(LEAVE, gone).await;
        }
        // Dropping our sender ends the call; the agent closes its side when it has read all.
        let (closed, _) = mpsc::channel(1);
        link.tx = closed;
        let _ = timeout(LAST_WORDS, async {
            while link.rx.recv().await.is_some() {}
        })
        .await;
        drop(link);
        self.task.connector.close().await;
    }

    async fn lost(self, finding: Finding) {
        self.tell(Said::Lost(finding)).await;
        self.task.connector.close().await;
    }

    pub(super) async fn tell(&self, said: Said) {
        let _ = self.task.events.send((self.task.name.clone(), said)).await;
    }

    async fn converse(&mut self, link: &mut CoordinatorLink) -> End {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = 0_u32;
        let patience = if self.task.connector.can_reconnect() {
            SILENCE
        } else {
            SILENCE_ALONE
        };
        loop {
            tokio::select! {
                biased;
                message = link.rx.recv() => {
                    let Some(message) = message else {
                        return End::Broken(Finding::new(FindingCode::HostLost, "the agent closed the connection"));
                    };
                    self.heard = Instant::now();
                    if let Some(word) = message.say
                        && let Err(finding) = self.hear(word, link).await
                    {
                        self.tell(Said::Lost(finding)).await;
                        return End::Closed;
                    }
                }
                command = self.task.commands.recv() => match command {
                    Some(HostCommand::Close) | None => return End::Closed,
                    Some(command) => self.command(command, link).await,
                },
                _ = beat.tick() => {
                    if self.heard.elapsed() > patience {
                        let said = format!("silent for {} ms", self.heard.elapsed().as_millis());
                        return End::Broken(Finding::new(FindingCode::HostLost, said));
                    }
                    let _ = link.tx.try_send(message(Say::Heartbeat(v1::Heartbeat {})));
                    // Once it is surveyed, the clocks only drift: a look now and then will do.
                    beats += 1;
                    if !self.surveyed || beats.is_multiple_of(PROBE_BEATS) {
                        self.probe(link).await;
                    }
                    self.report_if_ready().await;
                }
            }
        }
    }

    pub(super) async fn probe(&self, link: &CoordinatorLink) {
        let coordinator_mono_ns = self.task.clock.now_ns();
        let _ = link.tx.try_send(message(Say::ClockProbe(v1::ClockProbe {
            coordinator_mono_ns,
        })));
    }

    async fn command(&mut self, command: HostCommand, link: &CoordinatorLink) {
        let run = self.task.run.to_string();
        let word = match command {
            HostCommand::Arm(order) => Say::Arm(Box::new((&*order).into())),
            HostCommand::Start(ours_ns) => {
                let estimate = self.sync.estimate().unwrap_or_default();
                Say::Start(v1::Start {
                    run,
                    agent_mono_ns: estimate.to_agent(ours_ns),
                })
            }
            HostCommand::Stop(reason) => Say::Stop(v1::Stop { run, reason }),
            HostCommand::Ack(epoch, seq) => Say::Ack(v1::Ack { run, epoch, seq }),
            HostCommand::Resume {
                epoch,
                seq,
                collect,
            } => Say::Resume(v1::Resume {
                run,
                epoch,
                seq,
                new_epoch: false,
                collect,
            }),
            HostCommand::Forget => Say::Forget(v1::Forget { run }),
            HostCommand::Close => return,
        };
        say(link, word).await;
    }

    /// Passes a message on. An error ends the conversation.
    pub(super) async fn hear(
        &mut self,
        word: from_agent::Say,
        link: &CoordinatorLink,
    ) -> Result<(), Finding> {
        use from_agent::Say as Word;
        let run = self.task.run.to_string();
        match word {
            Word::ClockEcho(echo) => {
                let now = self.task.clock.now_ns();
                self.sync.add(
                    echo.coordinator_mono_ns,
                    echo.agent_received_mono_ns,
                    echo.agent_sent_mono_ns,
                    now,
                );
                if self.sync.trips() < SURVEY_TRIPS {
                    self.probe(link).await;
                }
                self.report_if_ready().await;
            }
            Word::Report(report) => {
                self.report = Some((Box::new(report.into()), Instant::now()));
                self.report_if_ready().await;
            }
            Word::Armed(w) if w.run == run => self.tell(Said::Armed(from_wire(w.findings))).await,
            Word::Refused(w) if w.run == run => {
                self.tell(Said::Refused(from_wire(w.findings))).await;
            }
            Word::Started(w) if w.run == run => {
                let estimate = self.sync.estimate().unwrap_or_default();
                self.tell(Said::Started(w.agent_mono_ns, estimate)).await;
            }
            Word::Batch(w) if w.run == run => {
                if blake3::hash(&w.ffz).as_bytes()[..] != w.blake3[..] {
                    let said = format!("batch {} of epoch {}", w.seq, w.epoch);
                    return Err(Finding::new(FindingCode::BatchDamaged, said));
                }
                let ffz = w.ffz.into();
                self.tell(Said::Batch {
                    epoch: w.epoch,
                    seq: w.seq,
                    ffz,
                })
                .await;
            }
            Word::Progress(w) if w.run == run => {
                self.tell(Said::Progress(w.samples, from_wire(w.findings)))
                    .await;
            }
            Word::Finished(w) if w.run == run => {
                let stats = Box::new(w.stats.unwrap_or_default().into());
                let findings = from_wire(w.findings);
                let last = (w.epoch, w.last_seq);
                self.tell(Said::Finished {
                    stats,
                    findings,
                    last,
                    complete: w.complete,
                })
                .await;
            }
            Word::NotHeld(w) if w.run == run => self.tell(Said::NotHeld).await,
            Word::Hello(_) => return Err(protocol("it said Hello twice")),
            // Heartbeats; and words about other runs, which are none of ours.
            _ => {}
        }
        Ok(())
    }

    /// Tells the loop of the host once its clock is known well enough.
    async fn report_if_ready(&mut self) {
        let ready = match &self.report {
            Some((_, since)) => {
                self.sync.trips() >= SURVEY_TRIPS || since.elapsed() > PROBE_PATIENCE
            }
            None => false,
        };
        if ready
            && !self.surveyed
            && let Some((report, _)) = self.report.take()
        {
            self.surveyed = true;
            self.tell(Said::Reported(report)).await;
        }
    }
}

pub(super) fn message(word: Say) -> FromCoordinator {
    FromCoordinator { say: Some(word) }
}

/// Says a word; a full queue on a silent link must not hold the task up for long.
pub(super) async fn say(link: &CoordinatorLink, word: Say) {
    let _ = timeout(SILENCE, link.tx.send(message(word))).await;
}

pub(super) fn protocol(said: &str) -> Finding {
    Finding::new(FindingCode::HostProtocol, said)
}
