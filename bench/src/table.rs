//! Figures, limits and verdicts. In: measured values and what they are held against. Out: a table
//! for people, JSON for machines. Never: a single run quoted as if it were a median, a ratio of
//! medians (pairs were taken together, so they are divided together), or a limit that is missed in
//! silence.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a figure is held against. The limits are those of the project's goals; `limit_probe` is what a
/// program without any of the product's duties reached on the machine that the goals were set on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    at_least: bool,
    must: f64,
    aim: Option<f64>,
    limit_probe: Option<f64>,
}

impl Goal {
    /// The figure must be this or more. Ratios are then peer ÷ ours.
    pub const fn at_least(must: f64) -> Self {
        Self {
            at_least: true,
            must,
            aim: None,
            limit_probe: None,
        }
    }

    /// The figure must be this or less. Ratios are then ours ÷ peer.
    pub const fn at_most(must: f64) -> Self {
        Self {
            at_least: false,
            ..Self::at_least(must)
        }
    }

    /// What is wished for beyond what must be.
    pub const fn aim(self, aim: f64) -> Self {
        Self {
            aim: Some(aim),
            ..self
        }
    }

    /// What the limit probe reached.
    pub const fn probe(self, probe: f64) -> Self {
        Self {
            limit_probe: Some(probe),
            ..self
        }
    }

    fn verdict(self, figure: f64) -> Verdict {
        let within = |limit: f64| {
            if self.at_least {
                figure >= limit
            } else {
                figure <= limit
            }
        };
        match (within(self.must), self.aim) {
            (false, _) => Verdict::Missed,
            (true, Some(aim)) if within(aim) => Verdict::AimReached,
            (true, _) => Verdict::Kept,
        }
    }

    fn in_words(self) -> String {
        let sign = if self.at_least { "≥" } else { "≤" };
        let mut text = format!("must {sign} {}", short(self.must));
        for (word, limit) in [("aim", self.aim), ("probe", self.limit_probe)] {
            if let Some(limit) = limit {
                let _ = write!(text, ", {word} {}", short(limit));
            }
        }
        text
    }
}

/// What comes of a figure and its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Outside of what must be.
    Missed,
    /// Within what must be.
    Kept,
    /// Within what is wished for.
    AimReached,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Missed => "MISSED",
            Self::Kept => "kept",
            Self::AimReached => "kept, aim reached",
        }
    }
}

#[derive(Clone, Debug)]
struct Row {
    part: &'static str,
    what: String,
    unit: &'static str,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    goal: Option<Goal>,
}

impl Row {
    /// Pair by pair; in the direction that the goal speaks of.
    fn ratios(&self) -> Vec<f64> {
        let up = self.goal.is_some_and(|g| g.at_least);
        let pairs = self.ours.iter().zip(&self.theirs);
        pairs
            .map(|(ours, theirs)| if up { theirs / ours } else { ours / theirs })
            .collect()
    }

    /// The figure that the goal is about: the ratio where there is a peer, else the value.
    fn verdict(&self) -> Option<Verdict> {
        let ratios = self.ratios();
        let figure = median(if ratios.is_empty() {
            &self.ours
        } else {
            &ratios
        });
        self.goal.map(|g| g.verdict(figure))
    }
}

/// A comparison of results, a failure, or something that could not be run.
#[derive(Clone, Debug)]
struct Remark {
    part: &'static str,
    what: String,
    why: String,
}

/// Everything that was measured, and what was not.
#[derive(Debug, Default)]
pub struct Report {
    binding: bool,
    rows: Vec<Row>,
    equal: Vec<Remark>,
    failed: Vec<Remark>,
    not_run: Vec<Remark>,
}

impl Report {
    /// Without `binding`, goals are shown and nothing is held against them: they are for full-sized
    /// inputs.
    pub fn new(binding: bool) -> Self {
        Self {
            binding,
            ..Self::default()
        }
    }

    fn verdict(&self, row: &Row) -> Option<Verdict> {
        row.verdict().filter(|_| self.binding)
    }

    /// Interleaved series of the same unit; without a peer `theirs` is empty.
    pub fn row(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        theirs: &[f64],
        goal: Option<Goal>,
    ) {
        let what = what.into();
        if ours.is_empty() {
            return;
        }
        self.rows.push(Row {
            part,
            what,
            unit,
            ours: ours.to_vec(),
            theirs: theirs.to_vec(),
            goal,
        });
    }

    /// Results that were compared: what was found equal, or how they differ.
    pub fn compared(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        found: anyhow::Result<String>,
    ) {
        let what = what.into();
        match found {
            Ok(why) => self.equal.push(Remark { part, what, why }),
            Err(e) => self.failed(part, what, &e),
        }
    }

    /// Something of ours that does not work.
    pub fn failed(&mut self, part: &'static str, what: impl Into<String>, error: &anyhow::Error) {
        let (what, why) = (what.into(), format!("{error:#}"));
        self.failed.push(Remark { part, what, why });
    }

    /// Something that could not be measured here.
    pub fn not_run(&mut self, part: &'static str, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.not_run.push(Remark { part, what, why });
    }

