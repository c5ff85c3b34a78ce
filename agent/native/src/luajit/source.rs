//! Names of functions by the line that defines them. In: the text of a Lua file. Out: names by line.
//! Never: anything of the text but identifiers.

use std::collections::BTreeMap;

/// Longest line that is looked at; more is not written by hand.
const LINE_BYTES_MAX: usize = 1000;
/// Longest name.
const NAME_BYTES_MAX: usize = 120;
/// Most functions of one file.
const FUNCTIONS_MAX: usize = 50_000;

/// Function names of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceNames {
    names: BTreeMap<u32, String>,
    /// For each line whether it holds the word `end`, as a bit.
    ends: Vec<u64>,
}

impl SourceNames {
    /// Reads a file, at most `names_max` names of it. A line on which two functions begin has no name.
    #[must_use]
    pub fn parse(text: &[u8], names_max: usize) -> Self {
        let names_max = names_max.min(FUNCTIONS_MAX);
        let mut source = Self::default();
        for (index, line) in text.split(|&c| c == b'\n').enumerate() {
            let line = &line[..line.len().min(LINE_BYTES_MAX)];
            if index % 64 == 0 {
                source.ends.push(0);
            }
            if words(line).any(|w| w.1 == b"end")
                && let Some(bits) = source.ends.last_mut()
            {
                *bits |= 1 << (index % 64);
            }
            if source.names.len() < names_max
                && let Some(name) = name_of(line)
                && let Ok(number) = u32::try_from(index + 1)
            {
                source.names.insert(number, name);
            }
        }
        source
    }

    /// How many names it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The name of the function that begins on `line` and ends `lines` later, if the text agrees:
    /// the file may have changed since it was loaded.
    #[must_use]
    pub fn name(&self, line: u32, lines: u32) -> Option<&str> {
        let last = usize::try_from(line.checked_sub(1)?.checked_add(lines)?).ok()?;
        let bits = self.ends.get(last / 64)?;
        if bits >> (last % 64) & 1 == 0 {
            return None;
        }
        self.names.get(&line).map(String::as_str)
    }
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

/// Words of a line up to a comment, with where they begin. What stands in quotes is no word.
fn words(line: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < line.len() {
            let c = line[at];
            if c == b'-' && line.get(at + 1) == Some(&b'-') {
                return None;
            }
            if c == b'"' || c == b'\'' {
                at += 1;
                while at < line.len() && line[at] != c {
                    at += if line[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                continue;
            }
            if is_word(c) {
                let start = at;
                while at < line.len() && is_word(line[at]) {
                    at += 1;
                }
                return Some((start, &line[start..at]));
            }
            at += 1;
        }
        None
    })
}

/// `function a.b:c(`, `local function a(`, `a.b = function(`, `a = function(`, `["a"] = function(`.
fn name_of(line: &[u8]) -> Option<String> {
    let mut functions = words(line).filter(|w| w.1 == b"function");
    let (at, word) = functions.next()?;
    if functions.next().is_some() {
        return None;
    }
    let after = line.get(at + word.len()..)?;
    let direct: Vec<u8> = after
        .iter()
        .copied()
        .skip_while(u8::is_ascii_whitespace)
        .take_while(|&c| is_word(c) || c == b'.' || c == b':')
        .collect();
    if !direct.is_empty() {
        return name(&direct);
    }
    let before = line.get(..at)?.trim_ascii_end();
    let before = before.strip_suffix(b"=")?.trim_ascii_end();
    let quoted = before
        .strip_suffix(b"\"]")
        .or_else(|| before.strip_suffix(b"']"));
    let before = quoted.unwrap_or(before);
    let start = before
        .iter()
        .rposition(|&c| !(is_word(c) || c == b'.' || c == b':'))
        .map_or(0, |i| i + 1);
    name(before.get(start..)?)
}

fn name(bytes: &[u8]) -> Option<String> {
    let fits = !bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX && !bytes[0].is_ascii_digit();
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_found_in_every_way_of_writing_a_function() {
        let of = |line: &str| name_of(line.as_bytes());
        let named = |line: &str, name: &str| assert_eq!(of(line).as_deref(), Some(name), "{line}");
        named("local function build_line(i)", "build_line");
        named("function RateLimiting:access(conf)", "RateLimiting:access");
        named("  function _M.serve ()", "_M.serve");
        named(
            "local sixty = function(n) local x = 0 return x end",
            "sixty",
        );
        named("_M.log = function (conf)", "_M.log");
        named("  [\"after_access\"] = function(self)", "after_access");
        named(
            "  init = function() end, -- the function that begins",
            "init",
        );
        named("x = 'function' y = function() end", "y");
        for line in [
            "table.sort(t, function(a, b) return a < b end)",
            "return function()",
            "-- function gone()",
            "local a = function() return function() end end",
            "print('function x()')",
            "functional()",
            "local s = \"function",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn a_file_that_does_not_agree_gives_no_name() {
        let text = "local a = 1\nfunction f()\n  return a\nend\nlocal function g() return 1 end\n";
        let source = SourceNames::parse(text.as_bytes(), FUNCTIONS_MAX);
        assert_eq!(source.name(2, 2), Some("f"));
        assert_eq!(source.name(5, 0), Some("g"));
        assert_eq!(source.name(2, 1), None, "it does not end there");
        assert_eq!(source.name(3, 1), None, "nothing begins there");
        assert_eq!(source.name(0, 0), None);
        assert_eq!(source.name(u32::MAX, u32::MAX), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_names_are_identifiers(
            text in "[a-z'\"\\\\=\\[\\]\\-().:_ \n]{0,200}(function [a-z.]{0,9}\\()?",
        ) {
            for name in SourceNames::parse(text.as_bytes(), FUNCTIONS_MAX).names.values() {
                let identifier = name.bytes().all(|c| is_word(c) || c == b'.' || c == b':');
                prop_assert!(identifier, "{name}");
            }
        }
    }
}
