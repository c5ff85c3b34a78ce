//! The plan: one fully decided order a host, with the reason for each choice. Pure.
//!
//! In: the job and the hosts' reports. Out: orders, or findings that say why there is none.
//! Never: a choice left to an agent, or an engine switched silently.

use model::job::{EngineChoice, Probe};
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
        budgets: job.budgets,
        lease_ms: LEASE_MS,
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

/// The engine for a host. One that was asked for by name and cannot run is an error: a result by
/// another engine is not what was asked for.
fn choose_engine(
    job: &JobSpec,
    report: &HostReport,
) -> Result<(EngineChoice, String), Vec<Finding>> {
    if job.probe != Probe::OnCpu {
        let said = format!("probe {} is not part of this version", job.probe);
        return Err(vec![Finding::new(FindingCode::ProbeUnavailable, said)]);
    }
    let asked = match job.engine {
        EngineChoice::Auto => EngineChoice::Native,
        named => named,
    };
    let word = asked.to_string();
    let Some(engine) = report.engine(&word) else {
        let said = format!("the agent knows no engine {word}");
        return Err(vec![Finding::new(FindingCode::EngineUnavailable, said)]);
    };
    if !engine.can_run {
        let said = format!("{word}: {}", engine.how);
        let mut findings = vec![Finding::new(FindingCode::EngineUnavailable, said)];
        findings.splice(0..0, engine.findings.iter().cloned());
        findings.extend(report.findings.iter().cloned());
        return Err(findings);
    }
    let why = if job.engine == EngineChoice::Auto {
        "the best that can run here"
    } else {
        "as asked"
    };
    Ok((asked, format!("{why}: {word}, {}", engine.how)))
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
            }],
            targets: vec![Target::Nginx],
            pick: Pick::All,
            engine,
            probe: Probe::OnCpu,
            event: Event::CpuClock,
            sample_hz: 99,
            duration_ms: 1_000,
            kernel: true,
            budgets: Budgets::default(),
            arm_timeout_ms: 1_000,
            simulated: None,
        }
    }

    fn reports(can_run: bool) -> BTreeMap<HostName, HostReport> {
        let finding = Finding::new(FindingCode::PerfNotPermitted, "EACCES");
        let engines = vec![EngineReport {
            engine: "native".into(),
            can_run,
            how: "cpu-wide/fifo".into(),
            findings: vec![finding],
        }];
        let report = HostReport {
            engines,
            ..HostReport::default()
        };
        BTreeMap::from([(HostName::new("a").unwrap(), report)])
    }

    #[test]
    fn auto_takes_the_native_engine_and_says_why() {
        let run = RunId::from_parts(1, 1);
        let plan = plan(run, &job(EngineChoice::Auto), &reports(true));
        let decision = plan.hosts.values().next().unwrap();
        assert_eq!(
            decision.order.as_ref().unwrap().engine,
            EngineChoice::Native
        );
        assert!(decision.reason.contains("cpu-wide/fifo"));
    }

    #[test]
    fn an_engine_asked_for_by_name_that_cannot_run_is_an_error_and_never_replaced() {
        let run = RunId::from_parts(1, 1);
        for (engine, can_run) in [
            (EngineChoice::Native, false),
            (EngineChoice::Auto, false),
            (EngineChoice::Stap, true),
            (EngineChoice::Perf, true),
        ] {
            let plan = plan(run, &job(engine), &reports(can_run));
            let decision = plan.hosts.values().next().unwrap();
            assert!(decision.order.is_none(), "{engine}");
            assert!(
                decision
                    .findings
                    .iter()
                    .any(|f| f.code == FindingCode::EngineUnavailable)
            );
        }
    }
}
