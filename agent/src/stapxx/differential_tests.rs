//! The expansion against the slow one of `reference_tests`. In: scripts made at random of pieces of all
//! six forms. Out: any difference in text, modules, words or errors. Never: other scripts on another
//! machine.
//!
//! `FLEETFLAME_STAPXX_LINES` sets how many lines are compared (100,000 without it).

use super::reference_tests::{Seen, by_reference, forms, lossy};
use super::{Bindings, Purpose, Source, expand};
use std::collections::BTreeMap;

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
            let word = dice.of(&["default", "default", "default", "other"]);
            *out += &format!(
                "$^arg_{}{blank}:{word}({})",
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
                let words = said.split(": ").nth(2).unwrap_or(&said);
                // The begin of the words, up to what they name.
                let kind = words
                    .char_indices()
                    .nth(6)
                    .map_or(words, |(end, _)| &words[..end]);
                *failed.entry(kind.to_owned()).or_default() += 1;
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
    for kind in [
        "$^arg_", "$^exec", "@use l", "No -x ", "Undefi", "cannot", "unknow",
    ] {
        assert!(failed.contains_key(kind), "no error {kind}: {failed:?}");
    }
}
