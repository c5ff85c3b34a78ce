//! Everything before the first sample. In: the order. Out: threads that wait for the start.
//! Never: a half-armed sampler (what was started ends when it is dropped).

use crate::attr::{self, EventPlan, Scope, Trigger};
use crate::budget::{self, Budget, BudgetRequest};
use crate::capture::{CpuSampler, INTERPOSED_WORDS, Losses, PidSet, Shared, Slot};
use crate::check::{best_priority, kernel_symbols, no_realtime, no_threads, permitted};
use crate::clock::{self, ClockOffset};
use crate::config::{NativeConfig, TargetSelector};
use crate::dither::Dither;
use crate::drain::{Drain, lock};
use crate::interpose::InterposedUnwinder;
use crate::live::StackTops;
use crate::mode::{Mode, Priority};
use crate::offcpu::SwitchChannel;
use crate::registry::Registry;
use crate::ring::Ring;
use crate::sampler::{Armed, Sampler, run_drain, run_scanner};
use crate::scan::Scanner;
use crate::sys::{self, Limit};
use crate::tasks::TaskEvents;
use crossbeam_queue::ArrayQueue;
use model::finding::{Finding, FindingCode};
use model::profile::Recorder;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A sampler thread; it returns its CPU time.
#[derive(Debug)]
pub(crate) struct CpuThread {
    pub handle: JoinHandle<u64>,
}

/// Side events that may wait; each is 24 bytes.
const SIDE_EVENTS: usize = 16_384;
/// Most descriptors for events of single threads.
const TASK_FDS_MAX: usize = 16_384;
/// Stack that is copied at a switch, which holds up whoever runs next; a longer one is read while
/// the thread waits.
const WAITING_STACK_BYTES: u32 = 8 << 10;
/// Fewest data pages of a ring that are worth a try.
const RING_PAGES_MIN: usize = 8;

