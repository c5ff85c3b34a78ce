//! Lua stacks of a stand-alone LuaJIT against its own clock.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::{TargetSelector, mono_ns};
use model::FindingCode;
use model::profile::FrameKind;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Capture, Program, alone, arm, collect, config, installed};

const WORK: &str = include_str!("support/work.lua");
const FUNCTIONS: [&str; 6] = [
    "compiled",
    "interpreted_forty",
    "interpreted_sixty",
    "joined",
    "sorted",
    "walked",
];

/// Runs the work script. See [`sampled_run`].
fn run(flags: &[&str], seconds: u64) -> (Capture, BTreeMap<String, f64>, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("work.lua");
    std::fs::write(&script, WORK).unwrap();
    let mut command = Command::new(installed("/usr/bin/luajit", "luajit2"));
    command.args(flags).arg(&script);
    let (capture, truth) = enough(&command, seconds);
    (capture, truth, script)
}

/// [`sampled_run`], for longer where the machine is too busy to give the program its CPU.
fn enough(command: &Command, mut seconds: u64) -> (Capture, BTreeMap<String, f64>) {
    loop {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args());
        let (capture, truth) = sampled_run(&mut again, 499, seconds);
        let n = capture.samples();
        if n >= 800 {
            return (capture, truth);
        }
        assert!(seconds < 60, "{n} samples in {seconds} s");
        seconds = (seconds * 1000 / n.max(1)).clamp(seconds + 2, 60);
    }
}

/// Runs a program that works for as many seconds as its last argument says, samples most of it, and
/// gives what its functions cost by their own account.
fn sampled_run(command: &mut Command, hz: u32, seconds: u64) -> (Capture, BTreeMap<String, f64>) {
    let seconds_more = (seconds + 2).to_string();
    let mut program = Program::spawn(command.arg(seconds_more).stdout(Stdio::piped()));
    std::thread::sleep(Duration::from_millis(700));
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Pid(program.pid())], hz));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_secs(seconds));
    let capture = collect(sampler, &recorder);
    let mut said = String::new();
    let mut out = program.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut out, &mut said).unwrap();
    let truth = said
        .lines()
        .filter_map(|line| {
            let (name, seconds) = line.split_once('\t')?;
            Some((name.to_owned(), seconds.parse().ok()?))
        })
        .collect();
    (capture, truth)
}

/// Samples of each function: those with it and none of the others nearer to the leaf.
fn sampled(capture: &Capture, truth: &BTreeMap<String, f64>) -> BTreeMap<String, u64> {
    let mut by_name = BTreeMap::new();
    for stack in &capture.stacks {
        let known = stack
            .frames
            .iter()
            .rev()
            .find(|f| truth.contains_key(&f.name));
        if let Some(frame) = known {
            *by_name.entry(frame.name.clone()).or_insert(0) += stack.samples;
        }
    }
    by_name
}

fn report(capture: &Capture, truth: &BTreeMap<String, f64>) {
    let s = &capture.summary;
    eprintln!(
        "mode {}: {} of {} stacks with Lua, segments {} racy {} failed {}",
        s.mode, s.lua_stacks, s.user_stacks, s.lua_segments, s.lua_racy, s.lua_failed
    );
    let (sampled, all) = (sampled(capture, truth), truth.values().sum::<f64>());
    let n: u64 = sampled.values().sum();
    for (name, seconds) in truth {
        let hit = sampled.get(name).copied().unwrap_or(0);
        eprintln!(
            "  {name:20} truth {:6.2} % sampled {:6.2} % ({hit} of {n})",
            100.0 * seconds / all,
            100.0 * hit as f64 / n.max(1) as f64,
        );
    }
}

/// Shares within four standard deviations, and never further than 3 points where that is less than
/// the sample allows.
fn check(capture: &Capture, truth: &BTreeMap<String, f64>, functions: &[&str]) {
    report(capture, truth);
    let s = &capture.summary;
    assert_eq!(truth.keys().collect::<Vec<_>>(), functions);
    // One in 200, and what chance does to so few.
    let limit = s.lua_segments as f64 / 200.0;
    assert!(
        s.lua_failed as f64 <= limit + 4.0 * limit.sqrt(),
        "{} of {} segments failed: {:#?}",
        s.lua_failed,
        s.lua_segments,
        with_failures(capture)
    );
    assert!(s.rooted as f64 >= 0.99 * s.user_stacks as f64);
    assert!(s.lua_stacks as f64 >= 0.95 * s.user_stacks as f64);
    let (sampled, all) = (sampled(capture, truth), truth.values().sum::<f64>());
    let n = sampled.values().sum::<u64>() as f64;
    for (name, seconds) in truth {
        let p = seconds / all;
        let share = sampled.get(name).copied().unwrap_or(0) as f64 / n;
        let tolerance = (4.0 * (p * (1.0 - p) / n).sqrt()).max(0.03);
        assert!((share - p).abs() < tolerance, "{name}: {share} of {p}");
    }
}

