//! Logins that are not root: sudo for exactly the agent that is sent, and nothing without it.
//!
//! In: one login with a line in sudoers that names the agent's hash, one without. Out: the first sees every
//! process, the second says what is missing. Never: a password prompt, or sudo for anything but the agent.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use fleetflame_tests::{Child, LinkConditions, SshFleet, SshSetup, requirements};

use crate::{CAPTURE, SAFE, SECOND, turn};

const POLICY: &str = "version: 1\nengines: [native]\ncpu_pct_max: 100\nmemory_mb_max: 512\n";
const LOGIN: &str = "echo 'deploy:x:4242:4242::/root:/bin/bash' >> /etc/passwd\n\
    echo 'deploy:x:4242:' >> /etc/group\necho 'deploy:*:19000:0:99999:7:::' >> /etc/shadow\n\
    chown 4242:4242 /root\n";

fn login(sudoers: &str) -> SshSetup {
    SshSetup {
        policy: Some(POLICY.to_owned()),
        prepare: format!("{LOGIN}{sudoers}"),
        config: "  User deploy\n".to_owned(),
        ..SshSetup::default()
    }
}

#[test]
fn sudo_is_used_for_the_agent_where_it_is_allowed() -> Result<()> {
    let _turn = turn();
    requirements::command("sudo")?;
    let sum = sha256(&SshFleet::agent_to_send()?.1)?;
    let line = format!("deploy ALL=(root) NOPASSWD: sha256:{sum} /var/tmp/fleetflame-4242/*/agent");
    let file = "/etc/sudoers.d/fleetflame";
    let may = format!("echo '{line}' > {file}\nchmod 440 {file}\n");
    let hosts = [("may", login(&may)), ("may-not", login(""))];
    let fleet = SshFleet::start(&hosts, LinkConditions::default())?;
    let mut command = fleet.coordinator("doctor")?;
    command.args(["--ssh", "may,may-not"]);
    let done = fleet.fabric.coordinator.spawn(command)?.finish(CAPTURE)?;
    let said: serde_json::Value =
        serde_json::from_str(&done.stdout).with_context(|| done.stderr.clone())?;
    println!("{said:#}");
    let codes = |host: &str| -> Vec<String> {
        let findings = said["hosts"][host]["findings"].as_array();
        let code = |finding: &serde_json::Value| finding["code"].as_str().map(str::to_owned);
        findings.into_iter().flatten().filter_map(code).collect()
    };
    assert_eq!(codes("may"), [""; 0], "sudo did not work");
    assert_eq!(codes("may-not"), ["agent-no-sudo"]);
    let evidence = said["hosts"]["may-not"]["findings"][0]["evidence"].as_str();
    assert!(evidence.is_some_and(|e| e.contains("sudo")), "{evidence:?}");
    let native = |host: &str| said["hosts"][host]["engines"][0].clone();
    assert_eq!(native("may")["can_run"], true, "{}", native("may"));
    assert!(
        native("may")["findings"] == serde_json::json!([])
            || native("may")["findings"] != native("may-not")["findings"],
        "root sees no more: {}",
        native("may")
    );
    fleet.wait_clean(SAFE)?;
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    let done = Child::spawn(command)?.finish(10 * SECOND)?;
    let sum = done.stdout.split_whitespace().next();
    Ok(sum.context("sha256sum says nothing")?.to_owned())
}
