//! What the counts of a script's stacks are, by what the script adds up.
//!
//! In: a script's text. Out: a unit. Never: a guess between two: a script that does not tell says `sum`, and `--unit` says
//! what it is of.
//!
//! The counts are what is printed behind a tab: `printf("\t%d\n", @count(bts[bt]))`. `@count` is of samples; what another
//! number is of is read off the names that it was made of: `bts[bt] <<< elapsed`, `elapsed = gettimeofday_us() - began`.

use model::script::StackUnit;
use std::collections::BTreeSet;

/// How the format of a line with a stack's count ends.
const COUNT_FORMATS: [&str; 2] = ["\\t%d\\n\"", "\\t%ld\\n\""];
/// How often what a name was made of is looked up.
const STEPS_MAX: usize = 6;

/// The unit of the counts that `text` prints behind stacks.
#[must_use]
pub(super) fn of_script(text: &str) -> StackUnit {
    let code: String = text.lines().map(without_comment).collect();
    let ends = |format: &'static str| {
        let found = code.match_indices(format);
        found.map(move |(at, _)| at + format.len())
    };
    let counts: Vec<&str> = COUNT_FORMATS
        .into_iter()
        .flat_map(ends)
        .filter_map(|at| last_argument(&code[at..]))
        .collect();
    let mut units = counts.iter().map(|count| of_count(&code, count));
    let first = units.next().unwrap_or_default();
    if units.all(|unit| unit == first) {
        first
    } else {
        StackUnit::Sum
    }
}

/// `#` and `//` to the end of the line, but for within strings.
fn without_comment(line: &str) -> String {
    let mut is_text = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' => is_text = !is_text,
            '#' if !is_text => return format!("{}\n", &line[..at]),
            '/' if !is_text && line[at..].starts_with("//") => return format!("{}\n", &line[..at]),
            _ => {}
        }
        before = c;
    }
    format!("{line}\n")
}

/// The last of the arguments between here and the bracket that ends them.
fn last_argument(rest: &str) -> Option<&str> {
    let (mut depth, mut from) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' if depth == 0 => {
                return Some(rest[from..at].trim()).filter(|text| !text.is_empty());
            }
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => from = at + 1,
            _ => {}
        }
    }
    None
}

fn of_count(code: &str, count: &str) -> StackUnit {
    if count.contains("@count(") {
        return StackUnit::Samples;
    }
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let (mut ones, mut counts) = (0, 0);
    let mut others = 0;
    // What is an index says nothing of the value.
    let outside = |text: &str| text.split('[').next().unwrap_or_default().to_owned();
    let head = count.trim_start_matches(|c: char| !c.is_alphabetic() && c != '_' && c != '@');
    let head = head
        .split_once('(')
        .filter(|(f, _)| f.starts_with('@'))
        .map_or(head, |(_, of)| of);
    let mut names: Vec<&str> = words(code, &outside(head));
    for _ in 0..STEPS_MAX {
        let mut next = Vec::new();
        for name in std::mem::take(&mut names) {
            if !known.insert(name) {
                continue;
            }
            for value in values(code, name) {
                match value {
                    _ if value.contains("@count(") => {
                        counts += 1;
                        continue;
                    }
                    "1" => ones += 1,
                    _ => others += 1,
                }
                next.extend(words(code, value));
            }
        }
        names = next;
    }
    let units: BTreeSet<&str> = known.iter().filter_map(|name| unit_in(name)).collect();
    let mut units = units.into_iter();
    match (units.next(), units.next()) {
        (Some(unit), None) => unit.parse().unwrap_or(StackUnit::Sum),
        (None, _) if ones + counts > 0 && others == 0 => StackUnit::Samples,
        _ => StackUnit::Sum,
    }
}

/// The names in a text, as they stand in the code.
fn words<'a>(code: &'a str, text: &str) -> Vec<&'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c));
    let named = words.filter(|w| w.starts_with(|c: char| c.is_alphabetic() || c == '_'));
    named
        .filter_map(|word| code.find(word).map(|at| &code[at..at + word.len()]))
        .collect()
}