    /// 1: a limit is missed or something of ours failed; 3: not everything was run; else 0.
    pub fn exit_code(&self) -> u8 {
        let missed = |r: &Row| self.verdict(r) == Some(Verdict::Missed);
        if self.rows.iter().any(missed) || !self.failed.is_empty() {
            1
        } else if self.not_run.is_empty() {
            0
        } else {
            3
        }
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut part = "";
        for row in &self.rows {
            if row.part != part {
                part = row.part;
                let _ = write!(
                    text,
                    "\n### {part}\n\n| what | fleetflame, median (min–max) | peer | ratio, pair by pair | goal | verdict |\n|---|---|---|---|---|---|\n"
                );
            }
            let theirs = if row.theirs.is_empty() {
                "–".to_owned()
            } else {
                format!("{} {}", spread(&row.theirs), row.unit)
            };
            let ratios = row.ratios();
            let ratio = match (ratios.is_empty(), row.goal.is_some_and(|g| g.at_least)) {
                (true, _) => "–".to_owned(),
                (false, true) => format!("peer ÷ ours {}", spread(&ratios)),
                (false, false) => format!("ours ÷ peer {}", spread(&ratios)),
            };
            let _ = writeln!(
                text,
                "| {} | {} {} | {theirs} | {ratio} | {} | {} |",
                row.what.replace('|', "\\|"),
                spread(&row.ours),
                row.unit,
                row.goal.map_or("printed".to_owned(), Goal::in_words),
                self.verdict(row).map_or("–", Verdict::word)
            );
        }
        for (head, remarks) in [
            ("Results found equal before anything was timed", &self.equal),
            ("FAILED", &self.failed),
            ("NOT RUN", &self.not_run),
        ] {
            if !remarks.is_empty() {
                let _ = write!(text, "\n{head}:\n\n");
            }
            for Remark { part, what, why } in remarks {
                let _ = writeln!(text, "- {part}, {what}: {why}");
            }
        }
        text
    }

    /// The same for machines, every single value in it.
    pub fn json(&self) -> Value {
        let remarks = |of: &[Remark]| -> Vec<Value> {
            let each = |r: &Remark| json!({ "part": r.part, "what": r.what, "why": r.why });
            of.iter().map(each).collect()
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| row_json(r, self.verdict(r)))
            .collect();
        json!({
            "rows": rows, "equal": remarks(&self.equal), "failed": remarks(&self.failed),
            "not_run": remarks(&self.not_run),
        })
    }
}

fn row_json(row: &Row, verdict: Option<Verdict>) -> Value {
    let ratios = row.ratios();
    let goal = row.goal.map(|g| {
        json!({
            "sense": if g.at_least { "at least" } else { "at most" },
            "must": g.must, "aim": g.aim, "probe": g.limit_probe,
        })
    });
    let ratio = (!ratios.is_empty()).then(|| median(&ratios));
    json!({
        "part": row.part, "what": row.what, "unit": row.unit, "ours": row.ours, "theirs": row.theirs,
        "ratios": ratios, "ratio": ratio, "goal": goal, "verdict": verdict.map(Verdict::word),
    })
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Median and range, or the one value.
fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = short(median(values));
    if values.len() == 1 || short(low) == short(high) {
        middle
    } else {
        format!("{middle} ({}–{})", short(low), short(high))
    }
}

/// Three digits that matter, thousands apart.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        return out;
    }
    let decimals = match size {
        s if s >= 100.0 || s == 0.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ours: &[f64], theirs: &[f64], goal: Goal) -> Report {
        let mut report = Report::new(true);
        report.row("fold", "it", "CPU s", ours, theirs, Some(goal));
        report
    }

    #[test]
    fn ratios_are_taken_pair_by_pair_in_the_goals_direction() {
        let goal = Goal::at_least(10.0).aim(20.0).probe(25.0);
        // A slow moment hits both of a pair: the ratio of medians would be 30 ÷ 2.
        let report = report(&[1.0, 3.0, 2.0], &[20.0, 30.0, 40.0], goal);
        assert_eq!(report.rows[0].ratios(), [20.0, 10.0, 20.0]);
        assert_eq!(report.rows[0].verdict(), Some(Verdict::AimReached));
        let text = report.markdown();
        assert!(text.contains("peer ÷ ours 20 (10–20)"), "{text}");
        assert!(text.contains("must ≥ 10, aim 20, probe 25"), "{text}");
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn a_missed_limit_is_1_and_goes_before_what_was_not_run() {
        let mut below = report(&[1.0], &[0.5], Goal::at_most(1.0));
        assert_eq!(below.rows[0].ratios(), [2.0]);
        assert_eq!(below.exit_code(), 1);
        below.not_run("fold", "peer", "install it");
        assert_eq!(below.exit_code(), 1);
        let mut kept = report(&[0.5], &[1.0], Goal::at_most(1.0));
        kept.not_run("fold", "peer", "install it");
        assert_eq!(kept.exit_code(), 3);
        kept.compared("fold", "it", Err(anyhow::anyhow!("differs")));
        assert_eq!(kept.exit_code(), 1);
    }

    #[test]
    fn without_a_peer_the_value_itself_is_held_against_the_goal() {
        assert_eq!(
            report(&[7.0], &[], Goal::at_most(8.0).aim(5.0)).exit_code(),
            0
        );
        assert_eq!(report(&[9.0], &[], Goal::at_most(8.0)).exit_code(), 1);
        assert_eq!(report(&[f64::NAN], &[], Goal::at_most(8.0)).exit_code(), 1);
        assert_eq!(report(&[f64::NAN], &[], Goal::at_least(8.0)).exit_code(), 1);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.5, "1.5"),
            (24.71, "24.7"),
            (399.4, "399"),
            (1_000_000.0, "1,000,000"),
            (12_345.6, "12,346"),
        ] {
            assert_eq!(short(value), text);
        }
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }
}
