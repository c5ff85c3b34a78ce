//! A whole fleet in one process, under paused time: real coordinator, real agents, the simulated
//! engine, and wires that fail as they are told.
//!
//! In: hosts and their faults. Out: connectors for a run. Never: a socket, a thread, or real time.

use fleetflame::transport::{BoxFuture, Connect, Connector};
use fleetflame_agent::clock::TokioClock;
use fleetflame_agent::engine::EngineRoom;
use fleetflame_agent::policy::Policy;
use fleetflame_agent::process::Processes;
use fleetflame_agent::service::{Agent, Settings};
use fleetflame_agent::session::HeldStore;
use model::host::EngineReport;
use model::job::EngineChoice;
use model::{Finding, FindingCode, HostName, HostReport};
use proto::link::{AgentLink, CoordinatorLink, Link, in_process_pair};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// What a login takes.
const LOGIN: Duration = Duration::from_millis(200);

/// What a wire does from its beginning on, in order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes for this long, in either direction, and nobody is told.
    Silent {
        /// From.
        at: Duration,
        /// For.
        lasts: Duration,
    },
    /// As [`Self::Silent`]; then what was sent into the silence comes at once from the agent, but to the agent,
    /// on connections that were open, nothing comes for longer: how far apart two ends of a TCP connection
    /// send again is chance. A new connection takes a login, as over SSH.
    HalfDeaf {
        /// From.
        at: Duration,
        /// For.
        lasts: Duration,
        /// And the agent's open connections hear nothing for so much longer.
        deaf: Duration,
    },
    /// Every connection breaks, and none can be opened for this long.
    Cut {
        /// From.
        at: Duration,
        /// For.
        lasts: Duration,
    },
    /// What goes to the coordinator takes this long.
    SlowUp(Duration),
    /// What goes to the agent takes this long.
    SlowDown(Duration),
}

/// A host of the fleet.
pub struct SimulatedHost {
    /// Its name.
    pub name: HostName,
    /// Its agent.
    pub agent: Arc<Agent>,
    wire: Arc<Wire>,
}

struct Wire {
    faults: Vec<Fault>,
    zero: Instant,
    connections: Mutex<u32>,
}

impl SimulatedHost {
    /// A host whose clock stands at `clock_ns`, with `held` as its folder for held runs.
    #[must_use]
    pub fn new(name: &str, clock_ns: u64, held: Option<&Path>, faults: Vec<Fault>) -> Self {
        let held = match held {
            Some(folder) => HeldStore::open(folder).expect("a folder for held runs"),
            None => HeldStore::none(),
        };
        let agent = Agent::new(Settings {
            policy: Box::new(|| {
                Ok(Policy {
                    engines: vec![EngineChoice::Simulated],
                    ..Policy::default()
                })
            }),
            survey: Box::new(|_| report()),
            engines: EngineRoom {
                clock: Arc::new(TokioClock::shifted(clock_ns)),
                processes: Arc::new(Processes::new(None)),
            },
            held,
            own_cpu_ns: || 0,
        });
        let wire = Wire {
            faults,
            zero: Instant::now(),
            connections: Mutex::new(0),
        };
        let name = HostName::new(name).expect("a host name");
        Self {
            name,
            agent,
            wire: Arc::new(wire),
        }
    }

    /// How the coordinator reaches it.
    #[must_use]
    pub fn connector(&self) -> (HostName, Connector) {
        let wired = Wired {
            agent: Arc::clone(&self.agent),
            wire: Arc::clone(&self.wire),
        };
        (self.name.clone(), Arc::new(wired))
    }

    /// How many connections were opened so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        *self
            .wire
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn report() -> HostReport {
    let engine = EngineReport {
        engine: "simulated".into(),
        can_run: true,
        how: "scripted".into(),
        findings: Vec::new(),
        events: Vec::new(),
        probes: ["on-cpu", "off-cpu"].map(str::to_owned).into(),
    };
    HostReport {
        hostname: "simulated".into(),
        cpus: 1,
        engines: vec![engine],
        ..HostReport::default()
    }
}

impl Wire {
    /// Until when the wire is silent or cut at `now`; none when it carries.
    fn blocked(&self, now: Instant, cuts_only: bool) -> Option<Instant> {
        let until = |at: Duration, lasts: Duration| {
            let (from, to) = (self.zero + at, self.zero + at + lasts);
            (from..to).contains(&now).then_some(to)
        };
        self.faults.iter().find_map(|fault| match fault {
            Fault::Silent { at, lasts } | Fault::HalfDeaf { at, lasts, .. } if !cuts_only => {
                until(*at, *lasts)
            }
            Fault::Cut { at, lasts } => until(*at, *lasts),
            _ => None,
        })
    }

