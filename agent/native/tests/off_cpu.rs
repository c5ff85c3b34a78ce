//! Waits of programs whose waits are known.
//!
//! What the kernel's records say of them is exact, how long a sleep lasts on a busy machine is not: bounds on
//! times tell a mistake from a delay, no more. How exact times are is held by the pure tests of the pairing.
#![expect(clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::{NativeConfig, TargetSelector};
use model::FindingCode;
use model::job::Probe;
use std::process::Command;
use support::{Capture, Program, alone, capture, compile, config};

/// Sleeps 70 ms and 30 ms in turn, a minute long.
const SLEEPS: &str = r#"
#include <time.h>
static void ms(long n){ struct timespec t={0,n*1000000}; nanosleep(&t,0); }
__attribute__((noinline)) int sleep70(void){ ms(70); return 1; }
__attribute__((noinline)) int sleep30(void){ ms(30); return 2; }
int main(void){ volatile int x=0; for(int i=0;i<600;i++){ x+=sleep70(); x+=sleep30(); } return 0; }
"#;

/// Never waits.
const SPIN: &str = r#"
#include <time.h>
static volatile unsigned long sink;
__attribute__((noinline)) void spin(void){ for(int i=0;i<1000000;i++) sink+=i; }
int main(void){ time_t end=time(0)+60; while(time(0)<end) spin(); return 0; }
"#;

/// Sleeps of 20 µs in two functions that take turns, on two threads.
const BUSY_SLEEPS: &str = r#"
#include <pthread.h>
#include <time.h>
static void us(long n){ struct timespec t={0,n*1000}; nanosleep(&t,0); }
__attribute__((noinline)) int even(void){ us(20); return 1; }
__attribute__((noinline)) int odd(void){ us(20); return 2; }
static void *turns(void *p){ volatile int x=0; time_t end=time(0)+60; (void)p; while(time(0)<end){ x+=even(); x+=odd(); } return 0; }
int main(void){ pthread_t t; pthread_create(&t,0,turns,0); turns(0); return 0; }
"#;

fn off_cpu(program: &Program, min_wait_ns: u64) -> NativeConfig {
    NativeConfig {
        probe: Probe::OffCpu,
        min_wait_ns,
        ..config(vec![TargetSelector::Pid(program.pid())], 99)
    }
}

/// Blocked time in stacks that hold this function, and in all.
fn blocked(capture: &Capture, function: &str) -> (u64, u64) {
    let holds = |s: &&support::Stack| s.user().iter().any(|f| f == function);
    let part = capture.stacks.iter().filter(holds).map(|s| s.cpu_ns).sum();
    (part, capture.cpu_ns())
}

fn has(capture: &Capture, code: FindingCode) -> bool {
    capture.summary.findings.iter().any(|f| f.code == code)
}

#[test]
fn sleeps_are_measured_by_their_length_and_every_out_has_its_in() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "sleeps", SLEEPS, &["-O2"]), &[]);
    let capture = capture(off_cpu(&program, 0), 6.0);
    let (totals, recorded) = capture.summary.waits.unwrap();
    eprintln!("{totals:?} {recorded:?} {:?}", capture.summary.findings);
    let (seventy, all) = blocked(&capture, "sleep70");
    let (thirty, _) = blocked(&capture, "sleep30");
    let share = seventy as f64 / (seventy + thirty) as f64;
    eprintln!("sleep70 {share:.4} of {} ms", all / 1_000_000);
    assert!((share - 0.7).abs() < 0.06, "{share}");
    // The one thread sleeps all the time: what was seen and what had begun before is the window.
    let window = capture.summary.stopped_mono_ns - capture.summary.started_mono_ns;
    let waited: u64 = capture
        .stacks
        .iter()
        .map(|s| s.cpu_ns + s.runqueue_ns)
        .sum();
    let ratio = waited as f64 / window as f64;
    assert!((0.9..=1.001).contains(&ratio), "{ratio}");
    assert!(totals.outs.abs_diff(totals.ins) <= 1, "{totals:?}");
    assert_eq!(totals.outs, totals.paired + totals.open);
    assert_eq!((totals.unpaired, totals.sampled), (0, totals.outs));
    let from_main = capture
        .stacks
        .iter()
        .filter(|s| s.user().contains(&"main".to_owned()));
    let from_main: u64 = from_main.map(|s| s.samples).sum();
    assert!(
        from_main + 1 >= capture.samples(),
        "{from_main} of {}",
        capture.samples()
    );
    assert!(
        !has(&capture, FindingCode::WaitsThinned) && !has(&capture, FindingCode::WaitsUnpaired)
    );
}

