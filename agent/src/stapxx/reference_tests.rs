//! The expansion against a second, slow one: the language as a list of regular expressions, each
//! applied to the whole line, as its documentation tells it. In: scripts made at random of pieces of
//! all six forms. Out: any difference in text, modules, words or errors. Never: code in common.
//!
//! `FLEETFLAME_STAPXX_LINES` sets how many lines are compared (100,000 without it).

use super::{Bindings, Purpose, Source, expand};
use regex::bytes::{Captures, Regex};
use std::collections::{BTreeMap, BTreeSet};

/// The six forms, in order.
struct Forms([Regex; 6]);

fn forms() -> Forms {
    Forms(
        [
            r"(?-u)\$\^(arg_[A-Za-z0-9_]+)(?:[ \t\n\x0b\x0c\r]*:([A-Za-z0-9_]+)[ \t\n\x0b\x0c\r]*\(([^\n]*?)\))?",
            r"(?-u)@pfunc[ \t\n\x0b\x0c\r]*\([ \t\n\x0b\x0c\r]*([A-Za-z0-9_]+)[ \t\n\x0b\x0c\r]*\)",
            r"(?-u)\$\^([A-Za-z0-9_]+|lib[-.A-Za-z0-9_]+_path)(?:[ \t\n\x0b\x0c\r]*:([A-Za-z0-9_]+)[ \t\n\x0b\x0c\r]*\(([^\n]*?)\))?",
            r"(?-u)\$\*([A-Za-z0-9_]+)[ \t\n\x0b\x0c\r]*:=[ \t\n\x0b\x0c\r]*(&?@(?:cast|var)\([^\n]*?\)(?:\[[0-9]+\])?)",
            r"(?-u)\$\*([A-Za-z0-9_]+)",
            r"(?-u)@use[ \t\n\x0b\x0c\r]+([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*(?:[ \t\n\x0b\x0c\r]*,[ \t\n\x0b\x0c\r]*[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)*)",
        ]
        .map(|form| Regex::new(form).expect("a form")),
    )
}

/// What a program keeps that reads one line after the other.
struct Reader<'a> {
    forms: &'a Forms,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    libraries: &'a BTreeSet<String>,
    found: BTreeMap<String, Vec<u8>>,
    sources: &'a BTreeMap<String, String>,
    modules: BTreeMap<String, Vec<u8>>,
    open: Vec<String>,
    words: Vec<String>,
}

