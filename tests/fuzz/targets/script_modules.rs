//! A script with the modules that were sent with it, any bytes: both sides read `@use` alike, only what was sent is taken in,
//! every byte of it is in the hash, and expanding ends.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the agent's own files are compiled in; not all of them is called"
)]

#[path = "../../../agent/src/stapxx/mod.rs"]
mod stapxx;

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::script::{Script, ScriptModule, is_module_name, used_modules};
use stapxx::{Bindings, Filter, Purpose, Source};
use std::collections::BTreeSet;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choice = input.byte();
    let Ok(text) = std::str::from_utf8(input.rest()) else {
        return;
    };
    // Files are told apart by a byte that no script has; a module's first line is its name.
    let mut files = text.split('\0');
    let mut script = Script {
        file: "s.sxx".into(),
        text: files.next().unwrap_or_default().to_owned(),
        ..Script::default()
    };
    for file in files {
        let (name, text) = file.split_once('\n').unwrap_or((file, ""));
        if is_module_name(name) {
            let module = ScriptModule {
                file: format!("t/{name}.sxx"),
                text: text.to_owned(),
            };
            script.modules.insert(name.to_owned(), module);
        }
    }
    used_alike(&script.text);
    let bindings = Bindings {
        exec_path: Some("/usr/sbin/nginx".into()),
        ..Bindings::default()
    };
    let filter = stapxx::filter_of_script(&script);
    let bound = match choice & 1 {
        0 => bindings.clone().for_process(7),
        _ => bindings.clone().for_processes(&[7, 8]),
    };
    if let Ok(done) = stapxx::expand_script(&script, &bound) {
        let sent = |name: &String| script.modules.contains_key(name);
        assert!(done.modules.keys().all(sent), "{:?}", done.modules.keys());
        // Comments count: whatever is named is taken in.
        if is_plain(&script.text) {
            for name in used_modules(&script.text) {
                assert!(done.modules.contains_key(&name), "{name}");
            }
        }
    }
    let processes = u32::from(choice >> 1);
    if let Ok(ahead) = stapxx::expand_script_ahead(&script, &bindings, processes) {
        // The processes are told when it is loaded, so that they are in no text.
        let parameters = stapxx::parameters_for(ahead.filter, &[7, 8]);
        assert!(ahead.filter == Filter::Processes || parameters.is_empty());
        assert_eq!(ahead.processes > 0, ahead.filter == Filter::Processes);
        let more = ahead.expansion.modules.keys().filter(|name| !script.modules.contains_key(*name));
        assert_eq!(more.count(), usize::from(ahead.processes > 0));
    }
    hashed_whole(&mut script, filter);
});

/// Whether no macro can put together or take away an `@use`: the coordinator, which has no values for them, expands none.
fn is_plain(text: &str) -> bool {
    !["$^", "$*", "@pfunc"].iter().any(|macros| text.contains(macros)) && !text.starts_with("#!")
}

/// The coordinator, which sends modules, and the language, which takes them in, name the same.
fn used_alike(text: &str) {
    let named: BTreeSet<String> = used_modules(text).into_iter().collect();
    assert!(named.iter().all(|name| is_module_name(name)));
    let source = |bytes: &[u8]| Source {
        file: String::new(),
        bytes: bytes.to_vec(),
    };
    let mut used = BTreeSet::new();
    let listed = stapxx::expand(&source(text.as_bytes()), &Bindings::default(), Purpose::List, &mut |name| {
        used.insert(name.to_owned());
        Some(source(b""))
    });
    if !is_plain(text) {
        return;
    }
    // What cannot be expanded ends at its mistake.
    assert!(used.iter().all(|name| named.contains(name) || !is_module_name(name)));
    if listed.is_ok() {
        let long = |name: &&String| is_module_name(name);
        assert_eq!(named.iter().collect::<Vec<_>>(), used.iter().filter(long).collect::<Vec<_>>());
    }
}

/// A byte more anywhere is another script.
fn hashed_whole(script: &mut Script, filter: Filter) {
    let hash = stapxx::hash_of(script);
    assert_eq!(hash, stapxx::hash_of(script));
    script.text.push('\n');
    assert_ne!(hash, stapxx::hash_of(script));
    assert_eq!(filter, stapxx::filter_of_script(script));
    script.text.pop();
    let Some(name) = script.modules.keys().next().cloned() else {
        return;
    };
    if let Some(module) = script.modules.get_mut(&name) {
        module.text.push('\n');
    }
    assert_ne!(hash, stapxx::hash_of(script));
    script.modules.remove(&name);
    assert_ne!(hash, stapxx::hash_of(script));
}
