//! A gateway with plugins in Lua, captured by both programs: whole stacks, and who they belong to.
//!
//! In: the gateway of the harness, its workers under bounded load. Out: a run whose stacks go from
//! nginx into plugins, and its roll-ups by plugin and by phase. Never: a judgement of shares (the
//! sampler's own tests hold those against the workers' clocks).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::real_fleet::POLICY;
use fleetflame_tests::{Binaries, Child, Gateway, GatewayPlace};
use model::FindingCode;
use model::profile::FrameKind;
use serde_json::Value;

use crate::local::Stage;
use crate::{CAPTURE, SECOND, turn};

const PLUGINS: [&str; 5] = [
    "count-words",
    "mix-bits",
    "nest-coroutines",
    "spawn-threads",
    "walk-table",
];

#[test]
fn a_gateway_s_stacks_go_into_its_plugins_and_are_rolled_up_by_them() -> Result<()> {
    let _turn = turn();
    let stage = Stage::new(&format!("{POLICY}request_paths: true\n"))?;
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let flags = [
        "--hz",
        "199",
        "--duration",
        "8s",
        "--engine",
        "native",
        "--uri",
    ];
    let mut command = stage.capture(&flags)?;
    for pid in gateway.worker_pids() {
        command.args(["--target", &format!("pid:{pid}")]);
    }
    // A second path, with what must not be seen behind it.
    let load = [
        gateway.load("/plugins?key=4711", 3, 30 * SECOND)?,
        gateway.load("/compiled?token=secret", 1, 30 * SECOND)?,
    ];
    let run = stage.captured(command, 0)?;
    drop(load);
    let samples = run.check_sums()?;
    let (host, coverage) = run.record.coverage.hosts.iter().next().context("no host")?;
    let stats = &coverage.stats;
    println!(
        "{host}: {samples} samples by {}, {} Lua segments, {} failed",
        stats.mode, stats.lua_segments, stats.lua_failed
    );
    ensure!(stats.lua_segments > 100, "{stats:?}");
    ensure!(stats.lua_failed * 100 <= stats.lua_segments, "{stats:?}");
    let stacks = run.folded("merged.folded")?;
    let whole = |(stack, _): &(&String, &u64)| {
        stack.contains("ngx_http_lua_run_thread")
            && stack.contains("access_by_lua(nginx.conf:")
            && stack.contains("/kong/init.lua:")
            && stack.contains("/kong/plugins/mix-bits/handler.lua:")
    };
    ensure!(stacks.iter().any(|s| whole(&s)), "{stacks:#?}");
    let findings = run.record.all_findings();
    let paths = findings
        .iter()
        .find(|f| f.code == FindingCode::RequestPaths);
    println!("{}", paths.context("nothing is said of paths")?);
    in_their_requests(&stacks)?;
    let frames = run.profile.frames.as_slice();
    ensure!(
        frames
            .iter()
            .any(|f| f.kind == FrameKind::Jit && f.name == "mix_bits")
    );
    ensure!(
        frames
            .iter()
            .any(|f| f.kind == FrameKind::Marker && f.name == "[co]")
    );

    let rolled = |by: &str| -> Result<BTreeMap<String, u64>> {
        let mut command = Binaries::find()?.coordinator();
        command
            .arg("top")
            .arg(&run.path)
            .args(["--by", by, "--json"]);
        let said = Child::spawn(command)?.finish(CAPTURE)?;
        let json: Value = serde_json::from_str(&said.stdout).context(said.stderr)?;
        let rows = json["rows"].as_array().context("rows")?;
        let row = |r: &Value| Some((r["name"].as_str()?.to_owned(), r["self"].as_u64()?));
        Ok(rows.iter().filter_map(row).collect())
    };
    let (by_plugin, by_phase) = (rolled("plugin")?, rolled("phase")?);
    println!("{by_plugin:?}\n{by_phase:?}");
    for plugin in PLUGINS {
        ensure!(
            by_plugin.get(plugin).is_some_and(|n| *n > 0),
            "{plugin}: {by_plugin:?}"
        );
    }
    let by_uri = rolled("uri")?;
    println!("{by_uri:?}");
    for path in ["/plugins", "/compiled"] {
        let of_path = by_uri.get(path).copied().unwrap_or(0);
        ensure!(of_path * 10 > samples, "{path}: {by_uri:?}");
    }
    let known = ["/plugins", "/compiled", "[no request]"];
    ensure!(by_uri.keys().all(|k| known.contains(&&**k)), "{by_uri:?}");
    for phase in ["access", "log", "timer"] {
        ensure!(
            by_phase.get(phase).is_some_and(|n| *n > 0),
            "{phase}: {by_phase:?}"
        );
    }
    ensure!(
        by_plugin.values().sum::<u64>() == samples,
        "{by_plugin:?} of {samples}"
    );
    Ok(())
}

/// What Lua does for a request stands above its path, whatever coroutine does it, and a timer above none.
fn in_their_requests(stacks: &BTreeMap<String, u64>) -> Result<()> {
    let of = |is_meant: &dyn Fn(&str) -> bool, path: &str| {
        let (mut meant, mut all) = (0, 0);
        for (stack, count) in stacks.iter().filter(|(stack, _)| is_meant(stack)) {
            all += count;
            meant += if stack.contains(path) { *count } else { 0 };
        }
        (meant, all)
    };
    let is_plugin =
        |s: &str| s.contains("access_by_lua(nginx.conf:") && s.contains("/kong/plugins/");
    let is_compiled = |s: &str| s.contains("content_by_lua(nginx.conf:") && s.contains("compiled");
    for (what, (meant, all)) in [
        ("plugins", of(&is_plugin, ";uri /plugins;")),
        ("compiled", of(&is_compiled, ";uri /compiled;")),
    ] {
        println!("{what}: {meant} of {all} stand above their path");
        ensure!(
            all > 50 && meant * 100 >= all * 98,
            "{what}: {meant} of {all}: {stacks:#?}"
        );
    }
    let is_timer = |s: &str| s.contains("ngx_http_lua_timer_handler");
    let (wrong, _) = of(&is_timer, ";uri ");
    ensure!(wrong == 0, "{wrong} samples of timers have a path");
    Ok(())
}
