//! The plan: one fully decided order a host, with the reason for each choice. Pure.
//!
//! In: the job and the hosts' reports. Out: orders, or findings that say why there is none.
//! Never: a choice left to an agent, or an engine switched silently.

use model::job::{EngineChoice, Event, Probe};
use model::{CaptureOrder, Finding, FindingCode, HostName, HostReport, JobSpec, RunId};
use serde::Serialize;
use std::collections::BTreeMap;

/// Silence after which an agent stops by itself, in milliseconds.
pub const LEASE_MS: u64 = 4_000;

/// What was decided for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostDecision {
    /// Its order; none when it cannot capture.
    pub order: Option<CaptureOrder>,
    /// Why this engine, or why none.
    pub reason: String,
    /// What prevents or weakens the capture.
    pub findings: Vec<Finding>,
}

/// What was decided for every host that reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// By host.
    pub hosts: BTreeMap<HostName, HostDecision>,
}

/// Decides.
#[must_use]
pub fn plan(run: RunId, job: &JobSpec, reports: &BTreeMap<HostName, HostReport>) -> Plan {
    let decide =
        |(host, report): (&HostName, &HostReport)| (host.clone(), decide(run, job, host, report));
    Plan {
        hosts: reports.iter().map(decide).collect(),
    }
}

fn decide(run: RunId, job: &JobSpec, host: &HostName, report: &HostReport) -> HostDecision {
    let (engine, reason) = match choose_engine(job, report) {
        Ok(choice) => choice,
        Err(findings) => {
            let reason = findings
                .first()
                .map_or_else(String::new, |f| f.evidence.clone());
            let findings = findings.into_iter().map(|f| f.on(host.as_str())).collect();
            return HostDecision {
                order: None,
                reason,
                findings,
            };
        }
    };
    let of_engine = report.engine(&engine.to_string()).map(|e| &e.findings[..]);
    let findings = of_engine.unwrap_or_default().iter().chain(&report.findings);
    let findings = findings.map(|f| f.clone().on(host.as_str())).collect();
    let order = CaptureOrder {
        run,
        host: host.clone(),
        engine,
        probe: job.probe,
        event: job.event,
        targets: job.targets_of(host).to_vec(),
        pick: job.pick,
        sample_hz: job.sample_hz,
        duration_ms: job.duration_ms,
        kernel: job.kernel,
        min_wait_us: job.min_wait_us,
        uri_segments: job.uri_segments,
        budgets: job.budgets,
        lease_ms: LEASE_MS,
        script: job.script.clone(),
        simulated: if engine == EngineChoice::Simulated {
            job.simulated.clone()
        } else {
            None
        },
    };
    HostDecision {
        order: Some(order),
        reason,
        findings,
    }
}

/// What `auto` tries, best first. Native takes one stack through C and Lua with function starts for
/// what has no names; perf is taken where native may not or cannot run. SystemTap comes last: it loads a module into
/// the kernel, its stacks end at JIT code, and a host's policy has to list it.
const AUTO: [EngineChoice; 3] = [EngineChoice::Native, EngineChoice::Perf, EngineChoice::Stap];

/// The engine for a host. One that was asked for by name and cannot run is an error: a result by
/// another engine is not what was asked for.
fn choose_engine(
    job: &JobSpec,
    report: &HostReport,
) -> Result<(EngineChoice, String), Vec<Finding>> {
    let (candidates, why) = match job.engine {
        EngineChoice::Auto => (&AUTO[..], "the best that can run here"),
        _ => (std::slice::from_ref(&job.engine), "as asked"),
    };
    let mut against = Vec::new();
    for &engine in candidates {
        match can_run(engine, job, report) {
            Ok(how) => {
                let mut reason = format!("{why}: {engine}, {how}");
                let words: Vec<String> = against
                    .iter()
                    .map(|(_, why)| format!("not {why}"))
                    .collect();
                if !words.is_empty() {
                    reason.push_str(&format!(" ({})", words.join("; ")));
                }
                return Ok((engine, reason));
            }
            Err(why) => against.push((engine, why)),
        }
    }
    Err(refused(against, job, report))
}

