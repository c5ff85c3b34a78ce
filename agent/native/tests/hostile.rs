//! Targets that come, go, lie and break.
#![expect(clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::{NativeConfig, TargetSelector, mono_ns};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Program, SHARES, alone, arm, capture, collect, compile, config};

#[test]
fn nothing_counts_before_the_start() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "busy", SHARES, &["-O2"]), &["60"]);
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Pid(program.pid())], 499));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(recorder.lock().unwrap().samples(), 0);
    let start = mono_ns() + 700_000_000;
    sampler.start_at(start);
    std::thread::sleep(Duration::from_millis(1_700));
    let capture = collect(sampler, &recorder);
    assert_eq!(capture.summary.started_mono_ns, start);
    assert!(
        capture.cpu_ns() < 1_200_000_000 && capture.samples() > 100,
        "{}",
        capture.cpu_ns()
    );
}

#[test]
fn a_pid_that_is_not_there_is_a_finding() {
    let _one = alone();
    let recorder = std::sync::Arc::new(std::sync::Mutex::new(model::profile::Recorder::new(
        "test",
        model::profile::Measure::on_cpu(),
        model::profile::RecorderLimits::default(),
    )));
    let targets = vec![TargetSelector::Pid(4_194_303)];
    let refused = fleetflame_native::Sampler::arm(config(targets, 99), recorder.clone());
    let code = refused.err().map(|f| f.code);
    assert!(matches!(
        code,
        Some(model::FindingCode::TargetNotFound | model::FindingCode::PerfNotPermitted)
    ));
    let none = NativeConfig::default();
    assert!(fleetflame_native::Sampler::arm(none, recorder).is_err());
}

#[test]
fn a_process_that_appears_is_sampled_and_its_end_is_noticed() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "ff_appears", SHARES, &["-O2"]);
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Exe("ff_appears".into())], 499));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_millis(300));
    let program = Program::start(&path, &["60"]);
    std::thread::sleep(Duration::from_millis(2_500));
    drop(program);
    std::thread::sleep(Duration::from_millis(1_200));
    let capture = collect(sampler, &recorder);
    assert!(capture.samples() > 100, "{}", capture.samples());
    assert!(capture.share(|s| s.iter().any(|f| f == "rec")) > 0.9);
    let window = &capture.summary.windows[0];
    assert!(window.ended, "{window:?}");
    let length = window.last_mono_ns - window.first_mono_ns;
    assert!((500_000_000..3_200_000_000).contains(&length), "{length}");
    let codes: Vec<_> = capture
        .summary
        .findings
        .iter()
        .map(|f| f.code.as_str())
        .collect();
    assert!(codes.contains(&"target-vanished"), "{codes:?}");
}

/// Forks 2,000 children that live for about a millisecond.
const FORKS: &str = r"
#include <unistd.h>
#include <sys/wait.h>
static volatile unsigned long sink;
int main(void){ for(int i=0;i<2000;i++){ if(!fork()){ for(unsigned long k=0;k<300000;k++) sink+=k; _exit(0);} if(i%8==7) while(waitpid(-1,0,WNOHANG)>0); } while(wait(0)>0); for(;;) sink++; }
";

#[test]
fn two_thousand_short_lived_children_do_not_hurt() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "ff_forks", FORKS, &["-O2"]);
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Exe("ff_forks".into())], 499));
    sampler.start_at(mono_ns());
    let program = Program::start(&path, &[]);
    std::thread::sleep(Duration::from_millis(4_000));
    let begin = Instant::now();
    let capture = collect(sampler, &recorder);
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "stopping took {:?}",
        begin.elapsed()
    );
    drop(program);
    assert!(capture.samples() > 50);
    assert!(
        capture.summary.own_cpu_ns < 2_500_000_000,
        "{}",
        capture.summary.own_cpu_ns
    );
}

#[test]
fn an_executable_destroyed_on_disk_is_no_fault_of_ours() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "victim", SHARES, &["-O2"]);
    let program = Program::start(&path, &["60"]);
    let targets = vec![TargetSelector::Pid(program.pid())];
    // Replaced by a FIFO before the capture: the mapped inode is still the old one.
    fs::remove_file(&path).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let fifo = capture(config(targets.clone(), 499), 1.0);
    assert!(fifo.samples() > 50);
    assert!(fifo.share(|s| s.iter().any(|f| f == "rec" || f == "[victim]")) > 0.9);
    // Replaced by a link to something else.
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &path).unwrap();
    let link = capture(config(targets, 499), 1.0);
    assert!(link.share(|s| s.iter().any(|f| f == "rec" || f == "[victim]")) > 0.9);
}

