//! A channel to a running agent: bytes sent ahead, noise skipped up to the start mark, then the rpc.
//!
//! In: an ssh child. Out: a byte stream of the agent's. Never: a byte of a login shell's chatter in the
//! rpc, or more than 64 KiB and 15 s of it waited through.

use super::super::News;
use super::diagnose::diagnose;
use super::session::Session;
use super::upload::Upload;
use model::{Finding, FindingCode};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

/// Most that may come before the mark.
const NOISE_BYTES_MAX: usize = 64 << 10;
/// Longest wait for the mark when nothing was sent ahead; else as much longer as the sending took.
const MARK: Duration = Duration::from_secs(15);
/// Longest wait for the mark whatsoever.
const MARK_MAX: Duration = Duration::from_secs(75);
/// Between two words that it is still waited for.
const TELL: Duration = Duration::from_secs(2);
/// Longest wait for a piece of what is sent ahead to be taken: less than a survey waits for any news.
const PIECE: Duration = Duration::from_secs(12);
/// Bytes of the far side's stderr that are kept.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// What `start.sh` says for each piece that it took.
const TOOK: &[u8] = b"fleetflame-took\n";

/// A byte stream to an agent. Dropping it ends the channel and the login.
#[derive(Debug)]
pub struct Channel {
    input: ChildStdin,
    output: ChildStdout,
    /// What came behind the mark in the same read.
    ahead: Vec<u8>,
    taken: usize,
    #[expect(dead_code, reason = "killed when it is dropped")]
    child: Child,
    #[expect(dead_code, reason = "the login lives as long as its channel")]
    session: Arc<Session>,
}

