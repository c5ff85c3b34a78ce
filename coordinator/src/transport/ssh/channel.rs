//! A channel to a running agent: bytes sent ahead, noise skipped up to the start mark, then the rpc.
//!
//! In: an ssh child. Out: a byte stream of the agent's. Never: a byte of a login shell's chatter in the
//! rpc, or more than 64 KiB and 15 s of it waited through.

use super::super::News;
use super::diagnose::diagnose;
use super::session::Session;
use model::{Finding, FindingCode};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval, timeout};

/// Most that may come before the mark.
const NOISE_BYTES_MAX: usize = 64 << 10;
/// Longest wait for the mark when nothing was sent ahead; else as much longer as the sending took.
const MARK: Duration = Duration::from_secs(15);
/// Longest wait for the mark whatsoever.
const MARK_MAX: Duration = Duration::from_secs(75);
/// Between two words that it is still waited for.
const TELL: Duration = Duration::from_secs(2);
/// Longest wait for a piece of what is sent ahead to leave: less than a survey waits for any news.
const PIECE: Duration = Duration::from_secs(12);
/// Bytes of the far side's stderr that are kept.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// Bytes of one piece.
const PIECE_BYTES: usize = 32 << 10;

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

/// Sends `bytes`, telling how many have gone, and waits for the agent's mark. Gives what the far side has
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
    let met = {
        let mark = find_mark(&mut output, &mut noise);
        tokio::pin!(mark);
        let began = Instant::now();
        let gone = tokio::select! {
            biased;
            met = &mut mark => Err(met),
            gone = send(&mut input, bytes, tell) => Ok(gone),
        };
        match gone {
            Err(met) => met,
            Ok(Err(Unmet::Late(late))) => Err(Unmet::Late(late)),
            // It ended before it had read all: what it said says why.
            Ok(Err(unmet)) => timeout(MARK, mark).await.unwrap_or(Err(unmet)),
            // What has left us is not there yet: ssh has up to 2 MiB of it on the way.
            Ok(Ok(())) => {
                let patience = (MARK + began.elapsed()).min(MARK_MAX);
                timeout(patience, while_telling(mark, tell))
                    .await
                    .unwrap_or_else(|_| {
                        let late = format!("no start mark in {} s", patience.as_secs());
                        Err(Unmet::Late(late))
                    })
            }
        }
    };
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
    let heard = String::from_utf8_lossy(&noise[noise.len() - shown..]);
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

/// Reads until the mark has been seen; gives where the bytes behind it begin in `noise`.
async fn find_mark(output: &mut ChildStdout, noise: &mut Vec<u8>) -> Result<usize, Unmet> {
    let mark = proto::START_MARK;
    let mut looked = 0;
    loop {
        if let Some(at) = noise[looked..].windows(mark.len()).position(|w| w == mark) {
            return Ok(looked + at + mark.len());
        }
        looked = (noise.len() + 1).saturating_sub(mark.len());
        if noise.len() > NOISE_BYTES_MAX {
            return Err(Unmet::Flood);
        }
        match output.read_buf(noise).await {
            Ok(0) | Err(_) => return Err(Unmet::Closed),
            Ok(_) => {}
        }
    }
}

async fn send(
    input: &mut ChildStdin,
    bytes: &[u8],
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<(), Unmet> {
    let total_bytes = bytes.len() as u64;
    let mut sent_bytes = 0;
    for piece in bytes.chunks(PIECE_BYTES) {
        match timeout(PIECE, input.write_all(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Unmet::Closed),
            Err(_) => {
                let late = format!(
                    "{sent_bytes} of {total_bytes} bytes were taken, and none in {} s",
                    PIECE.as_secs()
                );
                return Err(Unmet::Late(late));
            }
        }
        sent_bytes += piece.len() as u64;
        tell(News::Sending {
            sent_bytes,
            total_bytes,
        });
    }
    Ok(())
}

/// The same future; meanwhile whoever waits for this host hears that it comes nearer.
async fn while_telling<T>(done: impl Future<Output = T>, tell: &(dyn Fn(News) + Send + Sync)) -> T {
    let mut again = interval(TELL);
    tokio::pin!(done);
    loop {
        tokio::select! {
            done = &mut done => return done,
            _ = again.tick() => tell(News::Step("starting the agent")),
        }
    }
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
