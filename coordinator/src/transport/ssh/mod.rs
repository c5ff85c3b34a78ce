//! To a host over the operator's own ssh, with an agent that is sent there and leaves nothing.
//!
//! ```text
//! connect, first   login ─► bootstrap ─► channel ─► link
//! connect, again   login ─► attach (the running agent's folder) ─► channel ─► link
//! ```
//! In: a destination. Out: links. Never: more than 16 logins being opened at once, or a second agent for
//! a capture that already has one.

pub(super) mod channel;
mod control;
pub(super) mod diagnose;
pub(super) mod session;
mod upload;

use super::bootstrap::{self, Programs, Running, Wishes};
use super::{BoxFuture, Connect, News};
use channel::Channel;
use control::ControlFolder;
use model::destination::Destination;
use model::{Finding, FindingCode};
use proto::link::{CoordinatorLink, coordinator_link};
use session::Session;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// Logins that are being opened at once: sshd drops some when more than ten wait (MaxStartups 10:30:100),
/// and a jump host sees them all.
const OPENING_MAX: usize = 16;
/// The same for hosts whose agent runs already: their lease does not wait for hosts that hang.
const AGAIN_MAX: usize = 64;
/// Each login begins up to this much later than it could, so that they do not all come at one instant.
const JITTER_MS: u128 = 100;
/// The rpc's first word, after the mark.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A login and a joined channel, when an agent already runs: on a slow network some round trips.
const AGAIN: Duration = Duration::from_secs(6);
/// How long a master may take to end.
const END: Duration = Duration::from_secs(3);
/// News that may wait.
const NEWS: usize = 64;

/// What all hosts of a run share.
#[derive(Debug)]
pub struct SshRoom {
    control: ControlFolder,
    opening: Semaphore,
    again: Semaphore,
    programs: Arc<Programs>,
    config: Option<PathBuf>,
    wishes: Wishes,
}

impl SshRoom {
    /// `config` replaces the operator's ssh_config; the rest is how agents are sent.
    ///
    /// # Errors
    /// When no folder for control sockets can be made.
    pub fn new(
        programs: Programs,
        config: Option<PathBuf>,
        wishes: Wishes,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            control: ControlFolder::make()?,
            opening: Semaphore::new(OPENING_MAX),
            again: Semaphore::new(AGAIN_MAX),
            programs: Arc::new(programs),
            config,
            wishes,
        }))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ssh {
    room: Arc<SshRoom>,
    destination: Destination,
    /// The agent that runs there.
    running: Mutex<Option<Running>>,
    sockets: Mutex<Vec<PathBuf>>,
    news: mpsc::Sender<News>,
    heard: Mutex<Option<mpsc::Receiver<News>>>,
}

impl Ssh {
    /// A way to one host.
    #[must_use]
    pub fn new(room: Arc<SshRoom>, destination: Destination) -> Self {
        let (news, heard) = mpsc::channel(NEWS);
        Self {
            room,
            destination,
            running: Mutex::default(),
            sockets: Mutex::default(),
            news,
            heard: Mutex::new(Some(heard)),
        }
    }

    async fn open(&self) -> Result<CoordinatorLink, Finding> {
        let running = self.running().clone();
        let channel = match running {
            Some(running) => timeout(AGAIN, self.attach(&running))
                .await
                .unwrap_or_else(|_| {
                    let said = format!("no channel in {} s", AGAIN.as_secs());
                    Err(Finding::new(FindingCode::SshTimeout, said))
                })?,
            None => self.begin().await?,
        };
        let link = timeout(HANDSHAKE, coordinator_link(channel)).await;
        link.map_err(|_| format!("no call in {} s", HANDSHAKE.as_secs()))
            .and_then(|link| link.map_err(|e| e.to_string()))
            .map_err(|said| Finding::new(FindingCode::HostProtocol, said))
    }

    /// The first time: everything.
    async fn begin(&self) -> Result<Channel, Finding> {
        let _turn = self.room.opening.acquire().await;
        // Before the login: reading and compressing takes a second, and an idle master ends.
        let programs = Arc::clone(&self.room.programs);
        let _ = tokio::task::spawn_blocking(move || programs.make_ready()).await;
        let session = self.login().await?;
        // A full queue only means that nobody looks.
        let tell = |news: News| drop(self.news.try_send(news));
        let room = &self.room;
        let begun = bootstrap::bootstrap(&session, &room.programs, &room.wishes, &tell).await;
        let (channel, running) = begun?;
        *self.running() = Some(running);
        Ok(channel)
    }

    /// Again: a new login, since it is the old one's connection that is silent.
    async fn attach(&self, running: &Running) -> Result<Channel, Finding> {
        let _turn = self.room.again.acquire().await;
        let session = self.login().await?;
        let line = running.join_line()?;
        let (channel, _) = channel::open(session, &line, &[], &|_| {}).await?;
        Ok(channel)
    }

    async fn login(&self) -> Result<Arc<Session>, Finding> {
        let jitter = crate::clock::random_bits().map_or(0, |bits| bits % JITTER_MS);
        sleep(Duration::from_millis(u64::try_from(jitter).unwrap_or(0))).await;
        let _ = self.news.try_send(News::Step("logging in"));
        let socket = self.room.control.next_socket();
        self.sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(socket.clone());
        let opened = Session::open(socket, &self.destination, self.room.config.as_deref()).await;
        let _ = self.news.try_send(News::Step("looking around"));
        opened.map(Arc::new)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connect for Ssh {
    fn connect(&self) -> BoxFuture<'_, Result<CoordinatorLink, Finding>> {
        Box::pin(self.open())
    }

    fn can_reconnect(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        AGAIN + HANDSHAKE
    }

    fn old_link_may_live(&self) -> bool {
        // A login takes some round trips, and TCP may have mended the old connection by then.
        true
    }

    fn agent_leaves(&self) -> bool {
        true
    }

    fn take_news(&self) -> Option<mpsc::Receiver<News>> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let sockets =
                std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
            let gone = async {
                for socket in sockets {
                    while socket.exists() {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            };
            let _ = timeout(END, gone).await;
        })
    }
}
