//! What a capture has used up, held against its order. Pure.
//!
//! In: measured use. Out: the finding that ends or coarsens the capture. Never: a budget that is
//! only reported.

use model::order::Budgets;
use model::{Finding, FindingCode};

/// CPU is judged only after this time: start-up work would weigh too much before.
const CPU_GRACE_NS: u64 = 3_000_000_000;
/// Bytes of one pending row of values in a hash map, with its share of the map's slack.
const ROW_BYTES: u64 = 64;
/// Bytes of one node of the tree with its entry in the index.
const NODE_BYTES: u64 = 48;

/// Whether the agent has used more CPU than it may; then the capture ends.
pub(super) fn cpu(budgets: &Budgets, own_cpu_ns: u64, passed_ns: u64) -> Option<Finding> {
    if passed_ns < CPU_GRACE_NS {
        return None;
    }
    let pct = u128::from(own_cpu_ns) * 100 / u128::from(passed_ns);
    (pct > u128::from(budgets.cpu_pct_max)).then(|| {
        let said = format!(
            "{pct} % of a core over {} s, the budget is {} %",
            passed_ns / 1_000_000_000,
            budgets.cpu_pct_max
        );
        Finding::new(FindingCode::BudgetCpu, said)
    })
}

/// Whether the agent has made more bytes than it may; then the capture ends.
pub(super) fn output(budgets: &Budgets, bytes: u64) -> Option<Finding> {
    let allowed = u64::from(budgets.output_mb_max) << 20;
    (bytes > allowed).then(|| {
        Finding::new(
            FindingCode::BudgetBytes,
            format!("{bytes} bytes of at most {allowed}"),
        )
    })
}

/// Whether pending values take more memory than they may; then their seconds are joined. Half of
/// the budget is left to the sampler's rings and the dictionary.
pub(super) fn memory(budgets: &Budgets, pending_rows: usize, nodes: usize) -> Option<Finding> {
    let used = pending_rows as u64 * ROW_BYTES + nodes as u64 * NODE_BYTES;
    let allowed = (u64::from(budgets.memory_mb_max) << 20) / 2;
    (used > allowed).then(|| {
        let said = format!("about {} MiB of stacks waited to be sent", used >> 20);
        Finding::new(FindingCode::BudgetMemory, said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_held_at_their_bounds() {
        let budgets = Budgets {
            cpu_pct_max: 10,
            memory_mb_max: 2,
            stacks_max: 1,
            output_mb_max: 1,
        };
        let second = 1_000_000_000;
        assert_eq!(cpu(&budgets, second, second), None, "within the grace");
        assert_eq!(cpu(&budgets, second, 10 * second), None);
        assert!(cpu(&budgets, 2 * second, 10 * second).is_some());
        assert_eq!(output(&budgets, 1 << 20), None);
        assert!(output(&budgets, (1 << 20) + 1).is_some());
        assert_eq!(memory(&budgets, 1_000, 1_000), None);
        assert!(memory(&budgets, 20_000, 1_000).is_some());
    }
}