/// How an engine would run on a host, or why it cannot.
fn can_run<'r>(
    engine: EngineChoice,
    job: &JobSpec,
    report: &'r HostReport,
) -> Result<&'r str, String> {
    let Some(known) = report.engine(&engine.to_string()) else {
        return Err(format!("{engine}: the agent knows no engine of this name"));
    };
    // Whether a script's module lies on the host, only the host knows: it says which is missing.
    let is_told_there = job.probe == Probe::Script && known.has_probe(Probe::Script);
    if !known.can_run && !is_told_there {
        return Err(format!("{engine}: {}", known.how));
    }
    if !known.has_probe(job.probe) {
        let has = words_or(&known.probes, Probe::OnCpu.to_string());
        return Err(format!("{engine}: no probe {} here, only {has}", job.probe));
    }
    if job.uri_segments > 0 && engine != EngineChoice::Native {
        return Err(format!(
            "{engine}: it does not see the paths of requests, only native does"
        ));
    }
    let event = job.event;
    // Only samples of CPU time are taken by one event or another.
    if matches!(job.probe, Probe::OnCpu | Probe::Lua) && !known.has_event(event) {
        let has = words_or(&known.events, Event::CpuClock.to_string());
        return Err(format!("{engine}: no event {event} here, only {has}"));
    }
    Ok(&known.how)
}

fn words_or(words: &[String], none: String) -> String {
    if words.is_empty() {
        none
    } else {
        words.join(", ")
    }
}

