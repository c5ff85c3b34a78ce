//! A script expanded before its processes are known: for a module that is built on one machine and loaded on others.
//!
//! In: a script, what its macros stand for but processes. Out: an [`Expansion`] in which processes are parameters of the
//! module, and their values for some processes. Never: a process id in the text, which would make a module of it for
//! one host and one start of its target only.
//!
//! What is fixed when it is built: `$^exec_path`, `$^libNAME_path` and `$^arg_NAME` (texts of the script, which decide
//! where probes are). What is given when it is loaded: `target()` (staprun's `-x`), and for scripts with `$^pid_ok` the
//! globals of [`MODULE`], which SystemTap makes parameters of the module.

use super::bindings::Bindings;
use super::expand::{Expanded, Expansion, Purpose, Source, expand};
use super::notice::ExpandError;
use super::review::{Filter, filter_of_all};

/// Most processes that a module can be built for: each is a comparison in each probe.
pub const PROCESSES_MAX: u32 = 64;
/// The module of ours that declares the processes. No `@use` can name it: a name has no minus.
const MODULE: &str = "ff-processes";
const PARAMETER: &str = "ff_process_";

/// A script that was expanded ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// What stap is given.
    pub expansion: Expansion,
    /// How it keeps other processes out.
    pub filter: Filter,
    /// How many processes it can be given; 0 for a script that is not given any but `target()`.
    pub processes: u32,
}

/// Expands a script for at most `processes` processes that are told when its module is loaded.
///
/// # Errors
/// As [`expand`].
pub fn expand_ahead(
    script: &Source,
    bindings: &Bindings,
    processes: u32,
    find_module: &mut dyn FnMut(&str) -> Option<Source>,
) -> Result<Ahead, ExpandError> {
    let mut sources = vec![script.bytes.clone()];
    let mut find = |name: &str| {
        let source = find_module(name)?;
        sources.push(source.bytes.clone());
        Some(source)
    };
    let mut bound = Bindings {
        target: Some("target()".to_owned()),
        pid_ok: Some("pid() == target()".to_owned()),
        ..bindings.clone()
    };
    let expansion = expand(script, &bound, Purpose::Run, &mut find)?;
    let filter = filter_of_all(sources.iter().map(Vec::as_slice));
    if filter != Filter::Processes {
        return Ok(Ahead {
            expansion,
            filter,
            processes: 0,
        });
    }
    let processes = processes.clamp(1, PROCESSES_MAX);
    let names: Vec<String> = (1..=processes).map(|n| format!("{PARAMETER}{n}")).collect();
    let tests: Vec<String> = names
        .iter()
        .map(|name| format!("pid() == {name}"))
        .collect();
    // Printed only: a script that compares it is for one process.
    bound.target = Some("ANY".to_owned());
    bound.pid_ok = Some(format!("({})", tests.join(" || ")));
    let mut expansion = expand(script, &bound, Purpose::Run, find_module)?;
    let values: Vec<String> = names.iter().map(|name| format!("{name} = -1")).collect();
    let declared = Expanded {
        file: MODULE.to_owned(),
        text: format!("global {}\n", values.join(", ")).into_bytes(),
        ..Expanded::default()
    };
    expansion.modules.insert(MODULE.to_owned(), declared);
    Ok(Ahead {
        expansion,
        filter,
        processes,
    })
}

impl Ahead {
    /// A hash of all that stap is given (BLAKE3, hex): the same for the same code.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&self.expansion.script.text);
        for (name, module) in &self.expansion.modules {
            part(name.as_bytes());
            part(&module.text);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The parameters by which a module of a script with this filter is loaded for these processes.
#[must_use]
pub fn parameters_for(filter: Filter, pids: &[u32]) -> Vec<String> {
    if filter != Filter::Processes {
        return Vec::new();
    }
    let parameter = |(at, pid): (usize, &u32)| format!("{PARAMETER}{}={pid}", at + 1);
    pids.iter().enumerate().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(text: &str, processes: u32) -> Ahead {
        let source = Source {
            file: "a.sxx".into(),
            bytes: text.into(),
        };
        let bindings = Bindings {
            exec_path: Some("/sbin/nginx".into()),
            ..Bindings::default()
        };
        expand_ahead(&source, &bindings, processes, &mut |name| {
            Some(Source {
                file: format!("{name}.sxx"),
                bytes: b"function own() { return $^pid_ok }".to_vec(),
            })
        })
        .unwrap()
    }

    fn text(expanded: &Expanded) -> &str {
        std::str::from_utf8(&expanded.text).unwrap()
    }

    #[test]
    fn processes_are_parameters_of_the_module() {
        let seen = ahead("probe p { if ($^pid_ok) printf(\"$^target\") }\n", 2);
        assert_eq!(
            text(&seen.expansion.script),
            "probe p { if ((pid() == ff_process_1 || pid() == ff_process_2)) printf(\"ANY\") }\n"
        );
        assert_eq!(
            text(&seen.expansion.modules[MODULE]),
            "global ff_process_1 = -1, ff_process_2 = -1\n"
        );
        assert_eq!((seen.filter, seen.processes), (Filter::Processes, 2));
        assert_eq!(
            parameters_for(seen.filter, &[70, 80]),
            ["ff_process_1=70", "ff_process_2=80"]
        );
        assert_eq!(ahead("if ($^pid_ok) {}", 9_999).processes, PROCESSES_MAX);
        assert_ne!(seen.hash(), ahead("if ($^pid_ok) {}", 2).hash());
    }

    #[test]
    fn a_script_for_one_process_is_told_it_by_target() {
        let seen = ahead("probe p { if (pid() == $^target) {} }\n", 16);
        assert_eq!(
            text(&seen.expansion.script),
            "probe p { if (pid() == target()) {} }\n"
        );
        assert_eq!((seen.filter, seen.processes), (Filter::OneProcess, 0));
        assert!(seen.expansion.modules.is_empty());
        assert!(parameters_for(seen.filter, &[70]).is_empty());
    }

    #[test]
    fn a_module_that_asks_for_the_processes_counts() {
        let seen = ahead("@use m\nprobe p { if (own()) {} }\n", 1);
        assert_eq!(seen.filter, Filter::Processes);
        assert!(text(&seen.expansion.modules["m"]).contains("(pid() == ff_process_1)"));
    }
}
