//! A script as an order brings it: its sources, its hash, how it keeps processes out.
//!
//! In: the script of an order. Out: what the rest of this folder takes. Never: a module that was not sent, or one that the
//! hash leaves out: what is not used counts too, so that nothing can be brought in beside what was allowed.

use super::ahead::{Ahead, expand_ahead};
use super::bindings::Bindings;
use super::expand::{Expansion, Purpose, Source, expand};
use super::review::{Filter, filter_of_all, invalid, line_of_process_number, script_hash};
use model::script::Script;
use model::{Finding, FindingCode};

/// The script's own file.
fn source_of(script: &Script) -> Source {
    Source {
        file: script.file.clone(),
        bytes: script.text.clone().into_bytes(),
    }
}

/// A module that was sent with it.
fn module_of(script: &Script, name: &str) -> Option<Source> {
    let module = script.modules.get(name)?;
    Some(Source {
        file: module.file.clone(),
        bytes: module.text.clone().into_bytes(),
    })
}

/// The hash by which a policy allows it, of the script and all modules that were sent with it.
#[must_use]
pub fn hash_of(script: &Script) -> String {
    let module = |name: &String| Some((name.clone(), module_of(script, name)?));
    let modules: Vec<(String, Source)> = script.modules.keys().filter_map(module).collect();
    let modules = modules.iter().map(|(name, source)| (name.as_str(), source));
    script_hash(script.text.as_bytes(), modules)
}

/// How it and its modules keep other processes out.
#[must_use]
pub fn filter_of_script(script: &Script) -> Filter {
    let modules = script.modules.values().map(|module| &module.text);
    let texts = std::iter::once(&script.text).chain(modules);
    filter_of_all(texts.map(|text| text.as_bytes()))
}

/// Its text for known processes.
///
/// # Errors
/// `script-invalid`.
pub fn expand_script(script: &Script, bindings: &Bindings) -> Result<Expansion, Finding> {
    let find = &mut |name: &str| module_of(script, name);
    expand(&source_of(script), bindings, Purpose::Run, find).map_err(|e| invalid(&e))
}

/// What keeps a script from being built before its process is known: a probe point with the process's number in it.
///
/// # Errors
/// `script-target`, with the line.
pub fn require_no_process_number(script: &Script) -> Result<(), Finding> {
    let modules = script.modules.values().map(|m| (&m.file, &m.text));
    let mut files = std::iter::once((&script.file, &script.text)).chain(modules);
    let found = files.find_map(|(file, text)| {
        let line = line_of_process_number(text.as_bytes())?;
        Some(format!(
            "{file}:{line}: process($^target) has the number of a process in it, which no module has that is built before"
        ))
    });
    match found {
        None => Ok(()),
        Some(said) => Err(Finding::new(FindingCode::ScriptTarget, said).with_remedy(
            "Write process(\"$^exec_path\") and test $^pid_ok; or let the host build it, with stap and its kernel's build files there.",
        )),
    }
}