/// One finding that says of each engine why not, after what the engines themselves have found.
fn refused(
    against: Vec<(EngineChoice, String)>,
    job: &JobSpec,
    report: &HostReport,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = against
        .iter()
        .filter_map(|(engine, _)| report.engine(&engine.to_string()))
        .filter(|engine| !engine.can_run)
        .flat_map(|engine| engine.findings.iter().cloned())
        .collect();
    let lacks_probe = |e: &model::host::EngineReport| e.can_run && !e.has_probe(job.probe);
    let code = if against
        .iter()
        .filter_map(|(engine, _)| report.engine(&engine.to_string()))
        .any(lacks_probe)
    {
        FindingCode::ProbeUnavailable
    } else {
        FindingCode::EngineUnavailable
    };
    let words: Vec<String> = against.into_iter().map(|(_, why)| why).collect();
    let finding = Finding::new(code, words.join("; "));
    findings.push(finding);
    findings.extend(report.findings.iter().cloned());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::host::EngineReport;
    use model::job::{Event, JobHost, Pick, Reach, Target};
    use model::order::Budgets;

    fn job(engine: EngineChoice) -> JobSpec {
        JobSpec {
            title: "t".into(),
            hosts: vec![JobHost {
                name: HostName::new("a").unwrap(),
                reach: Reach::Local,
                targets: vec![],
                labels: Default::default(),
            }],
            targets: vec![Target::Nginx],
            pick: Pick::All,
            engine,
            probe: Probe::OnCpu,
            event: Event::CpuClock,
            sample_hz: 99,
            duration_ms: 1_000,
            kernel: true,
            min_wait_us: 0,
            uri_segments: 0,
            budgets: Budgets::default(),
            arm_timeout_ms: None,
            script: None,
            simulated: None,
        }
    }

    fn engine(word: &str, can_run: bool, events: &[&str]) -> EngineReport {
        let code = FindingCode::PerfNotPermitted;
        EngineReport {
            engine: word.into(),
            can_run,
            how: format!("{word} would run so"),
            findings: if can_run {
                vec![]
            } else {
                vec![Finding::new(code, word)]
            },
            events: events.iter().map(ToString::to_string).collect(),
            probes: vec![],
        }
    }

    /// A plan for one host with native and perf, where they can run.
    fn decided(job: &JobSpec, native: bool, perf: bool) -> HostDecision {
        decided_with(job, native, perf, false)
    }

    fn decided_with(job: &JobSpec, native: bool, perf: bool, stap: bool) -> HostDecision {
        let report = HostReport {
            engines: vec![
                engine("native", native, &[]),
                engine("stap", stap, &[]),
                engine("perf", perf, &["cpu-clock", "cycles"]),
            ],
            ..HostReport::default()
        };
        let reports = BTreeMap::from([(HostName::new("a").unwrap(), report)]);
        let plan = plan(RunId::from_parts(1, 1), job, &reports);
        plan.hosts.into_values().next().unwrap()
    }

    #[test]
    fn auto_takes_the_best_that_can_run_and_says_why() {
        let auto = job(EngineChoice::Auto);
        for (native, perf, taken) in [
            (true, true, EngineChoice::Native),
            (true, false, EngineChoice::Native),
            (false, true, EngineChoice::Perf),
        ] {
            let decision = decided(&auto, native, perf);
            assert_eq!(decision.order.unwrap().engine, taken);
            let reason = decision.reason;
            assert!(
                reason.contains(&format!("{taken} would run so")),
                "{reason}"
            );
            assert_eq!(reason.contains("not native"), taken == EngineChoice::Perf);
        }
    }

    #[test]
    fn auto_takes_systemtap_only_where_nothing_else_may_run_and_says_so() {
        let auto = job(EngineChoice::Auto);
        let taken = |native, perf| {
            let decision = decided_with(&auto, native, perf, true);
            (decision.order.unwrap().engine, decision.reason)
        };
        assert_eq!(taken(true, true).0, EngineChoice::Native);
        assert_eq!(taken(false, true).0, EngineChoice::Perf);
        let (engine, reason) = taken(false, false);
        assert_eq!(engine, EngineChoice::Stap);
        assert!(
            reason.contains("not native") && reason.contains("not perf"),
            "{reason}"
        );
        let asked = decided_with(&job(EngineChoice::Stap), true, true, true);
        assert!(
            asked.reason.starts_with("as asked: stap"),
            "{}",
            asked.reason
        );
    }

    #[test]
    fn paths_of_requests_are_seen_by_the_native_engine_only() {
        let with = |engine| JobSpec {
            uri_segments: 2,
            ..job(engine)
        };
        let decision = decided(&with(EngineChoice::Auto), true, true);
        let order = decision.order.unwrap();
        assert_eq!(
            (order.engine, order.uri_segments),
            (EngineChoice::Native, 2)
        );
        for engine in [EngineChoice::Auto, EngineChoice::Perf] {
            let decision = decided(&with(engine), false, true);
            assert!(decision.order.is_none());
            let said = decision.findings.iter().map(|f| &*f.evidence);
            let said: Vec<&str> = said.filter(|e| e.contains("only native does")).collect();
            assert_eq!(said.len(), 1, "{engine}: {said:?}");
        }
    }

    #[test]
    fn who_gets_systemtap_gets_the_time_that_a_build_takes_however_it_was_chosen() {
        let timeout_ms = |job: &JobSpec, native| {
            let order = decided_with(job, native, false, true).order;
            job.arm_timeout_ms(order.iter().map(|o| o.engine))
        };
        let mut auto = job(EngineChoice::Auto);
        assert_eq!(timeout_ms(&auto, true), 10_000);
        assert_eq!(timeout_ms(&auto, false), 240_000);
        assert_eq!(timeout_ms(&job(EngineChoice::Stap), true), 240_000);
        auto.arm_timeout_ms = Some(20_000);
        assert_eq!(timeout_ms(&auto, false), 20_000);
    }

    #[test]
    fn without_any_engine_each_says_why_not() {
        let decision = decided(&job(EngineChoice::Auto), false, false);
        assert!(decision.order.is_none());
        let said = decision.findings.iter();
        let said: Vec<&str> = said
            .filter(|f| f.code == FindingCode::EngineUnavailable)
            .map(|f| &*f.evidence)
            .collect();
        assert_eq!(
            said,
            ["native: native would run so; perf: perf would run so; stap: stap would run so"]
        );
        let permission = |f: &&Finding| f.code == FindingCode::PerfNotPermitted;
        assert_eq!(decision.findings.iter().filter(permission).count(), 3);
    }

    #[test]
    fn an_event_that_native_does_not_have_is_taken_by_perf() {
        let mut cycles = job(EngineChoice::Auto);
        cycles.event = Event::Cycles;
        let decision = decided(&cycles, true, true);
        let order = decision.order.unwrap();
        assert_eq!(
            (order.engine, order.event),
            (EngineChoice::Perf, Event::Cycles)
        );
        assert!(
            decision
                .reason
                .contains("no event cycles here, only cpu-clock")
        );
        assert!(decided(&cycles, true, false).order.is_none());
        cycles.engine = EngineChoice::Native;
        let decision = decided(&cycles, true, true);
        assert!(decision.order.is_none());
        assert_eq!(decision.findings[0].code, FindingCode::EngineUnavailable);
    }

    #[test]
    fn a_probe_is_taken_where_an_engine_has_it_and_else_refused_by_its_name() {
        let mut off = job(EngineChoice::Auto);
        off.probe = Probe::OffCpu;
        // An event means nothing to a probe that does not sample CPU time.
        off.event = Event::Cycles;
        let mut report = HostReport {
            engines: vec![
                engine("native", true, &[]),
                engine("perf", true, &["cpu-clock"]),
            ],
            ..HostReport::default()
        };
        let decide = |job: &JobSpec, report: &HostReport| {
            let reports = BTreeMap::from([(HostName::new("a").unwrap(), report.clone())]);
            let plan = plan(RunId::from_parts(1, 1), job, &reports);
            plan.hosts.into_values().next().unwrap()
        };
        let refused = decide(&off, &report);
        assert!(refused.order.is_none());
        assert_eq!(refused.findings[0].code, FindingCode::ProbeUnavailable);
        assert!(
            refused
                .reason
                .contains("native: no probe off-cpu here, only on-cpu")
        );
        report.engines[0].probes = vec!["on-cpu".into(), "off-cpu".into()];
        let order = decide(&off, &report).order.unwrap();
        assert_eq!(
            (order.engine, order.probe),
            (EngineChoice::Native, Probe::OffCpu)
        );
        off.engine = EngineChoice::Perf;
        let refused = decide(&off, &report);
        assert!(refused.order.is_none(), "native was not asked for");
        // Lua by the sampler where it may run, else by SystemTap; never by an event that it does not have.
        let mut lua = job(EngineChoice::Auto);
        lua.probe = Probe::Lua;
        report.engines[0].probes = vec!["on-cpu".into(), "lua".into()];
        let mut stap = engine("stap", true, &[]);
        stap.probes = vec!["on-cpu".into(), "lua".into()];
        report.engines.push(stap);
        let taken = |report: &HostReport| decide(&lua, report).order.map(|order| order.engine);
        assert_eq!(taken(&report), Some(EngineChoice::Native));
        report.engines[0].can_run = false;
        assert_eq!(taken(&report), Some(EngineChoice::Stap));
        lua.event = Event::Cycles;
        assert!(decide(&lua, &report).order.is_none());
    }

    #[test]
    fn a_script_is_ordered_where_only_its_module_is_in_question() {
        let mut script = job(EngineChoice::Stap);
        script.probe = Probe::Script;
        script.script = Some(model::script::Script::default());
        let decide = |job: &JobSpec, probes: &[&str]| {
            let mut stap = engine("stap", false, &[]);
            stap.probes = probes.iter().map(|p| (*p).to_owned()).collect();
            let report = HostReport {
                engines: vec![stap],
                ..HostReport::default()
            };
            let reports = BTreeMap::from([(HostName::new("a").unwrap(), report)]);
            let plan = plan(RunId::from_parts(1, 1), job, &reports);
            plan.hosts.into_values().next().unwrap()
        };
        assert!(decide(&script, &["script"]).order.is_some());
        assert!(decide(&script, &[]).order.is_none());
        script.probe = Probe::OnCpu;
        script.script = None;
        assert!(decide(&script, &["script"]).order.is_none());
    }

    #[test]
    fn an_engine_asked_for_by_name_that_cannot_run_is_an_error_and_never_replaced() {
        for (engine, native, perf) in [
            (EngineChoice::Native, false, true),
            (EngineChoice::Perf, true, false),
            (EngineChoice::Stap, true, true),
            (EngineChoice::Simulated, true, true),
        ] {
            let decision = decided(&job(engine), native, perf);
            assert!(decision.order.is_none(), "{engine}");
            let unavailable = |f: &Finding| f.code == FindingCode::EngineUnavailable;
            assert!(decision.findings.iter().any(unavailable));
        }
        let decision = decided(&job(EngineChoice::Perf), true, true);
        assert_eq!(decision.order.unwrap().engine, EngineChoice::Perf);
    }
}
