//! Lua stacks of nginx's workers, the test gateway of the harness, against their own clocks.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

#[path = "../../../tests/harness/gateway/files.rs"]
mod files;
mod support;

use fleetflame_native::{TargetSelector, mono_ns};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Capture, Program, Stack, alone, arm, collect, config, installed};

struct Gateway {
    nginx: Program,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

fn gateway() -> Gateway {
    let nginx = installed("/usr/sbin/nginx", "nginx");
    for (path, package) in [
        (
            "/usr/lib/nginx/modules/ngx_http_lua_module.so",
            "libnginx-mod-http-lua",
        ),
        ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
    ] {
        installed(path, package);
    }
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    files::write(dir.path(), dir.path(), address, 2).unwrap();
    let here = dir.path().to_str().unwrap();
    let nginx = Program::start(nginx, &["-p", here, "-c", &format!("{here}/nginx.conf")]);
    let gateway = Gateway {
        nginx,
        address,
        dir,
    };
    let up = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        gateway.get("/plain").is_ok()
    });
    assert!(up, "nginx does not answer");
    gateway
}

impl Gateway {
    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// wrk on this path, for this long.
    fn load(&self, path: &str, seconds: u64) -> Program {
        let mut wrk = Command::new("wrk");
        Program::spawn(
            wrk.args(["-t1", "-c4", &format!("-d{seconds}s")])
                .arg(format!("http://{}{path}", self.address))
                .stdout(Stdio::null()),
        )
    }

    /// CPU seconds by function, both workers together.
    fn truth(&self, reset: &str) -> BTreeMap<String, f64> {
        let mut by_worker = BTreeMap::new();
        for _ in 0..200 {
            let answer = self.get(&format!("/truth{reset}")).unwrap();
            let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
            let pid = body.split(' ').next().unwrap().to_owned();
            by_worker.entry(pid).or_insert(body);
            if by_worker.len() == 2 {
                break;
            }
        }
        assert_eq!(by_worker.len(), 2, "the other worker never answered");
        let mut sum = BTreeMap::new();
        for line in by_worker.values().flat_map(|b| b.lines()) {
            if let [_, name, seconds] = line.split(' ').collect::<Vec<_>>()[..] {
                *sum.entry(name.to_owned()).or_insert(0.0) += seconds.parse::<f64>().unwrap();
            }
        }
        sum
    }

    /// Samples while there is load until there are at least `wanted` samples of Lua.
    fn sampled(&self, path: &str, hz: u32, wanted: u64) -> (Capture, BTreeMap<String, f64>) {
        let mut seconds = 8;
        loop {
            let load = self.load(path, seconds + 1);
            std::thread::sleep(Duration::from_millis(500));
            self.truth("?reset=1");
            let (mut sampler, recorder) = arm(config(
                vec![TargetSelector::Exe("/usr/sbin/nginx".into())],
                hz,
            ));
            sampler.start_at(mono_ns());
            std::thread::sleep(Duration::from_secs(seconds));
            let capture = collect(sampler, &recorder);
            let truth = self.truth("");
            drop(load);
            if capture.summary.lua_stacks >= wanted {
                return (capture, truth);
            }
            let n = capture.summary.lua_stacks;
            assert!(seconds < 60, "{n} stacks with Lua in {seconds} s");
            seconds = (seconds * wanted * 5 / 4 / n.max(1)).clamp(seconds + 1, 100);
        }
    }
}

/// Samples by the timed function that is nearest to the leaf.
fn by_function(capture: &Capture, truth: &BTreeMap<String, f64>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for stack in &capture.stacks {
        // `rows.sort_rows` is the function `sort_rows`.
        let bare = |name: &str| name.rsplit(['.', ':']).next().unwrap_or(name).to_owned();
        let mut names = stack.frames.iter().rev().map(|f| bare(&f.name));
        if let Some(name) = names.find(|n| truth.contains_key(n)) {
            *sum.entry(name).or_insert(0) += stack.samples;
        }
    }
    sum
}