pub(crate) fn arm(
    config: NativeConfig,
    recorder: Arc<Mutex<Recorder>>,
    interposed: Option<Arc<dyn InterposedUnwinder>>,
) -> Result<Armed, Finding> {
    if config.targets.is_empty() {
        return Err(Finding::new(
            FindingCode::TargetNotFound,
            "no target was named",
        ));
    }
    let first_cpu = crate::proc::online_cpus().first().copied().unwrap_or(0);
    let permitted = permitted(&config, first_cpu)?;
    let mut findings = permitted.findings;
    let clock = clock::calibrate(permitted.features).unwrap_or_else(|error| {
        let evidence = format!("the event clock could not be compared with ours: {error}");
        findings.push(Finding::new(FindingCode::ClockUncertain, evidence));
        ClockOffset {
            offset_ns: 0,
            uncertainty_ns: u64::MAX,
        }
    });
    let config = Arc::new(config);
    let registry = Arc::new(Mutex::new(Registry::default()));
    // The CPUs are not known before the targets are, and the buffers not before the CPUs; the
    // scanner only needs the filter, so it looks first with a filter of its own.
    let cpus = {
        let shared = Arc::new(shared_state(None, 0, None, None));
        let mut look = Scanner::new(config.clone(), shared, Arc::default(), recorder.clone());
        look.scan();
        look.cpus()
    };
    let request = BudgetRequest {
        budget_bytes: config.memory_budget_bytes,
        cpus: cpus.len(),
        sample_hz: config.stacks_hz(),
        stack_copy_bytes: if config.is_off_cpu() {
            config.stack_copy_bytes.min(WAITING_STACK_BYTES)
        } else {
            config.stack_copy_bytes
        },
        stack_extension_bytes: config.stack_extension_bytes,
        page_bytes: sys::page_size(),
    };
    let budget = budget::plan(&request);
    findings.extend(limits(&budget, &request, permitted.cpu_wide));
    let switches = config.is_off_cpu().then(|| SwitchChannel::new(cpus.len()));
    let shared = Arc::new(shared_state(
        Some(&budget),
        clock.offset_ns,
        interposed,
        switches,
    ));
    let mut scanner = Scanner::new(
        config.clone(),
        shared.clone(),
        registry.clone(),
        recorder.clone(),
    );
    scanner.scan();
    if lock(&registry).pids().is_empty() {
        let finding = Finding::new(FindingCode::TargetNotFound, format!("{:?}", config.targets));
        if config
            .targets
            .iter()
            .all(|t| matches!(t, TargetSelector::Pid(_)))
        {
            return Err(finding);
        }
        findings.push(finding);
    }
    let plan = EventPlan {
        trigger: if config.is_off_cpu() {
            Trigger::Switches(1)
        } else {
            Trigger::CpuClock(config.period_ns())
        },
        stack_copy_bytes: budget.stack_copy_bytes,
        features: permitted.features,
    };
    let mut sampler = Sampler {
        mode: Mode {
            cpu_wide: permitted.cpu_wide,
            priority: Priority::Fifo,
            kernel: plan.features.kernel,
        },
        clock,
        shared,
        registry,
        cpu_threads: Vec::new(),
        drain: None,
        scanner: None,
        drain_stop: Arc::default(),
        found: Arc::default(),
        own_threads: Arc::default(),
        started_mono_ns: 0,
        told: Vec::new(),
    };
    let rings = start_cpu_threads(&mut sampler, &cpus, plan, &budget, &mut findings)?;
    let mode = sampler.mode.to_string();
    let tasks = (!sampler.mode.cpu_wide).then(|| {
        let open_max = usize::try_from(sys::limit(Limit::Nofile).0 / 2).unwrap_or(TASK_FDS_MAX);
        TaskEvents::new(plan, rings, open_max.min(TASK_FDS_MAX))
    });
    scanner.arm(&mode, tasks);
    if let Some((count, why, none)) = scanner.task_failures() {
        if none {
            return Err(no_threads(count, &why));
        }
        let evidence = format!("{count} events of threads could not be opened: {why}");
        findings.push(Finding::new(FindingCode::PerfRestricted, evidence));
    }
    let (symbols, hidden) = kernel_symbols(plan.features.kernel);
    findings.extend(hidden);
    let mut drain = Drain::new(
        config,
        sampler.shared.clone(),
        sampler.registry.clone(),
        recorder,
        symbols,
    );
    drain.set_mode(&mode);
    start_normal_threads(&mut sampler, drain, scanner)?;
    sampler.told.clone_from(&findings);
    Ok(Armed(sampler, findings))
}

pub(crate) fn shared_state(
    budget: Option<&Budget>,
    clock_offset: u64,
    interposed: Option<Arc<dyn InterposedUnwinder>>,
    switches: Option<SwitchChannel>,
) -> Shared {
    let (slots, slot_bytes) = budget.map_or((1, 0), |b| (b.slots, b.slot_bytes));
    let (extensions, extension_bytes) =
        budget.map_or((0, 0), |b| (b.extensions, b.extension_bytes));
    let shared = Shared {
        targets: PidSet::default(),
        free: ArrayQueue::new(slots),
        full: ArrayQueue::new(slots),
        extensions: ArrayQueue::new(extensions.max(1)),
        side: ArrayQueue::new(SIDE_EVENTS),
        start_time: AtomicU64::new(u64::MAX),
        stop_time: AtomicU64::new(u64::MAX),
        clock_offset,
        stop: AtomicBool::new(false),
        losses: Losses::default(),
        requests: crate::requests::RequestSources::default(),
        switches,
        interposed,
    };
    let words = if shared.interposed.is_some() {
        INTERPOSED_WORDS
    } else {
        0
    };
    // Filled with something else than 0, so that the pages are there before real time begins.
    let bytes = |n: usize| vec![0xa5_u8; n].into_boxed_slice();
    for _ in 0..slots {
        let _ = shared.free.push(Box::new(Slot {
            record: bytes(slot_bytes),
            length: 0,
            extension: None,
            extension_length: 0,
            period_ns: 0,
            time: 0,
            latency_ns: 0,
            work_ns: 0,
            interposed: Vec::with_capacity(words),
        }));
    }
    for _ in 0..extensions {
        let _ = shared.extensions.push(bytes(extension_bytes));
    }
    shared
}

