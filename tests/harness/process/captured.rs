//! The output of a child, read as it comes and kept within a bound.
//!
//! In: a pipe. Out: the end of what came through it. Never: a child that blocks on a full pipe.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What is kept of each output stream: its end.
const KEPT_BYTES: usize = 8 << 20;

/// The end of a stream, read by a thread so that the child never blocks on a full pipe.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured(Arc<(Mutex<Buffer>, Condvar)>);

#[derive(Debug, Default)]
struct Buffer {
    bytes: VecDeque<u8>,
    forgotten: u64,
    closed: bool,
}

impl Captured {
    pub(super) fn from(stream: Option<impl Read + Send + 'static>) -> Self {
        let captured = Self::default();
        let writer = captured.clone();
        if let Some(stream) = stream {
            thread::spawn(move || writer.read_all(stream));
        }
        captured
    }

    fn read_all(&self, mut stream: impl Read) {
        let mut chunk = [0; 16 << 10];
        loop {
            match stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) if n > 0 => self.keep(chunk.get(..n).unwrap_or_default()),
                _ => break,
            }
        }
        self.lock().closed = true;
        self.0.1.notify_all();
    }

    fn keep(&self, chunk: &[u8]) {
        let mut buffer = self.lock();
        buffer.bytes.extend(chunk);
        let excess = buffer.bytes.len().saturating_sub(KEPT_BYTES);
        buffer.bytes.drain(..excess);
        buffer.forgotten += excess as u64;
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_closed(&self, deadline: Duration) {
        let guard = self.lock();
        let _ = self
            .0
            .1
            .wait_timeout_while(guard, deadline, |buffer| !buffer.closed);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.iter().copied().collect()
    }

    pub(super) fn text(&self) -> String {
        let forgotten = self.lock().forgotten;
        let text = String::from_utf8_lossy(&self.bytes()).into_owned();
        if forgotten == 0 {
            text
        } else {
            format!("[{forgotten} bytes forgotten]\n{text}")
        }
    }
}
