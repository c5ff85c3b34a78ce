//! Hosts that mean ill cost themselves only: bounded memory, bounded time, a finding each.
//!
//! In: hosts whose login floods, speaks garbage, sends frames without end, never answers, or speaks for
//! another host; an honest one beside them. Out: the honest one complete, exit code 3. Never: a run that
//! waits for any of them past its deadline.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fleetflame_tests::{Binaries, LinkConditions, SshFleet, SshSetup, procfs};
use model::FindingCode;
use model::coverage::HostOutcome;
use model::format::ffz::{Head, encode_segment};
use model::profile::{Frame, FrameKind, Measure, Recorder, RecorderLimits, Series};
use proto::link::agent_link;
use proto::v1::{self, FromAgent, from_agent::Say, from_coordinator};

use crate::written::Written;
use crate::{CAPTURE, SAFE, turn};

/// What the coordinator may use up in memory, in KiB, with a debug build's agent of some 20 MB in it.
const MEMORY_KIB_MAX: u64 = 300 << 10;

/// A login that answers the first question and does this to the second, which starts the agent.
fn then(script: &str) -> SshSetup {
    SshSetup {
        bashrc: format!(
            "case $BASH_EXECUTION_STRING in *fleetflame-facts*) ;; *) {script}; exit;; esac\n"
        ),
        ..SshSetup::default()
    }
}

fn always(script: &str) -> SshSetup {
    SshSetup {
        bashrc: format!("{script}\nexit\n"),
        ..SshSetup::default()
    }
}

const MARK: &str = "printf '\\n\\0fleetflame-stdio/1\\n'";

fn hosts() -> Vec<(&'static str, SshSetup)> {
    vec![
        ("honest", SshSetup::default()),
        ("floods", always("yes 'all work and no play'")),
        ("floods-later", then("yes 'all work and no play'")),
        ("floods-errors", then("yes 'all work and no play' >&2")),
        (
            "garbage",
            then(&format!("{MARK}; head -c 2000000 /dev/urandom")),
        ),
        (
            "oversize",
            // The preface of HTTP/2, its settings, and a frame of 16 MiB without end.
            then(&format!(
                "{MARK}; printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0\\377\\377\\377\\0\\0\\0\\0\\0\\1'; cat /dev/zero"
            )),
        ),
        ("silent", always("sleep 600")),
        ("silent-later", then("sleep 600")),
        ("mute", then(&format!("{MARK}; sleep 600"))),
        (
            "impostor",
            // It takes the agent as a host does, piece by piece, and starts what it likes.
            then(
                "set -- ${BASH_EXECUTION_STRING##*fleetflame }; i=$2; \
                 while [ $i -gt 0 ]; do k=$((i < 32768 ? i : 32768)); head -c $k >/dev/null; \
                 echo fleetflame-took; i=$((i - k)); done; exec @AGENT@ attach /run/impostor",
            ),
        ),
    ]
}

