//! How often the statistics of comparing are right, on made-up fleets of known truth.
//!
//! In: seeds. Out: wrong verdicts by a thousand runs, and how far intervals are from what they say.
//! Never: other seeds than those of `make test`: there are only more of them.

use crate::setting::Setting;
use crate::table::Goal;
use statistics::simulation::{coverage, false_alarms, found};

const PART: &str = "compare";
/// The rate of false discoveries that is asked for.
const FALSE_MAX: f64 = 0.05;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    let runs: u64 = if setting.arguments.quick { 200 } else { 1_000 };
    let by_thousand = |n: usize| 1_000.0 * n as f64 / runs as f64;
    setting.step("fleets of hosts alike");
    let alarms = by_thousand(false_alarms(runs, FALSE_MAX));
    setting.step("fleets with one odd host");
    let missed = 1_000.0 - by_thousand(found(runs, FALSE_MAX));
    let report = &mut setting.report;
    let what = "20 hosts alike: runs in which one is called odd, of 1,000";
    let goal = Some(Goal::at_most(78.0));
    report.row(PART, what, "runs", &[alarms], &[], goal);
    let what =
        "2 points more on one of 20: runs in which it or its subtree is not named first, of 1,000";
    let goal = Some(Goal::at_most(50.0));
    report.row(PART, what, "runs", &[missed], &[], goal);
    for (hosts, runs) in [(2, 2 * runs), (20, runs / 5)] {
        setting.step(format!("intervals of one host against {}", hosts - 1));
        let off = (coverage(runs, hosts).part() * 100.0 - 95.0).abs();
        let rest = hosts - 1;
        let what = format!("intervals of 95 %, one host against {rest}: how far from 95 %");
        let goal = Some(Goal::at_most(2.0));
        setting.report.row(PART, what, "points", &[off], &[], goal);
    }
    Ok(())
}
