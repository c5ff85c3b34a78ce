//! A cluster of gateways, one of which costs more: who is named, by share, by CPU and by request, under even and
//! uneven load.
//!
//! In: three gateways in networks of their own, each beside its agent, under load of known rates. Out: rankings.
//! Never: a host called odd (three are too few for that): only the order and the differences are judged.

use anyhow::{Context, Result, ensure};
use compare::{HostDifference, Per, Ranking};
use fleetflame_tests::gateway_fleet::Asked;
use fleetflame_tests::{AgentSetup, LinkConditions, RealFleet};

use crate::written::Written;
use crate::{CAPTURE, turn};

const NAMES: [&str; 3] = ["kong-1", "kong-2", "kong-3"];
const JOB: &str = "duration: 10s\nsample_hz: 199";

#[test]
fn what_a_request_costs_is_seen_whatever_the_load() -> Result<()> {
    let _turn = turn();
    let mut fleet = RealFleet::prepare(&NAMES, LinkConditions::default())?;
    for number in 0..NAMES.len() {
        fleet.start_agent(number, &AgentSetup::default())?;
    }
    // One plugin costs more on kong-2.
    let slow = "/plugins?times=4&only=mix-bits";
    let even = captured(
        &fleet,
        "even",
        [("/plugins", 30), (slow, 30), ("/plugins", 30)],
    )?;
    for per in [Per::Requests, Per::Share, Per::Cpu] {
        names_the_plugin(first(&even, per)?).with_context(|| format!("even load by {per:?}"))?;
    }

    // The same, and most of the load on kong-3: by CPU that is the one that stands out, with nothing wrong.
    let busy = captured(
        &fleet,
        "busy",
        [("/plugins", 20), (slow, 15), ("/plugins", 60)],
    )?;
    names_the_plugin(first(&busy, Per::Requests)?).context("uneven load by request")?;
    let by_cpu = ranking(&busy, Per::Cpu)?.entries;
    let cost = |e: &HostDifference| e.whole.map_or(0.0, |whole| whole.host);
    let dearest = by_cpu.iter().max_by(|a, b| cost(a).total_cmp(&cost(b)));
    let dearest = dearest.context("nobody is ranked by CPU")?;
    ensure!(dearest.host == "kong-3", "by CPU: {by_cpu:?}");

    // Everything costs three times as much on kong-2, which has a third of the load: its flame graph and its CPU time
    // are those of the others. Only what a request costs tells.
    let whole = captured(
        &fleet,
        "whole",
        [
            ("/plugins?times=3", 24),
            ("/plugins?times=9", 8),
            ("/plugins?times=3", 24),
        ],
    )?;
    let by_request = first(&whole, Per::Requests)?;
    ensure!(by_request.host == "kong-2", "by request: {by_request:?}");
    let gap = by_request.whole.as_ref().context("no sum")?;
    ensure!(
        gap.host > 1.4 * gap.rest,
        "three times the work by request: {gap:?}"
    );
    let of = |per| -> Result<HostDifference> {
        let entries = ranking(&whole, per)?.entries;
        let mut of_host = entries.into_iter().filter(|e| e.host == "kong-2");
        of_host.next().context("kong-2 is not ranked")
    };
    let (by_share, by_cpu) = (of(Per::Share)?, of(Per::Cpu)?);
    println!(
        "three times the work at a third of the load: by request {:.1} against {:.1}, by share {:+.1} points, by CPU {:?}",
        gap.host, gap.rest, by_share.delta_points, by_cpu.whole
    );
    ensure!(by_share.delta_points.abs() < 20.0, "by share: {by_share:?}");
    let cpu = by_cpu.whole.as_ref().context("no sum")?;
    ensure!(
        cpu.host < 2.0 * cpu.rest && cpu.rest < 2.0 * cpu.host,
        "by CPU: {cpu:?}"
    );
    Ok(())
}

/// A capture of all three under this load.
fn captured(fleet: &RealFleet, name: &str, asked: [(&'static str, u32); 3]) -> Result<Written> {
    let out = fleet.path(name);
    let asked = asked.map(|(path, per_s)| Asked { path, per_s });
    let done = fleet.with_gateways(&asked, JOB, |job| {
        let command = fleet.coordinator("capture", &[job, "--out".as_ref(), &out]);
        fleet.fabric.coordinator.spawn(command)?.finish(CAPTURE)
    })?;
    ensure!(done.status.code() == Some(0), "{name}: {}", done.stderr);
    let run = Written::read(&out)?;
    run.check_sums()?;
    Ok(run)
}

fn ranking(run: &Written, per: Per) -> Result<Ranking> {
    let main = run.record.ranking.iter();
    let mut all = main.chain(&run.record.more_rankings);
    let found = all.find(|r| r.per == per).cloned();
    found.with_context(|| format!("no ranking by {per:?}: {:?}", run.record.all_findings()))
}

fn first(run: &Written, per: Per) -> Result<HostDifference> {
    let entries = ranking(run, per)?.entries;
    let first = entries.into_iter().next().context("nobody is ranked")?;
    println!(
        "{}: by {per:?} {} first, {:?}, under {:?}",
        run.path.display(),
        first.host,
        first.whole,
        first.frame
    );
    Ok(first)
}

/// kong-2, for what one plugin does.
fn names_the_plugin(first: HostDifference) -> Result<()> {
    ensure!(first.host == "kong-2", "{first:?}");
    let named = first
        .path
        .iter()
        .chain(first.places.iter().flat_map(|place| &place.path));
    let plugin =
        |frame: &String| frame.contains("mix-bits/handler.lua") || frame.contains("mix_bits");
    ensure!(named.into_iter().any(plugin), "{first:?}");
    Ok(())
}
