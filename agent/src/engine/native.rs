//! The built-in sampler as an engine. The sampler itself is the crate `fleetflame-native`.
//!
//! In: an order. Out: stacks. Never: a blocking call on the runtime's threads.

use super::{BoxFuture, Engine, Poll, SharedRecorder, Stopped};
use model::coverage::{CaptureStats, PLACES_MAX, ProcessPlace};
use model::host::EngineReport;
use model::job::{Event, Pick, Probe, Target};
use model::{CaptureOrder, Finding, FindingCode};
use native::{Armed, GroupSelector, NativeConfig, Sampler, TargetSelector};

/// Part of the memory budget that rings and stack copies may take; the rest is for stacks.
const RINGS_SHARE: u64 = 4;

/// What it can measure where the kernel lets it.
pub(super) const PROBES: [Probe; 3] = [Probe::OnCpu, Probe::OffCpu, Probe::Lua];

/// See the module.
pub struct NativeEngine {
    recorder: SharedRecorder,
    allow_ptrace: bool,
    counts_requests: bool,
    sampler: Option<Sampler>,
}

impl NativeEngine {
    /// An engine that fills `recorder`; with the requests of gateways by their memory, where nobody else counts them.
    #[must_use]
    pub fn new(recorder: SharedRecorder, allow_ptrace: bool, counts_requests: bool) -> Self {
        Self {
            recorder,
            allow_ptrace,
            counts_requests,
            sampler: None,
        }
    }
}

impl Engine for NativeEngine {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async move {
            if order.probe != Probe::OffCpu && order.event != Event::CpuClock {
                let said = format!(
                    "the native engine has no event {}; use cpu-clock, or --engine perf",
                    order.event
                );
                return Err(vec![Finding::new(FindingCode::EngineUnavailable, said)]);
            }
            let mut config = config(order, self.allow_ptrace).map_err(|f| vec![f])?;
            config.count_requests = self.counts_requests;
            let recorder = std::sync::Arc::clone(&self.recorder);
            let armed = tokio::task::spawn_blocking(move || Sampler::arm(config, recorder)).await;
            match armed {
                Ok(Ok(Armed(sampler, findings))) => {
                    self.sampler = Some(sampler);
                    Ok(findings)
                }
                Ok(Err(finding)) => Err(vec![finding]),
                Err(e) => Err(vec![Finding::new(FindingCode::EngineFailed, e.to_string())]),
            }
        })
    }

    fn start(&mut self, start_mono_ns: u64) {
        if let Some(sampler) = &mut self.sampler {
            sampler.start_at(start_mono_ns);
        }
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        let Some(sampler) = &mut self.sampler else {
            return Poll::default();
        };
        let started = sampler.started_mono_ns();
        Poll {
            started_mono_ns: (started != 0 && started <= now_ns).then_some(started),
            findings: sampler.poll_findings(),
            ..Poll::default()
        }
    }

    fn stop(&mut self, _now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(async move {
            let Some(sampler) = self.sampler.take() else {
                return Stopped::default();
            };
            match tokio::task::spawn_blocking(move || sampler.stop()).await {
                Ok(s) => Stopped {
                    stats: CaptureStats {
                        lost: s.lost,
                        throttled: s.throttled,
                        dropped: s.dropped_late + s.dropped_full,
                        truncated: s.truncated,
                        pause_p50_ns: s.work_ns.0,
                        pause_p99_ns: s.work_ns.1,
                        lua_segments: s.lua_segments,
                        lua_racy: s.lua_racy,
                        lua_failed: s.lua_failed,
                        processes: u32::try_from(s.windows.len()).unwrap_or(u32::MAX),
                        places: places(&s.windows),
                        mode: s.mode,
                        started_mono_ns: s.started_mono_ns,
                        stopped_mono_ns: s.stopped_mono_ns,
                        ..CaptureStats::default()
                    },
                    findings: s.findings,
                },
                Err(e) => Stopped {
                    findings: vec![Finding::new(FindingCode::EngineFailed, e.to_string())],
                    ..Stopped::default()
                },
            }
        })
    }
}

/// Where the processes ran, of those that are in a control group.
fn places(windows: &[native::Window]) -> Vec<ProcessPlace> {
    let grouped = windows.iter().filter(|w| !w.groups.path().is_empty());
    let place = |window: &native::Window| ProcessPlace {
        pid: window.process.pid,
        start_ticks: window.process.start_ticks,
        group: window.groups.path().to_owned(),
        container: window.groups.container().unwrap_or_default().to_owned(),
    };
    grouped.take(PLACES_MAX).map(place).collect()
}

/// What an order means for the sampler, and for every engine that finds its targets as it does.
pub(super) fn config(order: &CaptureOrder, allow_ptrace: bool) -> Result<NativeConfig, Finding> {
    let targets: Result<Vec<_>, Finding> = order.targets.iter().map(selector).collect();
    let seed = order.run.unix_ms();
    Ok(NativeConfig {
        host: order.host.to_string(),
        probe: order.probe,
        min_wait_ns: u64::from(order.min_wait_us) * 1_000,
        sample_hz: order.sample_hz,
        include_kernel: order.kernel,
        uri_segments: order.uri_segments,
        memory_budget_bytes: (u64::from(order.budgets.memory_mb_max) << 20) / RINGS_SHARE,
        allow_ptrace,
        targets: targets?,
        pick: match order.pick {
            Pick::All => native::Pick::All,
            Pick::Busiest(n) => native::Pick::Busiest(n as usize),
            Pick::Random(n) => native::Pick::Random(n as usize, seed),
        },
        ..NativeConfig::default()
    })
}

fn selector(target: &Target) -> Result<TargetSelector, Finding> {
    Ok(match target {
        Target::Nginx => TargetSelector::Gateway,
        Target::Pid(pid) => TargetSelector::Pid(*pid),
        Target::Exe(path) => TargetSelector::Exe(path.clone()),
        Target::Cmd(pattern) => {
            // The pattern comes from outside: its automaton is bounded.
            let regex = regex_lite::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build();
            TargetSelector::Cmdline(regex.map_err(|e| {
                Finding::new(
                    FindingCode::TargetNotFound,
                    format!("cmd:{pattern} is no regular expression: {e}"),
                )
            })?)
        }
        Target::Unit(name) => TargetSelector::Group(GroupSelector::Unit(name.clone())),
        Target::Container(id) => TargetSelector::Group(GroupSelector::Container(id.clone())),
    })
}

/// Whether the sampler can run here.
pub(super) fn survey() -> EngineReport {
    let report = native::check(&NativeConfig::default());
    let off_cpu = native::check(&NativeConfig {
        probe: Probe::OffCpu,
        ..NativeConfig::default()
    });
    let mut how = report.mode.map_or_else(
        || "sampling is not permitted".to_owned(),
        |m| format!("mode {m}"),
    );
    // Its stacks have Lua's frames whatever is asked for.
    let mut probes = vec![Probe::OnCpu.to_string(), Probe::Lua.to_string()];
    if off_cpu.mode.is_some() {
        probes.push(Probe::OffCpu.to_string());
    } else if report.mode.is_some() {
        let why = off_cpu.findings.first();
        let why = why.map_or("not permitted", |f| f.evidence.as_str());
        how.push_str(&format!("; no off-cpu: {why}"));
    }
    EngineReport {
        engine: "native".to_owned(),
        can_run: report.mode.is_some(),
        how,
        findings: report.findings,
        events: vec![Event::CpuClock.to_string()],
        probes,
    }
}
