//! The end of a run: from what was captured to what is kept and drawn.
//!
//! In: coverage and batches. Out: the run directory's files and its record. Never: a run called
//! complete when something is missing.

use crate::clock::{self, Clock};
use crate::dispatch::Captured;
use crate::render;
use crate::store::{self, RunDir, RunRecord, RunState, StoreError};
use compare::{Per, Ranking};
use model::coverage::HostOutcome;
use model::format::ffz::Want;
use model::job::Probe;
use model::profile::Profile;
use model::script::StackUnit;
use model::{Coverage, Finding, FindingCode, HostName};

/// Measures how long the parts of a run take, for its record.
pub struct Timer {
    clock: Clock,
    last_ns: u64,
}

impl Timer {
    /// Starts now.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            last_ns: clock.now_ns(),
        }
    }

    /// Notes the time since the last lap under `part`.
    pub fn lap(&mut self, record: &mut RunRecord, part: &str) {
        let now = self.clock.now_ns();
        record.timings_ms.insert(
            part.to_owned(),
            now.saturating_sub(self.last_ns) / 1_000_000,
        );
        self.last_ns = now;
    }

    /// The wall clock's time of an instant that has passed, in milliseconds since 1970.
    fn wall_unix_ms(&self, at_ns: u64) -> u64 {
        let ago_ns = self.clock.now_ns().saturating_sub(at_ns);
        clock::wall_unix_ms().saturating_sub(ago_ns / 1_000_000)
    }
}

/// Compacts, compares, keeps and draws. Without room on the disk the spools stay, and `collect` does it
/// all again.
pub(crate) fn conclude(
    dir: &RunDir,
    mut record: RunRecord,
    captured: Captured,
    timer: Timer,
) -> anyhow::Result<RunRecord> {
    match settle(dir, &mut record, captured, timer) {
        Ok(()) => Ok(record),
        Err(error) if error.is_disk_full() => {
            record.findings.push(error.finding());
            record.state = match record.state {
                RunState::Complete => RunState::Partial,
                RunState::Running => RunState::Failed,
                state => state,
            };
            // There may be room for this much; if not, the record stays as it was before.
            let _ = dir.write_record(&record);
            Ok(record)
        }
        Err(error) => Err(error.into()),
    }
}

fn settle(
    dir: &RunDir,
    record: &mut RunRecord,
    captured: Captured,
    mut timer: Timer,
) -> Result<(), StoreError> {
    let hosts: Vec<HostName> = dir.spooled_hosts()?;
    let probe = record.job.probe.to_string();
    drop(captured.intake);
    record.coverage = captured.coverage;
    if captured.start_ns > 0 {
        let from_unix_ms = timer.wall_unix_ms(captured.start_ns);
        record.captured_from = Some(store::utc_text(from_unix_ms));
    }
    record.ended = Some(store::utc_text(clock::wall_unix_ms()));
    let compacted = store::compact(dir, &probe, &record.job.measures(), &hosts)?;
    record.findings.extend(compacted.findings);
    let is_script = record.job.probe == Probe::Script;
    complete_coverage(&mut record.coverage, &compacted.profile, is_script);
    record.state = state(&record.coverage, captured.interrupted);
    let has_stacks = compacted.profile.grand_total()[0] > 0;
    let printed = is_script && record.coverage.hosts.values().any(|h| h.captured);
    if !has_stacks && !printed {
        record
            .findings
            .push(Finding::new(FindingCode::NothingCaptured, ""));
    }
    record.findings.extend(unit_unknown(record, has_stacks));
    if captured.remainder_held {
        let said = "a host was lost, or could not send everything";
        record
            .findings
            .push(Finding::new(FindingCode::RemainderHeld, said));
    }
    if captured.interrupted {
        record
            .findings
            .push(Finding::new(FindingCode::Interrupted, "by the operator"));
    }
    timer.lap(record, "compact");
    drop(compacted.profile); // it comes again, with its seconds
    let profile = dir.profile(Want::Cells)?;
    if record.coverage.hosts.len() > 1 && profile.grand_total()[0] > 0 {
        let (main, more) = rankings(&profile, compare::seed(&record.id));
        record.ranking = Some(main);
        record.more_rankings = more;
    }
    timer.lap(record, "compare");
    record.findings.sort();
    record.findings.dedup();
    let drawn = render::write_all(dir, &profile, record)?;
    record.findings.extend(drawn);
    timer.lap(record, "render");
    dir.write_record(record)?;
    if captured.remainder_held {
        return Ok(()); // an agent may still hold batches that build on the spools
    }
    dir.remove_spool()
}

/// Of a script whose stacks have counts, and nobody says of what.
fn unit_unknown(record: &RunRecord, has_stacks: bool) -> Option<Finding> {
    let script = record.job.script.as_ref()?;
    let is_unknown = has_stacks && script.stack_unit == StackUnit::Sum;
    let said = format!("{} prints stacks with sums", script.file);
    is_unknown.then(|| Finding::new(FindingCode::ScriptUnit, said))
}

/// The ranking by CPU time per request where requests were counted on every host, else by share; and
/// the others that can be made.
fn rankings(profile: &Profile, seed: u64) -> (Ranking, Vec<Ranking>) {
    let all = [Per::Share, Per::Cpu, Per::Requests];
    let mut made: Vec<Ranking> = all.map(|per| compare::rank(profile, per, seed)).into();
    let shares = made.remove(0);
    made.retain(|r| !r.entries.is_empty());
    let whole = |r: &Ranking| r.per == Per::Requests && r.entries.len() == shares.entries.len();
    match made.iter().position(whole) {
        Some(at) => {
            let main = made.remove(at);
            made.insert(0, shares);
            (main, made)
        }
        None => (shares, made),
    }
}

