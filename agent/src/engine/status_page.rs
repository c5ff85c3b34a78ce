//! Requests by the gateway's own page, where the host's policy names one: beside any engine, for gateways whose memory does not
//! tell (a build without stub_status in the executable, an engine that reads no memory, a missing right).
//!
//! In: a page on this machine, read at the start, every second and at the end. Out: requests of each second, of the whole host,
//! once a process of a gateway is captured. Never: a redirect that is followed, a page without bounds of size and time, its own
//! readings counted, requests beside stacks of something else than a gateway.

use super::task::lock;
use super::{BoxFuture, Engine, Poll, SharedRecorder, Stopped};
use crate::clock::Clock;
use crate::policy::StatusPage;
use model::profile::{CounterKind, CounterSource};
use model::{CaptureOrder, Finding, FindingCode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SECOND_NS: u64 = 1_000_000_000;
/// Seconds over which requests are spread: no capture lasts longer.
const PARTS_MAX: u64 = 3_600;
/// One reading; a page of a gateway that is so busy has no number in time.
const READING_MAX: Duration = Duration::from_millis(800);
/// Kong's page has some hundred bytes for each worker.
const PAGE_BYTES_MAX: u64 = 256 << 10;
const HEADERS_MAX: usize = 64;

/// An engine, and the requests beside its stacks.
pub(super) struct WithStatusPage {
    engine: Box<dyn Engine>,
    page: StatusPage,
    recorder: SharedRecorder,
    clock: Clock,
    counting: Option<(oneshot::Sender<()>, JoinHandle<Counted>)>,
}

/// What readings came to.
#[derive(Debug, Default)]
struct Counted {
    /// What the page said last, and when it was asked.
    last: Option<(u64, u64)>,
    /// Readings since then, each of which is a request too.
    own: u64,
    /// A difference was taken.
    is_counted: bool,
    /// Why the last reading that failed did.
    why: Option<String>,
    /// Requests by the second, for which no gateway was seen yet.
    held: BTreeMap<u32, u64>,
    /// A process of a gateway is captured.
    has_gateway: bool,
}

impl WithStatusPage {
    pub(super) fn new(
        engine: Box<dyn Engine>,
        page: StatusPage,
        recorder: SharedRecorder,
        clock: Clock,
    ) -> Self {
        Self {
            engine,
            page,
            recorder,
            clock,
            counting: None,
        }
    }
}

impl Engine for WithStatusPage {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        self.engine.arm(order)
    }

    fn start(&mut self, start_mono_ns: u64) {
        self.engine.start(start_mono_ns);
        let (end, ended) = oneshot::channel();
        let reader = Reader {
            page: self.page.clone(),
            recorder: self.recorder.clone(),
            clock: self.clock.clone(),
            start_ns: start_mono_ns,
        };
        self.counting = Some((end, tokio::spawn(reader.count(ended))));
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        self.engine.poll(now_ns)
    }

    fn stop(&mut self, now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async move {
            let counted = self.counting.take().map(|(end, counting)| {
                // Gone only where it has panicked.
                let _ = end.send(());
                counting
            });
            let counted = async {
                match counted {
                    Some(counting) => counting.await.ok(),
                    None => None,
                }
            };
            // Beside each other: the engine's end has a bound of its own.
            let (mut stopped, counted) = tokio::join!(self.engine.stop(now_ns), counted);
            if let Some(counted) = counted.filter(|c| c.has_gateway && !c.is_counted) {
                let why = counted.why.unwrap_or_else(|| "read only once".to_owned());
                let said = format!("{}: {why}", self.page);
                stopped
                    .findings
                    .push(Finding::new(FindingCode::RequestsUnknown, said));
            }
            stopped
        })
    }
}

impl Drop for WithStatusPage {
    fn drop(&mut self) {
        if let Some((_, counting)) = &self.counting {
            counting.abort();
        }
    }
}

struct Reader {
    page: StatusPage,
    recorder: SharedRecorder,
    clock: Clock,
    start_ns: u64,
}

