//! A capture whose engine has done all that it was to do ends then, and not when its time is over; one that cannot arm
//! is out of the way of the next when that is said.

use super::{Command, Event, HeldStore, Session, SessionHandle};
use crate::clock::TokioClock;
use crate::engine::{BoxFuture, Engine, Poll, Stopped};
use crate::policy::tests::order;
use model::profile::{Measure, Recorder, RecorderLimits};
use model::{CaptureOrder, Finding, FindingCode, RunId};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

/// A script that ends by itself at the third look, or one that cannot be armed.
#[derive(Default)]
struct Script {
    looks: u32,
    is_missing: bool,
}

impl Engine for Script {
    fn arm<'a>(
        &'a mut self,
        _: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        let missing = Finding::new(FindingCode::EngineUnavailable, "no module");
        let armed = match self.is_missing {
            true => Err(vec![missing]),
            false => Ok(Vec::new()),
        };
        Box::pin(async { armed })
    }

    fn start(&mut self, _: u64) {}

    fn poll(&mut self, _: u64) -> Poll {
        self.looks += 1;
        Poll {
            done: self.looks > 2,
            ..Poll::default()
        }
    }

    fn stop(&mut self, _: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async { Stopped::default() })
    }
}

/// Starts a capture and attaches to it.
async fn started(
    engine: Script,
    order: CaptureOrder,
) -> (SessionHandle, mpsc::Receiver<(RunId, Event)>) {
    let recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
    let (session, handle) = Session::new(
        order,
        Box::new(engine),
        Arc::new(Mutex::new(recorder)),
        Arc::new(TokioClock::shifted(0)),
        HeldStore::default(),
        || 0,
    );
    let (events, heard) = mpsc::channel(8);
    let attach = Command::Attach {
        connection: 1,
        events,
        resume: None,
    };
    assert!(handle.say(attach).await);
    tokio::spawn(session.run());
    (handle, heard)
}

#[tokio::test(start_paused = true)]
async fn what_is_done_before_its_time_ends_whole() {
    let order = CaptureOrder {
        duration_ms: 200_000,
        ..order()
    };
    let began = Instant::now();
    let (handle, mut heard) = started(Script::default(), order).await;
    let finished = loop {
        match heard.recv().await.expect("it ended without a word").1 {
            Event::Armed(_) => assert!(handle.say(Command::Start(0)).await),
            Event::Finished {
                complete, findings, ..
            } => break (complete, findings),
            _ => assert!(handle.say(Command::Heard).await),
        }
    };
    assert_eq!(finished, (true, Vec::new()));
    // This clock stands while anything works: it is no measurement.
    assert!(began.elapsed() < Duration::from_secs(4), "it waited");
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_a_refusal_may_ask_again_at_once() {
    let engine = Script {
        is_missing: true,
        ..Script::default()
    };
    let (handle, mut heard) = started(engine, order()).await;
    let findings = loop {
        if let Event::Refused(findings) = heard.recv().await.expect("it ended without a word").1 {
            break findings;
        }
    };
    assert_eq!(findings[0].code, FindingCode::EngineUnavailable);
    assert!(!handle.is_capturing(), "it is in the way of the next");
}