fn check(capture: &Capture, truth: &BTreeMap<String, f64>) {
    let s = &capture.summary;
    eprintln!(
        "mode {}: {} samples, {} of {} stacks with Lua, segments {} racy {} failed {}",
        s.mode, s.samples, s.lua_stacks, s.user_stacks, s.lua_segments, s.lua_racy, s.lua_failed
    );
    let failed: Vec<String> = capture
        .stacks
        .iter()
        .filter(|s| s.frames.iter().any(|f| f.name == "[lua-unwind-failed]"))
        .map(|s| s.user().join(";"))
        .collect();
    let (sampled, all) = (by_function(capture, truth), truth.values().sum::<f64>());
    let n = sampled.values().sum::<u64>() as f64;
    for (name, seconds) in truth {
        let (p, hit) = (seconds / all, sampled.get(name).copied().unwrap_or(0));
        let share = hit as f64 / n;
        eprintln!(
            "  {name:20} truth {:6.2} % sampled {:6.2} % ({hit})",
            p * 100.0,
            share * 100.0
        );
    }
    eprintln!("{:#?}", failed.iter().take(10).collect::<Vec<_>>());
    // One in 200, and what chance does to so few.
    let limit = s.lua_segments as f64 / 200.0;
    assert!(
        s.lua_failed as f64 <= limit + 4.0 * limit.sqrt(),
        "{} failed segments, {limit} are one in 200",
        s.lua_failed
    );
    assert!(s.rooted as f64 >= 0.99 * s.user_stacks as f64, "rooted");
    for (name, seconds) in truth {
        let p = seconds / all;
        let share = sampled.get(name).copied().unwrap_or(0) as f64 / n;
        let tolerance = (4.0 * (p * (1.0 - p) / n).sqrt()).max(0.03);
        assert!((share - p).abs() < tolerance, "{name}: {share} of {p}");
    }
}

/// Samples whose stack is in code of Lua's own: the worker is in a phase of ngx_lua.
fn in_a_phase(stack: &Stack) -> bool {
    let lua =
        |name: &str| name.starts_with("ngx_http_lua_run_thread") || name.starts_with("lua_resume");
    stack.frames.iter().any(|f| lua(&f.name))
}

fn has_lua(stack: &Stack) -> bool {
    use model::profile::FrameKind::{Jit, Lua};
    stack.frames.iter().any(|f| {
        matches!(f.kind, Lua | Jit)
            && (f.line > 0 || !f.name.is_empty())
            && f.module.is_empty()
            && f.name != "[jit]"
    })
}

fn share(capture: &Capture, of: impl Fn(&Stack) -> bool, has: impl Fn(&Stack) -> bool) -> f64 {
    let all = capture.stacks.iter().filter(|s| of(s));
    let (mut n, mut hit) = (0, 0);
    for stack in all {
        n += stack.samples;
        hit += if has(stack) { stack.samples } else { 0 };
    }
    assert!(n > 100, "only {n} samples");
    hit as f64 / n as f64
}

#[test]
fn a_handler_s_functions_have_their_shares() {
    let _one = alone();
    let gateway = gateway();
    let (capture, truth) = gateway.sampled("/", 499, 2000);
    check(&capture, &truth);
    let with_lua = share(&capture, in_a_phase, has_lua);
    assert!(with_lua >= 0.95, "{with_lua}");
}

#[test]
fn at_99_hz_too() {
    let _one = alone();
    let gateway = gateway();
    let (capture, truth) = gateway.sampled("/", 99, 600);
    check(&capture, &truth);
    let s = &capture.summary;
    let wall = s.stopped_mono_ns - s.started_mono_ns;
    eprintln!(
        "own CPU {:.2} % of a core",
        100.0 * s.own_cpu_ns as f64 / wall as f64
    );
}

#[test]
fn interpreted_and_compiled_pairs_are_60_to_40() {
    let _one = alone();
    let gateway = gateway();
    for path in ["/interpreted", "/compiled"] {
        let (capture, truth) = gateway.sampled(path, 499, 1500);
        check(&capture, &truth);
    }
}

