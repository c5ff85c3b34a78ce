//! The expansion: a script and what its macros stand for become what stap is given.
//!
//! In: bytes of files and [`Bindings`]. Out: an [`Expansion`], or an error in stap++'s own words.
//! Never: a file opened (modules come from the `find_module` of the caller), a module expanded
//! twice, or more than [`BYTES_MAX`] bytes.

use super::bindings::{Bindings, choose};
use super::line_map::{LineMap, Place, replace_places};
use super::notice::{ExpandError, Notice, NoticeKind};
use super::scan::{Found, Macro};
use super::traced::Traced;
use std::collections::{BTreeMap, BTreeSet};

/// Largest script or module that is read, and most bytes that an expansion gives in all.
pub const BYTES_MAX: usize = 4 << 20;
/// Most modules.
const MODULES_MAX: usize = 256;

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in messages.
    pub file: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A file after its macros were replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The file it was made of.
    pub file: String,
    /// What stap is given.
    pub text: Vec<u8>,
    /// Back to the file.
    pub map: LineMap,
}

/// An argument that a script asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it stands first.
    pub first: Place,
    /// The default that holds; none when the first place has none, and then a value is required.
    pub default: Option<Vec<u8>>,
    /// A default that comes too late to hold: behind a place that has none.
    pub late_default: Option<Vec<u8>>,
}

/// What stap is given, and how to read its complaints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The script, for stap's standard input.
    pub script: Expanded,
    /// The modules by name: `a.b` is written to `a.b.stp` in a folder given with `-I`.
    pub modules: BTreeMap<String, Expanded>,
    /// What stap++ says on its standard error, and what else looks like a mistake.
    pub notices: Vec<Notice>,
    /// The arguments that were asked for.
    pub arguments: BTreeMap<String, Asked>,
    /// The files that `$^libNAME_path` stands for.
    pub library_paths: BTreeSet<String>,
}

impl Expansion {
    /// stap's words with places in the user's own files instead of places in the expanded text.
    ///
    /// `script_name` is what stap calls the script (`<input>` for its standard input),
    /// `module_dir` the folder that was given with `-I`.
    #[must_use]
    pub fn map_back(&self, said: &str, script_name: &str, module_dir: &str) -> String {
        replace_places(said, |path, line, column| {
            let file = if path == script_name {
                &self.script
            } else {
                let inside = path.strip_prefix(module_dir)?.trim_start_matches('/');
                self.modules.get(inside.strip_suffix(".stp")?)?
            };
            Some(file.place(line, column))
        })
    }
}

impl Expanded {
    /// The user's place of a place in the text, both from 1.
    #[must_use]
    pub fn place(&self, line: u32, column: u32) -> Place {
        let (column, is_macro) = self.map.column(line, column);
        Place {
            file: self.file.clone(),
            line,
            column,
            is_macro,
        }
    }
}

/// Whether arguments without a value are an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run it: a missing value is an error.
    Run,
    /// To list its arguments: what has no value stands for nothing.
    List,
}

/// Expands a script. `find_module` gives the file of a module by its dotted name.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn expand(
    script: &Source,
    bindings: &Bindings,
    purpose: Purpose,
    find_module: &mut dyn FnMut(&str) -> Option<Source>,
) -> Result<Expansion, ExpandError> {
    let mut state = State::new(bindings, purpose, find_module);
    let script = state.file(script)?;
    let State {
        mut done, values, ..
    } = state;
    done.script = script;
    if purpose == Purpose::Run {
        for (name, value) in &bindings.arguments {
            if !values.used.contains(format!("arg_{name}").as_bytes()) {
                done.notices.push(Notice::unused(name, value));
            }
        }
    }
    Ok(done)
}

/// What variables stand for, over all files.
#[derive(Default)]
struct Values {
    /// Values by name: `exec_path`, `arg_time`. A default stays once it was met.
    set: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names that a default gave its value.
    defaulted: BTreeSet<Vec<u8>>,
    used: BTreeSet<Vec<u8>>,
    /// Paths that were looked up, by `libNAME`.
    libraries: BTreeMap<String, String>,
}

struct State<'a> {
    bindings: &'a Bindings,
    purpose: Purpose,
    find_module: &'a mut dyn FnMut(&str) -> Option<Source>,
    values: Values,
    done: Expansion,
    /// Modules that are being expanded, outermost first.
    open: Vec<String>,
    bytes: usize,
}

/// Where the expansion is.
#[derive(Clone, Copy)]
struct Here<'a> {
    file: &'a str,
    line: u32,
    column: u32,
}

