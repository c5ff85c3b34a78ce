//! Programs as distributions ship them: stripped, without frame pointers.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::{TargetSelector, TargetWatch};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Capture, Program, SHARES, alone, arm, capture, collect, compile, config, installed};

fn unknown_share(capture: &Capture) -> f64 {
    capture.summary.unknown_frames as f64 / capture.summary.user_frames.max(1) as f64
}

#[test]
fn sampled_cpu_agrees_with_the_scheduler_s() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "busy", SHARES, &["-O2"]), &["60"]);
    let target = vec![TargetSelector::Pid(program.pid())];
    let capture = capture(config(target, 499), 8.0);
    let ratio = capture.cpu_ns() as f64 / capture.schedstat_ns as f64;
    eprintln!("sampled / schedstat = {ratio:.4}");
    // A hypervisor that takes its CPU away takes it from the scheduler's account and not from a sample's period.
    // A period that is weighted wrongly, or a sample counted twice, is further off.
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn python_s_frames_are_known() {
    let _one = alone();
    let python = installed("/usr/bin/python3", "python3");
    let work = "import json,zlib,re\nd={str(i):[i]*9 for i in range(300)}\nwhile True:\n \
                s=json.dumps(d); json.loads(s); zlib.compress(s.encode()); re.findall(r'4\\d*',s)";
    let program = Program::start(&std::fs::canonicalize(python).unwrap(), &["-c", work]);
    let target = vec![TargetSelector::Pid(program.pid())];
    let capture = capture(config(target, 499), 3.0);
    assert!(capture.samples() > 300);
    assert!(
        unknown_share(&capture) < 0.05,
        "{}",
        unknown_share(&capture)
    );
    let rooted = capture.summary.rooted as f64 / capture.summary.user_stacks as f64;
    assert!(rooted > 0.99, "{rooted}");
}

const NGINX: &str = "/usr/sbin/nginx";

fn nginx(dir: &Path, port: u16) -> Program {
    let nginx = installed(NGINX, "nginx");
    let mut conf = String::from("daemon off; worker_processes 2; error_log error.log;\n");
    let here = dir.display();
    write!(
        conf,
        "pid {here}/nginx.pid; events {{ worker_connections 64; }}\nhttp {{ access_log off; \
         client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; \
         uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\nserver {{ listen 127.0.0.1:{port}; \
         location / {{ return 200 'ok'; }} }} }}\n"
    )
    .unwrap();
    std::fs::write(dir.join("nginx.conf"), conf).unwrap();
    let here = dir.to_str().unwrap();
    let program = Program::start(nginx, &["-p", here, "-c", &format!("{here}/nginx.conf")]);
    std::thread::sleep(Duration::from_millis(500));
    program
}

/// A port that nobody listens on: other tests may run beside this one.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn request(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn under_load<T>(port: u16, during: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if request(port).is_err() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
        let result = during();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn terminate(program: &Program, signal: &str) {
    Command::new("kill")
        .args([signal, &program.pid().to_string()])
        .status()
        .unwrap();
}

#[test]
fn nginx_is_found_as_a_gateway_and_its_frames_are_known() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let program = nginx(dir.path(), port);
    let capture = under_load(port, || {
        capture(config(vec![TargetSelector::Gateway], 997), 3.0)
    });
    terminate(&program, "-TERM");
    assert!(capture.samples() > 50, "{}", capture.samples());
    assert!(
        unknown_share(&capture) < 0.05,
        "{}",
        unknown_share(&capture)
    );
    let roles: Vec<_> = capture
        .summary
        .windows
        .iter()
        .filter(|w| w.process.pid >= program.pid())
        .map(|w| w.process.role.as_str())
        .collect();
    assert!(roles.contains(&"nginx: master"), "{roles:?}");
    assert!(
        roles.iter().filter(|r| **r == "nginx: worker").count() >= 2,
        "{roles:?}"
    );
    let kernel = capture.stacks.iter().flat_map(|s| &s.frames);
    assert!(
        kernel
            .clone()
            .any(|f| f.kind == model::profile::FrameKind::Kernel)
    );
}

#[test]
fn a_worker_that_is_named_by_its_pid_is_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let program = nginx(dir.path(), free_port());
    let children = format!("/proc/{0}/task/{0}/children", program.pid());
    let worker = || {
        let text = std::fs::read_to_string(&children).unwrap();
        text.split_ascii_whitespace().next()?.parse::<u32>().ok()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while worker().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    for (pid, role) in [
        (worker().expect("a worker"), "nginx: worker"),
        (program.pid(), "nginx: master"),
    ] {
        let mut watch = TargetWatch::new(config(vec![TargetSelector::Pid(pid)], 99));
        // Looked at again, it is what it was, and its parent is no target.
        for round in [vec![pid], vec![]] {
            assert_eq!(watch.scan(), (round, vec![]));
            assert_eq!(watch.pids(), [pid]);
            assert_eq!(watch.process(pid).unwrap().role, role);
        }
    }
    terminate(&program, "-TERM");
}

#[test]
fn a_reload_is_followed_and_marked() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let program = nginx(dir.path(), port);
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Gateway], 499));
    sampler.start_at(fleetflame_native::mono_ns());
    under_load(port, || {
        std::thread::sleep(Duration::from_secs(1));
        terminate(&program, "-HUP");
        std::thread::sleep(Duration::from_secs(4));
    });
    let capture = collect(sampler, &recorder);
    terminate(&program, "-TERM");
    let generations: Vec<u32> = capture
        .summary
        .windows
        .iter()
        .filter(|w| w.process.role == "nginx: worker" && w.process.pid > program.pid())
        .map(|w| w.process.generation)
        .collect();
    assert!(
        generations.contains(&0) && generations.contains(&1),
        "{generations:?}"
    );
    let reloads = capture.summary.findings.iter();
    let reloads = reloads
        .filter(|f| f.code == model::FindingCode::TargetReloaded)
        .count();
    assert!(reloads >= 1, "{:?}", capture.summary.findings);
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_ascii_whitespace()
        .map(|p| p.parse().unwrap())
        .collect()
}

#[test]
fn requests_are_counted_from_the_gateway_s_own_memory_and_once() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let program = nginx(dir.path(), port);
    // Processes that share one counter.
    let mut targets = vec![TargetSelector::Pid(program.pid())];
    targets.extend(children(program.pid()).into_iter().map(TargetSelector::Pid));
    assert_eq!(targets.len(), 3);
    // What came before the start does not count.
    (0..20).for_each(|_| request(port).unwrap());
    let (mut sampler, recorder) = arm(config(targets, 99));
    sampler.start_at(fleetflame_native::mono_ns());
    std::thread::sleep(Duration::from_millis(500));
    (0..137).for_each(|_| request(port).unwrap());
    std::thread::sleep(Duration::from_millis(1_200));
    (0..63).for_each(|_| request(port).unwrap());
    let capture = collect(sampler, &recorder);
    terminate(&program, "-TERM");
    assert_eq!(capture.requests, 200);
    let unknown = |f: &&model::Finding| f.code == model::FindingCode::RequestsUnknown;
    assert_eq!(capture.summary.findings.iter().filter(unknown).count(), 0);
}

#[test]
fn a_gateway_without_a_counter_is_said_to_have_none() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "nginx", SHARES, &["-O2"]), &["60"]);
    let capture = capture(config(vec![TargetSelector::Pid(program.pid())], 99), 1.0);
    let unknown = |f: &&model::Finding| f.code == model::FindingCode::RequestsUnknown;
    assert_eq!(capture.requests, 0);
    assert_eq!(capture.summary.findings.iter().filter(unknown).count(), 1);
}
