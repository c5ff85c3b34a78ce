//! One command captures every good host of an odd fleet, and says what is wrong with each bad one.
//!
//! In: a plain host, one behind it, one that chatters, one that runs programs in one folder only, two
//! that run none from a file, and eleven that cannot be captured. Out: native stacks of each good host's own nginx; a finding for each bad one.
//! Never: something left on any of them.

use std::time::Duration;

use anyhow::Result;
use fleetflame_tests::ssh_fleet::place;
use fleetflame_tests::{Gateway, GatewayPlace, LinkConditions, SshFleet, SshSetup};
use model::FindingCode;
use model::coverage::HostOutcome;

use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, turn};

const NOISE: &str =
    "echo 'Welcome to the noisy host'\necho 'fleetflame-facts' >&2\nprintf '\\n\\0fleetflame\\n'\n";

const GOOD: [&str; 6] = ["plain", "inner", "noisy", "narrow", "memory", "perl"];

fn setup(change: impl FnOnce(&mut SshSetup)) -> SshSetup {
    let mut setup = SshSetup::default();
    change(&mut setup);
    setup
}

/// Takes a program away: an empty file that cannot be run stands in its place.
fn hide(program: &str) -> String {
    format!("mount --bind /dev/null $(readlink -f $(command -v {program}))\n")
}

fn hosts() -> Vec<(&'static str, SshSetup)> {
    vec![
        ("plain", SshSetup::default()),
        ("inner", setup(|s| s.behind = Some(0))),
        (
            "noisy",
            setup(|s| {
                s.bashrc = NOISE.into();
                s.prepare = "echo 'AUTHORISED USE ONLY' > /etc/banner".into();
                s.sshd = "Banner /etc/banner\nPrintMotd yes\n".into();
            }),
        ),
        (
            "narrow",
            setup(|s| {
                s.noexec = vec!["home", "var-tmp", "shm"];
                // Alpine's: it reads ahead, and throws away what it has read too much.
                s.prepare = "mount --bind \"$(command -v busybox)\" \"$(command -v head)\"".into();
            }),
        ),
        (
            "memory",
            setup(|s| s.noexec = vec!["home", "var-tmp", "shm", "run"]),
        ),
        (
            "perl",
            setup(|s| {
                s.noexec = vec!["home", "var-tmp", "shm", "run"];
                s.prepare = hide("python3");
            }),
        ),
        ("changed", setup(|s| s.wrong_key = true)),
        ("unknown", setup(|s| s.unknown_key = true)),
        ("refused", setup(|s| s.refuses_key = true)),
        (
            "nowhere",
            setup(|s| {
                s.noexec = vec!["home", "var-tmp", "shm", "run"];
                s.prepare = hide("python3") + &hide("perl");
            }),
        ),
        (
            "nologin",
            setup(|s| s.sshd = "ForceCommand /usr/sbin/nologin\n".into()),
        ),
        ("closed", setup(|s| s.config = "  Port 1\n".into())),
        (
            "nameless",
            setup(|s| s.config = "  HostName no.such.host.invalid\n".into()),
        ),
        (
            "away",
            setup(|s| s.config = "  HostName 10.99.0.1\n".into()),
        ),
        (
            "ancient",
            setup(|s| {
                s.sshd = "KexAlgorithms curve25519-sha256\n".into();
                s.config = "  KexAlgorithms ecdh-sha2-nistp256\n".into();
            }),
        ),
        ("sessionless", setup(|s| s.sshd = "MaxSessions 0\n".into())),
        (
            "full",
            setup(|s| {
                s.noexec = vec!["home", "shm", "run"];
                s.prepare = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /var/tmp".into();
            }),
        ),
    ]
}

#[test]
fn good_hosts_are_captured_and_bad_ones_explained() -> Result<()> {
    let _turn = turn();
    let fleet = SshFleet::start(&hosts(), LinkConditions::default())?;
    let mut gateways = Vec::new();
    for number in 0..GOOD.len() {
        let (namespace, address) = place(&fleet, number);
        gateways.push(Gateway::start(GatewayPlace::Inside(namespace, address))?);
    }
    let targets: Vec<_> = gateways.iter().map(Gateway::worker_pids).collect();
    let loads: Result<Vec<_>> = gateways
        .iter()
        .map(|gateway| gateway.load("/interpreted", 2, 60 * SECOND))
        .collect();
    let loads = loads?;
    let out = fleet.path("run");
    let coordinator = fleet.capture("duration: 4s\nsample_hz: 199", &targets, &out)?;
    let done = coordinator.finish(CAPTURE)?;
    drop(loads);
    println!("{}", done.stderr);
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let run = Written::read(&out)?;
    run.check_sums()?;
    for name in GOOD {
        let host = run.host(name)?;
        assert_eq!(host.outcome, HostOutcome::Complete, "{name}: {host:?}");
        assert_eq!(host.engine, "native", "{name}");
        assert_eq!(run.samples(name), host.stats.samples, "{name}");
        // How many depends on how many hosts share the CPUs of this machine.
        assert!(run.samples(name) > 10, "{name}: {}", run.samples(name));
        let folded = run.folded(&format!("hosts/{name}.folded"))?;
        let in_nginx: u64 = folded
            .iter()
            .filter(|(stack, _)| stack.contains("ngx_"))
            .map(|(_, count)| count)
            .sum();
        println!("{name}: {} samples, {in_nginx} in nginx", run.samples(name));
        assert!(in_nginx > 0, "{name}: no stack of nginx: {folded:?}");
        let in_lua = folded.keys().any(|stack| stack.contains(".lua:"));
        assert!(in_lua, "{name}: no Lua frame: {folded:?}");
    }
    for (name, code) in [
        ("changed", FindingCode::SshHostKeyChanged),
        ("unknown", FindingCode::SshHostKeyUnknown),
        ("refused", FindingCode::SshAuthRefused),
        ("nowhere", FindingCode::AgentNoFolder),
        ("nologin", FindingCode::SshNoShell),
        ("closed", FindingCode::SshPortClosed),
        ("nameless", FindingCode::SshNameUnknown),
        ("away", FindingCode::SshNoRoute),
        ("ancient", FindingCode::SshNoCommonCipher),
        ("sessionless", FindingCode::SshSessionsExhausted),
        ("full", FindingCode::AgentNoSpace),
    ] {
        assert!(run.has(code, name), "{:?}", run.record.all_findings());
        assert_eq!(run.host(name)?.outcome, HostOutcome::Failed, "{name}");
    }
    let took = fleet.wait_clean(SAFE)?;
    println!("clean after {took:?}");
    assert!(took < Duration::from_secs(1), "the end was not orderly");
    Ok(())
}
