//! Histograms as SystemTap prints them (`@hist_log`, `@hist_linear`): read, added up bucket by bucket,
//! and written again.
//!
//! In: the lines of one. Out: counts by bucket. Never: two histograms added whose buckets are not the
//! same ones.
//!
//! The layout is that of `_stp_stat_print_histogram_buf` in the runtime's stat-common.c: a head, then
//! a row a bucket (its least value, a bar, its count), a `~` for rows that are all empty and were
//! left out, and an empty line. A linear one may begin with `<START` and end with `>STOP`.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Width of the bars, in characters (`HIST_WIDTH`).
const BAR_WIDTH: usize = 50;
/// Empty rows that are shown beside a row that is not (`HIST_ELISION`).
const EMPTY_ROWS: usize = 2;

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Everything below the first bucket of a linear histogram.
    Below(i64),
    /// From this value on, up to the next bucket.
    From(i64),
    /// Everything from this value on, behind the last bucket of a linear histogram.
    Above(i64),
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(value) => write!(f, "<{value}"),
            Self::From(value) => write!(f, "{value}"),
            Self::Above(value) => write!(f, ">{value}"),
        }
    }
}

impl Serialize for Bucket {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Where buckets begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// At 0 and the powers of two, and the same below 0.
    Log,
    /// At equal distances.
    Linear {
        /// The distance.
        interval: i64,
    },
}

/// Counts by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Buckets that were printed, empty ones too.
    pub counts: BTreeMap<Bucket, u64>,
    /// Scales that the printed rows can belong to: with three rows 0, 1, 2 it can be both.
    pub scales: Vec<Scale>,
}

/// Why two histograms do not add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBuckets;

impl fmt::Display for OtherBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buckets of the two histograms are not the same")
    }
}

impl Histogram {
    /// All counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |a, b| a.saturating_add(*b))
    }

    /// Adds another one's counts, bucket by bucket.
    ///
    /// # Errors
    /// When the two cannot have the same buckets; nothing is changed then.
    pub fn add(&mut self, other: &Self) -> Result<(), OtherBuckets> {
        if other.counts.is_empty() {
            return Ok(());
        }
        if self.counts.is_empty() {
            self.clone_from(other);
            return Ok(());
        }
        let scales: Vec<Scale> = self
            .scales
            .iter()
            .copied()
            .filter(|scale| other.scales.contains(scale))
            .filter(|scale| match scale {
                Scale::Log => true,
                Scale::Linear { interval } => self.is_in_step(other, *interval),
            })
            .collect();
        if scales.is_empty() || !self.has_ends_of(other) {
            return Err(OtherBuckets);
        }
        for (bucket, count) in &other.counts {
            let sum = self.counts.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.scales = scales;
        Ok(())
    }

    fn is_in_step(&self, other: &Self, interval: i64) -> bool {
        match (self.first(), other.first()) {
            (Some(a), Some(b)) if interval > 0 => {
                (i128::from(a) - i128::from(b)) % i128::from(interval) == 0
            }
            _ => true,
        }
    }

    fn first(&self) -> Option<i64> {
        self.counts.keys().find_map(|bucket| match bucket {
            Bucket::From(value) => Some(*value),
            _ => None,
        })
    }

    /// Whether both have the same open ends, as far as both print them.
    fn has_ends_of(&self, other: &Self) -> bool {
        let end = |h: &Self, is_end: fn(&Bucket) -> bool| h.counts.keys().copied().find(is_end);
        [
            (|b: &Bucket| matches!(b, Bucket::Below(_))) as fn(&Bucket) -> bool,
            |b: &Bucket| matches!(b, Bucket::Above(_)),
        ]
        .into_iter()
        .all(|is_end| match (end(self, is_end), end(other, is_end)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        })
    }
}

/// Reads the lines of one histogram.
#[derive(Debug, Default)]
pub struct HistogramReader {
    histogram: Histogram,
    /// The row before, unless rows were left out behind it.
    before: Option<i64>,
    /// Distances between neighbours.
    steps: Vec<i64>,
}

/// What a line was to a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A part of the histogram.
    Yes,
    /// Its end: an empty line.
    End,
    /// No part of a histogram: it ends before this line, and its own end is missing.
    No,
}