/// Sends `bytes`, telling how many were taken, and waits for the agent's mark. Gives what the far side has
/// said on stderr until then.
///
/// # Errors
/// A finding with the far side's own words.
pub async fn open(
    session: Arc<Session>,
    line: &str,
    bytes: &[u8],
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<(Channel, String), Finding> {
    let mut child = session.channel(line)?;
    let (Some(mut input), Some(mut output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Finding::new(FindingCode::SshNoAnswer, "ssh has no pipes"));
    };
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let listening = tokio::spawn(listen(errors, Arc::clone(&complaints)));
    let mut noise = Vec::new();
    let met = deliver(&mut input, &mut output, &mut noise, bytes, tell).await;
    let found = match met {
        Ok(found) => found,
        Err(unmet) => {
            let _ = timeout(Duration::from_secs(2), listening).await;
            let said = String::from_utf8_lossy(&complaints.lock().await).into_owned();
            return Err(explain(&unmet, &said, &noise));
        }
    };
    let said = String::from_utf8_lossy(&complaints.lock().await).into_owned();
    let channel = Channel {
        input,
        output,
        ahead: noise.split_off(found),
        taken: 0,
        child,
        session,
    };
    Ok((channel, said))
}

enum Unmet {
    Closed,
    Late(String),
    Flood,
}

fn explain(unmet: &Unmet, said: &str, noise: &[u8]) -> Finding {
    let shown = noise.len().min(300);
    let heard = String::from_utf8_lossy(&noise[noise.len() - shown..])
        .replace(&*String::from_utf8_lossy(TOOK), "");
    match unmet {
        Unmet::Closed => diagnose(&format!("{said}\n{heard}"), FindingCode::SshNoAnswer),
        Unmet::Late(late) => {
            let words = format!("{late}. It said: {} {heard}", said.trim());
            Finding::new(FindingCode::SshNoAnswer, words)
        }
        Unmet::Flood => {
            let kib = NOISE_BYTES_MAX >> 10;
            let words = format!("{kib} KiB came without a start mark, ending in: {heard}");
            Finding::new(FindingCode::SshNoAnswer, words)
        }
    }
}

/// Sends `bytes` as fast as the far side takes them and reads until the mark has been seen; gives where the
/// bytes behind it begin in `noise`.
async fn deliver(
    input: &mut ChildStdin,
    output: &mut ChildStdout,
    noise: &mut Vec<u8>,
    bytes: &[u8],
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<usize, Unmet> {
    let mut upload = Upload::new(bytes.len() as u64);
    let mut heard = Heard::default();
    let began = Instant::now();
    let (mut until, mut broken) = (deadline(&upload, began), false);
    let mut again = interval_at(began + TELL, TELL);
    loop {
        let from = upload.sent_bytes() as usize;
        let room = match broken {
            true => 0,
            false => upload.room_bytes() as usize,
        };
        tokio::select! {
            biased;
            read = output.read_buf(noise) => {
                if !matches!(read, Ok(1..)) {
                    return Err(Unmet::Closed);
                }
                let pieces = heard.pieces(noise);
                for _ in 0..pieces {
                    upload.took(began.elapsed());
                }
                if pieces > 0 {
                    until = deadline(&upload, began);
                    let (sent_bytes, total_bytes) = (upload.taken_bytes(), upload.total_bytes());
                    tell(News::Sending { sent_bytes, total_bytes });
                }
                if let Some(found) = heard.mark(noise) {
                    return Ok(found);
                }
                if noise.len() > NOISE_BYTES_MAX {
                    return Err(Unmet::Flood);
                }
            }
            wrote = input.write(&bytes[from..from + room]), if room > 0 => match wrote {
                Ok(n) if n > 0 => upload.wrote(n as u64, began.elapsed()),
                // It ended before it had read all: what it said says why.
                _ => {
                    broken = true;
                    until = Instant::now() + MARK;
                }
            },
            () = sleep_until(until) => return Err(overdue(&upload, broken, began)),
            _ = again.tick(), if upload.is_done() => tell(News::Step("starting the agent")),
        }
    }
}

/// Until when the far side has to say something new.
fn deadline(upload: &Upload, began: Instant) -> Instant {
    Instant::now()
        + match upload.is_done() {
            true => (MARK + began.elapsed()).min(MARK_MAX),
            false => PIECE,
        }
}

fn overdue(upload: &Upload, broken: bool, began: Instant) -> Unmet {
    if broken {
        return Unmet::Closed;
    }
    Unmet::Late(if upload.is_done() {
        format!("no start mark in {} s", began.elapsed().as_secs())
    } else {
        format!(
            "{} of {} bytes were taken, and none in {} s",
            upload.taken_bytes(),
            upload.total_bytes(),
            PIECE.as_secs()
        )
    })
}

/// What was found in what the far side says, and where to look on.
#[derive(Debug, Default)]
struct Heard {
    pieces_to: usize,
    mark_to: usize,
}

impl Heard {
    /// How many more pieces it says it took.
    fn pieces(&mut self, noise: &[u8]) -> usize {
        let mut pieces = 0;
        while let Some(at) = find(&noise[self.pieces_to..], TOOK) {
            self.pieces_to += at + TOOK.len();
            pieces += 1;
        }
        self.pieces_to = self
            .pieces_to
            .max((noise.len() + 1).saturating_sub(TOOK.len()));
        pieces
    }

    /// Where the bytes behind the mark begin.
    fn mark(&mut self, noise: &[u8]) -> Option<usize> {
        let mark = proto::START_MARK;
        if let Some(at) = find(&noise[self.mark_to..], mark) {
            return Some(self.mark_to + at + mark.len());
        }
        self.mark_to = (noise.len() + 1).saturating_sub(mark.len());
        None
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

async fn listen(errors: ChildStderr, into: Arc<Mutex<Vec<u8>>>) {
    let mut errors = errors.take(STDERR_BYTES_MAX);
    let mut bytes = Vec::new();
    while errors.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        into.lock().await.clone_from(&bytes);
    }
    // Past the bound the child still needs somebody who reads.
    let _ = tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await;
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let ahead = &this.ahead[this.taken..];
        if ahead.is_empty() {
            return Pin::new(&mut this.output).poll_read(cx, buf);
        }
        let n = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..n]);
        this.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.input).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
