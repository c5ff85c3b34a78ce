//! What perf is asked, as argument lists. Pure.
//!
//! In: an order, processes, the number of CPUs. Out: arguments and environment. Never: a shell, a
//! word from an order that is not a number or one of our own words, or a setting that the user of
//! the machine made for perf.

use model::CaptureOrder;
use model::job::Event;
use std::ffi::OsString;
use std::path::Path;

/// All that perf sees of the environment. The words are parsed, so no translation; no configuration
/// file; no HOME, from which it would read `~/.perfconfig` and `~/.debug`; no `DEBUGINFOD_URLS`, or
/// it would ask the network for symbols.
pub(super) const ENVIRONMENT: [(&str, &str); 3] = [
    ("LC_ALL", "C"),
    ("PERF_CONFIG", "/dev/null"),
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
];

/// Part of the memory budget that the kernel's rings may take, as for the native engine.
const RINGS_SHARE: u64 = 4;
/// A ring's size for each CPU, in KiB. perf takes powers of two.
const RING_KIB: std::ops::RangeInclusive<u64> = 64..=1_024;
/// Stacks that one ring must hold, so that a pause of perf's does not lose any.
const STACKS_A_RING: u64 = 8;
/// Bytes of stacks a second over all CPUs, if all of them are busy: what goes through two pipes.
const STACK_BYTES_A_SECOND: u64 = 32 << 20;
/// Sizes of a stack's copy, in bytes. 16 KiB is what the native engine takes; 4 KiB holds the stacks
/// of nginx's own C code.
const STACK_BYTES: [u32; 3] = [16 << 10, 8 << 10, 4 << 10];
/// Frames of a stack. perf's own default of 127 cuts recursive Lua and C.
pub(super) const DEPTH_MAX: usize = 512;

/// How samples are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    /// By which event.
    pub event: Event,
    /// Kernel frames too.
    pub kernel: bool,
    /// Samples a second and CPU.
    pub hz: u32,
    /// Bytes of user stack with each sample.
    pub stack_bytes: u32,
    /// Size of the kernel's ring for each CPU.
    pub ring_kib: u64,
}

impl Sampling {
    /// Sizes for this order on a machine with so many CPUs.
    pub(super) fn of(order: &CaptureOrder, cpus: usize) -> Self {
        let cpus = cpus.max(1) as u64;
        let memory_kib = (u64::from(order.budgets.memory_mb_max) << 10) / RINGS_SHARE;
        let most = (memory_kib / cpus).clamp(*RING_KIB.start(), *RING_KIB.end());
        let ring_kib = 1 << most.ilog2();
        let rate = u64::from(order.sample_hz) * cpus;
        let fits = |bytes: &&u32| {
            let bytes = u64::from(**bytes);
            bytes * rate <= STACK_BYTES_A_SECOND && bytes * STACKS_A_RING <= ring_kib << 10
        };
        let stack_bytes = STACK_BYTES.iter().find(fits).unwrap_or(&STACK_BYTES[2]);
        Self {
            event: order.event,
            kernel: order.kernel,
            hz: order.sample_hz,
            stack_bytes: *stack_bytes,
            ring_kib,
        }
    }

    /// The same with smaller rings, where the kernel does not give as much; none when they are at
    /// their smallest.
    pub(super) fn smaller(self) -> Option<Self> {
        let ring_kib = self.ring_kib / 4;
        (ring_kib >= *RING_KIB.start() / 4).then(|| Self {
            ring_kib,
            stack_bytes: STACK_BYTES[2],
            ..self
        })
    }

    /// The nominal period in nanoseconds.
    pub(super) fn period_ns(self) -> u64 {
        1_000_000_000 / u64::from(self.hz.max(1))
    }

    /// In a word, for series and coverage.
    pub(super) fn mode(self) -> String {
        let user = if self.kernel { "" } else { "/user" };
        format!("dwarf{user}")
    }
}

/// `perf record`, without what is recorded.
///
/// Call graphs are by DWARF: distributions build nginx, LuaJIT and libc without frame pointers, and
/// by frame pointers such a stack ends after its first frame in a made-up address. The price is a
/// copy of the stack with each sample.
fn record(perf: &Path, sampling: Sampling) -> Vec<OsString> {
    let user = if sampling.kernel { "" } else { ":u" };
    let event = format!("{}{user}", sampling.event);
    let hz = sampling.hz.to_string();
    let graph = format!("dwarf,{}", sampling.stack_bytes);
    let ring = format!("{}K", sampling.ring_kib);
    let words = [
        "record",
        "-e",
        &event,
        "-F",
        &hz,
        "--call-graph",
        &graph,
        "-m",
        &ring,
        // Times by the clock that the agent reads, apart from time namespaces.
        "-k",
        "CLOCK_MONOTONIC",
        // Events stay off until the control channel (stdin, answers on stderr) says enable.
        "-D",
        "-1",
        "--control",
        "fd:0,2",
        // No reading of all samples at the end, and nothing put into ~/.debug.
        "-B",
        "-N",
        "-o",
        "-",
    ];
    command(perf, &words)
}

