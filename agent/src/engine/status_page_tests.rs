//! The page by real sockets: what is counted of it, and what a page that is none costs.

use super::*;
use crate::clock::SystemClock;
use model::profile::{Measure, Process, Recorder, RecorderLimits, Series};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::time::Instant;

const STUB: &str = "Active connections: 2 \nserver accepts handled requests\n 10 10 TOTAL \nReading: 0 Writing: 1 Waiting: 1 \n";
const KONG: &str =
    r#"{"database":{"reachable":true},"server":{"connections_accepted":4,"total_requests":TOTAL}}"#;

/// An engine that does nothing.
struct Idle;

impl Engine for Idle {
    fn arm<'a>(
        &'a mut self,
        _order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn start(&mut self, _start_mono_ns: u64) {}
    fn poll(&mut self, _now_ns: u64) -> Poll {
        Poll::default()
    }
    fn stop(&mut self, _now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async { Stopped::default() })
    }
}

/// Answers every request with what `answer` makes of its number, and hangs up; the page's address.
async fn serve(answer: impl Fn(u64) -> String + Send + 'static) -> StatusPage {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/status", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 1.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut asked = [0; 1_024];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            assert!(asked[..length].starts_with(b"GET /status HTTP/1.0\r\n"));
            let _ = stream.write_all(answer(number).as_bytes()).await;
        }
    });
    StatusPage::try_from(url).unwrap()
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a capture of a gateway for some time counts in all, and what it finds.
async fn capture(page: StatusPage, time: Duration) -> (u64, Vec<Finding>) {
    capture_of("nginx: worker", page, time).await
}

async fn capture_of(role: &str, page: StatusPage, time: Duration) -> (u64, Vec<Finding>) {
    let limits = RecorderLimits::default();
    let measure = Measure::of(model::job::Probe::OnCpu, None);
    let mut recorder = Recorder::new("h", measure, limits);
    recorder.series(&Series {
        process: Process {
            role: role.to_owned(),
            ..Process::default()
        },
        ..Series::default()
    });
    let recorder = Arc::new(Mutex::new(recorder));
    let clock: Clock = Arc::new(SystemClock);
    let start_ns = clock.now_ns();
    let mut engine = WithStatusPage::new(Box::new(Idle), page, recorder.clone(), clock);
    engine.start(start_ns);
    tokio::time::sleep(time).await;
    let stopped = engine.stop(0).await;
    let counted = lock(&recorder).counted(CounterKind::Requests);
    (counted, stopped.findings)
}

#[tokio::test]
async fn what_others_asked_is_counted_and_its_own_readings_are_not() {
    for page in [STUB, KONG] {
        let asked = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&asked);
        // Seven by others between two readings, and the reading itself.
        let page = serve(move |number| {
            seen.store(number, Ordering::Relaxed);
            ok(&page.replace("TOTAL", &(1_000 + number * 8).to_string()))
        })
        .await;
        let (counted, findings) = capture(page, Duration::from_millis(1_300)).await;
        let readings = asked.load(Ordering::Relaxed);
        assert!(readings >= 2, "{readings}");
        assert_eq!((counted, findings), ((readings - 1) * 7, Vec::new()));
    }
}

#[tokio::test]
async fn what_is_no_gateway_has_no_requests() {
    let page = serve(|number| ok(&STUB.replace("TOTAL", &(number * 8).to_string()))).await;
    let none = capture_of("postgres", page, Duration::from_millis(1_200)).await;
    assert_eq!(none, (0, Vec::new()));
    let page = serve(|_| String::new()).await;
    let none = capture_of("postgres", page, Duration::from_millis(50)).await;
    assert_eq!(none, (0, Vec::new()));
}

#[test]
fn a_gateway_that_began_anew_counts_from_its_next_reading_on() {
    let mut counted = Counted::default();
    let at = |tenths: u64| tenths * SECOND_NS / 10;
    counted.take(Ok(500), 0);
    counted.take(Ok(20), at(10));
    assert!(counted.held.is_empty() && counted.is_counted);
    counted.take(Ok(31), at(20));
    assert_eq!(counted.held, BTreeMap::from([(1, 10)]));
}

#[test]
fn requests_of_seconds_without_a_reading_are_spread_over_them() {
    let mut counted = Counted::default();
    let at = |tenths: u64| tenths * SECOND_NS / 10;
    counted.take(Ok(100), 0);
    counted.take(Err("busy".into()), at(10));
    counted.take(Err("busy".into()), at(21));
    // Three readings of its own, and eight by others.
    counted.take(Ok(111), at(30));
    assert_eq!(counted.held, BTreeMap::from([(0, 3), (1, 3), (2, 2)]));
    counted.take(Ok(u64::MAX), u64::MAX / 2);
    assert!(counted.held.len() <= 3 + PARTS_MAX as usize);
    let sum: u64 = counted
        .held
        .values()
        .fold(0, |sum, n| sum.saturating_add(*n));
    assert!(sum >= u64::MAX - 120, "{sum}");
}

#[tokio::test]
async fn a_page_that_is_none_is_told_with_its_reason() {
    let huge = "x".repeat(PAGE_BYTES_MAX as usize);
    for (answer, word) in [
        (ok("<html>welcome</html>"), "neither"),
        (ok("{\"server\":{\"total_requests\":-1}}"), "neither"),
        (ok("server accepts handled requests\n"), "neither"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "302",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "403",
        ),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), ""),
        (String::new(), ""),
        (ok(&huge), "or more"),
    ] {
        let page = serve(move |_| answer.clone()).await;
        let (counted, findings) = capture(page.clone(), Duration::from_millis(100)).await;
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!((counted, finding.code), (0, FindingCode::RequestsUnknown));
        assert!(
            finding.evidence.starts_with(&page.to_string()) && finding.evidence.contains(word),
            "{finding}"
        );
    }
}

#[tokio::test]
async fn a_page_that_never_ends_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/status", listener.local_addr().unwrap());
    let page = StatusPage::try_from(url).unwrap();
    let begun = Instant::now();
    let (counted, findings) = capture(page, Duration::from_millis(50)).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(counted, 0);
    assert!(
        findings[0].evidence.contains("no answer within"),
        "{findings:?}"
    );
    drop(listener);
}
