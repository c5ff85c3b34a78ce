//! How a host's link is opened, and opened again after it broke.
//!
//! In: a connector. Out: a link on which greetings were exchanged. Never: a decision about the run.

use super::host::{Said, Talk, protocol, say};
use crate::plan::LEASE_MS;
use crate::transport::{Connector, News};
use model::{Finding, FindingCode};
use proto::link::CoordinatorLink;
use proto::v1::{self, from_agent, from_coordinator::Say};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

/// Between two tries to open a new link.
const RETRY: Duration = Duration::from_millis(500);
/// The same while the agent's lease may be about to end: a login then takes what is left of it.
const RETRY_LATE: Duration = Duration::from_millis(250);
/// From this silence on it may be.
const LATE: std::ops::Range<Duration> =
    Duration::from_millis(LEASE_MS / 2)..Duration::from_millis(LEASE_MS);
/// A lost host is given up after this: its lease is over, and what it held it would have said.
const GIVE_UP: Duration = Duration::from_secs(12);
/// A first connection is tried again for this long: an agent may be just starting.
const FIRST_TRIES: Duration = Duration::from_secs(3);
/// Between two news about what is being sent.
const NEWS: Duration = Duration::from_millis(500);

impl Talk {
    /// Opens the first link and exchanges greetings, passing the news of it on.
    pub(super) async fn first_link(&mut self) -> Result<CoordinatorLink, Finding> {
        let began = Instant::now();
        let mut news = self.task.connector.take_news();
        let mut told = None;
        loop {
            let opened = greet(Arc::clone(&self.task.connector));
            tokio::pin!(opened);
            let opened = loop {
                tokio::select! {
                    biased;
                    Some(item) = next(&mut news) => self.pass_on(item, &mut told).await,
                    opened = &mut opened => break opened,
                    // Before there is a link nothing else is asked of a host.
                    _ = self.task.commands.recv() => {
                        let said = "the run ended before the host answered";
                        return Err(Finding::new(FindingCode::HostUnreachable, said));
                    }
                }
            };
            match opened {
                Err(f)
                    if f.code == FindingCode::HostUnreachable
                        && self.task.connector.can_reconnect()
                        && began.elapsed() < FIRST_TRIES =>
                {
                    sleep(RETRY).await;
                }
                other => {
                    self.heard = Instant::now();
                    return other;
                }
            }
        }
    }

    async fn pass_on(&self, item: News, told: &mut Option<Instant>) {
        if let News::Sending {
            sent_bytes,
            total_bytes,
        } = item
        {
            let soon = told.is_some_and(|at| at.elapsed() < NEWS);
            if soon && sent_bytes < total_bytes {
                return;
            }
            *told = Some(Instant::now());
        }
        self.tell(Said::News(item)).await;
    }

    /// Opens a new link after one broke: another try begins every [`RETRY`], or [`RETRY_LATE`], while earlier ones still
    /// wait, since what was sent into a cut is only sent again after a second or more. `old` is the
    /// silent link, if it may live: when it answers first, it is the one. That it speaks is not enough.
    /// What the agent sent into the cut may come a second or more before what it is sent, and until then
    /// its lease runs on. But it says that the network has mended: a try that begins then gets through.
    pub(super) async fn new_link(
        &mut self,
        old: Option<CoordinatorLink>,
        why: Finding,
    ) -> Result<CoordinatorLink, Finding> {
        if !self.task.connector.can_reconnect() {
            return Err(why);
        }
        let patience = self.task.connector.patience();
        let began = Instant::now();
        let (mut last, mut old) = (why, old);
        let asked_ns = self.task.clock.now_ns();
        let silent_since = self.heard;
        let (mut again, mut next_try) = (interval(RETRY_LATE), began);
        let mut mended = false;
        let mut tries = JoinSet::new();
        while began.elapsed() < GIVE_UP {
            let done = tokio::select! {
                heard = hear(&mut old) => {
                    match heard {
                        Some(message) => {
                            self.heard = Instant::now();
                            if !std::mem::replace(&mut mended, true) {
                                next_try = self.heard;
                                again.reset_immediately();
                            }
                            let answers = is_answer(&message, asked_ns);
                            if let (Some(word), Some(link)) = (message.say, &old) {
                                self.hear(word, link).await?;
                            }
                            if let Some(link) = old.take_if(|_| answers) {
                                return Ok(link);
                            }
                        }
                        None => old = None,
                    }
                    continue;
                }
                _ = again.tick() => {
                    if Instant::now() < next_try {
                        continue;
                    }
                    let late = LATE.contains(&silent_since.elapsed());
                    next_try = Instant::now() + if late { RETRY_LATE } else { RETRY };
                    if let Some(link) = &old {
                        self.probe(link).await;
                    }
                    tries.spawn(timeout(patience, greet(Arc::clone(&self.task.connector))));
                    continue;
                }
                Some(done) = tries.join_next() => done,
            };
            match done {
                Ok(Ok(Ok(link))) => {
                    self.heard = Instant::now();
                    return Ok(link);
                }
                // Somebody else answers now, or the agent has ended: that will not mend itself.
                Ok(Ok(Err(f))) if is_final(f.code) => {
                    return Err(after_silence(f, self.heard.elapsed()));
                }
                Ok(Ok(Err(f))) => last = Finding::new(FindingCode::HostLost, f.evidence),
                Ok(Err(_)) | Err(_) => {
                    last = Finding::new(FindingCode::HostLost, "no answer to a new connection");
                }
            }
        }
        Err(last)
    }
}