    /// Until when nothing reaches the agent on a connection that was opened at `opened`.
    fn deaf(&self, opened: Instant, now: Instant) -> Option<Instant> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::HalfDeaf { at, lasts, deaf } => {
                let from = self.zero + *at;
                let to = from + *lasts + *deaf;
                (opened < from && (from..to).contains(&now)).then_some(to)
            }
            _ => None,
        })
    }

    /// Whether it is reached as over SSH: a new connection takes a login, and an old one may speak first.
    fn logs_in(&self) -> bool {
        let deaf = |fault: &Fault| matches!(fault, Fault::HalfDeaf { .. });
        self.faults.iter().any(deaf)
    }

    /// When the next cut begins.
    fn next_cut(&self, now: Instant) -> Option<Instant> {
        let begins = |fault: &Fault| match fault {
            Fault::Cut { at, .. } => Some(self.zero + *at).filter(|t| *t > now),
            _ => None,
        };
        self.faults.iter().filter_map(begins).min()
    }

    fn delays(&self) -> (Duration, Duration) {
        self.faults.iter().fold(
            (Duration::ZERO, Duration::ZERO),
            |(up, down), fault| match fault {
                Fault::SlowUp(delay) => (*delay, down),
                Fault::SlowDown(delay) => (up, *delay),
                _ => (up, down),
            },
        )
    }
}

struct Wired {
    agent: Arc<Agent>,
    wire: Arc<Wire>,
}

impl Connect for Wired {
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>> {
        Box::pin(async move {
            if self.wire.blocked(Instant::now(), true).is_some() {
                return Err(Finding::new(
                    FindingCode::HostUnreachable,
                    "connection refused",
                ));
            }
            if let Some(until) = self.wire.blocked(Instant::now(), false) {
                // Nobody answers; whoever waits gives up before.
                sleep_until(until).await;
            }
            if self.wire.logs_in() {
                sleep(LOGIN).await;
            }
            *self
                .wire
                .connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner) += 1;
            let (agent_end, ours) = in_process_pair();
            let (theirs, coordinator_end) = in_process_pair();
            let agent = Arc::clone(&self.agent);
            tokio::spawn(async move { agent.serve(agent_end).await });
            tokio::spawn(carry(ours, theirs, Arc::clone(&self.wire)));
            Ok(coordinator_end)
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }

    fn old_link_may_live(&self) -> bool {
        self.wire.logs_in()
    }
}

/// Carries messages between two links, as well as the wire lets it.
async fn carry(agent: CoordinatorLink, coordinator: AgentLink, wire: Arc<Wire>) {
    let (up, down) = wire.delays();
    let Link {
        tx: to_agent,
        rx: from_agent,
        ..
    } = agent;
    let Link {
        tx: to_coordinator,
        rx: from_coordinator,
        ..
    } = coordinator;
    let opened = Instant::now();
    let up_blocked = |now| wire.blocked(now, false);
    let down_blocked = |now| wire.deaf(opened, now).or_else(|| wire.blocked(now, false));
    let cut = async {
        match wire.next_cut(Instant::now()) {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = pump(from_agent, to_coordinator, up, up_blocked) => {}
        () = pump(from_coordinator, to_agent, down, down_blocked) => {}
        () = cut => {}
    }
}

/// Carries one direction. `blocked` says until when nothing passes.
async fn pump<T>(
    mut from: mpsc::Receiver<T>,
    to: mpsc::Sender<T>,
    delay: Duration,
    blocked: impl Fn(Instant) -> Option<Instant>,
) {
    let (queue_tx, mut queue) = mpsc::channel::<(Instant, T)>(1_024);
    let take = async {
        while let Some(message) = from.recv().await {
            if queue_tx
                .send((Instant::now() + delay, message))
                .await
                .is_err()
            {
                return;
            }
        }
        drop(queue_tx);
        std::future::pending::<()>().await;
    };
    let give = async {
        while let Some((due, message)) = queue.recv().await {
            sleep_until(due).await;
            while let Some(until) = blocked(Instant::now()) {
                sleep_until(until).await;
            }
            if to.send(message).await.is_err() {
                return;
            }
        }
        // The sender has gone: let what was delivered be read before the other end hears of it.
        sleep(Duration::from_millis(1)).await;
    };
    tokio::select! { () = take => {}, () = give => {} }
}
