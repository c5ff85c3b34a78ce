//! Programs to sample, and what came out of it. Each test file is its own crate and uses a part.
#![allow(
    clippy::allow_attributes,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "support of tests; each uses a part"
)]

pub mod without_gc64;

use fleetflame_native::{Armed, NativeConfig, NativeSummary, Sampler, TargetSelector, mono_ns};
use model::profile::{CounterKind, Frame, FrameKind, Measure, ROOT, Recorder, RecorderLimits};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Captures measure the machine, so they go one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Burns 70 % in `seventy` and 30 % in `thirty`, `argv[2]` levels of `rec` deep.
pub const SHARES: &str = r#"
#include <stdlib.h>
#include <stdio.h>
#include <time.h>
static volatile unsigned long sink;
#define BURN { unsigned long x=1; for(unsigned long i=0;i<n;i++) x=x*6364136223846793005UL+1442695040888963407UL; sink=x; }
__attribute__((noinline)) void seventy(unsigned long n) BURN
__attribute__((noinline)) void thirty(unsigned long n) BURN
__attribute__((noinline)) int rec(int d,unsigned long n){ volatile char pad[200]; pad[0]=d; if(d==0){ seventy(7*n); thirty(3*n); return pad[0]; } int r=rec(d-1,n)+pad[0]; return r; }
int main(int c,char**v){ double s=c>1?atof(v[1]):5; int d=c>2?atoi(v[2]):20; struct timespec a,b; clock_gettime(CLOCK_MONOTONIC,&a); do{ rec(d,100000); clock_gettime(CLOCK_MONOTONIC,&b);}while(b.tv_sec-a.tv_sec+(b.tv_nsec-a.tv_nsec)/1e9<s); return 0; }
"#;

pub fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let c = dir.join(format!("{name}.c"));
    std::fs::write(&c, source).unwrap();
    let out = dir.join(name);
    let status = Command::new("gcc")
        .args(flags)
        .arg("-o")
        .arg(&out)
        .arg(&c)
        .status()
        .expect("gcc");
    assert!(status.success(), "gcc {flags:?}");
    out
}

/// A child that is killed when it goes out of scope, with what it started itself: the workers of a master that is
/// killed would go on for ever, and their timers would cost every later test its CPU.
pub struct Program(pub Child);

impl Program {
    pub fn start(path: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        let program = Self::spawn(command.args(arguments).stdout(Stdio::null()));
        let exe = std::fs::canonicalize(path).unwrap();
        let link = format!("/proc/{}/exe", program.pid());
        let begin = Instant::now();
        while std::fs::read_link(&link).ok().as_ref() != Some(&exe) {
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{path:?} did not start"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        program
    }

    /// Without waiting for anything.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.process_group(0).spawn().expect("spawn"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = format!("-{}", self.pid());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One kind of stack with its values.
pub struct Stack {
    pub frames: Vec<Frame>,
    pub samples: u64,
    /// CPU time; of waits, the time blocked.
    pub cpu_ns: u64,
    /// Of waits, the time waiting for a CPU.
    pub runqueue_ns: u64,
    pub thread: String,
    pub pid: u32,
}

impl Stack {
    /// Labels of user frames, root first.
    pub fn user(&self) -> Vec<String> {
        self.frames
            .iter()
            .filter(|f| f.kind != FrameKind::Kernel)
            .map(Frame::label)
            .collect()
    }
}

pub struct Capture {
    pub stacks: Vec<Stack>,
    pub summary: NativeSummary,
    pub schedstat_ns: u64,
    /// Time waiting for a CPU by the kernel's own account.
    pub run_delay_ns: u64,
    /// Requests of the gateways among the targets.
    pub requests: u64,
}

impl Capture {
    pub fn samples(&self) -> u64 {
        self.stacks.iter().map(|s| s.samples).sum()
    }

    pub fn cpu_ns(&self) -> u64 {
        self.stacks.iter().map(|s| s.cpu_ns).sum()
    }

    /// Share of samples in whose user frames `wanted` holds.
    pub fn share(&self, wanted: impl Fn(&[String]) -> bool) -> f64 {
        let hit: u64 = self
            .stacks
            .iter()
            .filter(|s| wanted(&s.user()))
            .map(|s| s.samples)
            .sum();
        hit as f64 / self.samples().max(1) as f64
    }
}

pub fn config(targets: Vec<TargetSelector>, hz: u32) -> NativeConfig {
    NativeConfig {
        host: "test".into(),
        sample_hz: hz,
        targets,
        ..NativeConfig::default()
    }
}

/// Arms. A machine where sampling is not permitted fails the test: nothing is skipped.
pub fn arm(config: NativeConfig) -> (Sampler, Arc<Mutex<Recorder>>) {
    let limits = RecorderLimits::default();
    let recorder = Arc::new(Mutex::new(Recorder::new(
        "test",
        Measure::of(config.probe, None),
        limits,
    )));
    match Sampler::arm(config, recorder.clone()) {
        Ok(Armed(sampler, findings)) => {
            eprintln!("mode {}, findings {findings:?}", sampler.mode());
            (sampler, recorder)
        }
        Err(finding) => panic!("run as root, or with CAP_PERFMON and CAP_SYS_PTRACE: {finding:?}"),
    }
}

/// What Debian's package has put there.
pub fn installed(path: &'static str, package: &str) -> &'static Path {
    let there = Path::new(path);
    assert!(
        there.exists(),
        "{path} is missing: install {package} (deploy/test-packages)"
    );
    there
}

pub fn collect(sampler: Sampler, recorder: &Mutex<Recorder>) -> Capture {
    let summary = sampler.stop();
    let segment = recorder.lock().unwrap().take(usize::MAX);
    let mut stacks = Vec::new();
    for (series, _, cell) in &segment.cells {
        for (node, values) in cell.rows() {
            let mut frames = Vec::new();
            let mut at = node;
            while at != ROOT {
                let node = segment.nodes[at.0 as usize - segment.base_nodes as usize];
                frames.push(segment.frames[node.frame.0 as usize].clone());
                at = node.parent;
            }
            frames.reverse();
            let of = &segment.series[series.0 as usize];
            let (thread, pid) = (of.thread.clone(), of.process.pid);
            stacks.push(Stack {
                frames,
                samples: values[0],
                cpu_ns: values[1],
                runqueue_ns: values[2],
                thread,
                pid,
            });
        }
    }
    let counted = |kind| {
        let rows = segment.counters.iter().filter(|c| c.kind == kind);
        rows.map(|c| c.value).sum::<u64>()
    };
    let schedstat_ns = counted(CounterKind::CpuNs);
    let run_delay_ns = counted(CounterKind::RunQueueNs);
    let requests = counted(CounterKind::Requests);
    eprintln!(
        "{} samples, rooted {}/{}, unknown frames {}/{}, sampled {} ms, schedstat {} ms, \
         latency {:?} work {:?} ns, own CPU {} ms",
        summary.samples,
        summary.rooted,
        summary.user_stacks,
        summary.unknown_frames,
        summary.user_frames,
        stacks.iter().map(|s| s.cpu_ns).sum::<u64>() / 1_000_000,
        schedstat_ns / 1_000_000,
        summary.latency_ns,
        summary.work_ns,
        summary.own_cpu_ns / 1_000_000,
    );
    Capture {
        stacks,
        summary,
        schedstat_ns,
        run_delay_ns,
        requests,
    }
}

/// Samples for so long.
pub fn capture(config: NativeConfig, seconds: f64) -> Capture {
    let (mut sampler, recorder) = arm(config);
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    collect(sampler, &recorder)
}