/// Whether this answers what was asked at `asked_ns` or later, on the coordinator's clock.
fn is_answer(message: &v1::FromAgent, asked_ns: u64) -> bool {
    matches!(&message.say, Some(from_agent::Say::ClockEcho(echo)) if echo.coordinator_mono_ns >= asked_ns)
}

/// Says of an agent that is gone whether its lease can have been over: then it did as it must, and it was the network.
fn after_silence(mut finding: Finding, silence: Duration) -> Finding {
    if finding.code == FindingCode::AgentGone && silence.as_millis() >= u128::from(LEASE_MS) {
        finding.evidence = format!(
            "not heard for {:.1} s, and an agent ends by itself after {} s without a word; {}",
            silence.as_secs_f64(),
            LEASE_MS / 1_000,
            finding.evidence
        );
    }
    finding
}

fn is_final(code: FindingCode) -> bool {
    matches!(
        code,
        FindingCode::HostVersion | FindingCode::AgentGone | FindingCode::SshHostKeyChanged
    )
}

/// The next news; never, when there is nobody to tell any.
async fn next(news: &mut Option<mpsc::Receiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

/// The next word on a link that may be dead; never, when there is no such link.
async fn hear(old: &mut Option<CoordinatorLink>) -> Option<v1::FromAgent> {
    match old {
        Some(link) => link.rx.recv().await,
        None => std::future::pending().await,
    }
}

/// Opens one link and exchanges greetings.
async fn greet(connector: Connector) -> Result<CoordinatorLink, Finding> {
    let mut link = connector.connect().await?;
    let hello = match timeout(Duration::from_secs(5), link.rx.recv()).await {
        Ok(Some(v1::FromAgent {
            say: Some(from_agent::Say::Hello(hello)),
        })) => hello,
        Ok(Some(_)) => return Err(protocol("its first word was not Hello")),
        _ => return Err(protocol("it did not say Hello")),
    };
    if hello.protocol != proto::PROTOCOL {
        let said = format!(
            "the agent ({}) speaks protocol {}, this coordinator {}",
            hello.agent_version,
            hello.protocol,
            proto::PROTOCOL
        );
        return Err(Finding::new(FindingCode::HostVersion, said));
    }
    let welcome = v1::Welcome {
        protocol: proto::PROTOCOL,
        coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    say(&link, Say::Welcome(welcome)).await;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_gone_after_its_lease_is_no_riddle() {
        let gone = || Finding::new(FindingCode::AgentGone, "agent: not found");
        let long = after_silence(gone(), Duration::from_millis(4_200));
        assert!(long.evidence.starts_with("not heard for 4.2 s"), "{long}");
        assert!(long.evidence.ends_with("; agent: not found"), "{long}");
        let soon = after_silence(gone(), Duration::from_millis(3_900));
        assert_eq!(soon.evidence, "agent: not found");
        let other = Finding::new(FindingCode::HostVersion, "2");
        let other = after_silence(other, Duration::from_secs(9));
        assert_eq!(other.evidence, "2");
    }
}
