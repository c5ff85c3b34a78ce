//! Which values may go into a script: they become part of a kernel module.
//!
//! In: a name and a value. Out: what kind of value it is, or a finding that names the argument.
//! Never: a value that could end a string, begin a statement or a comment, or name a macro.
//!
//! A value is put where the script says, in code or inside of a string, and the script's author knew
//! no hostile ones. So it must be harmless in both: it holds no quote, backslash, semicolon, brace,
//! `%` (a format), `#`, `//` or `/*`, and parentheses only as a probe point has them. Within a string
//! a probe point's own quotes end and begin it again; what stands between is then code, and holds
//! neither parenthesis nor anything else that could call or assign.

use model::{Finding, FindingCode};

/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 1_024;
/// Longest name of an argument, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A number: decimal or 0x hexadecimal.
    Number,
    /// Words: letters, digits, blanks and `_ . : , + = ~ @ / -`, UTF-8 beyond ASCII included.
    Words,
    /// Probe points: `timer.profile`, `process("…").function("…").return`, `@pfunc(name)`, with
    /// commas between.
    ProbePoints,
}

/// Holds the value of an argument against what may go into a script.
///
/// # Errors
/// `script-argument`, naming the argument and what is wrong with its value.
pub fn check_value(name: &str, value: &[u8]) -> Result<ValueKind, Finding> {
    let refuse = |why: String| Err(Finding::new(FindingCode::ScriptArgument, why));
    let is_name =
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(super::scan::is_word);
    if !is_name {
        return refuse(format!(
            "--arg {name}: an argument's name is 1 to {NAME_BYTES_MAX} letters, digits and underscores"
        ));
    }
    if value.len() > VALUE_BYTES_MAX {
        return refuse(format!(
            "--arg {name}: the value has {} bytes; {VALUE_BYTES_MAX} are possible",
            value.len()
        ));
    }
    let Ok(text) = std::str::from_utf8(value) else {
        return refuse(format!("--arg {name}: the value is not UTF-8"));
    };
    if is_number(text) {
        return Ok(ValueKind::Number);
    }
    match words(text) {
        Ok(()) => Ok(ValueKind::Words),
        Err(_) if probe_points(text) => Ok(ValueKind::ProbePoints),
        Err(what) => refuse(format!("--arg {name}={text}: {what} may not be in a value")),
    }
}

/// Holds a path that goes into a script (`$^exec_path`, a library) against what may be in one.
///
/// # Errors
/// `script-target`, naming the path and what is wrong.
pub fn check_path(path: &str) -> Result<(), Finding> {
    let odd = path
        .chars()
        .find(|c| c.is_control() || matches!(c, '"' | '\\' | '\'' | '$' | '`' | '%'));
    let why = match odd {
        Some(c) => format!("{path}: {c:?} may not be in a path that a script is given"),
        None if path.len() > 4_096 => "a path has more than 4096 bytes".to_owned(),
        None => return Ok(()),
    };
    Err(Finding::new(FindingCode::ScriptTarget, why))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.strip_prefix("0x") {
        Some(hex) => (1..=16).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => (1..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Letters of every script, digits, and signs that neither stap nor the macro language reads.
fn is_harmless(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '_' | '.' | ':' | ',' | '+' | '=' | '~' | '@' | '/' | '-' | ' '
        )
        || (!c.is_ascii() && c.is_alphanumeric())
}

fn words(text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|c| !is_harmless(*c)) {
        return Err(format!("{c:?}"));
    }
    if text.contains("//") {
        return Err("\"//\"".to_owned());
    }
    let mut before = None;
    for c in text.chars() {
        if before == Some('@') && c.is_ascii_alphabetic() {
            return Err("a word behind \"@\"".to_owned());
        }
        before = Some(c);
    }
    Ok(())
}

/// Probe points of stapprobes(3stap), with commas between; each may end in `?` or `!`.
fn probe_points(text: &str) -> bool {
    let mut rest = text;
    loop {
        let Some(behind) = probe_point(rest.trim_start_matches(' ')) else {
            return false;
        };
        let behind = behind.trim_start_matches(' ');
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => return behind.is_empty(),
        }
    }
}

/// What stands behind one probe point at the begin of `text`.
fn probe_point(text: &str) -> Option<&str> {
    let mut rest = match text.strip_prefix("@pfunc") {
        Some(rest) => {
            let inside = rest.trim_start_matches(' ').strip_prefix('(')?;
            let (name, behind) = inside.split_once(')')?;
            let name = name.trim_matches(' ');
            let is_name = !name.is_empty() && name.bytes().all(super::scan::is_word);
            is_name.then_some(behind)?
        }
        None => component(text)?,
    };
    while let Some(next) = rest.strip_prefix('.') {
        rest = component(next)?;
    }
    Some(rest.strip_prefix(['?', '!']).unwrap_or(rest))
}