const LIBRARY: &str = r"
static volatile unsigned long sink;
__attribute__((noinline)) void spin(void){ for(unsigned long k=0;k<3000000;k++) sink+=k; }
";
/// Calls the library that it is given for ever.
const LOADER: &str = r"
#include <dlfcn.h>
int main(int c,char**v){ void*h=dlopen(v[1],RTLD_NOW); if(!h) return 1; void(*f)(void)=(void(*)(void))dlsym(h,v[2]); for(;;) f(); }
";

#[test]
fn a_library_overwritten_and_cut_short_while_it_is_sampled() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let library = compile(
        dir.path(),
        "libvictim.so",
        LIBRARY,
        &["-O2", "-shared", "-fPIC"],
    );
    let loader = compile(dir.path(), "loader", LOADER, &["-O2"]);
    let program = Program::start(&loader, &[library.to_str().unwrap(), "spin"]);
    let targets = vec![TargetSelector::Pid(program.pid())];
    let file = fs::OpenOptions::new().write(true).open(&library).unwrap();

    // Its header is overwritten in mid-capture: what was read when arming still holds.
    let (mut sampler, recorder) = arm(config(targets.clone(), 499));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_millis(300));
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x5a; 512], 0).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let first = collect(sampler, &recorder);
    assert!(first.samples() > 50 && first.share(|s| s.last().is_some_and(|f| f == "spin")) > 0.9);

    // Who arms only now finds no tables, says so, and counts on.
    let second = capture(config(targets.clone(), 499), 1.0);
    assert!(second.share(|s| s.last().is_some_and(|f| f == "[libvictim.so]")) > 0.9);
    let said = |f: &model::Finding| {
        f.code == model::FindingCode::TargetFile && f.evidence.contains("libvictim.so")
    };
    assert!(
        second.summary.findings.iter().any(said),
        "{:?}",
        second.summary.findings
    );

    // Cut to nothing: the program dies of it, we must not.
    let (mut sampler, recorder) = arm(config(targets, 499));
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_millis(200));
    file.set_len(0).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    let third = collect(sampler, &recorder);
    assert!(third.samples() > 0);
}

/// Maps 10,000 executable pages with gaps, then runs.
const MAPPINGS: &str = r#"
#include <sys/mman.h>
#include <fcntl.h>
static volatile unsigned long sink;
int main(void){ int fd=open("/proc/self/exe",O_RDONLY); for(int i=0;i<10000;i++) mmap(0,4096,i%2?PROT_READ|PROT_EXEC:PROT_READ,MAP_PRIVATE,fd,0); for(;;) sink++; }
"#;

#[test]
fn ten_thousand_mappings_cost_a_bounded_time() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "mappings", MAPPINGS, &["-O2"]), &[]);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    let (mut sampler, recorder) = arm(config(vec![TargetSelector::Pid(program.pid())], 499));
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "arming took {:?}",
        begin.elapsed()
    );
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_millis(1_000));
    let capture = collect(sampler, &recorder);
    assert!(capture.samples() > 50);
    assert!(capture.share(|s| s.iter().any(|f| f == "main")) > 0.95);
}

#[test]
fn threads_are_told_apart_by_name_and_rooted_at_their_start() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
#define _GNU_SOURCE
#include <pthread.h>
static volatile unsigned long sink;
static void*work(void*n){ pthread_setname_np(pthread_self(),n); for(;;) sink++; }
int main(void){ pthread_t a,b; pthread_create(&a,0,work,"alpha"); pthread_create(&b,0,work,"beta"); pthread_join(a,0); }
"#;
    let program = Program::start(&compile(dir.path(), "threads", source, &["-O2"]), &[]);
    let targets = vec![TargetSelector::Pid(program.pid())];
    let capture = capture(config(targets, 499), 2.0);
    let of = |name: &str| -> u64 {
        capture
            .stacks
            .iter()
            .filter(|s| s.thread == name)
            .map(|s| s.samples)
            .sum()
    };
    assert!(
        of("alpha") > 50 && of("beta") > 50,
        "{} {}",
        of("alpha"),
        of("beta")
    );
    let begins = |s: &[String]| {
        s.first()
            .is_some_and(|f| f.contains("clone") || f == "start_thread")
    };
    assert!(capture.share(begins) > 0.99);
}
