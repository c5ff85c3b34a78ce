//! The options about debug info: inlined functions and source lines. In: flags. Out: who looks them up, and in
//! words what could not be told. Never: a file read before an input asks for it.

use super::output::usage;
use crate::debug_info::{DebugFiles, Where};
use clap::Args;
use model::format::import::{Import, ImportOptions};
use model::format::source::{SourceOptions, SourceStats, Untold, UntoldFrames};
use model::{Finding, FindingCode};
use std::path::PathBuf;

/// What is looked up in the debug info of programs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Debug info (of stap and perf script text)")]
pub struct SourceArgs {
    /// Functions that the compiler inlined become frames of their own
    #[arg(long)]
    inlines: bool,
    /// Frames are told apart by source line: function(file.c:123)
    #[arg(long)]
    lines: bool,
    /// A program or library to look into, in the place of the one that the text names; repeatable
    #[arg(long, value_name = "[MODULE=]FILE")]
    binary: Vec<String>,
    /// Directory that stands for the root of the host that the text is from
    #[arg(long, value_name = "DIR")]
    symfs: Option<PathBuf>,
    /// Rows are source lines, which need all of it.
    #[arg(skip)]
    by_line: bool,
}

impl SourceArgs {
    /// The same with all that there is.
    pub fn whole(&self) -> Self {
        Self {
            inlines: true,
            lines: true,
            by_line: true,
            ..self.clone()
        }
    }

    /// The first of the options that was given.
    pub fn given(&self) -> Option<&'static str> {
        [
            (self.by_line, "--by line"),
            (self.inlines, "--inlines"),
            (self.lines, "--lines"),
            (!self.binary.is_empty(), "--binary"),
            (self.symfs.is_some(), "--symfs"),
        ]
        .into_iter()
        .find_map(|(given, option)| given.then_some(option))
    }

    /// An import that looks up what was asked for.
    pub fn import(&self, options: ImportOptions) -> anyhow::Result<Import> {
        let import = Import::new(options);
        if !self.inlines && !self.lines {
            return match self.given() {
                Some(option) => Err(usage(format!(
                    "{option} says where debug info lies; say also what to take of it: --inlines, --lines or both"
                ))),
                None => Ok(import),
            };
        }
        let mut binaries = Vec::new();
        for word in &self.binary {
            let (module, file) = match word.split_once('=') {
                Some((module, file)) if !PathBuf::from(word).exists() => {
                    (Some(module.to_owned()), PathBuf::from(file))
                }
                _ => (None, PathBuf::from(word)),
            };
            if !file.is_file() {
                return Err(usage(format!(
                    "--binary {word}: there is no file {}; give a program or library with the same build as on the host",
                    file.display()
                )));
            }
            binaries.push((module, file));
        }
        if let Some(root) = self.symfs.as_ref().filter(|root| !root.is_dir()) {
            return Err(usage(format!(
                "--symfs {}: there is no such directory",
                root.display()
            )));
        }
        let info = DebugFiles::new(Where::new(self.symfs.clone(), binaries));
        let options = SourceOptions {
            inlines: self.inlines,
            lines: self.lines,
        };
        Ok(import.with_source(Box::new(info), options))
    }

    /// An input without addresses, when something is to be looked up by them.
    pub fn refuse(&self, name: &str, is: &str) -> anyhow::Result<()> {
        match self.given() {
            Some(option) => Err(usage(format!(
                "{name}: {option} looks functions up by their addresses, and {is} has none; give the text that stap \
                 or `perf script` printed"
            ))),
            None => Ok(()),
        }
    }
}

/// Files that are named in a finding.
const NAMED_MAX: usize = 4;

/// What could not be told, a finding for each reason.
pub fn findings(name: &str, stats: &SourceStats) -> Vec<Finding> {
    let reasons = [
        Untold::NoDebugInfo,
        Untold::NoFile,
        Untold::OtherBuild,
        Untold::NoSymbol,
        Untold::Ambiguous,
        Untold::Damaged,
    ];
    let untold: u64 = stats.untold.iter().map(|u| u.frames).sum();
    let all = stats.told + untold;
    let said = reasons.into_iter().filter_map(|why| {
        let mut files: Vec<&UntoldFrames> = stats.untold.iter().filter(|u| u.why == why).collect();
        files.sort_by_key(|u| std::cmp::Reverse(u.frames));
        let frames: u64 = files.iter().map(|u| u.frames).sum();
        let named: Vec<String> = files.iter().take(NAMED_MAX).map(|u| in_words(u)).collect();
        let more = match files.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (frames > 0).then(|| {
            let said = format!(
                "{frames} of {all} frames of {name} {} stay as they are: {}{more}{}",
                why.word(),
                named.join(", "),
                advice(why)
            );
            Finding::new(FindingCode::SourceUnknown, said)
        })
    });
    said.collect()
}

fn in_words(untold: &UntoldFrames) -> String {
    let file = if untold.file.is_empty() {
        "no file named"
    } else {
        &untold.file
    };
    match &untold.build_id {
        Some(id) => format!("{file} ({}, build-id {id})", untold.frames),
        None => format!("{file} ({})", untold.frames),
    }
}

/// What to do, where there is more to say than the finding's own remedy.
fn advice(why: Untold) -> &'static str {
    match why {
        Untold::NoDebugInfo => {
            "; install its -dbgsym package (Debian), `debuginfo-install` it (Red Hat) or \
             `debuginfod-find debuginfo BUILD-ID`, then run this again"
        }
        Untold::NoFile => "; give it with --binary FILE, or the host's files with --symfs DIR",
        _ => "",
    }
}