impl Here<'_> {
    fn error(self, said: impl std::fmt::Display) -> ExpandError {
        ExpandError::new(self.place(), said)
    }

    fn place(self) -> Place {
        Place {
            file: self.file.to_owned(),
            line: self.line,
            column: self.column,
            is_macro: true,
        }
    }
}

impl<'a> State<'a> {
    fn new(
        bindings: &'a Bindings,
        purpose: Purpose,
        find_module: &'a mut dyn FnMut(&str) -> Option<Source>,
    ) -> Self {
        let mut values = Values::default();
        for (name, value) in [
            ("exec_path", &bindings.exec_path),
            ("target", &bindings.target),
            ("pid_ok", &bindings.pid_ok),
        ] {
            if let Some(value) = value {
                let value = value.clone().into_bytes();
                values.set.insert(name.as_bytes().to_vec(), value);
            }
        }
        if purpose == Purpose::Run {
            for (name, value) in &bindings.arguments {
                let name = format!("arg_{name}").into_bytes();
                values.set.insert(name, value.clone());
            }
        }
        Self {
            bindings,
            purpose,
            find_module,
            values,
            done: Expansion::default(),
            open: Vec::new(),
            bytes: 0,
        }
    }

    fn file(&mut self, source: &Source) -> Result<Expanded, ExpandError> {
        let mut expanded = Expanded {
            file: source.file.clone(),
            ..Expanded::default()
        };
        let mut user = BTreeMap::new();
        let mut number = 0;
        for line in source.bytes.split_inclusive(|b| *b == b'\n') {
            number += 1;
            let here = Here {
                file: &source.file,
                line: number,
                column: 1,
            };
            let begin = expanded.text.len();
            if number == 1 && line.starts_with(b"#!") {
                expanded.text.extend_from_slice(b"#!/usr/bin/env stap\n");
            } else if line.contains(&b'$') || line.contains(&b'@') {
                let line = self.line(line, here, &mut user)?;
                expanded.text.extend_from_slice(&line.bytes);
                expanded.map.set(number, line.runs());
            } else {
                expanded.text.extend_from_slice(line);
            }
            self.bytes += expanded.text.len() - begin;
            if self.bytes > BYTES_MAX {
                return Err(here.error(format_args!(
                    "the script becomes larger than {} MiB.",
                    BYTES_MAX >> 20
                )));
            }
        }
        Ok(expanded)
    }