/// Its text before its processes are known.
///
/// # Errors
/// `script-invalid`; `script-target`, see [`require_no_process_number`].
pub fn expand_script_ahead(
    script: &Script,
    bindings: &Bindings,
    processes: u32,
) -> Result<Ahead, Finding> {
    require_no_process_number(script)?;
    let find = &mut |name: &str| module_of(script, name);
    expand_ahead(&source_of(script), bindings, processes, find).map_err(|e| invalid(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::script::{ScriptModule, used_modules};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn module(file: &str, text: &str) -> ScriptModule {
        ScriptModule {
            file: file.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_was_sent_is_hashed_and_used_whether_or_not_it_is_needed() {
        let mut script = Script {
            file: "a.sxx".into(),
            text: "@use m\nprobe p { f() }\n".into(),
            arguments: BTreeMap::new(),
            modules: [(
                "m".to_owned(),
                module("t/m.sxx", "function f() { return $^pid_ok }"),
            )]
            .into(),
            ..Script::default()
        };
        let bindings = Bindings::default().for_process(7);
        let done = expand_script(&script, &bindings).unwrap();
        assert_eq!(done.modules["m"].file, "t/m.sxx");
        assert_eq!(filter_of_script(&script), Filter::Processes);
        let hash = hash_of(&script);
        script.modules.insert("n".into(), module("t/n.sxx", ""));
        assert_ne!(hash_of(&script), hash);
        script.modules.clear();
        let finding = expand_script(&script, &bindings).unwrap_err();
        assert!(
            finding.evidence.contains("cannot find @use library m"),
            "{finding}"
        );
    }

    #[test]
    fn a_probe_point_with_a_process_is_for_a_module_that_is_built_on_its_host() {
        let script = |text: &str| Script {
            file: "a.sxx".into(),
            text: text.into(),
            modules: [(
                "m".to_owned(),
                module("t/m.sxx", "probe process ( $^target ).end {}"),
            )]
            .into(),
            ..Script::default()
        };
        let bindings = Bindings {
            exec_path: Some("/sbin/nginx".into()),
            libraries: ["/lib/libluajit-5.1.so.2".to_owned()].into(),
            ..Bindings::default()
        };
        let own = "# process($^target)\nprobe process($^target).syscall { warn(\"$^target\") }\n";
        let refused = expand_script_ahead(&script(own), &bindings, 1).unwrap_err();
        assert_eq!(refused.code, FindingCode::ScriptTarget);
        assert!(
            refused.evidence.starts_with("a.sxx:2: process($^target)"),
            "{refused}"
        );
        let refused = expand_script_ahead(&script("@use m\n"), &bindings, 1).unwrap_err();
        assert!(refused.evidence.starts_with("t/m.sxx:1: "), "{refused}");
        // On its host it is right.
        let here = expand_script(&script(own), &bindings.clone().for_process(7)).unwrap();
        let text = String::from_utf8(here.script.text).unwrap();
        assert!(text.contains("probe process(7).syscall"), "{text}");
        // Program and libraries are the same in a module that was built elsewhere; what is printed may be anything.
        let mut ahead = script(
            "probe process(\"$^exec_path\").function(\"f\"), process(\"$^libluajit_path\").function(\"g\") \
             { if (pid() == target()) warn(\"$^target\") }\n",
        );
        ahead.modules.clear();
        let done = expand_script_ahead(&ahead, &bindings, 1).unwrap().expansion;
        assert!(done.library_paths.contains("/lib/libluajit-5.1.so.2"));
        let text = String::from_utf8(done.script.text).unwrap();
        for part in [
            "process(\"/sbin/nginx\")",
            "process(\"/lib/libluajit-5.1.so.2\")",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_modules_that_are_sent_are_those_that_are_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("probes/examples");
        let mut seen = 0;
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "sxx") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let named = used_modules(std::str::from_utf8(&bytes).unwrap());
            let source = Source {
                file: String::new(),
                bytes,
            };
            let mut used = Vec::new();
            let find = &mut |name: &str| {
                used.push(name.to_owned());
                Some(Source {
                    file: String::new(),
                    bytes: Vec::new(),
                })
            };
            expand(&source, &Bindings::default(), Purpose::List, find).unwrap();
            seen += used.len();
            assert_eq!(named, used, "{}", path.display());
        }
        assert!(seen > 1);
    }

    proptest::proptest! {
        #[test]
        fn the_coordinator_and_the_language_read_use_alike(
            text in "((@use|@us|e|a|b_1|\\.|,| |\t|\x0b|\r|\n|#|@){1,2}){0,24}"
        ) {
            let mut named = used_modules(&text);
            let mut used = Vec::new();
            let source = Source { file: String::new(), bytes: text.into_bytes() };
            let find = &mut |name: &str| {
                used.push(name.to_owned());
                Some(Source { file: String::new(), bytes: Vec::new() })
            };
            expand(&source, &Bindings::default(), Purpose::List, find).unwrap();
            // The language asks for each once.
            let mut seen = std::collections::BTreeSet::new();
            named.retain(|name| seen.insert(name.clone()));
            proptest::prop_assert_eq!(named, used);
        }
    }
}
