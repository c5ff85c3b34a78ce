//! What a capture of waits is worth. In: its account. Out: findings. Never: a weight, a gap or a
//! thread that was not seen kept quiet.

use super::pair::WaitTotals;
use super::rate::STACKS_A_SECOND_MAX;
use super::waits::Recorded;
use model::finding::{Finding, FindingCode};

/// What weakens the result: stacks that stand for several switches, switches without counterpart,
/// threads that never ran (`unseen`). `over_rate` stacks were beyond what a CPU takes in a second.
#[must_use]
pub fn judge(
    totals: &WaitTotals,
    recorded: &Recorded,
    unseen: u64,
    over_rate: u64,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if totals.sampled < totals.outs {
        let each = totals.outs as f64 / totals.sampled.max(1) as f64;
        let evidence = format!(
            "{} of {} switches have a stack, so that each stands for {each:.1} on average ({over_rate} were beyond {STACKS_A_SECOND_MAX} a second and CPU); \
             stacks stand for {} ms blocked and {} ms waiting for a CPU, the switch records say {} ms and {} ms",
            totals.sampled,
            totals.outs,
            recorded.blocked_ns / 1_000_000,
            recorded.runqueue_ns / 1_000_000,
            totals.blocked_ns / 1_000_000,
            totals.runqueue_ns / 1_000_000,
        );
        findings.push(Finding::new(FindingCode::WaitsThinned, evidence));
    }
    if totals.unpaired > 0 {
        let evidence = format!(
            "{} of {} switches have no counterpart",
            totals.unpaired,
            totals.outs + totals.ins
        );
        findings.push(Finding::new(FindingCode::WaitsUnpaired, evidence));
    }
    if unseen > 0 {
        let threads = if unseen == 1 { "thread" } else { "threads" };
        let evidence = format!("{unseen} {threads} waited all the time");
        findings.push(Finding::new(FindingCode::WaitsUnseen, evidence));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_account_says_nothing_and_each_gap_has_its_finding() {
        let whole = WaitTotals {
            outs: 10,
            ins: 10,
            sampled: 10,
            paired: 10,
            ..WaitTotals::default()
        };
        assert!(judge(&whole, &Recorded::default(), 0, 0).is_empty());
        let gaps = WaitTotals {
            sampled: 4,
            unpaired: 2,
            ..whole
        };
        let found = judge(&gaps, &Recorded::default(), 3, 0);
        let codes: Vec<_> = found.iter().map(|f| f.code).collect();
        let expected = [
            FindingCode::WaitsThinned,
            FindingCode::WaitsUnpaired,
            FindingCode::WaitsUnseen,
        ];
        assert_eq!(codes, expected);
        assert!(found[0].evidence.contains("each stands for 2.5"));
    }
}
