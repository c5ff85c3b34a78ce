//! Opens a conversation with every host and asks what it is.
//!
//! In: connectors. Out: a [`Fleet`]. Never: an unbounded number of connections opening at once.

use crate::clock::Clock;
use crate::dispatch::{HostCommand, HostEvent, HostTask, RunEvent, Said, Watch};
use crate::transport::{Connector, News};
use model::{Finding, FindingCode, HostName, HostReport, RunId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Hosts get this long to answer, or to come nearer to it.
const SURVEY: Duration = Duration::from_secs(15);
/// Hosts to which an agent is sent get this long in all, on however slow a network.
const SURVEY_MAX: Duration = Duration::from_secs(180);
/// Commands that may wait for one host.
const COMMANDS: usize = 256;
/// Events of all hosts that may wait for the loop.
const EVENTS: usize = 1_024;

/// A conversation with one host.
#[derive(Debug)]
pub struct HostLine {
    commands: mpsc::Sender<HostCommand>,
    /// Its report, once it has answered.
    pub report: Option<HostReport>,
    /// Why it is out.
    pub lost: Option<Finding>,
    /// Whether its agent, when it is lost, holds what it could not send.
    pub holds_rest: bool,
    /// What weakens it and is not in its own report.
    notes: Vec<Finding>,
}

impl HostLine {
    /// Says something to the host's task. A task that has ended hears nothing.
    pub fn say(&self, command: HostCommand) {
        let _ = self.commands.try_send(command);
    }

    fn hear(&mut self, name: &HostName, news: News, watch: &dyn Watch) {
        let host = name.to_string();
        match news {
            News::Step(step) => watch.on(RunEvent::Reaching {
                host,
                step: step.to_owned(),
            }),
            News::Sending {
                sent_bytes,
                total_bytes,
            } => watch.on(RunEvent::Sending {
                host,
                sent_bytes,
                total_bytes,
            }),
            News::Noted(finding) => self.notes.push(finding.on(host)),
        }
    }
}

/// Every host of a job, with its conversation.
pub struct Fleet {
    /// By name.
    pub hosts: BTreeMap<HostName, HostLine>,
    /// What they say.
    pub events: mpsc::Receiver<HostEvent>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Opens conversations with all hosts, without waiting for them.
    #[must_use]
    pub fn open(hosts: Vec<(HostName, Connector)>, run: RunId, clock: &Clock) -> Self {
        let (events_tx, events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        let mut lines = BTreeMap::new();
        for (name, connector) in hosts {
            let (commands_tx, commands) = mpsc::channel(COMMANDS);
            let holds_rest = connector.can_reconnect() && !connector.agent_leaves();
            let task = HostTask {
                name: name.clone(),
                connector,
                run,
                clock: clock.clone(),
                events: events_tx.clone(),
                commands,
            };
            tasks.spawn(task.run());
            lines.insert(
                name,
                HostLine {
                    commands: commands_tx,
                    report: None,
                    lost: None,
                    holds_rest,
                    notes: Vec::new(),
                },
            );
        }
        Self {
            hosts: lines,
            events,
            tasks,
        }
    }

    /// The reports of the hosts that answered.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<HostName, HostReport> {
        let with_report = |(name, line): (&HostName, &HostLine)| {
            line.report
                .clone()
                .filter(|_| line.lost.is_none())
                .map(|r| (name.clone(), r))
        };
        self.hosts.iter().filter_map(with_report).collect()
    }

    /// Ends all conversations and waits until everything that was started for them is gone.
    pub async fn close(mut self) {
        for line in self.hosts.values() {
            line.say(HostCommand::Close);
        }
        self.hosts.clear();
        // Somebody must listen until the last task has said its last word.
        let events = &mut self.events;
        let drain = async { while events.recv().await.is_some() {} };
        let tasks = &mut self.tasks;
        let join = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(drain, join) })
            .await;
    }
}

/// Asks every host what it is.
pub async fn survey(
    hosts: Vec<(HostName, Connector)>,
    run: RunId,
    clock: &Clock,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Fleet {
    let mut fleet = Fleet::open(hosts, run, clock);
    let latest = Instant::now() + SURVEY_MAX;
    let mut deadline = Instant::now() + SURVEY;
    while fleet
        .hosts
        .values()
        .any(|h| h.report.is_none() && h.lost.is_none())
    {
        let event = tokio::select! {
            () = cancel.cancelled() => break,
            event = timeout_at(deadline, fleet.events.recv()) => event,
        };
        let Ok(Some((name, said))) = event else { break };
        let Some(line) = fleet.hosts.get_mut(&name) else {
            continue;
        };
        match said {
            Said::Reported(report) => {
                let (host, kernel) = (name.to_string(), report.kernel.clone());
                watch.on(RunEvent::Reported { host, kernel });
                line.report = Some(*report);
                if let Some(report) = &mut line.report {
                    report.findings.append(&mut line.notes);
                }
            }
            Said::News(news) => {
                // Whoever comes nearer is waited for, and whoever does not is not.
                deadline = latest.min(Instant::now() + SURVEY);
                line.hear(&name, news, watch);
            }
            Said::Lost(finding) => line.lost = Some(finding.on(name.as_str())),
            _ => {}
        }
    }
    for (name, line) in &mut fleet.hosts {
        if line.report.is_none() && line.lost.is_none() {
            let said = match cancel.is_cancelled() {
                true => "the run was interrupted before the host had answered".to_owned(),
                false => format!("no report in {} s", SURVEY.as_secs()),
            };
            line.lost = Some(Finding::new(FindingCode::HostUnreachable, said).on(name.as_str()));
        }
        if let Some(finding) = &line.lost {
            watch.on(RunEvent::Found {
                finding: finding.clone(),
            });
        }
    }
    fleet
}
