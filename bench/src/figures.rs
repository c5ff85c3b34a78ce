//! Figures and how they are shown. In: measured values. Out: medians, ratios, a table.
//! Never: a single run quoted as if it were a median.

use nix::sys::resource::{UsageWho, getrusage};
use std::fmt;

/// Everything that was measured, and what was not.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    not_run: Vec<(String, String)>,
}

#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    theirs: String,
    ratio: String,
    goal: String,
}

impl Report {
    /// Two interleaved series of the same unit; the ratio is ours by theirs, pair by pair.
    pub fn pair(&mut self, what: &str, unit: &str, ours: &[f64], theirs: &[f64], goal: &str) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let spread = |v: &[f64]| {
            let (low, high) = (
                v.iter().copied().fold(f64::MAX, f64::min),
                v.iter().copied().fold(0.0, f64::max),
            );
            format!("{:.3} ({low:.3}–{high:.3})", median(v))
        };
        self.rows.push(Row {
            what: what.to_owned(),
            ours: format!("{} {unit}", spread(ours)),
            theirs: format!("{} {unit}", spread(theirs)),
            ratio: spread(&ratios),
            goal: goal.to_owned(),
        });
    }

    /// A figure without a peer.
    pub fn single(&mut self, what: &str, value: String, goal: &str) {
        let (theirs, ratio) = (String::from("–"), String::from("–"));
        self.rows.push(Row {
            what: what.to_owned(),
            ours: value,
            theirs,
            ratio,
            goal: goal.to_owned(),
        });
    }

    /// Something that could not be measured here.
    pub fn not_run(&mut self, what: &str, why: &str) {
        self.not_run.push((what.to_owned(), why.to_owned()));
    }

    /// Whether everything was measured.
    pub fn is_whole(&self) -> bool {
        self.not_run.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| what | fleetflame, median (min–max) | peer | ratio, pair by pair | goal |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for r in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} |",
                r.what, r.ours, r.theirs, r.ratio, r.goal
            )?;
        }
        for (what, why) in &self.not_run {
            writeln!(f, "\nNOT RUN: {what}: {why}")?;
        }
        Ok(())
    }
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

/// CPU seconds (user and system) of all children that were waited for so far.
pub fn children_cpu_s() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |u| {
        let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
        seconds(u.user_time()) + seconds(u.system_time())
    })
}

/// The machine, in one line, for the record.
pub fn machine() -> String {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|l| l.starts_with(name)).unwrap_or("");
        line.split(':')
            .nth(1)
            .unwrap_or("unknown")
            .trim()
            .to_owned()
    };
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    format!(
        "{cpus} × {}, Linux {}, load average {} at the start",
        field("model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