#[test]
fn each_hostile_host_costs_itself_only() -> Result<()> {
    let _turn = turn();
    let mut hosts = hosts();
    let names: Vec<&str> = hosts.iter().map(|host| host.0).collect();
    let impostor = hosts.len() - 1;
    let agent = Binaries::find()?.agent.display().to_string();
    let bashrc = &mut hosts[impostor].1.bashrc;
    *bashrc = bashrc.replace("@AGENT@", &agent);
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    speak_for_another(&fleet.hosts[impostor].folder.join("run/impostor"))?;
    let body = "engine: simulated\nduration: 3s\nsample_hz: 50\n\
                simulated: {seed: 1, processes: 2, stacks: 8, arm_ms: 0}";
    let out = fleet.path("run");
    let began = Instant::now();
    let mut coordinator = fleet.capture(body, &[], &out)?;
    let mut memory_kib = 0;
    let status = loop {
        memory_kib = memory_kib.max(procfs::peak_memory_kib(coordinator.pid()).unwrap_or(0));
        if let Some(status) = coordinator.ended()? {
            break status;
        }
        assert!(began.elapsed() < CAPTURE, "{}", coordinator.stdout());
        thread::sleep(Duration::from_millis(50));
    };
    println!(
        "{:?}, coordinator at most {memory_kib} KiB",
        began.elapsed()
    );
    let said = coordinator.stdout();
    assert_eq!(status.code(), Some(3), "{said}\n{}", coordinator.stderr());
    assert!(memory_kib < MEMORY_KIB_MAX, "{memory_kib} KiB");
    let run = Written::read(&out)?;
    run.check_sums()?;
    assert_eq!(run.host("honest")?.outcome, HostOutcome::Complete);
    assert_eq!(run.samples("honest"), 3 * 50 * 2);
    for (name, code) in [
        ("floods", FindingCode::SshNoAnswer),
        ("floods-later", FindingCode::SshNoAnswer),
        ("floods-errors", FindingCode::SshNoAnswer),
        ("garbage", FindingCode::HostProtocol),
        ("oversize", FindingCode::HostProtocol),
        ("silent", FindingCode::SshNoAnswer),
        ("silent-later", FindingCode::SshNoAnswer),
        ("mute", FindingCode::HostProtocol),
        ("impostor", FindingCode::HostProtocol),
    ] {
        assert!(
            run.has(code, name),
            "{name}: {:?}",
            run.record.all_findings()
        );
        assert_eq!(run.samples(name), 0, "{name}");
    }
    for name in names.iter().skip(1) {
        assert_ne!(run.host(name)?.outcome, HostOutcome::Complete, "{name}");
    }
    // What hostile logins have started themselves is theirs.
    fleet.wait_clean_on(0, SAFE)?;
    Ok(())
}

/// An agent that does everything right, but says that its stacks are those of the honest host.
fn speak_for_another(folder: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    let listener = UnixListener::bind(folder.join("socket"))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The thread ends with the test's process; its socket lies in the fleet's folder.
    thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lie(stream));
            }
        });
    });
    Ok(())
}

async fn lie(stream: tokio::net::UnixStream) {
    let Ok(mut link) = agent_link(stream).await else {
        return;
    };
    let tx = link.tx.clone();
    let say = |word: Say| {
        let tx = tx.clone();
        async move {
            let _ = tx.send(FromAgent { say: Some(word) }).await;
        }
    };
    say(Say::Hello(v1::Hello {
        protocol: proto::PROTOCOL,
        agent_version: "1".into(),
        held_runs: vec![],
    }))
    .await;
    while let Some(message) = link.rx.recv().await {
        match message.say {
            Some(from_coordinator::Say::ClockProbe(probe)) => {
                say(Say::ClockEcho(v1::ClockEcho {
                    coordinator_mono_ns: probe.coordinator_mono_ns,
                    agent_received_mono_ns: 1,
                    agent_sent_mono_ns: 1,
                }))
                .await;
            }
            Some(from_coordinator::Say::Survey(_)) => {
                let engine = v1::EngineReport {
                    engine: "simulated".into(),
                    can_run: true,
                    ..v1::EngineReport::default()
                };
                say(Say::Report(v1::HostReport {
                    hostname: "honest".into(),
                    engines: vec![engine],
                    ..v1::HostReport::default()
                }))
                .await;
            }
            Some(from_coordinator::Say::Arm(order)) => {
                let run = order.run;
                say(Say::Armed(v1::Armed {
                    run: run.clone(),
                    findings: vec![],
                }))
                .await;
                let ffz = stacks_of("honest");
                say(Say::Batch(v1::Batch {
                    run,
                    epoch: 1,
                    seq: 1,
                    blake3: blake3::hash(&ffz).as_bytes().to_vec(),
                    ffz: ffz.into(),
                }))
                .await;
            }
            _ => {}
        }
    }
}

/// A batch of one stack in the name of `host`.
fn stacks_of(host: &str) -> Vec<u8> {
    let mut recorder = Recorder::new(host, Measure::on_cpu(), RecorderLimits::default());
    let series = recorder.series(&Series {
        host: host.to_owned(),
        ..Series::default()
    });
    let frame = recorder.frame(&Frame::named(FrameKind::User, "forged", "forged"));
    recorder.add_stack(series, 0, &[frame], &[1_000, 1, 0]);
    let head = Head {
        probe: "on-cpu".into(),
        measures: Measure::on_cpu(),
    };
    encode_segment(&head, &recorder.take(1_000)).expect("a batch")
}