/// `name`, `name(number)` or `name("string")`.
fn component(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '*')))
        .unwrap_or(text.len());
    let rest = &text[end..];
    // Behind a script's own `/`, an asterisk would begin a comment.
    if end == 0 || text.starts_with('*') {
        return None;
    }
    let Some(inside) = rest.strip_prefix('(') else {
        return Some(rest);
    };
    match inside.strip_prefix('"') {
        Some(inside) => {
            let (string, behind) = inside.split_once('"')?;
            (is_harmless_string(string)).then_some(())?;
            behind.strip_prefix(')')
        }
        None => {
            let (number, behind) = inside.split_once(')')?;
            is_number(number).then_some(behind)
        }
    }
}

/// A string of a probe point: words with wildcards, and paths that the macro language knows.
fn is_harmless_string(text: &str) -> bool {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("$^") {
        plain.push_str(before);
        let end = behind
            .bytes()
            .position(|b| !super::scan::is_word(b))
            .unwrap_or(behind.len());
        let name = &behind[..end];
        let is_path = name == "exec_path" || (name.starts_with("lib") && name.ends_with("_path"));
        if !is_path {
            return false;
        }
        rest = &behind[end..];
    }
    plain.push_str(rest);
    let at_source = |c: char| c == '*' || c == '?';
    // `function@file.c:12` is a probe point's own way to name a place.
    plain.chars().all(|c| is_harmless(c) || at_source(c))
        && !plain.contains("//")
        && !plain.contains("/*")
        && !plain.contains("@use ")
        && !plain.contains("@pfunc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_values_pass() {
        use ValueKind::{Number, ProbePoints, Words};
        for (value, kind) in [
            ("10", Number),
            ("-1", Number),
            ("0xff", Number),
            ("", Words),
            ("nginx", Words),
            ("/usr/local/openresty/nginx", Words),
            ("@/usr/share/lua/a.lua:12", Words),
            ("/api/v1 users=a,b", Words),
            ("größe", Words),
            ("timer.profile", Words),
            ("timer.s(5)", ProbePoints),
            ("process(\"nginx\").function(\"f@user.c:12\")", ProbePoints),
            (
                "process(\"/usr/sbin/nginx\").function(\"ngx_http_*\").return",
                ProbePoints,
            ),
            (
                "process(\"$^libluajit_path\").function(\"lj_cont@lj_trace.c:12\")?",
                ProbePoints,
            ),
            ("@pfunc(ngx_http_init), @pfunc( a ).return", ProbePoints),
            ("kernel.function(\"vfs_read\"), syscall.open*", ProbePoints),
            ("kernel.statement(0xffffffff81000000)", ProbePoints),
        ] {
            assert_eq!(check_value("a", value.as_bytes()), Ok(kind), "{value}");
        }
    }

    #[test]
    fn hostile_values_are_refused_by_name() {
        for value in [
            "\"); system(\"reboot",
            "1) { } probe begin { system(1) }",
            "%{ panic(\"\"); %}",
            "5\nprobe begin { exit() }",
            "a\\",
            "a\"",
            "a'b",
            "$(reboot)",
            "`reboot`",
            "x; exit",
            "1 # ",
            "1 // rest",
            "1 /* rest",
            "%s%s%s",
            "@use evil",
            "@cast(0, \"x\")",
            "$^exec_path",
            "system(a)",
            "a(\"b\") system(\"c\")",
            "a(\"b\").c(d)",
            "a(\"b\" . \"c\")",
            "a(\"@use x\")",
            "a(\"b//c\")",
            "a(\"$^arg_b\")",
            "a(\"b\").",
            "a(\"b\"),",
            "@pfunc(a b)",
            "@pfunc()",
            "\u{202e}a",
            "a\0b",
            "*",
            "*a(1)",
        ] {
            let finding = check_value("str", value.as_bytes()).expect_err(value);
            assert_eq!(finding.code, FindingCode::ScriptArgument);
            assert!(finding.evidence.contains("--arg str"), "{finding}");
        }
        assert!(check_value("a", &[0xff]).is_err());
        assert!(check_value("a", &[b'a'; 2_000]).is_err());
        for name in ["", "a-b", "a b", "ä", &"a".repeat(65)] {
            assert!(check_value(name, b"1").is_err(), "{name}");
        }
    }

    #[test]
    fn paths_cannot_leave_their_string() {
        assert_eq!(check_path("/usr/sbin/ngin x-1.2_3+~é"), Ok(()));
        for path in [
            "/a\"b",
            "/a\\",
            "/a\nb",
            "/a$b",
            "/a%s",
            &"/a".repeat(3_000),
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