/// Raises what limits the rings and descriptors, and says where that was not enough.
fn limits(budget: &Budget, request: &BudgetRequest, cpu_wide: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let resource = |evidence: String| Finding::new(FindingCode::ResourceLimit, evidence);
    let files = if cpu_wide {
        budget.fds as u64 + 256
    } else {
        TASK_FDS_MAX as u64 * 2
    };
    let got = sys::raise_limit(Limit::Nofile, files);
    if got < budget.fds as u64 + 64 {
        findings.push(resource(format!(
            "RLIMIT_NOFILE is {got}, {files} are needed"
        )));
    }
    let rings = (request.cpus * (budget.ring_pages + 1) * request.page_bytes) as u64;
    sys::raise_limit(Limit::Memlock, rings);
    if budget.cut {
        findings.push(Finding::new(
            FindingCode::ResourceLimit,
            format!(
                "memory_budget_bytes {} for {} CPUs allows stack copies of {} bytes",
                request.budget_bytes, request.cpus, budget.stack_copy_bytes
            ),
        ));
    }
    findings
}

/// What a sampler thread says when it is ready.
struct Ready {
    cpu: usize,
    priority: Priority,
    refused: Option<String>,
    ring_pages: usize,
    fd: Arc<OwnedFd>,
    tid: u32,
}

fn start_cpu_threads(
    sampler: &mut Sampler,
    cpus: &[usize],
    plan: EventPlan,
    budget: &Budget,
    findings: &mut Vec<Finding>,
) -> Result<Vec<(usize, Arc<OwnedFd>)>, Finding> {
    let (sender, receiver) = mpsc::channel();
    let failed = |why: String| Finding::new(FindingCode::EngineFailed, why);
    for (index, &cpu) in cpus.iter().enumerate() {
        let (shared, sender) = (sampler.shared.clone(), sender.clone());
        let (cpu_wide, pages) = (sampler.mode.cpu_wide, budget.ring_pages);
        let handle = std::thread::Builder::new()
            .name(format!("ff-cpu-{cpu}"))
            .stack_size(256 << 10)
            .spawn(move || cpu_thread((index, cpu), cpu_wide, plan, pages, &shared, sender))
            .map_err(|e| failed(format!("start a thread: {e}")))?;
        sampler.cpu_threads.push(CpuThread { handle });
    }
    drop(sender);
    let mut rings = Vec::new();
    let mut refused = None;
    let mut small = None;
    let mut errors = Vec::new();
    for answer in receiver {
        match answer {
            Ok(ready) => {
                sampler.mode.priority = sampler.mode.priority.max(ready.priority);
                refused = refused.or(ready.refused);
                if ready.ring_pages < budget.ring_pages {
                    small = Some(ready.ring_pages);
                }
                lock(&sampler.own_threads).push(ready.tid);
                rings.push((ready.cpu, ready.fd));
            }
            Err(why) => errors.push(why),
        }
    }
    if rings.is_empty() {
        return Err(Finding::new(
            FindingCode::PerfNotPermitted,
            errors.join("; "),
        ));
    }
    for why in errors {
        findings.push(Finding::new(FindingCode::PerfRestricted, why));
    }
    findings.extend(refused.map(no_realtime));
    findings.extend(small.map(|pages| {
        let evidence = format!(
            "RLIMIT_MEMLOCK: rings of {pages} pages instead of {}",
            budget.ring_pages
        );
        Finding::new(FindingCode::ResourceLimit, evidence)
    }));
    Ok(rings)
}

