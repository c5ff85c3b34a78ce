//! The end of one run, and another one after it.
//!
//! In: a run that is over, why, and what is left of the time. Out: its part of the account; a further run with other
//! settings, told with its reason and price. Never: a retry that nobody is told of.

use super::capture::{Capture, failed};
use super::diagnose::{Verdict, conclude};
use super::remedy::{self, Left, Settings, Step};
use super::run::Run;
use crate::engine::task::lock;
use model::{Finding, FindingCode};
use std::collections::BTreeSet;

/// What is tried next, the best first, and why.
pub(super) struct Next {
    steps: Vec<Step>,
    causes: BTreeSet<FindingCode>,
}

impl Capture {
    /// After SystemTap ended a run by itself: that run's end, and the next rung of the ladder, if there is one. To be
    /// waited for to its end: a run that is half settled has lost its account.
    pub(super) async fn next(&mut self) -> Option<Next> {
        let run = self.run.take()?;
        let causes = self.settle(run).await;
        self.earlier.runs += 1;
        let passed_ms = self.clock.now_ns().saturating_sub(self.start_ns) / 1_000_000;
        let left_ms = self.plan.duration_ms.saturating_sub(passed_ms);
        let used = self.used?;
        let left = Left {
            tries: self.earlier.runs,
            left_ms,
            armed_in_ms: self.armed_in_ms,
            loaded_in_ms: self.loaded_in_ms,
        };
        let steps = remedy::next(
            &causes,
            self.plan.settings,
            (self.plan.wanted.demand, &used),
            left,
            self.plan.may_be_unguarded,
        );
        (!steps.is_empty()).then_some(Next { steps, causes })
    }

    /// Takes the first rung that can be taken. Whether it captures again.
    pub(super) async fn climb(&mut self, Next { steps, causes }: Next) -> bool {
        let causes: Vec<&str> = causes.iter().map(|code| code.as_str()).collect();
        let before = self.plan.settings;
        for step in steps {
            self.set(step.settings);
            let again = self.again().await;
            let outcome = match &again {
                Ok(()) => String::new(),
                Err(findings) => {
                    let why = findings.first().map_or("", |f| f.evidence.as_str());
                    format!("; it could not be done: {why}")
                }
            };
            let said = format!(
                "try {}: {}, because of {}{outcome}",
                self.earlier.runs + 1,
                step.said,
                causes.join(", ")
            );
            let retried = Finding::new(FindingCode::StapRetried, said);
            self.earlier.findings.push(retried);
            if again.is_ok() {
                return true;
            }
            self.set(before);
        }
        false
    }

    fn set(&mut self, settings: Settings) {
        self.plan.wanted.bounds = settings.bounds;
        self.plan.wanted.unguarded = settings.unguarded;
        self.plan.settings = settings;
    }

    /// Finds or builds a module by the new settings, loads it and starts it.
    async fn again(&mut self) -> Result<(), Vec<Finding>> {
        let (module, _) = self.module().await?;
        self.take(&module);
        let Some(stacks) = self.stacks.clone() else {
            return Err(failed("nobody hears it"));
        };
        lock(&stacks).retake(self.plan.taken.clone());
        self.load(&module, stacks).await?;
        let go = self.run.as_ref().map(|run| run.tell("go"));
        match go {
            Some(Err(e)) => Err(failed(&format!("the module's control file: {e}"))),
            _ => Ok(()),
        }
    }

    /// The end of one run, into the account. Why it ended.
    pub(super) async fn settle(&mut self, mut run: Run) -> BTreeSet<FindingCode> {
        self.earlier.cpu_ns += run.cpu_ns();
        let mut ended = run.finish(&self.processes).await;
        let Settings { one_in, waits, .. } = self.plan.settings;
        // Of what was skipped as many would have counted as of the rest.
        let skipped = &mut ended.diagnosis.facts.skipped;
        *skipped = skipped.div_ceil(one_in);
        // Each wait or event that counts stands for all that do not.
        let stands_for = if waits { one_in } else { 1 };
        let printed = ended.account.end.map_or(0, |(_, samples)| samples);
        let missing = printed.saturating_sub(ended.account.samples);
        let facts = ended.diagnosis.facts.clone();
        let lost = facts.skipped.saturating_add(missing);
        let lost = lost.saturating_mul(stands_for);
        self.earlier.lost = self.earlier.lost.saturating_add(lost);
        // Without the kernel's stacks nothing is missing when its unwind data is.
        let only_kernel =
            !self.plan.wanted.probe.kernel && facts.wants_unwind.iter().all(|w| w == "kernel");
        let (verdict, mut findings) = conclude(&ended.ending, ended.diagnosis);
        tracing::debug!(?verdict, "SystemTap ended");
        findings.extend(ended.findings);
        if only_kernel {
            findings.retain(|f| f.code != FindingCode::StapUnwindMissing);
        }
        if self.start_ns == 0 && verdict == Verdict::Failed {
            findings.retain(|f| f.code != FindingCode::StapOutputCut);
        }
        if ended.account.foreign > 0 {
            let said = format!(
                "{} lines of the probe's output: {}",
                ended.account.foreign,
                ended.account.examples.join("; ")
            );
            findings.push(Finding::new(FindingCode::InputSkipped, said));
        }
        self.earlier.findings.extend(findings);
        facts.causes
    }
}
