//! Who may give orders, and who is believed to be which host.
//!
//! In: certificates of another CA, of another host, of the wrong unit, or none. Out: a closed
//! connection or the finding that says so. Never: an order obeyed, or an agent that falls over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::procfs::Identity as Process;
use fleetflame_tests::{AgentSetup, LinkConditions, RealFleet};
use model::FindingCode;
use model::coverage::HostOutcome;
use proto::link::coordinator_link;
use proto::tls::Identity;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::written::Written;
use crate::{CAPTURE, SECOND, turn};

/// A peer that proves nothing is gone by then.
const CLOSED: Duration = Duration::from_secs(10);

/// `ca.pem`, `NAME.pem` and `NAME.key` of two folders.
pub fn identity(fleet: &RealFleet, ca: &str, own: &str, name: &str) -> Result<Identity> {
    let read = |folder: &str, file: &str| {
        let path = fleet.path(folder).join(file);
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    Ok(Identity {
        ca_pem: read(ca, "ca.pem")?,
        cert_pem: read(own, &format!("{name}.pem"))?,
        key_pem: read(own, &format!("{name}.key"))?,
    })
}

/// Dials the first host's agent from the coordinator's network.
fn dial(fleet: &RealFleet) -> Result<TcpStream> {
    let address = fleet.address(0);
    Ok(fleet
        .fabric
        .coordinator
        .enter(|| TcpStream::connect(address))?)
}

/// Speaks TLS with the first host's agent; an error unless the agent takes up the rpc.
fn give_orders(fleet: &RealFleet, config: Arc<rustls::ClientConfig>) -> Result<()> {
    let stream = dial(fleet)?;
    stream.set_nonblocking(true)?;
    let server = ServerName::try_from(fleet.hosts[0].name.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let talk = async {
            let tls = TlsConnector::from(config).connect(server, stream).await?;
            let mut link = coordinator_link(tls).await?;
            link.rx.recv().await.context("the agent said nothing")?;
            Ok(())
        };
        tokio::time::timeout(CLOSED, talk).await?
    })
}

/// Fails unless the agent lives and obeys its own coordinator.
fn check_unharmed(fleet: &RealFleet) -> Result<()> {
    let agent = fleet.hosts[0].agent()?;
    let alive = Process::of(agent.pid()).is_some_and(|process| process.alive());
    ensure!(alive, "the agent is gone: {}", agent.stderr());
    ensure!(!agent.stderr().contains("panicked"), "{}", agent.stderr());
    let own = identity(fleet, "tls/coordinator", "tls/coordinator", "coordinator")?;
    give_orders(fleet, own.dialling()?).context("its own coordinator is refused")
}

#[test]
fn nobody_but_the_fleet_s_coordinator_gives_orders() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["ordered", "other"], LinkConditions::default())?;
    fleet.start_agent(0, &AgentSetup::default())?;
    fleet.certificates("other-ca")?;
    check_unharmed(&fleet)?;

    let foreign = identity(
        &fleet,
        "tls/coordinator",
        "other-ca/coordinator",
        "coordinator",
    )?;
    let said = give_orders(&fleet, foreign.dialling()?).err();
    println!("a coordinator of another CA: {said:?}");
    assert!(said.is_some(), "a coordinator of another CA is obeyed");

    let agent = identity(&fleet, "tls/other", "tls/other", "agent")?;
    let said = give_orders(&fleet, agent.dialling()?).err();
    println!("an agent: {said:?}");
    assert!(said.is_some(), "an agent's certificate gives orders");

    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&agent.ca_pem) {
        roots.add(cert?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let said = give_orders(&fleet, Arc::new(nobody)).err();
    println!("nobody: {said:?}");
    assert!(said.is_some(), "a peer without certificate gives orders");
    check_unharmed(&fleet)
}

#[test]
fn peers_that_speak_no_tls_are_closed_and_harm_nobody() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["ordered"], LinkConditions::default())?;
    fleet.start_agent(0, &AgentSetup::default())?;
    let garbage: Vec<u8> = (0..65_536_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let hello: &[u8] = &[0x16, 0x03, 0x01, 0xff, 0xff, 0x01];
    let peers: [(&str, &[u8]); 4] = [
        ("silent", b""),
        ("http", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("garbage", &garbage),
        ("half", hello),
    ];
    for (name, bytes) in peers {
        let mut peer = dial(&fleet)?;
        peer.set_read_timeout(Some(CLOSED))?;
        // A peer that is closed in mid-sentence is closed all the same.
        let _ = peer.write_all(bytes);
        let mut answer = Vec::new();
        let read = peer.take(1 << 20).read_to_end(&mut answer);
        let open = matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        println!("{name}: {read:?}, {} bytes in answer", answer.len());
        assert!(!open, "{name}: the agent keeps the connection");
        assert!(
            answer.len() < 64,
            "{name}: it is told {} bytes",
            answer.len()
        );
    }
    check_unharmed(&fleet)
}

#[test]
fn a_coordinator_believes_no_agent_of_another_ca() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["foreign"], LinkConditions::default())?;
    fleet.start_agent(0, &AgentSetup::default())?;
    fleet.certificates("other-ca")?;
    let out = fleet.path("run");
    let job = fleet.job("duration: 2s")?;
    let arguments = [job.as_path(), Path::new("--out"), &out];
    let command = fleet.coordinator_with("capture", &arguments, "other-ca/coordinator");
    let done = fleet.fabric.coordinator.spawn(command)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(4),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    assert!(
        run.has(FindingCode::HostIdentity, "foreign"),
        "{:?}",
        run.record.all_findings()
    );
    Ok(())
}

#[test]
fn a_host_with_another_host_s_certificate_is_not_that_host() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&["right", "wrong"], LinkConditions::default())?;
    let wrong = AgentSetup {
        certificate_of: Some("right".into()),
        ..AgentSetup::default()
    };
    for (number, setup) in [(0, AgentSetup::default()), (1, wrong)] {
        fleet.start_workload(number)?;
        fleet.start_agent(number, &setup)?;
    }
    let out = fleet.path("run");
    let done = fleet.capture("duration: 2s", &out)?.finish(CAPTURE)?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    assert!(
        run.has(FindingCode::HostIdentity, "wrong"),
        "{:?}",
        run.record.all_findings()
    );
    assert_eq!(run.host("wrong")?.outcome, HostOutcome::Failed);
    assert_eq!(run.samples("wrong"), 0);
    assert_eq!(run.host("right")?.outcome, HostOutcome::Complete);
    std::thread::sleep(SECOND / 10);
    check_unharmed(&fleet)
}