fn with_failures(capture: &Capture) -> Vec<String> {
    let failed = capture.stacks.iter().filter(|s| {
        let marked = |f: &model::profile::Frame| f.name == "[lua-unwind-failed]";
        s.frames.iter().any(marked)
    });
    failed.map(|s| s.user().join(";")).take(20).collect()
}

#[test]
fn every_function_has_its_share_and_every_stack_its_depth() {
    let _one = alone();
    let (capture, truth, script) = run(&[], 8);
    check(&capture, &truth, &FUNCTIONS);
    let file = script.to_str().unwrap();
    let (mut deep, mut exact, mut wrapped) = (0, 0, 0);
    for stack in &capture.stacks {
        let levels = stack.frames.iter().filter(|f| f.name == "deep").count();
        deep += if levels > 0 { stack.samples } else { 0 };
        exact += if levels == 21 { stack.samples } else { 0 };
        let in_coroutine = stack.frames.iter().any(|f| f.name == "wrapped");
        wrapped += if in_coroutine { stack.samples } else { 0 };
        let lua = stack
            .frames
            .iter()
            .filter(|f| matches!(f.kind, FrameKind::Lua | FrameKind::Jit));
        for frame in lua {
            let known = frame.file == file || frame.file.is_empty();
            assert!(known && frame.address == 0, "{frame:?}");
        }
    }
    eprintln!("deep {deep}, exactly 21 {exact}, in a coroutine {wrapped}");
    assert!(deep > 50 && exact as f64 >= 0.97 * deep as f64);
    assert!(wrapped > 50);
    let share = |wanted: &str, kind| {
        let has = |s: &&support::Stack| s.frames.iter().any(|f| f.name == wanted && f.kind == kind);
        capture
            .stacks
            .iter()
            .filter(has)
            .map(|s| s.samples)
            .sum::<u64>()
    };
    assert!(share("compiled", FrameKind::Jit) > share("compiled", FrameKind::Lua));
    assert_eq!(share("interpreted_sixty", FrameKind::Jit), 0);
    assert!(share("table.sort", FrameKind::Lua) > 0, "builtins by name");
    assert!(
        share("guarded", FrameKind::Jit) > 0,
        "inlined functions are seen"
    );
}

#[test]
fn without_the_compiler_it_is_the_same() {
    let _one = alone();
    let (capture, truth, _) = run(&["-joff"], 6);
    check(&capture, &truth, &FUNCTIONS);
    let compiled = |s: &&support::Stack| s.frames.iter().any(|f| f.kind == FrameKind::Jit);
    assert_eq!(capture.stacks.iter().filter(compiled).count(), 0);
}

#[test]
fn a_build_without_gc64_has_its_c_stacks_and_no_lua_function_is_made_up() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("work.lua");
    // Says first what it is: a build with GC64 would pass this test by accident.
    let asked = r#"assert(require "ffi".abi "gc64" == false)"#;
    std::fs::write(&script, format!("{asked} {WORK}")).unwrap();
    let mut command = Command::new(support::without_gc64::luajit());
    let (capture, truth) = enough(command.arg(&script), 8);
    report(&capture, &truth);
    assert_eq!(truth.keys().collect::<Vec<_>>(), FUNCTIONS);
    let of_lua = [FrameKind::Lua, FrameKind::Jit, FrameKind::Marker];
    let all = |wanted: &dyn Fn(&support::Stack) -> bool| {
        let those = capture.stacks.iter().filter(|s| wanted(s));
        those.map(|s| s.samples).sum::<u64>() as f64
    };
    for frame in capture.stacks.iter().flat_map(|s| &s.frames) {
        let is_honest = ["[lua-unwind-failed]", "[jit]"].contains(&frame.name.as_str());
        assert!(!of_lua.contains(&frame.kind) || is_honest, "{frame:?}");
        assert!(frame.line == 0 && frame.file.is_empty(), "{frame:?}");
    }
    // C calls the interpreter twice before the script begins, and compiled code is passed.
    let outward = [
        "_start",
        "main",
        "lua_cpcall",
        "pmain",
        "docall",
        "lua_pcall",
    ];
    let n = capture.samples() as f64;
    let whole = all(&|stack| {
        let mut frames = stack.frames.iter();
        outward.iter().all(|o| frames.any(|f| f.name == *o))
    });
    let unknown = all(&|s| s.frames.iter().any(|f| f.label() == "[unknown]"));
    let compiled = all(&|s| s.frames.iter().any(|f| f.kind == FrameKind::Jit));
    let in_c = all(&|s| s.frames.iter().any(|f| f.name == "lj_cf_table_sort"));
    eprintln!(
        "{whole} of {n} whole, {unknown} with an unknown frame, {compiled} compiled, {in_c} in C"
    );
    assert!(whole >= 0.99 * n && capture.summary.rooted as f64 >= 0.99 * n);
    // LuaJIT's own tables are not true where it is entered and left.
    assert!(unknown <= 0.01 * n);
    assert!(compiled > 0.1 * n && in_c > 50.0);
    let s = &capture.summary;
    assert!(s.lua_segments > 800 && s.lua_failed == s.lua_segments);
    let said = s
        .findings
        .iter()
        .filter(|f| f.code == FindingCode::LuaUnwindFailed);
    let said: Vec<_> = said.map(|f| f.evidence.as_str()).collect();
    let wanted = format!(
        "{0} of {0} runs of Lua frames could not be followed",
        s.lua_failed
    );
    assert!(said.len() == 1 && said[0].starts_with(&wanted), "{said:?}");
}

