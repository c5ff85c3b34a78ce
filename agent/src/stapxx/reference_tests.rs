//! A second, slow expansion: the language as a list of regular expressions, each applied to the whole
//! line, as its documentation tells it. In: a script and bindings. Out: text and modules, or an error,
//! and what was said. Never: code in common with the expansion that it is there to judge.

use super::Bindings;
use regex::bytes::{Captures, Regex};
use std::collections::{BTreeMap, BTreeSet};

/// The six forms, in order.
pub(super) struct Forms([Regex; 6]);

pub(super) fn forms() -> Forms {
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

pub(super) fn lossy(bytes: &[u8]) -> String {
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

/// Text and modules, or an error; and what was said.
pub(super) type Seen = (
    Result<(String, BTreeMap<String, String>), String>,
    Vec<String>,
);

pub(super) fn by_reference(
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
