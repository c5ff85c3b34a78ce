//! Tables and numbers for terminals. In: cells of text. Out: aligned lines. Never: a control
//! character from a name, colour where it is not wanted.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

/// A table without lines. Headers that begin with `>` stand to the right, as numbers do; `bold`
/// is for terminals that take it.
#[must_use]
pub fn table(headers: &[&str], rows: &[Vec<String>], bold: bool) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if bold {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let right = |i: usize| headers.get(i).is_some_and(|h| h.starts_with('>'));
    let align = |i: usize, cell: Cell| {
        cell.set_alignment(if right(i) {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        })
    };
    table.set_header(headers.iter().enumerate().map(|(i, h)| {
        let cell = align(i, Cell::new(h.trim_start_matches('>')));
        if bold {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    }));
    for row in rows {
        table.add_row(
            row.iter()
                .enumerate()
                .map(|(i, text)| align(i, Cell::new(printable(text)))),
        );
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if rows.is_empty() {
        text.push_str(" (none)\n");
    }
    text
}

/// A number with thousands separated: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A part in percent with two decimals, such as `12.34 %`; `-` when there is no whole.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    model::profile::share(part, whole)
        .map_or_else(|| "-".to_owned(), |s| format!("{:.2} %", s.percent()))
}

/// A text without characters that a terminal obeys, that turn text around, or that XML forbids: the
/// one rule for all that is written for people.
#[must_use]
pub fn printable(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if bad(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_escapes_do_not_come_through() {
        let rows = [
            vec!["a\u{1b}[31m".to_owned(), count(1_234_567)],
            vec!["bb".to_owned(), count(5)],
        ];
        let text = table(&["frame", ">self"], &rows, false);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].ends_with("1,234,567") && lines[2].ends_with("        5"),
            "{text}"
        );
        assert!(table(&["frame"], &rows, true).contains('\u{1b}'));
        assert_eq!(
            printable("a\u{0}\n\u{85}\u{202e}\u{fffe}\u{ffff}ü\u{1ffff}"),
            "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}ü\u{1ffff}"
        );
        assert_eq!(percent(1, 0), "-");
        assert_eq!(percent(1, 3), "33.33 %");
    }
}
