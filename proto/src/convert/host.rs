//! Host reports over the wire. In: reports. Out: messages, and back. Never: an unbounded list.

use super::finding::{from_wire, to_wire};
use crate::v1;
use model::HostReport;
use model::host::{EngineReport, GatewayProcess};

/// Most gateway processes of one report.
const PROCESSES_MAX: usize = 4_096;
/// Most events, and most probes, of one engine.
const EVENTS_MAX: usize = 16;

impl From<&HostReport> for v1::HostReport {
    fn from(r: &HostReport) -> Self {
        let engine = |e: &EngineReport| v1::EngineReport {
            engine: e.engine.clone(),
            can_run: e.can_run,
            how: e.how.clone(),
            findings: to_wire(&e.findings),
            events: e.events.clone(),
            probes: e.probes.clone(),
        };
        let gateway = |g: &GatewayProcess| v1::GatewayProcess {
            pid: g.pid,
            parent_pid: g.parent_pid,
            role: g.role.clone(),
            exe: g.exe.clone(),
        };
        Self {
            hostname: r.hostname.clone(),
            agent_version: r.agent_version.clone(),
            kernel: r.kernel.clone(),
            arch: r.arch.clone(),
            os: r.os.clone(),
            cpus: r.cpus,
            memory_mb: r.memory_mb,
            engines: r.engines.iter().map(engine).collect(),
            gateways: r.gateways.iter().map(gateway).collect(),
            policy: r.policy.clone(),
            findings: to_wire(&r.findings),
        }
    }
}

impl From<v1::HostReport> for HostReport {
    fn from(r: v1::HostReport) -> Self {
        let engine = |e: v1::EngineReport| EngineReport {
            engine: e.engine,
            can_run: e.can_run,
            how: e.how,
            findings: from_wire(e.findings),
            events: e.events.into_iter().take(EVENTS_MAX).collect(),
            probes: e.probes.into_iter().take(EVENTS_MAX).collect(),
        };
        let gateway = |g: v1::GatewayProcess| GatewayProcess {
            pid: g.pid,
            parent_pid: g.parent_pid,
            role: g.role,
            exe: g.exe,
        };
        Self {
            hostname: r.hostname,
            agent_version: r.agent_version,
            kernel: r.kernel,
            arch: r.arch,
            os: r.os,
            cpus: r.cpus,
            memory_mb: r.memory_mb,
            engines: r.engines.into_iter().take(16).map(engine).collect(),
            gateways: r
                .gateways
                .into_iter()
                .take(PROCESSES_MAX)
                .map(gateway)
                .collect(),
            policy: r.policy,
            findings: from_wire(r.findings),
        }
    }
}