    /// One line, form after form.
    fn line(
        &mut self,
        line: &[u8],
        here: Here<'_>,
        user: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Traced, ExpandError> {
        let mut line = Traced::new(line);
        for form in [
            Macro::Argument,
            Macro::Function,
            Macro::Variable,
            Macro::Definition,
            Macro::Use,
            Macro::Modules,
        ] {
            line.replace_all(form, |found, column| {
                self.value(found, Here { column, ..here }, user)
            })
            .map_err(|e| e.unwrap_or_else(|| here.error("the line becomes too long.")))?;
        }
        Ok(line)
    }

    fn value(
        &mut self,
        found: &Found<'_>,
        here: Here<'_>,
        user: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Vec<u8>, ExpandError> {
        match found {
            Found::Variable { name, with } => self.variable(name, *with, here),
            Found::Function(name) => {
                Ok([b"process(\"$^exec_path\").function(\"", *name, b"\")"].concat())
            }
            Found::Definition { name, text } => {
                user.insert(name.to_vec(), text.to_vec());
                Ok(Vec::new())
            }
            // The misspelling is stap++'s; people search for its words.
            Found::Use(name) => user.get(*name).cloned().ok_or_else(|| {
                here.error(format_args!("Undefined user varaible $*{}.", text(name)))
            }),
            Found::Modules(names) => {
                for name in names {
                    self.module(&text(name), here)?;
                }
                Ok(Vec::new())
            }
        }
    }

    fn variable(
        &mut self,
        name: &[u8],
        with: Option<(&[u8], &[u8])>,
        here: Here<'_>,
    ) -> Result<Vec<u8>, ExpandError> {
        self.values.used.insert(name.to_vec());
        let argument = name
            .strip_prefix(b"arg_")
            .filter(|n| !n.is_empty())
            .map(text);
        let default = with.filter(|(word, _)| *word == b"default").map(|w| w.1);
        if let Some(argument) = &argument {
            self.asked(argument, default, here);
        }
        if let Some(value) = self.values.set.get(name) {
            let shadowed = default.filter(|d| *d != value && self.values.defaulted.contains(name));
            if let Some(default) = shadowed {
                let said = format!(
                    "the default ({}) of $^{} never holds: an earlier one gave it the value {}.",
                    text(default),
                    text(name),
                    text(value)
                );
                self.done.notices.push(Notice::new(
                    NoticeKind::DefaultShadowed,
                    here.place(),
                    said,
                ));
            }
            return Ok(value.clone());
        }
        if let Some((word, value)) = with {
            if word != b"default" {
                return Err(here.error(format_args!("unknown trait name: {}", text(word))));
            }
            if value.contains(&b'(') {
                let said = format!(
                    "the default of $^{} ends at the first parenthesis: it is {}",
                    text(name),
                    text(value)
                );
                self.done
                    .notices
                    .push(Notice::new(NoticeKind::DefaultCut, here.place(), said));
            }
            self.values.set.insert(name.to_vec(), value.to_vec());
            self.values.defaulted.insert(name.to_vec());
            return Ok(value.to_vec());
        }
        if self.purpose == Purpose::List {
            return Ok(Vec::new());
        }
        let name = text(name);
        if name == "exec_path" {
            return Err(here.error(
                "$^exec_path is used but neither -x <pid> nor --exec <path> is specified.",
            ));
        }
        if let Some(argument) = argument {
            return Err(here.error(format_args!(
                "$^{name} is used but no --arg {argument}=VAL option is specified."
            )));
        }
        match name.strip_suffix("_path") {
            Some(library) if library.len() > 3 && library.starts_with("lib") => {
                self.library(library, here).map(String::into_bytes)
            }
            _ => Err(here.error(format_args!("Undefined built-in variable $^{name}."))),
        }
    }

    /// Puts down that an argument is asked for.
    fn asked(&mut self, name: &str, default: Option<&[u8]>, here: Here<'_>) {
        match self.done.arguments.get_mut(name) {
            None => {
                let asked = Asked {
                    first: here.place(),
                    default: default.map(<[u8]>::to_vec),
                    late_default: None,
                };
                self.done.arguments.insert(name.to_owned(), asked);
            }
            Some(asked) if asked.default.is_none() && asked.late_default.is_none() => {
                asked.late_default = default.map(<[u8]>::to_vec);
            }
            Some(_) => {}
        }
    }

    /// The path of `libNAME`.
    fn library(&mut self, library: &str, here: Here<'_>) -> Result<String, ExpandError> {
        if let Some(path) = self.values.libraries.get(library) {
            return Ok(path.clone());
        }
        let bindings = self.bindings;
        let all = bindings.libraries.iter().map(String::as_str);
        let mut notice = |kind, said: String| {
            self.done
                .notices
                .push(Notice::new(kind, here.place(), said));
        };
        let path = match choose(&library[3..], all) {
            Some(choice) => {
                for path in &choice.ignored {
                    let said = format!("Ignored ambiguous library {path} for \"{library}\"");
                    notice(NoticeKind::LibraryAmbiguous, said);
                }
                if choice.is_exact {
                    let said = format!("Found exact match for {library}: {}", choice.path);
                    notice(NoticeKind::LibraryFound, said);
                }
                if choice.is_other {
                    let said = format!(
                        "{} is taken for {library}, and is probably another library: \
                         its functions may have other names.",
                        choice.path
                    );
                    notice(NoticeKind::LibraryOther, said);
                }
                choice.path.to_owned()
            }
            None => {
                let said = format!("{library} is not found, assuming it is statically linked.");
                notice(NoticeKind::LibraryAssumed, said);
                bindings.exec_path.clone().ok_or_else(|| {
                    ExpandError::bare(here.place(), "No -x <pid> option is specified.")
                })?
            }
        };
        self.done.library_paths.insert(path.clone());
        self.values
            .libraries
            .insert(library.to_owned(), path.clone());
        Ok(path)
    }

    fn module(&mut self, name: &str, here: Here<'_>) -> Result<(), ExpandError> {
        if self.open.iter().any(|open| open == name) {
            let chain = self.open.join(" -> ");
            return Err(here.error(format_args!(
                "@use library {name} uses itself: {chain} -> {name}."
            )));
        }
        if self.done.modules.contains_key(name) {
            return Ok(());
        }
        if self.done.modules.len() + self.open.len() >= MODULES_MAX {
            return Err(here.error(format_args!("more than {MODULES_MAX} @use libraries.")));
        }
        let Some(source) = (self.find_module)(name) else {
            return Err(here.error(format_args!("cannot find @use library {name}")));
        };
        self.open.push(name.to_owned());
        let expanded = self.file(&source)?;
        self.open.pop();
        self.done.modules.insert(name.to_owned(), expanded);
        Ok(())
    }
}

/// Names and values for messages; they are ASCII unless somebody plays.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
