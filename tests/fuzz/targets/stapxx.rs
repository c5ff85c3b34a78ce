//! stap++ scripts, their modules and the values of their arguments, any bytes: expanding ends, lines
//! stay where they are, every place leads back into the user's own line, and what is taken as a value
//! cannot end a string or a statement.
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
use stapxx::{Bindings, Expanded, Purpose, Source, ValueKind};
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (choice, value_len, module_len) = (input.byte(), input.byte(), input.byte());
    let rest = input.rest();
    let (value, rest) = rest.split_at(rest.len().min(value_len.into()));
    let (module, script) = rest.split_at(rest.len().min(usize::from(module_len) * 4));

    let mut bindings = Bindings::default();
    if let Ok(kind) = stapxx::check_value("v", value) {
        hold_harmless(kind, value);
        bindings.arguments.insert("v".into(), value.to_vec());
    }
    if choice & 1 != 0 {
        bindings.exec_path = Some("/usr/sbin/nginx".into());
        bindings = match choice & 6 {
            2 => bindings.for_process(7),
            4 => bindings.for_processes(&[7, 8]),
            _ => bindings,
        }
        .for_any();
    }
    if choice & 8 != 0 {
        bindings.libraries = stapxx::libraries_of_maps(&String::from_utf8_lossy(module)).libraries;
    }
    let source = |file: &str, bytes: &[u8]| Source {
        file: file.into(),
        bytes: bytes.to_vec(),
    };
    let sources: BTreeMap<&str, Source> =
        [("m", source("m.sxx", module)), ("n", source("n.sxx", script))].into();
    let main = source("s.sxx", script);
    let purpose = if choice & 16 != 0 {
        Purpose::List
    } else {
        Purpose::Run
    };
    let expand = || {
        stapxx::expand(&main, &bindings, purpose, &mut |name| {
            sources.get(name).cloned()
        })
    };
    // Any bytes are judged: no answer is wrong here, a panic is.
    let _ = stapxx::filter_of(script);
    match expand() {
        Ok(done) => {
            assert_eq!(Ok(&done), expand().as_ref());
            lead_back(&main, &done.script);
            for (name, module) in &done.modules {
                lead_back(&sources[name.as_str()], module);
            }
            let said = String::from_utf8_lossy(script);
            let mapped = done.map_back(&said, "<input>", "dir");
            assert_eq!(said.lines().count(), mapped.lines().count());
        }
        Err(e) => assert!(!e.to_string().is_empty() && e.place.line > 0),
    }
});

/// Every byte of an expanded line that no macro gave is the user's own byte at its place.
fn lead_back(source: &Source, expanded: &Expanded) {
    let of = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (written, lines) = (of(&source.bytes), of(&expanded.text));
    // A first line of `#!` without its end gets one; a line of which nothing is left is none.
    assert!(lines.len() <= written.len());
    for (number, line) in (1_u32..).zip(&lines) {
        let user = &written[number as usize - 1];
        if number == 1 && user.starts_with(b"#!") {
            continue;
        }
        for (column, byte) in (1_u32..).zip(line) {
            let place = expanded.place(number, column);
            assert!(place.column >= 1 && place.column as usize <= user.len().max(1));
            if !place.is_macro {
                assert_eq!(user[place.column as usize - 1], *byte);
            }
        }
    }
}

fn hold_harmless(kind: ValueKind, value: &[u8]) {
    let text = std::str::from_utf8(value).expect("UTF-8");
    assert!(!text.contains(['\n', '\r', '\0', ';', '{', '}', '\\', '%', '#', '`', '\'', '[', ']', '<', '>', '|', '&']));
    for never in ["//", "/*", "@use ", "$*", "$^arg_", "$^pid_ok"] {
        assert!(!text.contains(never), "{text:?}");
    }
    if kind != ValueKind::ProbePoints {
        assert!(!text.contains(['"', '(', ')', '$', '*']), "{text:?}");
    }
    // Inside out: what would be code if the value stood within a string holds no call.
    for (i, piece) in text.split('"').enumerate() {
        assert!(i % 2 == 0 || !piece.contains(['(', ')']), "{text:?}");
    }
    assert!(text.matches('"').count() % 2 == 0, "{text:?}");
}
