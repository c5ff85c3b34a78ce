//! `fleetflame plan` and `doctor`: what would happen, and what each host can do. In: a job. Out:
//! orders with reasons, or reports with remedies. Never: anything done to a host.

use super::job_flags::JobFlags;
use super::output::Output;
use crate::clock::{self, Clock, SystemClock};
use crate::fleet;
use crate::plan::{Plan, plan};
use crate::render::{findings_text, printable, table};
use clap::Args;
use model::{Finding, HostName, HostReport, JobSpec, RunId};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame plan job.yaml
  fleetflame plan --local --target nginx --json
  fleetflame plan --ssh kong-1,deploy@kong-2 --target nginx")]
pub struct PlanArgs {
    #[command(flatten)]
    job: JobFlags,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame doctor --local
  fleetflame doctor --ssh kong-1,kong-2
  fleetflame doctor --host kong-1=10.0.0.1:7443 --tls ./tls")]
pub struct DoctorArgs {
    #[command(flatten)]
    job: JobFlags,
}

struct Surveyed {
    reports: BTreeMap<HostName, HostReport>,
    lost: Vec<Finding>,
}

pub fn plan_verb(args: &PlanArgs, output: &Output) -> anyhow::Result<u8> {
    let job = args.job.read()?;
    let (run, surveyed) = survey(&args.job, &job)?;
    let plan = plan(run, &job, &surveyed.reports);
    let ready = plan.hosts.values().filter(|h| h.order.is_some()).count();
    if output.json {
        output.document(&serde_json::json!({ "plan": plan, "lost": surveyed.lost }))?;
    } else {
        output.data(&plan_text(&plan, &surveyed.lost, job.hosts.len()))?;
    }
    Ok(code(ready, job.hosts.len()))
}

pub fn doctor(args: &DoctorArgs, output: &Output) -> anyhow::Result<u8> {
    let mut flags_job = JobFlags {
        target: args.job.target.clone(),
        ..JobFlags::empty()
    };
    flags_job.local = args.job.local;
    flags_job.host.clone_from(&args.job.host);
    flags_job.ssh.clone_from(&args.job.ssh);
    flags_job.fleet.clone_from(&args.job.fleet);
    flags_job.select.clone_from(&args.job.select);
    flags_job
        .ways
        .ssh_config
        .clone_from(&args.job.ways.ssh_config);
    flags_job.job.clone_from(&args.job.job);
    if flags_job.target.is_empty() && flags_job.job.is_none() {
        flags_job.target.push(model::job::Target::Nginx);
    }
    let job = flags_job.read()?;
    let (_, surveyed) = survey(&args.job, &job)?;
    let able = surveyed
        .reports
        .values()
        .filter(|r| r.engines.iter().any(|e| e.can_run))
        .count();
    if output.json {
        let document = serde_json::json!({ "hosts": surveyed.reports, "lost": surveyed.lost });
        output.document(&document)?;
    } else {
        let mut text = String::new();
        if job.hosts.len() > 1 {
            text = fleet_text(&job, &surveyed, output.bold());
            text.push('\n');
        }
        surveyed
            .reports
            .iter()
            .for_each(|(name, report)| host_text(&mut text, name, report));
        text.push_str(&findings_text(&surveyed.lost));
        output.data(&text)?;
    }
    Ok(code(able, job.hosts.len()))
}

/// 0 when every host can, 5 when none can, 3 in between.
fn code(able: usize, asked: usize) -> u8 {
    match able {
        0 => super::REFUSED,
        n if n == asked => super::COMPLETE,
        _ => super::PARTIAL,
    }
}

fn survey(flags: &JobFlags, job: &JobSpec) -> anyhow::Result<(RunId, Surveyed)> {
    let run = RunId::from_parts(clock::wall_unix_ms(), clock::random_bits()?);
    let connectors = flags.ways.connectors(job)?;
    let clock: Clock = Arc::new(SystemClock);
    let surveyed = super::runtime()?.block_on(async {
        let cancel = super::capture::cancel_by_signal()?;
        let fleet = fleet::survey(connectors, run, &clock, &(), &cancel).await;
        let lost = fleet
            .hosts
            .values()
            .filter_map(|h| h.lost.clone())
            .collect();
        let reports = fleet.reports();
        fleet.close().await;
        Ok::<_, anyhow::Error>(Surveyed { reports, lost })
    })?;
    Ok((run, surveyed))
}

fn plan_text(plan: &Plan, lost: &[Finding], asked: usize) -> String {
    let mut text = String::new();
    for (host, decision) in &plan.hosts {
        match &decision.order {
            Some(order) => {
                let targets: Vec<String> = order.targets.iter().map(ToString::to_string).collect();
                let _ = writeln!(
                    text,
                    "{host}: {} by {} ({}), {} of {}, {} Hz for {} s\n  {}",
                    order.probe,
                    order.engine,
                    order.event,
                    order.pick,
                    printable(&targets.join(", ")),
                    order.sample_hz,
                    order.duration_ms / 1_000,
                    printable(&decision.reason),
                );
            }
            None => {
                let _ = writeln!(text, "{host}: nothing: {}", printable(&decision.reason));
            }
        }
        text.push_str(&findings_text(&decision.findings));
    }
    text.push_str(&findings_text(lost));
    let ready = plan.hosts.values().filter(|h| h.order.is_some()).count();
    let _ = writeln!(
        text,
        "{ready} of {asked} hosts would capture; nothing was done"
    );
    text
}

/// A line for each host that was asked, those that did not answer too.
fn fleet_text(job: &JobSpec, surveyed: &Surveyed, bold: bool) -> String {
    let row = |host: &model::job::JobHost| -> Vec<String> {
        let name = host.name.to_string();
        let Some(report) = surveyed.reports.get(&host.name) else {
            let of_host = |f: &&Finding| f.host.as_deref() == Some(host.name.as_str());
            let why = surveyed
                .lost
                .iter()
                .find(of_host)
                .map(|f| f.code.to_string());
            return vec![name, why.unwrap_or_default()];
        };
        let able = report.engines.iter().filter(|e| e.can_run);
        let able: Vec<&str> = able.map(|e| e.engine.as_str()).collect();
        let can = match able.is_empty() {
            true => "nothing".to_owned(),
            false => able.join(", "),
        };
        let workers = report.gateways.iter().filter(|g| g.role.contains("worker"));
        let of_engines = report
            .engines
            .iter()
            .map(|e| e.findings.len())
            .sum::<usize>();
        vec![
            name,
            can,
            report.kernel.clone(),
            report.arch.clone(),
            report.cpus.to_string(),
            workers.count().to_string(),
            (report.findings.len() + of_engines).to_string(),
        ]
    };
    let headers = [
        "host",
        "can",
        "kernel",
        "machine",
        ">CPUs",
        ">workers",
        ">findings",
    ];
    let rows: Vec<Vec<String>> = job.hosts.iter().map(row).collect();
    table(&headers, &rows, bold)
}

fn host_text(text: &mut String, name: &HostName, report: &HostReport) {
    let _ = writeln!(
        text,
        "{name}: {} {}, {} CPUs, {} MiB, agent {}\n  policy: {}",
        printable(&report.os),
        printable(&report.kernel),
        report.cpus,
        report.memory_mb,
        printable(&report.agent_version),
        printable(&report.policy),
    );
    for engine in &report.engines {
        let can = if engine.can_run { "can run" } else { "cannot" };
        let _ = writeln!(
            text,
            "  {:<10} {can}: {}",
            printable(&engine.engine),
            printable(&engine.how)
        );
        text.push_str(&findings_text(&engine.findings));
    }
    let workers = report
        .gateways
        .iter()
        .filter(|g| g.role.contains("worker"))
        .count();
    let _ = writeln!(
        text,
        "  gateways: {} processes, {workers} workers",
        report.gateways.len()
    );
    text.push_str(&findings_text(&report.findings));
}