impl HistogramReader {
    /// Whether a line is the head of a histogram.
    #[must_use]
    pub fn is_head(line: &str) -> bool {
        let Some((value, rest)) = line.split_once('|') else {
            return false;
        };
        value.trim() == "value"
            && rest
                .trim_start_matches('-')
                .trim_end()
                .strip_prefix(' ')
                .is_some_and(|count| count == "count" && rest.starts_with("--"))
    }

    /// Takes the next line behind the head.
    pub fn line(&mut self, line: &str) -> Taken {
        if line.trim().is_empty() {
            return Taken::End;
        }
        if line.trim() == "~" {
            self.before = None;
            return Taken::Yes;
        }
        let Some((bucket, count)) = row(line) else {
            return Taken::No;
        };
        let sum = self.histogram.counts.entry(bucket).or_default();
        *sum = sum.saturating_add(count);
        if let Bucket::From(value) = bucket {
            if let Some(step) = self.before.and_then(|before| value.checked_sub(before)) {
                self.steps.push(step);
            }
            self.before = Some(value);
        }
        Taken::Yes
    }

    /// The histogram; none when no row came.
    #[must_use]
    pub fn end(mut self) -> Option<Histogram> {
        if self.histogram.counts.is_empty() {
            return None;
        }
        let is_log = self.histogram.counts.keys().all(|bucket| match bucket {
            Bucket::From(value) => *value == 0 || value.unsigned_abs().is_power_of_two(),
            _ => false,
        });
        if is_log {
            self.histogram.scales.push(Scale::Log);
        }
        if let Some(interval) = self.steps.first().copied().filter(|step| *step > 0)
            && self.steps.iter().all(|step| *step == interval)
        {
            self.histogram.scales.push(Scale::Linear { interval });
        }
        if self.histogram.scales.is_empty() && self.steps.is_empty() {
            // One row alone: its distance to the next is not known, and it adds to itself only.
            self.histogram.scales.push(Scale::Linear { interval: 0 });
        }
        Some(self.histogram)
    }
}

/// `VALUE |@@@   COUNT`.
fn row(line: &str) -> Option<(Bucket, u64)> {
    let (value, rest) = line.split_once(" |")?;
    let value = value.trim_start();
    let count = rest.trim_start_matches('@').trim().parse().ok()?;
    let bucket = if let Some(value) = value.strip_prefix('<') {
        Bucket::Below(value.parse().ok()?)
    } else if let Some(value) = value.strip_prefix('>') {
        Bucket::Above(value.parse().ok()?)
    } else {
        Bucket::From(value.parse().ok()?)
    };
    Some((bucket, count))
}

impl fmt::Display for Histogram {
    /// As SystemTap prints it, without the empty line at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.counts.values().copied().max().unwrap_or(0);
        let per_sign = most.div_ceil(BAR_WIDTH as u64).max(1);
        let labels: Vec<String> = self.counts.keys().map(Bucket::to_string).collect();
        let width = labels.iter().map(String::len).max().unwrap_or(0).max(5);
        writeln!(f, "{:>width$} |{} count", "value", "-".repeat(BAR_WIDTH))?;
        let counts: Vec<u64> = self.counts.values().copied().collect();
        let mut left_out = false;
        for (i, (label, count)) in labels.iter().zip(&counts).enumerate() {
            let near = i.saturating_sub(EMPTY_ROWS)..(i + EMPTY_ROWS + 1).min(counts.len());
            if counts[near].iter().all(|c| *c == 0) {
                left_out = true;
                continue;
            }
            if std::mem::take(&mut left_out) {
                writeln!(f, "{:>width$} ~", "")?;
            }
            let signs = usize::try_from(count / per_sign).unwrap_or(BAR_WIDTH);
            let room = BAR_WIDTH - signs + 1 + most.to_string().len();
            writeln!(f, "{label:>width$} |{}{count:>room$}", "@".repeat(signs))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Histogram {
        let mut reader = HistogramReader::default();
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(HistogramReader::is_head), "{text}");
        for line in lines {
            assert_eq!(reader.line(line), Taken::Yes, "{line:?}");
        }
        reader.end().unwrap()
    }

    /// Counts as `@hist_log` keeps them, printed by its rules: the written-out form is the model's
    /// own, so that only its numbers are taken from the runtime's source.
    fn log(values: &[i64]) -> Histogram {
        let mut histogram = Histogram {
            scales: vec![Scale::Log],
            ..Histogram::default()
        };
        for value in values {
            let least = match value {
                0 => 0,
                v => v.signum() * (1 << v.unsigned_abs().ilog2()),
            };
            *histogram.counts.entry(Bucket::From(least)).or_default() += 1;
        }
        histogram
    }

