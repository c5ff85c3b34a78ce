//! Patterns of names: `*` and `?`, and Ansible's ranges `[01:20]`. Pure.
//!
//! In: a pattern. Out: whether a name fits, or all names that are meant. Never: more names than an
//! inventory may have.

use super::HOSTS_MAX;

/// Whether `name` fits `pattern`, where `*` is any text and `?` any character.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how much of the name it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    p = at + 1;
                    n = swallowed + 1;
                    star = Some((at, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The names that a text with ranges means: `kong-[01:03]` or `db-[a:c]`, with a step as third part.
///
/// # Errors
/// What is wrong with a range.
pub fn expand_ranges(text: &str) -> Result<Vec<String>, String> {
    let range = text.find('[').and_then(|open| {
        let close = open + text[open..].find(']')?;
        text[open..close].contains(':').then_some((open, close))
    });
    let Some((open, close)) = range else {
        return Ok(vec![text.to_owned()]);
    };
    let (before, inside, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    let rests = expand_ranges(after)?;
    let mut names = Vec::new();
    for middle in range_values(inside)? {
        for rest in &rests {
            if names.len() >= HOSTS_MAX {
                return Err(format!("{text:?} means more than {HOSTS_MAX} hosts"));
            }
            names.push(format!("{before}{middle}{rest}"));
        }
    }
    Ok(names)
}

fn range_values(inside: &str) -> Result<Vec<String>, String> {
    let bad = || format!("[{inside}] is no range; write [01:20], [a:f] or [0:100:10]");
    let mut parts = inside.split(':');
    let (Some(first), Some(last)) = (parts.next(), parts.next()) else {
        return Err(bad());
    };
    let step: usize = match parts.next() {
        Some(step) => step.parse().ok().filter(|s| *s > 0).ok_or_else(bad)?,
        None => 1,
    };
    if parts.next().is_some() {
        return Err(bad());
    }
    if let (Ok(low), Ok(high)) = (first.parse::<u32>(), last.parse::<u32>()) {
        if low > high || (high - low) as usize / step >= HOSTS_MAX {
            return Err(bad());
        }
        // A leading zero asks for the same width everywhere.
        let width = if first.starts_with('0') {
            first.len()
        } else {
            0
        };
        let numbers = (low..=high).step_by(step);
        return Ok(numbers.map(|n| format!("{n:0width$}")).collect());
    }
    let letter = |text: &str| {
        let mut chars = text.chars();
        let one = chars.next().filter(char::is_ascii_alphabetic);
        one.filter(|_| chars.next().is_none())
    };
    match (letter(first), letter(last)) {
        (Some(low), Some(high)) if low <= high => {
            Ok((low..=high).step_by(step).map(String::from).collect())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("*", ""),
            ("kong-*", "kong-12"),
            ("kong-?", "kong-1"),
            ("*.bj.*", "kong.bj.example"),
            ("a*b*c", "axxbyybzzc"),
            ("", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("kong-?", "kong-12"), ("a*b", "abc"), ("?", ""), ("A", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // Bounded, whatever the pattern.
        assert!(!matches(&"*a".repeat(200), &"b".repeat(2_000)));
    }

    #[test]
    fn ranges_mean_names() {
        assert_eq!(expand_ranges("kong").unwrap(), ["kong"]);
        assert_eq!(
            expand_ranges("k[08:10].x").unwrap(),
            ["k08.x", "k09.x", "k10.x"]
        );
        assert_eq!(
            expand_ranges("[a:b][1:3:2]").unwrap(),
            ["a1", "a3", "b1", "b3"]
        );
        assert_eq!(expand_ranges("[fd00::7]").map(|v| v.len()).ok(), None);
        for bad in [
            "k[3:1]",
            "k[1:999999999]",
            "k[a:1]",
            "k[1:2:0]",
            "k[1:2:3:4]",
        ] {
            assert!(expand_ranges(bad).is_err(), "{bad}");
        }
    }
}
