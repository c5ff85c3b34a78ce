//! The loop's books: what each host has sent, how it came out, what was found.
//!
//! In: batches and ends of captures. Out: coverage. Never: a batch acknowledged before it is
//! spooled, or a host called complete of which something is missing.

use super::host::HostCommand;
use super::run::{Captured, Loop, Phase};
use super::watch::RunEvent;
use crate::merge::{AbsorbError, Absorbed};
use crate::store::IntakeError;
use model::coverage::HostOutcome;
use model::{Coverage, Finding, FindingCode, HostName, Severity};

impl Loop<'_> {
    pub(super) fn take_in(&mut self, name: &HostName, epoch: u32, seq: u64, ffz: &[u8]) {
        match self.intake.receive(name, epoch, seq, ffz) {
            Ok(absorbed) => {
                if let Some(state) = self.hosts.get_mut(name)
                    && absorbed == Absorbed::New
                {
                    state.coverage.batches += 1;
                    state.coverage.bytes += ffz.len() as u64;
                    state.coverage.captured = true;
                }
                self.say(name, HostCommand::Ack(epoch, seq));
            }
            Err(IntakeError::Batch(AbsorbError::Gap { .. })) => {
                let (epoch, next) = self.intake.live().position(name.as_str());
                self.say(
                    name,
                    HostCommand::Resume {
                        epoch,
                        seq: next - 1,
                        collect: self.collecting,
                    },
                );
            }
            Err(error @ IntakeError::Store(_)) => {
                // Not acknowledged, so the agent keeps it. The run ends here with what it has.
                self.remainder_held = true;
                let finding = error.finding(name);
                if !self.findings.contains(&finding) {
                    self.findings.push(finding);
                    self.stop_all("the coordinator cannot write its run directory");
                }
            }
            Err(error) => {
                let finding = error.finding(name);
                self.say(name, HostCommand::Stop("its batches are refused".into()));
                self.out(name, finding);
                self.say(name, HostCommand::Close);
            }
        }
    }

    pub(super) fn finished(&mut self, name: &HostName, last: (u32, u64), complete: bool) {
        let position = self.intake.live().position(name.as_str());
        let missing = match position {
            (epoch, next) if epoch == last.0 => last.1.saturating_add(1).saturating_sub(next),
            // No batch of this epoch has come: all of them are missing.
            _ => last.1,
        };
        let Some(state) = self.hosts.get_mut(name) else {
            return;
        };
        state.coverage.missing_batches = missing;
        if missing > 0 {
            let said = format!("{missing} batches before number {}", last.1);
            self.note(name, vec![Finding::new(FindingCode::BatchGap, said)]);
            self.remainder_held = true;
        } else {
            state.may_forget = true;
            self.say(name, HostCommand::Forget);
        }
        if let Some(state) = self.hosts.get_mut(name) {
            let whole = complete && missing == 0;
            state.coverage.outcome = if whole {
                HostOutcome::Complete
            } else {
                HostOutcome::Partial
            };
            if state.coverage.reconnects > 0 && missing == 0 {
                let said = format!("{} times", state.coverage.reconnects);
                let note = Finding::new(FindingCode::ConnectionResumed, said);
                self.note(name, vec![note]);
            }
        }
        self.done(name);
    }

    /// The host takes no further part.
    pub(super) fn out(&mut self, name: &HostName, finding: Finding) {
        self.barrier.out(name);
        self.note(name, vec![finding]);
        self.done(name);
    }

    pub(super) fn done(&mut self, name: &HostName) {
        let Some(state) = self.hosts.get_mut(name) else {
            return;
        };
        if state.phase == Phase::Done {
            return;
        }
        state.phase = Phase::Done;
        if state.coverage.captured && state.coverage.outcome == HostOutcome::Failed {
            state.coverage.outcome = HostOutcome::Partial;
        }
        let outcome = format!("{:?}", state.coverage.outcome).to_lowercase();
        let samples = state.coverage.stats.samples;
        self.context.watch.on(RunEvent::Done {
            host: name.to_string(),
            outcome,
            samples,
        });
    }

    pub(super) fn give_up_waiting(&mut self) {
        let waiting: Vec<HostName> = self
            .hosts
            .iter()
            .filter(|(_, h)| h.phase != Phase::Done)
            .map(|(n, _)| n.clone())
            .collect();
        for name in waiting {
            self.remainder_held |= self.holds_rest(&name);
            self.out(
                &name,
                Finding::new(FindingCode::HostLost, "it did not finish in time"),
            );
        }
    }

    /// Whether a lost agent of this host holds what it could not send: a daemon does, one that was sent
    /// or started for this run is gone by the end of its lease.
    pub(super) fn holds_rest(&self, name: &HostName) -> bool {
        self.fleet.hosts.get(name).is_some_and(|h| h.holds_rest)
    }

    pub(super) fn note(&mut self, name: &HostName, findings: Vec<Finding>) {
        let Some(state) = self.hosts.get_mut(name) else {
            return;
        };
        for finding in findings {
            let finding = finding.on(name.as_str());
            if !state.findings.contains(&finding) {
                self.context.watch.on(RunEvent::Found {
                    finding: finding.clone(),
                });
                state.findings.push(finding);
            }
        }
    }

    pub(super) fn say(&self, name: &HostName, command: HostCommand) {
        if let Some(line) = self.fleet.hosts.get(name) {
            line.say(command);
        }
    }

    pub(super) fn finish(self) -> Captured {
        let mut coverage = Coverage {
            findings: self.findings,
            ..Coverage::default()
        };
        for (name, mut state) in self.hosts {
            if state.coverage.outcome == HostOutcome::Complete
                && state
                    .findings
                    .iter()
                    .any(|f| f.severity() == Severity::Error)
            {
                state.coverage.outcome = HostOutcome::Partial;
            }
            // A host that was lost never told its sum; what arrived is known all the same.
            coverage.findings.extend(state.findings);
            coverage.hosts.insert(name.to_string(), state.coverage);
        }
        // Ctrl-C before anything was started is an interruption too.
        let before = self.start_ns == 0 && !self.collecting && self.context.cancel.is_cancelled();
        Captured {
            coverage,
            intake: self.intake,
            interrupted: self.interrupted || before,
            start_ns: self.start_ns,
            remainder_held: self.remainder_held,
        }
    }
}
