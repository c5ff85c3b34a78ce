//! The host's own last word: what this agent will do, whatever a coordinator says.
//!
//! In: an order. Out: nothing, or the reasons against it. Never: a reason that leaves open what to
//! change.

mod file;
mod status_page;

pub use file::{DEFAULT_PATH, load};
pub use status_page::StatusPage;

use crate::stapxx::hash_of;
use model::job::{EngineChoice, Pick, Probe, Target};
use model::{CaptureOrder, Finding, FindingCode};
use serde::Deserialize;
use std::path::PathBuf;

/// Most gateway processes etc. that any order may name.
const TARGETS_MAX: usize = 1_024;
/// A lease outside of this is not believed: too short would flap, too long would not protect.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=10_000;

/// What a host allows. Without a file, [`Policy::default`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Format version: 1.
    pub version: u32,
    /// Engines that may run.
    pub engines: Vec<EngineChoice>,
    /// Probes that may be measured.
    pub probes: Vec<Probe>,
    /// Highest sampling rate.
    pub sample_hz_max: u32,
    /// Longest capture in seconds.
    pub duration_s_max: u64,
    /// Kinds of target: nginx, pid, exe, cmd, unit, container.
    pub targets: Vec<TargetKind>,
    /// Whether a target may be stopped (ptrace) where sampling is not permitted otherwise.
    pub allow_ptrace: bool,
    /// Whether the paths of requests may be read, without their queries, and without what looks like a number or a key.
    pub request_paths: bool,
    /// Page on this machine's loopback that says how many requests the gateway has served; asked each second in place of its
    /// memory.
    pub requests_url: Option<StatusPage>,
    /// Folder of a runtime for `stap -R`, in place of SystemTap's own: the way out where a distribution's stap does not
    /// fit its kernel. Its code becomes part of kernel modules, so only the host's owner may name one.
    pub stap_runtime: Option<PathBuf>,
    /// Whether SystemTap may run without its guard against overload where the lowest rate is still too much for it.
    pub allow_stap_unguarded: bool,
    /// CPU of the agent in percent of one core.
    pub cpu_pct_max: u32,
    /// Memory of the agent's stacks in MiB.
    pub memory_mb_max: u32,
    /// Scripts of the user's that may run, by the hash that `fleetflame-agent expand --hash` prints.
    pub scripts: Vec<String>,
    /// Bytes sent in one capture, in MiB.
    pub output_mb_max: u32,
    /// Captures at the same time.
    pub captures_max: u32,
}

/// A kind of target, as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Gateways found by themselves.
    Nginx,
    /// By process id.
    Pid,
    /// By executable.
    Exe,
    /// By command line.
    Cmd,
    /// By systemd unit.
    Unit,
    /// By container.
    Container,
}

impl Default for Policy {
    /// Harmless: CPU time and waits, by the built-in sampler or the system's own perf (which gets no more
    /// rights, rates or budgets than the sampler), and no target is ever stopped.
    fn default() -> Self {
        use TargetKind::{Cmd, Container, Exe, Nginx, Pid, Unit};
        Self {
            version: 1,
            engines: vec![EngineChoice::Native, EngineChoice::Perf],
            probes: vec![Probe::OnCpu, Probe::OffCpu, Probe::Lua],
            sample_hz_max: 999,
            duration_s_max: 300,
            targets: vec![Nginx, Pid, Exe, Cmd, Unit, Container],
            allow_ptrace: false,
            request_paths: false,
            requests_url: None,
            stap_runtime: None,
            allow_stap_unguarded: false,
            cpu_pct_max: 20,
            memory_mb_max: 512,
            scripts: Vec::new(),
            output_mb_max: 256,
            captures_max: 1,
        }
    }
}