/// `perf record` of these processes; threads and children that they start are followed.
pub(super) fn record_pids(perf: &Path, sampling: Sampling, pids: &[u32]) -> Vec<OsString> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut argv = record(perf, sampling);
    argv.extend(["-p".into(), pids.join(",").into()]);
    argv
}

/// `perf record` of a program that ends at once (perf itself), to see whether it may.
pub(super) fn trial(perf: &Path, sampling: Sampling) -> Vec<OsString> {
    let mut argv = record(perf, sampling);
    argv.extend(["--".into(), perf.into(), "--version".into()]);
    argv
}

/// `perf script` of what comes in. The names of threads are left out: a thread chooses its own, and
/// with a line break in it could pretend to be another line. Inlined functions are left out, since
/// perf starts an `addr2line` for each file, and the native engine does not show them either.
pub(super) fn script(perf: &Path) -> Vec<OsString> {
    let depth = DEPTH_MAX.to_string();
    let words = [
        "script",
        "-i",
        "-",
        "-F",
        "pid,tid,time,period,event,ip,sym,dso",
        "--ns",
        "--no-inline",
        "--show-lost-events",
        "--max-stack",
        &depth,
    ];
    command(perf, &words)
}

/// `perf --version`.
pub(super) fn version(perf: &Path) -> Vec<OsString> {
    command(perf, &["--version"])
}

fn command(perf: &Path, words: &[&str]) -> Vec<OsString> {
    let words = words.iter().map(OsString::from);
    std::iter::once(perf.into()).chain(words).collect()
}

/// What `perf --version` says of itself, such as `6.1.192`.
pub(super) fn parse_version(said: &str) -> Option<&str> {
    let rest = said.lines().find_map(|l| l.strip_prefix("perf version "))?;
    rest.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::order;

    fn words(argv: &[OsString]) -> String {
        let words: Vec<&str> = argv.iter().map(|w| w.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn an_order_becomes_one_argument_list() {
        let mut order = order();
        let perf = Path::new("/usr/bin/perf");
        let sampling = Sampling::of(&order, 2);
        assert_eq!(
            words(&record_pids(perf, sampling, &[7, 12])),
            "/usr/bin/perf record -e cpu-clock -F 99 --call-graph dwarf,16384 -m 1024K \
             -k CLOCK_MONOTONIC -D -1 --control fd:0,2 -B -N -o - -p 7,12"
        );
        order.kernel = false;
        order.event = Event::Cycles;
        let user = words(&record_pids(perf, Sampling::of(&order, 2), &[7]));
        assert!(user.contains("-e cycles:u "), "{user}");
        assert_eq!(Sampling::of(&order, 2).mode(), "dwarf/user");
    }

    #[test]
    fn sizes_keep_to_the_budget_on_every_machine() {
        let mut order = order();
        for cpus in [1, 2, 8, 64, 128, 512] {
            for memory_mb_max in [1, 16, 256, 512] {
                for hz in [1, 99, 999, 1_999] {
                    order.budgets.memory_mb_max = memory_mb_max;
                    order.sample_hz = hz;
                    let s = Sampling::of(&order, cpus);
                    let all_kib = s.ring_kib * cpus as u64;
                    let allowed = u64::from(memory_mb_max) * 1_024 / RINGS_SHARE;
                    let smallest = s.ring_kib == *RING_KIB.start();
                    assert!(s.ring_kib.is_power_of_two());
                    assert!(all_kib <= allowed || smallest, "{s:?} on {cpus}");
                    assert!(u64::from(s.stack_bytes) * STACKS_A_RING <= s.ring_kib << 10);
                    let flow = u64::from(s.stack_bytes) * u64::from(hz) * cpus as u64;
                    assert!(flow <= STACK_BYTES_A_SECOND || s.stack_bytes == STACK_BYTES[2]);
                    assert!(s.smaller().is_some_and(|s| s.ring_kib.is_power_of_two()));
                }
            }
        }
        let mut sampling = Sampling::of(&order, 1);
        let mut steps = 0;
        while let Some(smaller) = sampling.smaller() {
            sampling = smaller;
            steps += 1;
        }
        assert!(steps < 5 && sampling.ring_kib >= 16);
    }

    #[test]
    fn a_version_is_read_and_nothing_else() {
        assert_eq!(parse_version("perf version 6.1.192\n"), Some("6.1.192"));
        assert_eq!(
            parse_version("perf version 4.18.0-553.el8 (x)\n"),
            Some("4.18.0-553.el8")
        );
        assert_eq!(
            parse_version("WARNING: perf not found for kernel 5.15\n"),
            None
        );
    }
}