/// Replaces every match, stopping at the first error.
fn each(
    form: &Regex,
    line: &[u8],
    mut value: impl FnMut(&Captures<'_>) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let (mut out, mut from) = (Vec::new(), 0);
    for captures in form.captures_iter(line) {
        let whole = captures.get(0).expect("the match");
        out.extend_from_slice(&line[from..whole.start()]);
        out.extend_from_slice(&value(&captures)?);
        from = whole.end();
    }
    out.extend_from_slice(&line[from..]);
    Ok(out)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Reader<'_> {
    fn read(&mut self, file: &str, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut user: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut out = Vec::new();
        let forms = self.forms;
        for (number, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
            let at = format!("{file}: line {}", number + 1);
            if number == 0 && line.starts_with(b"#!") {
                out.extend_from_slice(b"#!/usr/bin/env stap\n");
                continue;
            }
            let line = each(&forms.0[0], line, |c| self.variable(&at, c))?;
            let line = each(&forms.0[1], &line, |c| {
                Ok(format!("process(\"$^exec_path\").function(\"{}\")", lossy(&c[1])).into_bytes())
            })?;
            let line = each(&forms.0[2], &line, |c| self.variable(&at, c))?;
            let line = each(&forms.0[3], &line, |c| {
                user.insert(c[1].to_vec(), c[2].to_vec());
                Ok(Vec::new())
            })?;
            let line = each(&forms.0[4], &line, |c| {
                let unknown = || format!("{at}: Undefined user varaible $*{}.", lossy(&c[1]));
                user.get(&c[1]).cloned().ok_or_else(unknown)
            })?;
            let line = each(&forms.0[5], &line, |c| {
                for name in lossy(&c[1]).split(',') {
                    self.load(&at, name.trim())?;
                }
                Ok(Vec::new())
            })?;
            out.extend_from_slice(&line);
        }
        Ok(out)
    }

    fn variable(&mut self, at: &str, c: &Captures<'_>) -> Result<Vec<u8>, String> {
        let name = lossy(&c[1]);
        if let Some(value) = self.values.get(&c[1]) {
            return Ok(value.clone());
        }
        if let (Some(word), Some(value)) = (c.get(2), c.get(3)) {
            if word.as_bytes() != b"default" {
                return Err(format!(
                    "{at}: unknown trait name: {}",
                    lossy(word.as_bytes())
                ));
            }
            self.values.insert(c[1].to_vec(), value.as_bytes().to_vec());
            return Ok(value.as_bytes().to_vec());
        }
        if name == "exec_path" {
            return Err(format!(
                "{at}: $^exec_path is used but neither -x <pid> nor --exec <path> is specified."
            ));
        }
        if name.len() > 4 && name.starts_with("arg_") {
            return Err(format!(
                "{at}: $^{name} is used but no --arg {}=VAL option is specified.",
                &name[4..]
            ));
        }
        let is_library = Regex::new("^lib[A-Za-z0-9_]+_path$").expect("a form");
        if is_library.is_match(name.as_bytes()) {
            return self.library(at, &name[..name.len() - 5]);
        }
        Err(format!("{at}: Undefined built-in variable $^{name}."))
    }

    fn library(&mut self, at: &str, library: &str) -> Result<Vec<u8>, String> {
        if let Some(path) = self.found.get(library) {
            return Ok(path.clone());
        }
        let name = regex::escape(&library[3..]);
        let exact = Regex::new(&format!(r"(?-u)\blib{name}[-.0-9]*\.so(?:\.[0-9]+)*$"));
        let similar = Regex::new(&format!(r"(?-u)\b(?:lib)?{name}[^/\s]*?\.so(?:\.[0-9]+)*$"));
        let (exact, similar) = (exact.expect("exact"), similar.expect("similar"));
        let mut path = None;
        for candidate in self.libraries {
            if exact.is_match(candidate.as_bytes()) {
                self.words
                    .push(format!("Found exact match for {library}: {candidate}"));
                path = Some(candidate);
                break;
            }
        }
        if path.is_none() {
            let mut all = self
                .libraries
                .iter()
                .filter(|c| similar.is_match(c.as_bytes()));
            path = all.next();
            for other in all {
                self.words.push(format!(
                    "Ignored ambiguous library {other} for \"{library}\""
                ));
            }
        }
        let path = match path {
            Some(path) => path.clone().into_bytes(),
            None => {
                self.words.push(format!(
                    "{at}: {library} is not found, assuming it is statically linked."
                ));
                let program = self.values.get(&b"exec_path"[..]).cloned();
                program.ok_or_else(|| "No -x <pid> option is specified.".to_owned())?
            }
        };
        self.found.insert(library.to_owned(), path.clone());
        Ok(path)
    }

    fn load(&mut self, at: &str, name: &str) -> Result<(), String> {
        if self.open.iter().any(|open| open == name) {
            return Err(format!(
                "{at}: @use library {name} uses itself: {} -> {name}.",
                self.open.join(" -> ")
            ));
        }
        let Some(text) = self.sources.get(name) else {
            return Err(format!("{at}: cannot find @use library {name}"));
        };
        self.open.push(name.to_owned());
        let words = self.words.len();
        let text = self.read(&format!("./{name}.sxx"), text.as_bytes())?;
        // Every use is read anew here; a second reading must change nothing.
        if let Some(before) = self.modules.insert(name.to_owned(), text.clone()) {
            assert_eq!(lossy(&before), lossy(&text));
            assert_eq!(self.words.len(), words);
        }
        self.open.pop();
        Ok(())
    }
}

/// xorshift64*: the same scripts on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// What lines are made of: whole macros, halves of macros, and what may stand between.
const PIECES: &[&str] = &[
    "$^",
    "$*",
    "@",
    "@use",
    "@pfunc",
    "@cast(",
    "@var(",
    "&",
    ":=",
    ":default(",
    ":default (",
    " :default(",
    ":other(",
    ":",
    "(",
    ")",
    "[0]",
    "[12]",
    "[",
    "]",
    ",",
    ".",
    "-",
    "=",
    "\"",
    " ",
    "  ",
    "\t",
    "\r",
    "\x0b",
    "#",
    "//",
    "%(",
    "%?",
    "%)",
    "{",
    "}",
    "a",
    "b",
    "1",
    "_",
    "_path",
    "arg_",
    "lib",
    "x y",
    "\u{e9}",
    "\u{85}",
    "$",
    "^",
    "*",
    "$^arg_",
    "$^target",
    "$^pid_ok",
    "$^exec_path",
    "$^libz_path",
    "$^libpcre_path",
    "$^liblua_path",
    "$^libng_path",
    "$^libq-1_path",
    "$^none",
    "$^none:default(v)",
    "@pfunc(a)",
    "@pfunc( b )",
    "@pfunc (c )",
    "@pfunc(a b)",
    "process(\"x\").function(\"y\")",
    "probe begin",
    "pid() == target()",
];
const NAMES: &[&str] = &["a", "b", "x1", "_", "time", "f"];
const VALUES: &[&str] = &[
    "1",
    "",
    "v w",
    "$^target",
    "@pfunc(a)",
    "f(1",
    "$*a",
    "$^arg_a",
    "@use m",
    "a, b",
];
const MODULES: &[&str] = &["m", "n", "m.n", "m.n.o", "gone", "p"];

fn piece(dice: &mut Dice, out: &mut String) {
    match dice.below(16) {
        0 => *out += &format!("$^arg_{}", dice.of(NAMES)),
        1 => {
            let blank = dice.of(&["", " ", "\t "]);
            *out += &format!(
                "$^arg_{}{blank}:default({})",
                dice.of(NAMES),
                dice.of(VALUES)
            );
        }
        2 => {
            *out += &format!(
                "$^lib{}_path",
                dice.of(&["z", "pcre", "lua", "ng", "c", "no"])
            )
        }
        3 => {
            let text = dice.of(&[
                "@cast(a, \"b\")",
                "@var(\"v\")",
                "&@cast(q, \"r\")[3]",
                "@var(f(1))",
            ]);
            *out += &format!("$*{} := {text} ", dice.of(NAMES));
        }
        4 => *out += &format!("$*{}", dice.of(NAMES)),
        5 => {
            let comma = dice.of(&[", ", ",", " , ", ",  ,"]);
            *out += &format!("@use {}{comma}{}", dice.of(MODULES), dice.of(MODULES));
        }
        6 => *out += &format!("@use {}", dice.of(MODULES)),
        7 => *out += &format!("@pfunc({})", dice.of(NAMES)),
        _ => *out += dice.of(PIECES),
    }
}

/// Most lines are quiet, or no script would come to its end.
fn line(dice: &mut Dice) -> String {
    let mut out = String::new();
    match dice.below(8) {
        0..=2 => {
            out += &format!(
                "$^arg_{} :default({}) ",
                dice.of(NAMES),
                dice.of(&VALUES[..6])
            )
        }
        3 => out += &format!("$*{} := @cast(l, \"t\") ", dice.of(NAMES)),
        4 => {
            for _ in 0..dice.below(3) {
                piece(dice, &mut out);
            }
        }
        5 => {
            for _ in 0..dice.below(10) {
                out += dice.of(PIECES);
            }
            out = out.replace("$^", "$ ^").replace("$*", "$ *");
        }
        6 => {
            out += dice.of(&[
                "@pfunc(f)",
                "$^target",
                "$^libz_path",
                "x",
                "@use p",
                "$^pid_ok",
            ])
        }
        _ => out += dice.of(&["probe begin { }", "#!x", "}", ""]),
    }
    out + dice.of(&["\n", "\n", "\n", "\r\n", "\n\n"])
}

fn script(dice: &mut Dice) -> String {
    let mut text: String = (0..1 + dice.below(12)).map(|_| line(dice)).collect();
    if dice.below(3) == 0 {
        for _ in 0..dice.below(6) {
            piece(dice, &mut text);
        }
    }
    text
}

fn bindings(dice: &mut Dice) -> Bindings {
    let mut bindings = Bindings::default();
    if dice.below(4) != 0 {
        bindings.exec_path = Some("/sbin/nginx".into());
        bindings = match dice.below(3) {
            0 => bindings.for_process(7),
            1 => bindings.for_processes(&[7, 8, 9]),
            _ => bindings,
        }
        .for_any();
    }
    for name in NAMES {
        if dice.below(3) == 0 {
            let value = dice.of(VALUES);
            bindings.arguments.insert((*name).to_owned(), value.into());
        }
    }
    for path in [
        "/l/libz.so.1",
        "/l/libpcre.so.3",
        "/l/libluajit-5.1.so.2",
        "/l/liblua5.1.so",
        "/m/ngx_a.so",
        "/m/ngx_b.so",
        "/l/libc.so.6",
    ] {
        if dice.below(2) == 0 {
            bindings.libraries.insert(path.to_owned());
        }
    }
    bindings
}

/// Text and modules, or an error; and what was said.
type Seen = (
    Result<(String, BTreeMap<String, String>), String>,
    Vec<String>,
);

fn by_reference(
    forms: &Forms,
    text: &str,
    bindings: &Bindings,
    sources: &BTreeMap<String, String>,
) -> Seen {
    let mut values = BTreeMap::new();
    for (name, value) in [
        ("exec_path", &bindings.exec_path),
        ("target", &bindings.target),
        ("pid_ok", &bindings.pid_ok),
    ] {
        if let Some(value) = value {
            values.insert(name.as_bytes().to_vec(), value.clone().into_bytes());
        }
    }
    for (name, value) in &bindings.arguments {
        values.insert(format!("arg_{name}").into_bytes(), value.clone());
    }
    let mut reader = Reader {
        forms,
        values,
        libraries: &bindings.libraries,
        found: BTreeMap::new(),
        sources,
        modules: BTreeMap::new(),
        open: Vec::new(),
        words: Vec::new(),
    };
    let done = reader.read("s.sxx", text.as_bytes());
    let modules = reader
        .modules
        .iter()
        .map(|(n, t)| (n.clone(), lossy(t)))
        .collect();
    (done.map(|text| (lossy(&text), modules)), reader.words)
}

fn by_us(text: &str, bindings: &Bindings, sources: &BTreeMap<String, String>) -> Seen {
    use super::NoticeKind::{LibraryAmbiguous, LibraryAssumed, LibraryFound};
    let script = Source {
        file: "s.sxx".into(),
        bytes: text.into(),
    };
    let done = expand(&script, bindings, Purpose::Run, &mut |name| {
        Some(Source {
            file: format!("./{name}.sxx"),
            bytes: sources.get(name)?.clone().into_bytes(),
        })
    });
    match done {
        Ok(done) => {
            let modules = done
                .modules
                .iter()
                .map(|(n, m)| (n.clone(), lossy(&m.text)))
                .collect();
            let said = |n: &&super::Notice| {
                matches!(n.kind, LibraryAmbiguous | LibraryAssumed | LibraryFound)
            };
            let words = done
                .notices
                .iter()
                .filter(said)
                .map(ToString::to_string)
                .collect();
            (Ok((lossy(&done.script.text), modules)), words)
        }
        Err(e) => (Err(e.to_string()), Vec::new()),
    }
}

#[test]
fn both_expansions_agree_on_random_scripts() {
    let wanted: usize = std::env::var("FLEETFLAME_STAPXX_LINES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let forms = forms();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut lines, mut whole, mut failed) = (0, 0, BTreeMap::<String, usize>::new());
    while lines < wanted {
        let bindings = bindings(&mut dice);
        let sources: BTreeMap<String, String> = MODULES
            .iter()
            .filter(|name| **name != "gone")
            .map(|name| {
                (
                    (*name).to_owned(),
                    if *name == "p" {
                        "p\n".into()
                    } else {
                        script(&mut dice)
                    },
                )
            })
            .collect();
        let text = script(&mut dice);
        let (theirs, their_words) = by_reference(&forms, &text, &bindings, &sources);
        let (ours, our_words) = by_us(&text, &bindings, &sources);
        assert_eq!(
            theirs, ours,
            "script {text:?}\nmodules {sources:?}\n{bindings:?}"
        );
        match ours {
            Ok((_, modules)) => {
                assert_eq!(their_words, our_words, "script {text:?}\n{bindings:?}");
                whole += 1;
                lines += text.lines().count();
                lines += modules
                    .keys()
                    .map(|m| sources[m].lines().count())
                    .sum::<usize>();
            }
            Err(said) => {
                let kind: String = said
                    .split(": ")
                    .nth(2)
                    .unwrap_or(&said)
                    .chars()
                    .take(12)
                    .collect();
                *failed.entry(kind).or_default() += 1;
                let line = said
                    .split("line ")
                    .nth(1)
                    .and_then(|l| l.split(':').next()?.parse().ok());
                lines += line.unwrap_or(1);
            }
        }
    }
    println!("{lines} lines, {whole} scripts expanded, refused: {failed:?}");
    assert!(whole > 100, "too few scripts come to their end: {whole}");
    assert!(failed.len() >= 5, "too few kinds of errors: {failed:?}");
}
