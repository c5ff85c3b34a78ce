//! `gateway-demo [OUT]`: three gateways in networks of their own, one of them with a plugin that costs too much,
//! captured over the network with Lua stacks.
//!
//! In: root, nginx with Lua, both programs. Out: a run directory, and on the terminal what `fleetflame capture` says.
//! Never: traffic outside of the networks that it makes, or a program left over.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fleetflame_tests::gateway_fleet::Asked;
use fleetflame_tests::{AgentSetup, Binaries, LinkConditions, RealFleet};

const NAMES: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];
const ASKED: [Asked; 3] = [PLAIN, SLOW, PLAIN];
const PLAIN: Asked = Asked {
    path: "/plugins",
    per_s: 40,
};
/// mix-bits works four times as long.
const SLOW: Asked = Asked {
    path: "/plugins?times=4&only=mix-bits",
    per_s: 40,
};
const JOB: &str = "title: three gateways\nduration: 10s\nsample_hz: 199";

fn main() -> Result<()> {
    let out = std::env::args_os().nth(1).map_or_else(
        || Path::new("fleetflame-demo").join("gateways"),
        PathBuf::from,
    );
    let mut fleet = RealFleet::prepare(&NAMES, LinkConditions::default())?;
    for number in 0..NAMES.len() {
        fleet.start_agent(number, &AgentSetup::default())?;
    }
    let mut command = Binaries::find()?.coordinator();
    command.arg("capture").arg("--tls");
    command.arg(fleet.path("tls/coordinator"));
    let status = fleet.with_gateways(&ASKED, JOB, |job| {
        command.arg(job).arg("--out").arg(&out);
        let network = &fleet.fabric.coordinator;
        Ok(network.enter(move || command.status())?)
    })?;
    ensure!(status.success(), "the capture ended with {status}");
    Ok(())
}
