//! Names of hosts that an ssh_config knows, for patterns on the command line. Pure.
//!
//! In: the text of an ssh_config(5). Out: the aliases of its `Host` lines, and what it includes. Never: a
//! meaning of any other line; ssh itself reads those.

use super::pattern::matches;

/// What a line says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `Host A B …`
    Hosts(Vec<String>),
    /// `Include FILE …`
    Include(Vec<String>),
    /// Anything else.
    Other,
}

/// Reads one line.
#[must_use]
pub fn parse_line(line: &str) -> Line {
    let line = line.trim();
    let at = line.find(|c: char| c.is_whitespace() || c == '=');
    let Some(at) = at.filter(|_| !line.starts_with('#')) else {
        return Line::Other;
    };
    let rest = line[at..].trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    let words = || {
        rest.split_whitespace()
            .map(|word| word.trim_matches('"').to_owned())
            .collect()
    };
    match line[..at].to_ascii_lowercase().as_str() {
        "host" => Line::Hosts(words()),
        "include" => Line::Include(words()),
        _ => Line::Other,
    }
}

/// The aliases of an ssh_config that fit `pattern`, in their order: names without `*`, `?` and `!`.
#[must_use]
pub fn aliases(text: &str, pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Line::Hosts(names) = parse_line(line) else {
            continue;
        };
        for name in names {
            let plain = !name.contains(['*', '?', '!']);
            if plain && matches(pattern, &name) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_found_and_patterns_are_not() {
        let text = "Include conf.d/*\n# Host kong-0\nHost kong-1 kong-2\n  HostName 10.0.0.1\n\
            host=kong-3\nHost *\n  User deploy\nHost !kong-9 kong-1\nHost \"web-1\"\n";
        assert_eq!(aliases(text, "kong-*"), ["kong-1", "kong-2", "kong-3"]);
        assert_eq!(aliases(text, "*"), ["kong-1", "kong-2", "kong-3", "web-1"]);
        assert_eq!(
            parse_line("Include conf.d/*"),
            Line::Include(vec!["conf.d/*".into()])
        );
        assert_eq!(parse_line("HostName x"), Line::Other);
    }
}