fn cpu_thread(
    (index, cpu): (usize, usize),
    cpu_wide: bool,
    plan: EventPlan,
    pages: usize,
    shared: &Shared,
    sender: Sender<Result<Ready, String>>,
) -> u64 {
    let opened = open(cpu, cpu_wide, plan, pages);
    let (fd, ring, ring_pages) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            let _ = sender.send(Err(format!("CPU {cpu}: {why}")));
            return 0;
        }
    };
    let fd = Arc::new(fd);
    let (priority, refused) = best_priority();
    let ready = Ready {
        cpu,
        priority,
        refused,
        ring_pages,
        fd: fd.clone(),
        tid: u32::try_from(sys::thread_id()).unwrap_or(0),
    };
    let period_ns = match plan.trigger {
        Trigger::CpuClock(period_ns) => period_ns,
        Trigger::Switches(_) => 1,
    };
    let mut sampler = CpuSampler {
        fd,
        index,
        ring,
        exclusive: priority == Priority::Fifo,
        samples_itself: cpu_wide,
        dither: Dither::new(period_ns, cpu as u64),
        period_ns,
        restarted: 0,
        countdown: 1,
        stack_copy_bytes: usize::try_from(plan.stack_copy_bytes).unwrap_or(0),
        taken: (0, 0),
        tops: StackTops::default(),
    };
    if sender.send(Ok(ready)).is_err() {
        return 0;
    }
    // The receiver waits until the last sender is gone.
    drop(sender);
    while !shared.stop.load(Relaxed) {
        let start = shared.start_time.load(Relaxed);
        if start != u64::MAX {
            // A little early: samples before the start are thrown away.
            let early = start
                .saturating_sub(shared.event_now())
                .saturating_sub(2_000_000);
            if early == 0 {
                break;
            }
            std::thread::park_timeout(Duration::from_nanos(early.min(50_000_000)));
        } else {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
    if sys::perf_enable(&sampler.fd).is_ok() {
        sampler.run(shared);
        let _ = sys::perf_disable(&sampler.fd);
    }
    sys::thread_cpu_ns()
}

fn open(
    cpu: usize,
    cpu_wide: bool,
    plan: EventPlan,
    pages: usize,
) -> Result<(OwnedFd, Ring, usize), String> {
    sys::pin_to_cpu(cpu).map_err(|e| format!("pin the sampler thread: {e}"))?;
    let fd = if cpu_wide {
        attr::open_sampling(&plan, Scope::Cpu(cpu))
    } else {
        attr::open_dummy(plan.features, Some(cpu))
    };
    let fd = fd.map_err(|e| format!("perf_event_open: {e}"))?;
    let mut pages = pages;
    loop {
        match Ring::map(&fd, pages) {
            Ok(ring) => return Ok((fd, ring, pages)),
            Err(error) if attr::is_refused(&error) && pages > RING_PAGES_MIN => pages /= 2,
            Err(error) => return Err(format!("map a ring of {pages} pages: {error}")),
        }
    }
}

fn start_normal_threads(
    sampler: &mut Sampler,
    mut drain: Drain,
    mut scanner: Scanner,
) -> Result<(), Finding> {
    let failed =
        |e: std::io::Error| Finding::new(FindingCode::EngineFailed, format!("start a thread: {e}"));
    let (ready, loaded) = mpsc::channel();
    let (stop, found) = (sampler.drain_stop.clone(), sampler.found.clone());
    let own = sampler.own_threads.clone();
    let spawned = std::thread::Builder::new()
        .name("ff-unwind".to_owned())
        .spawn(move || {
            let _ = sys::set_nice(10);
            lock(&own).push(u32::try_from(sys::thread_id()).unwrap_or(0));
            drain.preload();
            let _ = ready.send(());
            run_drain(&mut drain, &stop, &found);
            (drain, sys::thread_cpu_ns())
        });
    sampler.drain = Some(spawned.map_err(failed)?);
    let own = sampler.own_threads.clone();
    let spawned = std::thread::Builder::new()
        .name("ff-scan".to_owned())
        .spawn(move || {
            // Not at nice 10: on a busy host it would read the counters a tenth of a second late. What
            // it does each second is bounded.
            lock(&own).push(u32::try_from(sys::thread_id()).unwrap_or(0));
            run_scanner(&mut scanner);
            sys::thread_cpu_ns()
        });
    sampler.scanner = Some(spawned.map_err(failed)?);
    // Bounded by what the targets have mapped; the session has its own deadline for arming.
    let _ = loaded.recv();
    Ok(())
}