#[test]
fn short_waits_are_added_up_under_one_frame() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&compile(dir.path(), "sleeps", SLEEPS, &["-O2"]), &[]);
    let capture = capture(off_cpu(&program, 50_000_000), 3.0);
    let (thirty, _) = blocked(&capture, "sleep30");
    let (short, _) = blocked(&capture, "[short waits]");
    let (seventy, _) = blocked(&capture, "sleep70");
    // Only one that was held up for 20 ms has its name.
    assert!(thirty < seventy / 4, "{thirty} {seventy}");
    let share = seventy as f64 / (seventy + short + thirty) as f64;
    assert!((share - 0.7).abs() < 0.1, "{share}");
}

#[test]
fn waiting_for_a_cpu_is_told_apart_and_agrees_with_the_scheduler_s_account() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let spin = compile(dir.path(), "spin", SPIN, &["-O2"]);
    let programs = [Program::start(&spin, &[]), Program::start(&spin, &[])];
    for program in &programs {
        let pid = program.pid().to_string();
        Command::new("taskset")
            .args(["-pc", "0", &pid])
            .status()
            .unwrap();
    }
    let capture = capture(off_cpu(&programs[0], 0), 4.0);
    let runqueue: u64 = capture.stacks.iter().map(|s| s.runqueue_ns).sum();
    let blocked = capture.cpu_ns();
    eprintln!(
        "run queue {runqueue} ns, schedstat {} ns, blocked {blocked} ns",
        capture.run_delay_ns
    );
    assert!(
        runqueue > 1_000_000_000,
        "two spinners share a CPU: {runqueue}"
    );
    let ratio = runqueue as f64 / capture.run_delay_ns as f64;
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
    assert!(blocked < runqueue / 20, "{blocked}");
    let spinning = capture
        .stacks
        .iter()
        .filter(|s| s.user().contains(&"main".to_owned()));
    let spinning: u64 = spinning.map(|s| s.runqueue_ns).sum();
    assert!(spinning as f64 > 0.95 * runqueue as f64);
}

#[test]
fn of_many_switches_a_thousand_a_second_are_sampled_and_stand_for_all() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(
        &compile(dir.path(), "turns", BUSY_SLEEPS, &["-O2", "-pthread"]),
        &[],
    );
    let capture = capture(off_cpu(&program, 0), 5.0);
    let (totals, recorded) = capture.summary.waits.unwrap();
    eprintln!("{totals:?} {recorded:?} {:?}", capture.summary.findings);
    assert!(
        has(&capture, FindingCode::WaitsThinned),
        "{:?}",
        capture.summary.findings
    );
    let cpus = fleetflame_native::online_cpus().len() as u64;
    assert!(totals.sampled <= 6 * 1_000 * cpus, "{totals:?}");
    assert!(totals.sampled * 2 < totals.outs, "{totals:?}");
    // All outs are in the stacks, but for those after the last sample.
    let missing = totals.outs - recorded.events.min(totals.outs);
    assert!(missing * 20 < totals.outs, "{totals:?} {recorded:?}");
    // The few waits that a busy machine makes a thousand times longer are in the sum, and seldom have a stack.
    let ratio = recorded.blocked_ns as f64 / totals.blocked_ns as f64;
    eprintln!("blocked time of the stacks / of the records {ratio:.3}");
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    // Two functions that take turns: a stride that falls in step would see one of them only.
    let outs = |function: &str| -> u64 {
        let holds = |s: &&support::Stack| s.user().iter().any(|f| f == function);
        capture.stacks.iter().filter(holds).map(|s| s.samples).sum()
    };
    let (even, odd) = (outs("even"), outs("odd"));
    let share = even as f64 / (even + odd) as f64;
    eprintln!("even {share:.3}");
    assert!((share - 0.5).abs() < 0.1, "{share}");
}
