//! A capture that runs as a task of its own: orders to it, and what it tells.
//!
//! In: the task, when a capture is armed. Out: its news at each look, its account at the end. Never: a wait for the
//! task outside of `stop`.

use super::{Poll, Stopped};
use model::{Finding, FindingCode};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Locks even if a thread panicked with it: the values are whole at any time.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a capture tells while it runs.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When it began, on the agent's clock.
    pub started_ns: Option<u64>,
    /// What is new.
    pub findings: Vec<Finding>,
    /// It ended by itself, and why.
    pub ended: Option<Finding>,
    /// It has done what it was to do before its time.
    pub done: bool,
    /// CPU time of its children since then.
    pub children_cpu_ns: u64,
}

/// A capture's task, once there is one.
#[derive(Default)]
pub(super) struct CaptureTask {
    /// Shared with the capture.
    pub told: Arc<Mutex<Told>>,
    running: Option<Running>,
}

/// Dropping `stop` ends it, too.
struct Running {
    start: Option<oneshot::Sender<u64>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Stopped>,
}

impl CaptureTask {
    /// Runs what `capture` makes of its start (the agent's clock, in nanoseconds) and its end.
    pub(super) fn run<F>(
        &mut self,
        capture: impl FnOnce(oneshot::Receiver<u64>, oneshot::Receiver<()>) -> F,
    ) where
        F: Future<Output = Stopped> + Send + 'static,
    {
        let (start, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(capture(started, stopped));
        let start = Some(start);
        self.running = Some(Running { start, stop, task });
    }

    /// Tells it when to begin, the first time.
    pub(super) fn start(&mut self, start_mono_ns: u64) {
        let start = self.running.as_mut().and_then(|r| r.start.take());
        if let Some(start) = start {
            let _ = start.send(start_mono_ns);
        }
    }

    /// What is new.
    pub(super) fn poll(&self, now_ns: u64) -> Poll {
        let mut told = lock(&self.told);
        Poll {
            started_mono_ns: told.started_ns.filter(|s| *s <= now_ns),
            findings: std::mem::take(&mut told.findings),
            ended: told.ended.take(),
            done: told.done,
            children_cpu_ns: told.children_cpu_ns,
        }
    }

    /// Ends it, and waits for its account; what it told and nobody took is a part of that.
    pub(super) async fn stop(&mut self) -> Stopped {
        let Some(running) = self.running.take() else {
            return Stopped::default();
        };
        let _ = running.stop.send(());
        let mut stopped = running.task.await.unwrap_or_else(|e| Stopped {
            findings: vec![Finding::new(FindingCode::EngineFailed, e.to_string())],
            ..Stopped::default()
        });
        let told = std::mem::take(&mut lock(&self.told).findings);
        stopped.findings.splice(0..0, told);
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_hears_its_start_and_end_and_what_it_told_is_not_lost() {
        let mut task = CaptureTask::default();
        assert_eq!(task.stop().await.findings, []);
        let told = Arc::clone(&task.told);
        task.run(|started, stopped| async move {
            lock(&told).started_ns = started.await.ok();
            let _ = stopped.await;
            let note = |said| Finding::new(FindingCode::Interrupted, said);
            lock(&told).findings.push(note("told"));
            Stopped {
                findings: vec![note("account")],
                ..Stopped::default()
            }
        });
        task.start(5);
        task.start(6);
        while lock(&task.told).started_ns.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(task.poll(4).started_mono_ns, None);
        assert_eq!(task.poll(5).started_mono_ns, Some(5));
        let said: Vec<String> = task
            .stop()
            .await
            .findings
            .into_iter()
            .map(|f| f.evidence)
            .collect();
        assert_eq!(said, ["told", "account"]);
        assert_eq!(task.stop().await.findings, [], "it ends once");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_a_finding() {
        let mut task = CaptureTask::default();
        task.run(|_, _| async { panic!("it broke") });
        let findings = task.stop().await.findings;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].code, FindingCode::EngineFailed);
    }
}
