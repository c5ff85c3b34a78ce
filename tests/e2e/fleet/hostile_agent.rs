//! An agent that has a proper certificate and means ill costs its own host, and nothing else.
//!
//! In: a peer that proves to be the host and then talks nonsense, or nothing. Out: the other host
//! complete, the hostile one named, in bounded time. Never: a run that waits for it, or ends with it.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fleetflame_tests::{AgentSetup, LinkConditions, RealFleet};
use model::coverage::HostOutcome;
use proto::link::agent_link;
use proto::v1::{self, FromAgent, from_agent::Say};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::identity::identity;
use crate::written::Written;
use crate::{CAPTURE, turn};

/// What the hostile agent does once it has proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malice {
    /// Not one byte.
    Silence,
    /// Bytes that are no rpc.
    Garbage,
    /// The call, a proper first word, and then nothing.
    HelloOnly,
    /// The call, and a first word that is none.
    NoHello,
}

/// Answers on the host's port until the test ends.
fn answer(fleet: &RealFleet, number: usize, malice: Malice) -> Result<()> {
    let folder = format!("tls/{}", fleet.hosts[number].name);
    let acceptor = TlsAcceptor::from(identity(fleet, &folder, &folder, "agent")?.listening()?);
    let address = fleet.address(number);
    let listener = fleet
        .network(number)
        .namespace
        .enter(|| TcpListener::bind(address))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The thread ends with the test's process; its socket has no network by then.
    thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::clone(&acceptor);
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(stream).await {
                        be_hostile(tls, malice).await;
                    }
                });
            }
        });
    });
    Ok(())
}

async fn be_hostile(
    mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    malice: Malice,
) {
    let forever = Duration::from_secs(600);
    match malice {
        Malice::Silence => tokio::time::sleep(forever).await,
        Malice::Garbage => {
            let garbage: Arc<[u8]> = (0..1_u32 << 16)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            while tls.write_all(&garbage).await.is_ok() {}
            let _ = tls.read_u8().await;
        }
        Malice::HelloOnly | Malice::NoHello => {
            let Ok(link) = agent_link(tls).await else {
                return;
            };
            let word = match malice {
                Malice::HelloOnly => Say::Hello(v1::Hello {
                    protocol: proto::PROTOCOL,
                    ..v1::Hello::default()
                }),
                _ => Say::Heartbeat(v1::Heartbeat {}),
            };
            let _ = link.tx.send(FromAgent { say: Some(word) }).await;
            tokio::time::sleep(forever).await;
        }
    }
}

fn check(malice: Malice) -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["honest", "hostile"], LinkConditions::default())?;
    fleet.start_workload(0)?;
    fleet.start_agent(0, &AgentSetup::default())?;
    answer(&fleet, 1, malice)?;
    let out = fleet.path("run");
    let done = fleet.capture("duration: 2s", &out)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{malice:?}: {}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    let findings = run.record.all_findings();
    let named: Vec<_> = findings
        .iter()
        .filter(|f| f.host.as_deref() == Some("hostile"))
        .collect();
    println!("{malice:?}: {named:?}");
    assert!(!named.is_empty(), "{malice:?}: nothing is said of it");
    assert_eq!(
        run.host("hostile")?.outcome,
        HostOutcome::Failed,
        "{malice:?}"
    );
    assert_eq!(run.samples("hostile"), 0, "{malice:?}");
    let honest = run.host("honest")?;
    assert_eq!(
        honest.outcome,
        HostOutcome::Complete,
        "{malice:?}: {honest:?}"
    );
    assert_eq!(run.samples("honest"), honest.stats.samples, "{malice:?}");
    Ok(())
}

#[test]
fn silence_after_the_handshake_holds_nobody_up() -> Result<()> {
    check(Malice::Silence)
}

#[test]
fn garbage_after_the_handshake_is_closed() -> Result<()> {
    check(Malice::Garbage)
}

#[test]
fn a_call_without_a_first_word_is_closed() -> Result<()> {
    check(Malice::NoHello)
}

#[test]
fn a_first_word_and_nothing_more_is_given_up() -> Result<()> {
    check(Malice::HelloOnly)
}