/// Says of a run that nothing can come to it any more: its agents were told to forget it, and the
/// spools that a new profile could be made of are gone.
pub(crate) fn note_settled(record: &mut RunRecord) {
    for (name, host) in &record.coverage.hosts {
        if host.outcome != HostOutcome::Complete {
            let said = "everything that was held has been collected, or was given up";
            record
                .findings
                .push(Finding::new(FindingCode::RemainderGone, said).on(name.as_str()));
        }
    }
}

/// What a lost host never told is known from what arrived; losses become findings.
/// A script's host has captured something when it printed something.
fn complete_coverage(coverage: &mut Coverage, profile: &Profile, is_script: bool) {
    let mut findings = Vec::new();
    for (name, host) in &mut coverage.hosts {
        let of_stacks = profile
            .select(|s| s.host == *name)
            .values()
            .map(|v| v[0])
            .fold(0, u64::saturating_add);
        let taken = of_stacks.saturating_add(host.stats.printed.len() as u64);
        host.captured = taken > 0;
        if host.stats.samples == 0 {
            host.stats.samples = of_stacks;
        }
        let lost = host.stats.lost.saturating_add(host.stats.dropped);
        if lost > 0 || host.stats.throttled > 0 {
            let said = format!(
                "{} lost by the kernel, {} dropped by the agent, {} times throttled, {of_stacks} taken",
                host.stats.lost, host.stats.dropped, host.stats.throttled
            );
            findings.push(Finding::new(FindingCode::SamplesLost, said).on(name.as_str()));
        }
        match host.outcome {
            HostOutcome::Partial if taken == 0 => host.outcome = HostOutcome::Failed,
            HostOutcome::Failed if taken > 0 => host.outcome = HostOutcome::Partial,
            _ => {}
        }
        if host.outcome == HostOutcome::Complete && taken == 0 {
            host.outcome = HostOutcome::Partial;
            let said = match is_script {
                true => "the script ran, but printed nothing",
                false => "the capture ran, but took no stack",
            };
            findings.push(Finding::new(FindingCode::NothingCaptured, said).on(name.as_str()));
        }
    }
    coverage.findings.extend(findings);
}

fn state(coverage: &Coverage, interrupted: bool) -> RunState {
    let hosts = || coverage.hosts.values();
    if interrupted {
        RunState::Interrupted
    } else if !hosts().any(|h| h.captured) {
        RunState::Failed
    } else if hosts().all(|h| h.outcome == HostOutcome::Complete) {
        RunState::Complete
    } else {
        RunState::Partial
    }
}

/// The exit code of a run (docs/operate.md): 0 complete, 3 partial, 4 nothing captured, 5 every
/// host refused, 130 interrupted.
#[must_use]
pub fn exit_code(record: &RunRecord) -> u8 {
    let refused = |h: &model::HostCoverage| h.outcome == HostOutcome::Refused;
    match record.state {
        RunState::Complete => 0,
        RunState::Interrupted => 130,
        RunState::Failed if record.coverage.hosts.values().all(refused) => 5,
        RunState::Failed => 4,
        RunState::Partial | RunState::Running => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::record_of;
    use model::HostCoverage;
    use model::format::folded;
    use model::script::{Printed, Script};

    fn record(unit: StackUnit) -> RunRecord {
        let mut record = record_of(&["a", "b"]);
        record.job.probe = Probe::Script;
        record.job.script = Some(Script {
            file: "s.sxx".into(),
            stack_unit: unit,
            ..Script::default()
        });
        record
    }

    #[test]
    fn sums_without_a_unit_are_told_where_there_are_stacks() {
        let told = unit_unknown(&record(StackUnit::Sum), true).unwrap();
        assert_eq!(told.code, FindingCode::ScriptUnit);
        assert_eq!(told.evidence, "s.sxx prints stacks with sums");
        assert!(unit_unknown(&record(StackUnit::Sum), false).is_none());
        assert!(unit_unknown(&record(StackUnit::Bytes), true).is_none());
    }

    #[test]
    fn a_script_has_captured_what_it_printed_stacks_or_text() {
        let complete = HostCoverage {
            outcome: HostOutcome::Complete,
            ..HostCoverage::default()
        };
        let mut text = complete.clone();
        text.stats.printed.push(Printed {
            at_ms: 1,
            text: "x\n".into(),
        });
        let mut coverage = Coverage::default();
        for (name, host) in [("a", complete.clone()), ("b", text), ("c", complete)] {
            coverage.hosts.insert(name.into(), host);
        }
        let profile = folded::parse(b"main;f 7\n", "a").0;
        complete_coverage(&mut coverage, &profile, true);
        let outcome = |name: &str| (coverage.hosts[name].captured, coverage.hosts[name].outcome);
        assert_eq!(outcome("a"), (true, HostOutcome::Complete));
        assert_eq!(outcome("b"), (true, HostOutcome::Complete));
        assert_eq!(outcome("c"), (false, HostOutcome::Partial));
        assert_eq!(coverage.hosts["a"].stats.samples, 7);
        assert_eq!(coverage.hosts["b"].stats.samples, 0);
        assert_eq!(coverage.findings.len(), 1);
    }
}
