//! A byte stream that can be cut from this side, and that tells when its user has let it go.
//!
//! In: any byte stream. Out: the same, with two switches. Never: a stream that outlives its link
//! because a library's task still holds it (a silently dead TCP connection would live for minutes).

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// See the module.
pub(super) struct Severable<IO> {
    io: IO,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    gone: CancellationToken,
}

impl<IO> Severable<IO> {
    /// Wraps `io`; cancelling `cut` breaks it, and `gone` is cancelled when it is dropped.
    pub(super) fn new(io: IO, cut: &CancellationToken, gone: &CancellationToken) -> Self {
        Self {
            io,
            cut: Box::pin(cut.clone().cancelled_owned()),
            gone: gone.clone(),
        }
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> Option<std::io::Error> {
        let cut = self.cut.as_mut().poll(cx).is_ready();
        cut.then(|| {
            std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the link was closed")
        })
    }
}

impl<IO> Drop for Severable<IO> {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl<IO> Connected for Severable<IO> {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl<IO: AsyncRead + Unpin> AsyncRead for Severable<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(error) = self.broken(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Severable<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if let Some(error) = self.broken(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if let Some(error) = self.broken(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.broken(cx).is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