/// The line that `local function NAME` stands on.
fn line_of(name: &str) -> u32 {
    let defines = |line: &str| line.starts_with(&format!("local function {name}("));
    u32::try_from(WORK.lines().position(defines).unwrap() + 1).unwrap()
}

#[test]
fn where_the_source_is_gone_callers_say_what_functions_are_called() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("work.lua");
    std::fs::write(&script, WORK).unwrap();
    let luajit = installed("/usr/bin/luajit", "luajit2");
    let program = Program::start(luajit, &[script.to_str().unwrap(), "30"]);
    std::thread::sleep(Duration::from_millis(700));
    std::fs::remove_file(&script).unwrap();
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Pid(program.pid())], 499));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_secs(6));
    let capture = collect(sampler, &recorder);
    for name in ["deep", "round", "timed", "wrapped"] {
        let line = line_of(name);
        let (mut all, mut named) = (0, 0);
        for stack in &capture.stacks {
            let mut frames = stack.frames.iter().filter(|f| f.line == line);
            let Some(frame) = frames.next() else { continue };
            assert!(frame.name.is_empty() || frame.name == name, "{frame:?}");
            all += stack.samples;
            named += if frame.name == name { stack.samples } else { 0 };
        }
        eprintln!("{name}, line {line}: {named} of {all} samples");
        // The first samples may come before a call of it was seen.
        assert!(
            all > 50 && named * 100 >= all * 90,
            "{name}: {named} of {all}"
        );
    }
    // Called by the name of the parameter that it was passed in.
    let work = line_of("interpreted_sixty");
    let frames = capture.stacks.iter().flat_map(|s| &s.frames);
    let names: std::collections::BTreeSet<_> = frames
        .filter(|f| f.line == work && !f.name.is_empty())
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(names, ["work"].into());
}

#[test]
fn two_vms_in_one_process_are_told_apart() {
    let _one = alone();
    installed("/usr/include/luajit-2.1/lua.h", "libluajit2-5.1-dev");
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("two_vms.c");
    std::fs::write(&source, include_str!("support/two_vms.c")).unwrap();
    let program = dir.path().join("two_vms");
    let built = Command::new("gcc")
        .args(["-O2", "-s", "-I/usr/include/luajit-2.1", "-o"])
        .args([&program, &source])
        .arg("-lluajit-5.1")
        .status();
    assert!(built.unwrap().success());
    let mut command = Command::new(&program);
    for vm in ["http", "stream"] {
        // Both functions on lines of their own, so that their names are known.
        let function = |kind: &str, off: &str| {
            let body = "local x = 0 for i = 1, n do x = x + i % 7 end return x";
            format!("function {vm}_{kind}(n) {body} end\n{off}")
        };
        let off = format!("jit.off({vm}_interpreted)\n");
        let text = function("compiled", "") + &function("interpreted", &off);
        let path = dir.path().join(format!("{vm}.lua"));
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let (capture, truth) = enough(&command, 6);
    check(
        &capture,
        &truth,
        &[
            "http_compiled",
            "http_interpreted",
            "stream_compiled",
            "stream_interpreted",
        ],
    );
    for frame in capture.stacks.iter().flat_map(|s| &s.frames) {
        if let Some((vm, _)) = frame.name.split_once('_')
            && frame.line > 0
        {
            assert!(frame.file.ends_with(&format!("/{vm}.lua")), "{frame:?}");
        }
    }
}