    const LOG: &str = "\
value |-------------------------------------------------- count
    0 |                                                     0
    1 |@@                                                   4
    2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 100
    4 |                                                     0
    8 |                                                     0
      ~
   64 |                                                     0
  128 |                                                     0
  256 |                                                     1
  512 |                                                     0
 1024 |                                                     0
";
    const LINEAR: &str = "\
value |-------------------------------------------------- count
  <10 |@                                                  1
   10 |@@                                                 2
   15 |                                                   0
   20 |                                                   0
      ~
   50 |                                                   0
   55 |                                                   0
  >60 |@@@                                                3
";

    #[test]
    fn what_stap_prints_is_read_and_printed_again() {
        let log = read(LOG);
        assert_eq!(log.scales, [Scale::Log]);
        assert_eq!((log.total(), log.counts.len()), (105, 10));
        let linear = read(LINEAR);
        assert_eq!(linear.scales, [Scale::Linear { interval: 5 }]);
        assert_eq!(linear.counts[&Bucket::Above(60)], 3);
        // Empty rows that were left out are not known, so the mark between them is not either.
        let without_mark = |text: &str| text.replace("      ~\n", "");
        assert_eq!(without_mark(&log.to_string()), without_mark(LOG));
        assert_eq!(without_mark(&linear.to_string()), without_mark(LINEAR));
    }

    #[test]
    fn buckets_add_and_other_buckets_do_not() {
        let mut sum = read(LOG);
        sum.add(&read(LOG)).unwrap();
        sum.add(&Histogram::default()).unwrap();
        assert_eq!((sum.total(), sum.counts[&Bucket::From(2)]), (210, 200));
        let linear = read(LINEAR);
        assert_eq!(sum.add(&linear), Err(OtherBuckets));
        assert_eq!(sum.total(), 210);
        for other in [
            LINEAR.replace("<10", "<11"),
            LINEAR.replace(">60", ">61"),
            LINEAR.replace("   15 |", "   16 |"),
        ] {
            assert_eq!(
                linear.clone().add(&read(&other)),
                Err(OtherBuckets),
                "{other}"
            );
        }
        let mut empty = Histogram::default();
        empty.add(&linear).unwrap();
        assert_eq!(empty, linear);
    }

    #[test]
    fn three_rows_can_be_of_both_kinds() {
        let head = "value |---------- count\n";
        let both = read(&format!("{head}    0 |@ 1\n    1 | 0\n    2 | 0\n"));
        assert_eq!(both.scales, [Scale::Log, Scale::Linear { interval: 1 }]);
        let mut sum = both.clone();
        sum.add(&read(LOG)).unwrap();
        assert_eq!(sum.scales, [Scale::Log]);
        let mut sum = read(&format!("{head}    3 |@ 1\n    4 | 0\n    5 | 0\n"));
        sum.add(&both).unwrap();
        assert_eq!(sum.scales, [Scale::Linear { interval: 1 }]);
    }

    #[test]
    fn other_lines_are_no_rows() {
        for line in [
            "x |@ 1",
            "1 |@ x",
            "1 | -1",
            "1 2",
            "|",
            "<> | 1",
            "99999999999999999999 | 1",
        ] {
            assert_eq!(HistogramReader::default().line(line), Taken::No, "{line}");
        }
        for line in [
            "value",
            "value | count",
            "value |--- counts",
            "a value |--- count",
            "",
        ] {
            assert!(!HistogramReader::is_head(line), "{line}");
        }
        assert!(HistogramReader::default().end().is_none());
    }

    proptest! {
        #[test]
        fn sums_are_the_same_in_any_order(
            a in prop::collection::vec(any::<i32>().prop_map(i64::from), 1..40),
            b in prop::collection::vec(any::<i32>().prop_map(i64::from), 1..40),
        ) {
            let (mut ab, mut ba) = (log(&a), log(&b));
            ab.add(&log(&b)).unwrap();
            ba.add(&log(&a)).unwrap();
            prop_assert_eq!(&ab.counts, &ba.counts);
            let whole: Vec<i64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(&ab.counts, &log(&whole).counts);
            prop_assert_eq!(read(&ab.to_string()).counts, ab.counts);
        }
    }
}