#[test]
fn plugins_in_coroutines_threads_and_timers_have_shares_and_phases() {
    let _one = alone();
    let gateway = gateway();
    let (capture, truth) = gateway.sampled("/plugins", 499, 2000);
    assert_eq!(truth.len(), 7, "{truth:?}");
    check(&capture, &truth);
    let plugin = |s: &Stack| {
        let request = |f: &model::profile::Frame| f.file.contains("/kong/plugins/");
        s.frames.iter().any(request)
    };
    let phase = |s: &Stack| {
        s.frames
            .iter()
            .any(|f| f.name.contains("_by_lua(nginx.conf:"))
    };
    let rooted = share(&capture, plugin, phase);
    eprintln!(
        "{:.2} % of the plugins' samples have their phase",
        rooted * 100.0
    );
    assert!(rooted >= 0.95, "{rooted}");
    let joined = |s: &Stack| s.frames.iter().any(|f| f.name == "[co]");
    assert!(share(&capture, plugin, joined) > 0.5);
    let dir = gateway.dir.path().to_str().unwrap();
    let whole = |s: &Stack| s.frames.iter().any(|f| f.file.starts_with(dir));
    assert!(share(&capture, plugin, whole) > 0.999, "whole paths");
    let timer = |s: &Stack| s.frames.iter().any(|f| f.name == "put_off_work");
    assert_eq!(share(&capture, timer, phase), 0.0, "a timer has no phase");
    assert!(gateway.nginx.pid() > 0);
}

#[test]
fn a_reload_in_mid_capture_brings_the_new_workers_and_no_wrong_frame() {
    let _one = alone();
    let gateway = gateway();
    let load = gateway.load("/plugins", 13);
    std::thread::sleep(Duration::from_millis(500));
    let (mut sampler, recorder) = arm(config(
        vec![TargetSelector::Exe("/usr/sbin/nginx".into())],
        499,
    ));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_secs(4));
    let hup = Command::new("kill")
        .arg("-HUP")
        .arg(gateway.nginx.pid().to_string())
        .status();
    assert!(hup.unwrap().success());
    std::thread::sleep(Duration::from_secs(7));
    let capture = collect(sampler, &recorder);
    drop(load);
    let workers: Vec<_> = capture
        .summary
        .windows
        .iter()
        .filter(|w| w.process.role == "nginx: worker")
        .collect();
    assert!(workers.len() >= 4, "old and new workers: {workers:?}");
    let new = workers.iter().filter(|w| w.process.generation > 0);
    let new: Vec<u32> = new.map(|w| w.process.pid).collect();
    let told = capture
        .summary
        .findings
        .iter()
        .any(|f| f.code == model::FindingCode::TargetReloaded);
    assert!(told, "{:?}", capture.summary.findings);
    let of_new = |s: &&Stack| new.contains(&s.pid);
    let (mut all, mut with_lua) = (0, 0);
    for stack in capture.stacks.iter().filter(of_new) {
        all += stack.samples;
        with_lua += if has_lua(stack) { stack.samples } else { 0 };
    }
    eprintln!("{with_lua} of {all} samples of the new workers have Lua frames");
    // Their first moments are start-up in C.
    assert!(all > 20 && with_lua as f64 > 0.7 * all as f64);
    let dir = gateway.dir.path().to_str().unwrap();
    for frame in capture
        .stacks
        .iter()
        .flat_map(|s| &s.frames)
        .filter(|f| !f.file.is_empty())
    {
        let known = [dir, "/usr/share/lua/5.1/"]
            .iter()
            .any(|d| frame.file.starts_with(d));
        assert!(
            known || frame.file.contains("_by_lua(nginx.conf:"),
            "{frame:?}"
        );
    }
    let s = &capture.summary;
    eprintln!("segments {} failed {}", s.lua_segments, s.lua_failed);
    assert!(
        s.lua_failed * 100 <= s.lua_segments,
        "{} of {}",
        s.lua_failed,
        s.lua_segments
    );
}
