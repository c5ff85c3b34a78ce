//! A link over a real byte pipe, and what a peer that speaks something else does to it.

use super::*;
use crate::v1::{Heartbeat, Hello, from_agent, from_coordinator};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

#[tokio::test]
async fn messages_cross_both_ways_and_dropping_one_end_ends_the_other() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (agent, coordinator) = tokio::join!(agent_link(a), coordinator_link(b));
    let (mut agent, mut coordinator) = (agent.unwrap(), coordinator.unwrap());
    let hello = Hello {
        protocol: 1,
        agent_version: "x".into(),
        held_runs: vec![],
    };
    let hello = FromAgent {
        say: Some(from_agent::Say::Hello(hello)),
    };
    agent.tx.send(hello.clone()).await.unwrap();
    assert_eq!(coordinator.rx.recv().await, Some(hello));
    let beat = FromCoordinator {
        say: Some(from_coordinator::Say::Heartbeat(Heartbeat {})),
    };
    coordinator.tx.send(beat.clone()).await.unwrap();
    assert_eq!(agent.rx.recv().await, Some(beat));
    drop(coordinator);
    let ended = timeout(Duration::from_secs(5), agent.rx.recv()).await;
    assert_eq!(ended.expect("the agent's end did not notice"), None);
}

#[tokio::test]
async fn an_agent_that_goes_away_is_noticed() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (agent, coordinator) = tokio::join!(agent_link(a), coordinator_link(b));
    drop(agent);
    let mut coordinator = coordinator.unwrap();
    let ended = timeout(Duration::from_secs(5), coordinator.rx.recv()).await;
    assert_eq!(ended.expect("the coordinator's end did not notice"), None);
}

#[tokio::test]
async fn garbage_is_no_agent() {
    let (mut a, b) = tokio::io::duplex(1 << 16);
    a.write_all(b"SSH-2.0-OpenSSH_9.2\r\nhello there\r\n")
        .await
        .unwrap();
    drop(a);
    let link = timeout(Duration::from_secs(5), coordinator_link(b)).await;
    assert!(!matches!(link, Ok(Ok(_))), "garbage was taken for an agent");
}