impl Policy {
    /// Holds an order against the policy.
    ///
    /// # Errors
    /// One finding for each thing that is not allowed.
    pub fn check(&self, order: &CaptureOrder) -> Result<(), Vec<Finding>> {
        let mut against = Vec::new();
        let mut no = |why: String| against.push(Finding::new(FindingCode::PolicyRefused, why));
        if !self.engines.contains(&order.engine) {
            no(format!(
                "engine {} is not in engines: of the policy",
                order.engine
            ));
        }
        // A script is named by its hash, below.
        if order.probe != Probe::Script && !self.probes.contains(&order.probe) {
            no(format!(
                "probe {} is not in probes: of the policy",
                order.probe
            ));
        }
        for (what, asked, allowed) in [
            (
                "sample_hz",
                u64::from(order.sample_hz),
                u64::from(self.sample_hz_max),
            ),
            (
                "duration in ms",
                order.duration_ms,
                self.duration_s_max.saturating_mul(1_000),
            ),
            (
                "cpu_pct",
                u64::from(order.budgets.cpu_pct_max),
                u64::from(self.cpu_pct_max),
            ),
            (
                "memory_mb",
                u64::from(order.budgets.memory_mb_max),
                u64::from(self.memory_mb_max),
            ),
            (
                "output_mb",
                u64::from(order.budgets.output_mb_max),
                u64::from(self.output_mb_max),
            ),
        ] {
            if asked > allowed {
                no(format!(
                    "{what} of {asked} is asked, and the policy allows {allowed}"
                ));
            }
        }
        if order.sample_hz == 0 || order.duration_ms == 0 {
            no("an order without a rate or a duration".into());
        }
        if !LEASE_MS.contains(&order.lease_ms) {
            no(format!(
                "a lease of {} ms is asked; 1000 to 10000 are possible",
                order.lease_ms
            ));
        }
        if order.targets.is_empty() || order.targets.len() > TARGETS_MAX {
            no(format!(
                "{} targets are named; 1 to {TARGETS_MAX} are possible",
                order.targets.len()
            ));
        }
        if order.uri_segments > 0 && !self.request_paths {
            no("paths of requests are asked, and the policy has no request_paths: true".into());
        }
        if matches!(order.pick, Pick::Busiest(0) | Pick::Random(0)) {
            no("an order that picks no process".into());
        }
        for target in &order.targets {
            let kind = match target {
                Target::Nginx => TargetKind::Nginx,
                Target::Pid(_) => TargetKind::Pid,
                Target::Exe(_) => TargetKind::Exe,
                Target::Cmd(_) => TargetKind::Cmd,
                Target::Unit(_) => TargetKind::Unit,
                Target::Container(_) => TargetKind::Container,
            };
            if !self.targets.contains(&kind) {
                no(format!(
                    "target {target} is of a kind that is not in targets: of the policy"
                ));
            }
        }
        if (order.probe == Probe::Script) != order.script.is_some() {
            let script = if order.script.is_some() {
                "comes with no"
            } else {
                "needs a"
            };
            no(format!("probe {} {script} script", order.probe));
        }
        if let Some(script) = &order.script {
            against.extend(self.check_script(&script.file, &hash_of(script)).err());
        }
        if against.is_empty() {
            Ok(())
        } else {
            Err(against)
        }
    }

    /// Holds a script against the policy, by its hash ([`crate::stapxx::script_hash`]).
    ///
    /// # Errors
    /// `policy-refused`, with the line that would allow it.
    pub fn check_script(&self, file: &str, hash: &str) -> Result<(), Finding> {
        if self.scripts.iter().any(|allowed| allowed == hash) {
            return Ok(());
        }
        let why = format!(
            "{file} is not in scripts: of the policy; its owner allows it by the line - {hash}"
        );
        Err(Finding::new(FindingCode::PolicyRefused, why))
    }

