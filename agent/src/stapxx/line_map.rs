//! From a place in expanded text back to the user's own file, line and column.
//!
//! In: what the expansion put down. Out: places, and stap's complaints with their places changed.
//! Never: a line that moved: a file and its expansion have the same number of lines.

use std::collections::BTreeMap;

/// From byte `at` of an expanded line on: copied from `column` on, or standing for the macro there.
/// All count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte in the expanded line.
    pub at: u32,
    /// Where that byte is in the user's line, or where the macro begins.
    pub column: u32,
    /// Whether the bytes stand for a macro.
    pub replaced: bool,
}

/// The lines of one file that were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineMap {
    lines: BTreeMap<u32, Vec<Run>>,
}

/// A place in a user's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
    /// Whether a macro stands there, so that the column is its begin.
    pub is_macro: bool,
}

impl LineMap {
    /// Puts down the runs of a line (from 1); a line without runs is as it was written.
    pub(super) fn set(&mut self, line: u32, runs: Vec<Run>) {
        if !runs.is_empty() {
            self.lines.insert(line, runs);
        }
    }

    /// The user's column (from 1) of a column (from 1) in the expanded line, and whether a macro
    /// stands there.
    #[must_use]
    pub fn column(&self, line: u32, column: u32) -> (u32, bool) {
        let at = column.saturating_sub(1);
        let runs = self.lines.get(&line).map(Vec::as_slice).unwrap_or_default();
        let after = runs.partition_point(|run| run.at <= at);
        match after.checked_sub(1).map(|i| runs[i]) {
            None => (column, false),
            Some(run) if run.replaced => (run.column + 1, true),
            Some(run) => (run.column.saturating_add(at - run.at) + 1, false),
        }
    }
}

/// `PATH:LINE:COLUMN` somewhere in a text, as stap writes places.
struct Written<'a> {
    path: &'a str,
    line: u32,
    column: u32,
    /// Bytes from the begin of the path to the end of the column.
    range: std::ops::Range<usize>,
}

/// Changes each place in `text` (stap's standard error) that `place_of` knows. Other places stay.
///
/// `place_of` is given path, line and column as stap wrote them.
pub(super) fn replace_places(
    text: &str,
    place_of: impl Fn(&str, u32, u32) -> Option<Place>,
) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut from = 0;
    while let Some(written) = next_place(text, from) {
        match place_of(written.path, written.line, written.column) {
            Some(place) => {
                out.push_str(&text[from..written.range.start]);
                out.push_str(&format!("{}:{}:{}", place.file, place.line, place.column));
            }
            None => out.push_str(&text[from..written.range.end]),
        }
        from = written.range.end;
    }
    out.push_str(&text[from..]);
    out
}

fn next_place(text: &str, from: usize) -> Option<Written<'_>> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        at += text.get(at..)?.find(':')?;
        let line_end = digits(bytes, at + 1);
        let is_place = line_end > at + 1 && bytes.get(line_end) == Some(&b':');
        let end = digits(bytes, line_end + 1);
        if is_place && end > line_end + 1 {
            let begin = path_begin(text, from, at);
            let numbers = (
                text[at + 1..line_end].parse(),
                text[line_end + 1..end].parse(),
            );
            if let (true, (Ok(line), Ok(column))) = (begin < at, numbers) {
                return Some(Written {
                    path: &text[begin..at],
                    line,
                    column,
                    range: begin..end,
                });
            }
        }
        at += 1;
    }
}

fn digits(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Where the path begins that ends at `end`: behind the last blank, quote or parenthesis.
fn path_begin(text: &str, from: usize, end: usize) -> usize {
    let stop = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '(' | ')' | ',');
    text[from..end]
        .char_indices()
        .rev()
        .find(|(_, c)| stop(*c))
        .map_or(from, |(i, c)| from + i + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_changed_and_other_colons_are_not() {
        let text = "semantic error: no match at <input>:3:7\n at 12:30:01 (dir/luajit.stp:2:1) x:y:1\n:1:2 ab:1:x é:4:5";
        let seen = replace_places(text, |path, line, column| {
            let file = match path {
                "<input>" => "a.sxx",
                "dir/luajit.stp" => "/t/luajit.sxx",
                "é" => "ö",
                _ => return None,
            };
            Some(Place {
                file: file.to_owned(),
                line,
                column: column + 1,
                is_macro: false,
            })
        });
        assert_eq!(
            seen,
            "semantic error: no match at a.sxx:3:8\n at 12:30:01 (/t/luajit.sxx:2:2) x:y:1\n:1:2 ab:1:x ö:4:6"
        );
    }

    #[test]
    fn numbers_beyond_any_file_are_left_alone() {
        let text = "a:99999999999999999999:1 b:1:2";
        assert_eq!(replace_places(text, |_, _, _| None), text);
    }
}
