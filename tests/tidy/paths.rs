//! The paths that code names: `a::b::c`, with `use a::{b, c::d}` taken apart. In: code without
//! comments. Out: paths with their lines. Never: a path that only a macro's text holds.

/// One path, as written.
pub struct Named {
    /// Line, from 1.
    pub line: usize,
    /// `a::b::c`.
    pub path: String,
}

/// All paths of `code`, single names included.
pub fn paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].1 {
            "use" => at = branches(&tokens, at + 1, "", &mut found),
            word if is_name(word) => {
                let line = tokens[at].0;
                let mut path = word.to_owned();
                while tokens.get(at + 1).is_some_and(|t| t.1 == "::")
                    && tokens.get(at + 2).is_some_and(|t| is_name(t.1))
                {
                    path = format!("{path}::{}", tokens[at + 2].1);
                    at += 2;
                }
                found.push(Named { line, path });
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

/// Takes a use tree apart from `at` on; gives the place behind it.
fn branches(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &str,
    found: &mut Vec<Named>,
) -> usize {
    let mut path = prefix.to_owned();
    let mut line = tokens.get(at).map_or(0, |t| t.0);
    while let Some(&(here, token)) = tokens.get(at) {
        match token {
            ";" | "}" => break,
            "," => {
                push(found, line, &path, prefix);
                path = prefix.to_owned();
            }
            "{" => {
                at = branches(tokens, at + 1, &path, found);
                path = prefix.to_owned();
            }
            "as" => at += 1,
            "::" => {}
            name => {
                line = here;
                path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}::{name}")
                };
            }
        }
        at += 1;
    }
    push(found, line, &path, prefix);
    at
}

fn push(found: &mut Vec<Named>, line: usize, path: &str, prefix: &str) {
    if path != prefix {
        found.push(Named {
            line,
            path: path.to_owned(),
        });
    }
}

fn is_name(token: &str) -> bool {
    token
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// Words, `::` and single characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = match first {
                c if c.is_alphanumeric() || c == '_' => rest
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            found.push((number + 1, &rest[..len]));
            rest = rest[len..].trim_start();
        }
    }
    found
}

#[test]
fn use_trees_are_taken_apart() {
    let code = "use std::{fs, net::{TcpStream as T, self}};\nlet x = tokio::time::sleep(a);";
    let names: Vec<String> = paths(code).into_iter().map(|n| n.path).collect();
    for path in [
        "std::fs",
        "std::net::TcpStream",
        "std::net::self",
        "tokio::time::sleep",
        "a",
    ] {
        assert!(
            names.iter().any(|n| n == path),
            "{path} is not in {names:?}"
        );
    }
}