    /// The policy in one line, for a host's report.
    #[must_use]
    pub fn describe(&self) -> String {
        let words = |list: Vec<String>| list.join("|");
        let mut line = format!(
            "engines {}, probes {}, up to {} Hz for {} s, {} % CPU, {} MiB",
            words(self.engines.iter().map(ToString::to_string).collect()),
            words(self.probes.iter().map(ToString::to_string).collect()),
            self.sample_hz_max,
            self.duration_s_max,
            self.cpu_pct_max,
            self.memory_mb_max,
        );
        for (is_allowed, what) in [
            (self.allow_ptrace, ", ptrace allowed"),
            (self.request_paths, ", paths of requests allowed"),
        ] {
            line.push_str(if is_allowed { what } else { "" });
        }
        if let Some(page) = &self.requests_url {
            line.push_str(&format!(", requests by {page}"));
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::job::Event;
    use model::order::Budgets;
    use model::script::Script;
    use model::{HostName, RunId};
    use std::collections::BTreeMap;

    pub(crate) fn order() -> CaptureOrder {
        CaptureOrder {
            run: RunId::from_parts(1, 1),
            host: HostName::new("h").unwrap(),
            engine: EngineChoice::Native,
            probe: Probe::OnCpu,
            event: Event::CpuClock,
            targets: vec![Target::Nginx],
            pick: Pick::All,
            sample_hz: 99,
            duration_ms: 10_000,
            kernel: true,
            min_wait_us: 0,
            uri_segments: 0,
            budgets: Budgets::default(),
            lease_ms: 4_000,
            script: None,
            simulated: None,
        }
    }

    #[test]
    fn an_order_with_a_script_is_refused_with_the_line_that_would_allow_it() {
        let script = Script {
            file: "a.sxx".into(),
            text: "probe begin { exit() }\n".into(),
            arguments: BTreeMap::new(),
            ..Script::default()
        };
        let order = CaptureOrder {
            engine: EngineChoice::Stap,
            probe: Probe::Script,
            script: Some(script.clone()),
            ..order()
        };
        let with = |scripts: &[String]| Policy {
            engines: vec![EngineChoice::Stap],
            scripts: scripts.to_vec(),
            ..Policy::default()
        };
        let refused = with(&[]).check(&order).unwrap_err();
        let said = &refused[0].evidence;
        let hash = said.rsplit_once("- ").unwrap().1.to_owned();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(hash, hash_of(&script));
        assert_eq!(with(std::slice::from_ref(&hash)).check(&order), Ok(()));
        // One byte more is another script, and neither goes with another probe.
        let mut other = order.clone();
        other.script.as_mut().unwrap().text.push(' ');
        assert!(with(std::slice::from_ref(&hash)).check(&other).is_err());
        other.script = None;
        assert!(with(&[hash]).check(&other).is_err());
    }

    #[test]
    fn the_default_allows_a_plain_capture_and_nothing_dangerous() {
        let policy = Policy::default();
        assert_eq!(policy.check(&order()), Ok(()));
        let dangerous: [fn(&mut CaptureOrder); 10] = [
            |o| o.uri_segments = 1,
            |o| o.engine = EngineChoice::Stap,
            |o| o.engine = EngineChoice::Simulated,
            |o| o.probe = Probe::Alloc,
            |o| o.sample_hz = 5_000,
            |o| o.sample_hz = 0,
            |o| o.duration_ms = u64::MAX,
            |o| o.budgets.cpu_pct_max = 100,
            |o| o.lease_ms = 3_600_000,
            |o| o.targets.clear(),
        ];
        for (i, change) in dangerous.into_iter().enumerate() {
            let mut order = order();
            change(&mut order);
            let against = policy
                .check(&order)
                .expect_err(&format!("change {i} was allowed"));
            assert_eq!(against[0].code, FindingCode::PolicyRefused);
        }
    }

    #[test]
    fn a_script_runs_only_where_its_hash_is_listed() {
        let hash = "ab".repeat(32);
        let refused = Policy::default().check_script("a.sxx", &hash).unwrap_err();
        assert_eq!(refused.code, FindingCode::PolicyRefused);
        assert!(refused.evidence.contains(&hash), "{refused}");
        let policy = Policy {
            scripts: vec![hash.clone()],
            ..Policy::default()
        };
        assert_eq!(policy.check_script("a.sxx", &hash), Ok(()));
        assert!(policy.check_script("a.sxx", &"ba".repeat(32)).is_err());
    }

    #[test]
    fn every_reason_is_given_at_once() {
        let mut order = order();
        order.engine = EngineChoice::Stap;
        order.sample_hz = 1_500;
        assert_eq!(Policy::default().check(&order).unwrap_err().len(), 2);
    }
}
