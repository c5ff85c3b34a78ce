//! Two folded texts beside each other, as FlameGraph's `difffolded.pl` writes them.
//!
//! In: two texts, whether counts are made equal and hexadecimal numbers stripped. Out: `stack left
//! right` lines, sorted. Never: a division by an empty side, which stops the script.
//!
//! The script prints in the order of a hash; sorted, its lines are these. inferno's
//! `inferno-diff-folded` writes the same lines for counts that are whole numbers; it cuts fractions
//! off, which the script keeps, and so do we.

use std::collections::BTreeMap;

/// How sides are put beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DifferenceOptions {
    /// The left side's counts are scaled to the right side's total, and cut to whole numbers.
    pub normalize: bool,
    /// `0x` and the digits behind it become `0x...`.
    pub strip_hex: bool,
}

/// The difference, and how many lines were no stacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoldedDifference {
    /// The lines.
    pub text: Vec<u8>,
    /// Lines that were passed over.
    pub foreign: usize,
    /// The sum of each side.
    pub totals: (f64, f64),
}

/// Puts two texts beside each other.
#[must_use]
pub fn folded_difference(
    left: &[u8],
    right: &[u8],
    options: DifferenceOptions,
) -> FoldedDifference {
    let mut sums: BTreeMap<Vec<u8>, (f64, f64)> = BTreeMap::new();
    let mut out = FoldedDifference::default();
    for (text, second) in [(left, false), (right, true)] {
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let Some((stack, count)) = parsed(line) else {
                out.foreign += 1;
                continue;
            };
            let stack = if options.strip_hex {
                without_hex(stack)
            } else {
                stack.to_vec()
            };
            let sum = sums.entry(stack).or_default();
            if second {
                sum.1 += count;
                out.totals.1 += count;
            } else {
                sum.0 += count;
                out.totals.0 += count;
            }
        }
    }
    let (all_left, all_right) = out.totals;
    let mut lines: Vec<Vec<u8>> = Vec::with_capacity(sums.len());
    for (mut line, (mut left, right)) in sums {
        if options.normalize && all_left != all_right && all_left > 0.0 {
            left = (left * all_right / all_left).trunc();
        }
        line.extend_from_slice(format!(" {} {}\n", number(left), number(right)).as_bytes());
        lines.push(line);
    }
    // As `LC_ALL=C sort` would have them.
    lines.sort_unstable();
    out.text = lines.concat();
    out
}

/// `/^(.*)\s+?(\d+(?:\.\d*)?)$/`: the count is the longest run of digits, with at most one dot, behind
/// the last blank.
fn parsed(line: &[u8]) -> Option<(&[u8], f64)> {
    let blank = line
        .iter()
        .rposition(|b| matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c))?;
    let count = std::str::from_utf8(&line[blank + 1..]).ok()?;
    let (whole, part) = count.split_once('.').unwrap_or((count, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    Some((&line[..blank], count.trim_end_matches('.').parse().ok()?))
}

/// `s/0x[0-9a-fA-F]+/0x.../g`.
fn without_hex(stack: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stack.len());
    let mut at = 0;
    while at < stack.len() {
        if stack[at..].starts_with(b"0x") {
            let digits = stack[at + 2..]
                .iter()
                .take_while(|b| b.is_ascii_hexdigit())
                .count();
            if digits > 0 {
                out.extend_from_slice(b"0x...");
                at += 2 + digits;
                continue;
            }
        }
        out.push(stack[at]);
        at += 1;
    }
    out
}

/// A number as Perl prints it: up to 15 significant digits, no zeros at the end.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = 15_usize.saturating_sub(value.abs().log10().floor().max(0.0) as usize + 1);
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(left: &str, right: &str, normalize: bool, strip_hex: bool) -> String {
        let options = DifferenceOptions {
            normalize,
            strip_hex,
        };
        String::from_utf8(folded_difference(left.as_bytes(), right.as_bytes(), options).text)
            .unwrap()
    }

    /// What the real scripts wrote; model/testdata/compat/README.md says how.
    #[test]
    fn the_lines_are_those_of_the_script() {
        let left = include_bytes!("../../../testdata/compat/difference/before.folded");
        let right = include_bytes!("../../../testdata/compat/difference/after.folded");
        for (normalize, strip_hex, wanted) in [
            (
                false,
                false,
                &include_bytes!("../../../testdata/compat/difference/plain.txt")[..],
            ),
            (
                true,
                false,
                include_bytes!("../../../testdata/compat/difference/normalized.txt"),
            ),
            (
                false,
                true,
                include_bytes!("../../../testdata/compat/difference/stripped.txt"),
            ),
        ] {
            let options = DifferenceOptions {
                normalize,
                strip_hex,
            };
            let found = folded_difference(left, right, options).text;
            assert_eq!(
                String::from_utf8_lossy(&found),
                String::from_utf8_lossy(wanted),
                "{options:?}"
            );
        }
    }

    #[test]
    fn an_empty_side_divides_nothing() {
        assert_eq!(of("", "a;b 3\n", true, false), "a;b 0 3\n");
        assert_eq!(of("a;b 3\n", "", true, false), "a;b 0 0\n");
        assert_eq!(of("", "", true, true), "");
        // Sides that are equal stay as they are, fractions too.
        assert_eq!(of("a 1.5\n", "b 1.50\n", true, false), "a 1.5 0\nb 0 1.5\n");
    }

    #[test]
    fn lines_that_are_no_stacks_are_counted() {
        let found = folded_difference(b"x\na -3\na 1\n", b"a 1e3\n", DifferenceOptions::default());
        assert_eq!((found.foreign, found.text.as_slice()), (3, &b"a 1 0\n"[..]));
    }
}