/// What is put into a name or its elements: behind `=`, `+=` and `<<<`, and `1` for `++`.
fn values<'a>(code: &'a str, name: &str) -> Vec<&'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '@';
    let mut found = Vec::new();
    for (at, _) in code.match_indices(name) {
        let behind = &code[at + name.len()..];
        if code[..at].ends_with(is_word) || behind.starts_with(is_word) {
            continue;
        }
        let behind = match behind.strip_prefix('[') {
            Some(inside) => inside.split_once(']').map_or("", |(_, rest)| rest),
            None => behind,
        };
        let behind = behind.trim_start();
        let value = ["<<<", "+=", "="]
            .iter()
            .find_map(|sign| behind.strip_prefix(sign));
        if behind.starts_with("++") {
            found.push("1");
        } else if let Some(value) = value.filter(|value| !value.starts_with('=')) {
            let end = value.find(['\n', ';', '}']).unwrap_or(value.len());
            found.push(value[..end].trim());
        }
    }
    found
}

/// The unit that a name has in it.
fn unit_in(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let part = |word: &str| name.split('_').any(|part| part == word);
    match name.as_str() {
        _ if part("ns") || part("nsec") || part("nsecs") => Some("ns"),
        _ if part("us") || part("usec") || part("usecs") => Some("us"),
        _ if part("ms") || part("msec") || part("msecs") => Some("ms"),
        n if n.contains("byte") || part("size") || part("len") || part("length") => Some("bytes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_add_up_says_what_their_counts_are() {
        let print = |count: &str| {
            format!("foreach (s in bts-) {{ print_ustack(s)\n printf(\"\\t%d\\n\", {count}) }}\n")
        };
        let taken =
            "t = gettimeofday_us()\nelapsed = t - began[tid()]\nbts[ubacktrace()] <<< elapsed\n";
        let ns = "bts[backtrace(), tid()] += gettimeofday_ns() - began[tid()]\n";
        let size = "size = @cast(p, \"size_t\")\nlive[bt] += size_of[p]\nsize_of[p] = size\n";
        let opposite = "bts[bt] <<< bytes_read\nbts[bt] <<< wait_ms\n";
        for (script, unit) in [
            (
                format!("bts[ubacktrace()] <<< 1\n{}", print("@count(bts[s])")),
                StackUnit::Samples,
            ),
            (
                format!("bts[bt] <<< 1\n{}", print("@sum(bts[s])")),
                StackUnit::Samples,
            ),
            (
                format!("bts[bt]++\n{}", print("bts[s]")),
                StackUnit::Samples,
            ),
            (format!("{taken}{}", print("@sum(bts[s])")), StackUnit::Us),
            (format!("{ns}{}", print("bts[s, t]")), StackUnit::Ns),
            (format!("{size}{}", print("live[s]")), StackUnit::Bytes),
            (
                format!("bts[bt] <<< $return\n{}", print("@sum(bts[s])")),
                StackUnit::Sum,
            ),
            (
                format!("{opposite}{}", print("@sum(bts[s])")),
                StackUnit::Sum,
            ),
            (
                format!(
                    "{}{taken}{}",
                    print("@count(bts[s])"),
                    print("@sum(bts[s])")
                ),
                StackUnit::Sum,
            ),
            (
                "printf(\"%s\\t%d\\n\", stack, @count(bts[stack]))".to_owned(),
                StackUnit::Samples,
            ),
            (
                "# elapsed_us\nprintf(\"\\t%d\\n\", x) // bytes".to_owned(),
                StackUnit::Sum,
            ),
            (
                "bts[bt] <<< 1\ncnt = @count(bts[bt])\nprintf(\"%s\\t%d\\n\", bt, cnt)".to_owned(),
                StackUnit::Samples,
            ),
            ("probe begin { exit() }".to_owned(), StackUnit::Samples),
        ] {
            assert_eq!(of_script(&script), unit, "{script}");
        }
    }

    #[test]
    fn odd_texts_are_no_reason_to_stop() {
        for text in [
            "\\t%d\\n\"",
            "\\t%d\\n\",",
            "\\t%d\\n\", @sum(",
            "\\t%d\\n\", \u{e4}[\u{e4})",
            "x = x\nprintf(\"\\t%d\\n\", x)",
        ] {
            let _ = of_script(text);
        }
    }
}