impl Reader {
    async fn count(self, mut ended: oneshot::Receiver<()>) -> Counted {
        let mut counted = Counted::default();
        let left = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(self.clock.now_ns()));
        let mut next_ns = self.start_ns;
        loop {
            let is_last = tokio::select! {
                () = tokio::time::sleep(left(next_ns)) => false,
                _ = &mut ended => true,
            };
            let now_ns = self.clock.now_ns();
            // Ended before it began.
            if is_last && now_ns < self.start_ns {
                return counted;
            }
            let read = read(&self.page).await;
            counted.take(read, now_ns.saturating_sub(self.start_ns));
            let mut recorder = lock(&self.recorder);
            counted.has_gateway =
                counted.has_gateway || recorder.has_role(|role| role.starts_with("nginx: "));
            if counted.has_gateway {
                for (bin, requests) in std::mem::take(&mut counted.held) {
                    recorder.count(CounterSource::Host, bin, CounterKind::Requests, requests);
                }
            }
            drop(recorder);
            if is_last {
                return counted;
            }
            next_ns = next_ns.saturating_add(SECOND_NS).max(self.clock.now_ns());
        }
    }
}

impl Counted {
    /// One reading, asked for so long after the start: requests since the last one, spread over the seconds since then.
    fn take(&mut self, read: Result<u64, String>, now_ns: u64) {
        self.own += 1;
        let total = match read {
            Ok(total) => total,
            Err(why) => {
                self.why = Some(why);
                return;
            }
        };
        let own = std::mem::take(&mut self.own);
        let Some((before, at_ns)) = self.last.replace((total, now_ns)) else {
            return;
        };
        self.is_counted = true;
        // A gateway that was started anew begins at 0.
        let since = total.saturating_sub(before).saturating_sub(own);
        let passed_ns = now_ns.saturating_sub(at_ns);
        let parts = (passed_ns.saturating_add(SECOND_NS / 2) / SECOND_NS).clamp(1, PARTS_MAX);
        for part in 0..parts {
            // What cannot be divided is in the first ones.
            let share = since / parts + u64::from(part < since % parts);
            let middle_ns = at_ns + (passed_ns / (2 * parts)) * (2 * part + 1);
            let bin = u32::try_from(middle_ns / SECOND_NS).unwrap_or(u32::MAX);
            if share > 0 {
                let held = self.held.entry(bin).or_default();
                *held = held.saturating_add(share);
            }
        }
    }
}

/// What the page says, in bounded time.
async fn read(page: &StatusPage) -> Result<u64, String> {
    match tokio::time::timeout(READING_MAX, get(page)).await {
        Ok(body) => requests(&body?).ok_or_else(|| {
            "is neither nginx's stub_status nor Kong's /status: no number of requests".to_owned()
        }),
        Err(_) => Err(format!("no answer within {} ms", READING_MAX.as_millis())),
    }
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection.
async fn get(page: &StatusPage) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(page.address)
        .await
        .map_err(|e| e.to_string())?;
    let (path, host) = (&page.path, &page.host);
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: fleetflame-agent\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream
        .take(PAGE_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .map_err(|e| e.to_string())?;
    body(&answer).map(<[u8]>::to_vec)
}

/// What stands below the head of an answer.
fn body(answer: &[u8]) -> Result<&[u8], String> {
    if answer.len() as u64 >= PAGE_BYTES_MAX {
        return Err(format!("answers with {PAGE_BYTES_MAX} bytes or more"));
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Err("ends before its answer does".to_owned()),
        Err(e) => return Err(format!("does not answer as HTTP: {e}")),
    };
    match response.code {
        Some(200) => Ok(answer.get(head..).unwrap_or_default()),
        code => Err(format!("answers {}", code.unwrap_or(0))),
    }
}

/// The number of requests on a page: `server.total_requests` of Kong's JSON, else the third number of stub_status's third
/// line, which stands below a line that ends in `requests`.
fn requests(page: &[u8]) -> Option<u64> {
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(page) {
        return json.pointer("/server/total_requests")?.as_u64();
    }
    let text = std::str::from_utf8(page).ok()?;
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("server accepts handled requests"))?;
    lines.next()?.split_ascii_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
#[path = "status_page_tests.rs"]
mod tests;
