//! A coordinator that comes back in the very moment in which a capture ends is answered.

use super::{Command, Event, HeldStore, ResumeAt, Session, SessionHandle};
use crate::clock::TokioClock;
use crate::engine::{BoxFuture, Engine, Poll, Stopped};
use crate::policy::tests::order;
use model::profile::{Measure, Recorder, RecorderLimits};
use model::{CaptureOrder, Finding, FindingCode, RunId};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::mpsc;

/// Takes nothing; while it stops, somebody attaches.
struct Stopping {
    session: Arc<OnceLock<SessionHandle>>,
    events: mpsc::Sender<(RunId, Event)>,
}

impl Engine for Stopping {
    fn arm<'a>(
        &'a mut self,
        _: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn start(&mut self, _: u64) {}

    fn poll(&mut self, _: u64) -> Poll {
        Poll::default()
    }

    fn stop(&mut self, _: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async {
            let attach = Command::Attach {
                connection: 2,
                events: self.events.clone(),
                resume: Some(ResumeAt {
                    epoch: 1,
                    seq: 0,
                    new_epoch: false,
                    collect: true,
                }),
            };
            assert!(self.session.get().unwrap().say(attach).await);
            Stopped::default()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_while_a_capture_ends_hears_its_end() {
    let (events, mut heard) = mpsc::channel(8);
    let address = Arc::new(OnceLock::new());
    let engine = Stopping {
        session: Arc::clone(&address),
        events,
    };
    let recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
    let (session, handle) = Session::new(
        CaptureOrder {
            lease_ms: 1_000,
            ..order()
        },
        Box::new(engine),
        Arc::new(Mutex::new(recorder)),
        Arc::new(TokioClock::shifted(0)),
        HeldStore::default(),
        || 0,
    );
    address.set(handle.clone()).unwrap();
    // Nobody is heard, so the lease ends it.
    session.run().await;
    let Some((_, Event::Finished { findings, .. })) = heard.recv().await else {
        panic!("nobody answered");
    };
    let lease = |f: &Finding| f.code == FindingCode::LeaseExpired;
    assert!(findings.iter().any(lease), "{findings:?}");
    // Whoever comes later is told that there is no capture.
    assert!(!handle.say(Command::Heard).await);
}
