//! Rust text with everything blanked that is no code. In: a file's text. Out: text of the same
//! lines. Never: a name in a comment or a string taken for an import.

/// Code only: comments and the contents of texts are blanks.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => text_end(bytes, at + 1),
            b'r' | b'b' | b'c' if !is_word(bytes, at) => raw_end(bytes, at).unwrap_or(at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(
                bytes[at..end]
                    .iter()
                    .map(|b| if *b == b'\n' { b'\n' } else { b' ' }),
            );
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Code that ships: [`code`] without the items under `#[cfg(test)]`.
pub fn shipped(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut code = code(text).into_bytes();
    let mut from = 0;
    while let Some(found) = find(&code, MARK.as_bytes(), from) {
        let end = item_end(&code, found + MARK.len());
        code[found..end]
            .iter_mut()
            .filter(|b| **b != b'\n')
            .for_each(|b| *b = b' ');
        from = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Whether the byte at `at` stands inside a word that began before it.
fn is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|b| *b == b'\n')
        .map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn text_end(bytes: &[u8], inside: usize) -> usize {
    let mut i = inside;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `br#"…"#`, `b"…"`, `c"…"`; none when no text begins here.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix = bytes[at..]
        .iter()
        .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
        .count();
    let raw = bytes[at..at + prefix].contains(&b'r');
    let hashes = bytes[at + prefix..]
        .iter()
        .take_while(|b| **b == b'#')
        .count();
    let open = at + prefix + hashes;
    if prefix > 2 || bytes.get(open) != Some(&b'"') || (!raw && hashes > 0) {
        return None;
    }
    if !raw {
        return Some(text_end(bytes, open + 1));
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    Some(find(bytes, &close, open + 1).map_or(bytes.len(), |n| n + close.len()))
}

/// The end of a character; none for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        return find(bytes, b"'", at + 3).map(|n| n + 1);
    }
    let text = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let after = at + 1 + text.chars().next()?.len_utf8();
    (bytes.get(after) == Some(&b'\'')).then_some(after + 1)
}

/// The end of the item that begins at `at`: its closing brace, or a semicolon before any brace.
fn item_end(code: &[u8], at: usize) -> usize {
    let mut depth = 0_i32;
    for (i, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return i + 1;
                }
            }
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len())
        .position(|w| w == what)
        .map(|n| from + n)
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = "use a; // use b\n/* use /* c */ */ let x = \"use d\\\" e\"; let q = '\"'; f::<'a>(r#\"g\"\"#); h";
    let code = code(text);
    for word in ["use a", "let x", "let q", "'a", "h"] {
        assert!(code.contains(word), "{word} is missing in {code}");
    }
    for word in ["b", "use d", "g", "e"] {
        assert!(
            !code.split_whitespace().any(|w| w == word),
            "{word} is in {code}"
        );
    }
}

#[test]
fn items_for_tests_do_not_ship() {
    let text =
        "mod a;\n#[cfg(test)]\nmod tests { fn x() { use b::c; } }\n#[cfg(test)] mod d;\nmod e;";
    let code = shipped(text);
    assert!(code.contains("mod a;") && code.contains("mod e;"));
    assert!(!code.contains("b::c") && !code.contains("mod d"));
}
