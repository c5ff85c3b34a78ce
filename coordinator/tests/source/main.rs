//! Inlined functions and source lines, looked up in real programs of gcc's: what `fold` and `top` make of the text of
//! SystemTap and of perf, against what binutils' addr2line says of the same addresses.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on may panic; it starts compilers"
)]

mod built;

use built::{BASE, Built, addr2line, everywhere, folded, run};
use fleetflame::debug_info::{DebugFiles, Where};
use model::format::source::{CodePlace, DebugInfo as _, Untold};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;

fn fleetflame(args: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("fleetflame").unwrap();
    command.args(args).output().unwrap()
}

/// What `fold` makes of a text.
fn fold(text: &Path, more: &[&str]) -> BTreeMap<String, u64> {
    let mut args = vec!["fold", text.to_str().unwrap()];
    args.extend(more);
    let output = fleetflame(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("source-unknown"), "{said}");
    stacks(&output)
}

fn stacks(output: &Output) -> BTreeMap<String, u64> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = |l: &str| {
        let (stack, count) = l.rsplit_once(' ').unwrap();
        (stack.to_owned(), count.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// Without the process's name, which is the first frame of perf's stacks.
fn of_app(stacks: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let bare =
        |(stack, count): (String, u64)| (stack.strip_prefix("app;").unwrap().to_owned(), count);
    stacks.into_iter().map(bare).collect()
}

fn write(built: &Built, name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(built.path(name));
    std::fs::write(&path, text).unwrap();
    path
}

const BOTH: [&str; 2] = ["--inlines", "--lines"];

#[test]
fn every_instruction_has_the_functions_and_lines_that_addr2line_says() {
    for (flags, base) in [(["-pie", "-fPIE"], BASE), (["-no-pie", "-fno-pie"], 0)] {
        let built = Built::new(&flags);
        let (text, right) = everywhere(&built, &built.app, base);
        assert!(
            right.keys().any(|s| s.contains("mix(hot.h:4)_[i];do_idle")),
            "{right:?}"
        );
        assert_eq!(fold(&write(&built, "a.bt", &text), &BOTH), right);
        // The same as perf prints it; another file in its place; one of the two.
        let perf = text.lines().map(|line| {
            if let Some(frame) = line.strip_prefix(" 0x") {
                let (address, rest) = frame.split_once(" : ").unwrap();
                let (symbol, module) = rest.split_once(" [").unwrap();
                let (symbol, _) = symbol.rsplit_once('/').unwrap();
                let module = module.trim_end_matches(']');
                let module = if module == "kernel" {
                    "[kernel.kallsyms]"
                } else {
                    module
                };
                format!(
                    "\t{address:>16} {symbol} ({})\n",
                    module.replace("/app", "/old/app")
                )
            } else {
                "\napp 7/7 1.0: 1000 cpu-clock:\n".to_owned()
            }
        });
        let perf = format!("app 7/7 1.0: 1000 cpu-clock:\n{}", perf.collect::<String>());
        let perf = write(
            &built,
            "a.txt",
            perf.trim_end_matches("app 7/7 1.0: 1000 cpu-clock:\n"),
        );
        let mut args = BOTH.to_vec();
        args.extend(["--binary", &built.app]);
        assert_eq!(of_app(fold(&perf, &args)), right);
        args.remove(0);
        let outer = |stack: &str| {
            let frames = stack.split(';').filter(|f| !f.ends_with("_[i]"));
            frames.collect::<Vec<_>>().join(";")
        };
        let mut only_lines = BTreeMap::new();
        for (stack, count) in &right {
            *only_lines.entry(outer(stack)).or_default() += count;
        }
        assert_eq!(of_app(fold(&perf, &args)), only_lines);
    }
}

/// Takes the debug info out of the program, packed, into a file of its own.
fn split_off(built: &Built, packed: &str, to: &str) {
    let packed = format!("--compress-debug-sections={packed}");
    run("objcopy", &["--only-keep-debug", &packed, &built.app, to]);
    run(
        "objcopy",
        &["--strip-debug", "--strip-unneeded", &built.app],
    );
}

#[test]
fn debug_info_of_its_own_is_found_by_build_id_and_by_link_packed_or_not() {
    let built = Built::new(&["-pie", "-fPIE", "-Wl,--build-id=sha1"]);
    let (text, right) = everywhere(&built, "/opt/gateway/app", BASE);
    let text = write(&built, "a.bt", &text);
    let notes = run("readelf", &["-n", &built.app]);
    let id = notes
        .split("Build ID: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let root = built.path("root");
    let debug = format!(
        "{root}/usr/lib/debug/.build-id/{}/{}.debug",
        &id[..2],
        &id[2..]
    );
    for folder in ["opt/gateway", "empty"] {
        std::fs::create_dir_all(format!("{root}/{folder}")).unwrap();
    }
    std::fs::create_dir_all(Path::new(&debug).parent().unwrap()).unwrap();
    split_off(&built, "zlib", &debug);
    std::fs::copy(&built.app, format!("{root}/opt/gateway/app")).unwrap();
    let mut args = BOTH.to_vec();
    args.extend(["--symfs", &root]);
    assert_eq!(fold(&text, &args), right);

    // Gone: everything stays as it is, and is counted, with what to do.
    let moved = format!("{root}/opt/gateway/app.debug");
    std::fs::rename(&debug, &moved).unwrap();
    let mut words = vec!["fold", text.to_str().unwrap()];
    words.extend(&args);
    let without = fleetflame(&words);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(without.status.success(), "{said}");
    for part in [
        "source-unknown",
        "without debug info",
        "/opt/gateway/app",
        id,
        "-dbgsym",
        "debuginfod-find",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(stacks(&without), fold(&text, &[]));
    // By its link; a file of another checksum and without the build-id is not believed.
    let app = format!("{root}/opt/gateway/app");
    run(
        "objcopy",
        &[
            &format!("--add-gnu-debuglink={moved}"),
            "--remove-section=.note.gnu.build-id",
            &app,
        ],
    );
    assert_eq!(fold(&text, &args), right);
    run(
        "objcopy",
        &[
            "--remove-section=.note.gnu.build-id",
            "--remove-section=.comment",
            &moved,
        ],
    );
    let other = fleetflame(&words);
    assert!(String::from_utf8_lossy(&other.stderr).contains("without debug info"));
    // Not here at all.
    args[3] = "/nowhere";
    let none = fleetflame(&[&["fold", text.to_str().unwrap()], &args[..]].concat());
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let empty = format!("{root}/empty");
    args[3] = &empty;
    let none = fleetflame(&[&["fold", text.to_str().unwrap()], &args[..]].concat());
    let said = String::from_utf8_lossy(&none.stderr);
    assert!(
        said.contains("whose file is not here") && said.contains("--symfs"),
        "{said}"
    );
}

#[test]
fn bare_addresses_and_lines_of_one_function_are_those_of_a_fixed_program() {
    let built = Built::new(&["-no-pie", "-fno-pie"]);
    let instructions = built.instructions();
    let addresses: BTreeSet<u64> = instructions.iter().map(|i| i.0).collect();
    let known = addr2line(&built.app, &addresses);
    let (mut raw, mut right, mut lines) = (String::new(), BTreeMap::new(), BTreeMap::new());
    for (i, (at, name, ..)) in instructions.iter().enumerate() {
        let count = i as u64 + 1;
        raw.push_str(&format!("{at:#x} \t{count}\n"));
        *right.entry(folded(&known[at])).or_default() += count;
        if name == "work" {
            let (_, place) = known[at].last().unwrap();
            *lines.entry(place.clone()).or_insert(0) += count;
        }
    }
    let raw = write(&built, "raw.bt", &raw);
    let args = ["--inlines", "--lines", "--binary", &built.app];
    assert_eq!(fold(&raw, &args), right);

    let words = [
        "--json",
        "top",
        raw.to_str().unwrap(),
        "--by",
        "line",
        "--of",
        "work",
        "--binary",
        &built.app,
    ];
    let top = fleetflame(&words);
    let document: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    let rows = document["rows"].as_array().unwrap();
    let seen: BTreeMap<String, u64> = rows
        .iter()
        .map(|r| {
            (
                r["name"].as_str().unwrap().to_owned(),
                r["self"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, lines);
    assert_eq!(document["self"].as_u64(), Some(lines.values().sum()));
    let top = fleetflame(&[&words[1..5], &words[7..]].concat());
    let said = String::from_utf8_lossy(&top.stdout);
    assert!(top.status.success() && said.contains("  hot.h:4"), "{said}");
}

#[test]
fn another_build_is_noticed_and_what_has_no_addresses_is_refused() {
    let built = Built::new(&["-pie", "-fPIE"]);
    let module = &built.app;
    let text = format!(
        " 0x555555555001 : work+0x3/0x50 [{module}]\n 0x555555555001 : absent+0x3/0x50 [{module}]\n\t4\n"
    );
    let text = write(&built, "a.bt", &text);
    let output = fleetflame(&["fold", text.to_str().unwrap(), "--inlines"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("1 of 2 frames") && said.contains("another build of it"),
        "{said}"
    );
    assert!(said.contains("whose symbol is not in the file"), "{said}");
    assert_eq!(output.stdout, b"absent;work 4\n");
    let plain = write(&built, "a.folded", "a;b 1\n");
    let plain = plain.to_str().unwrap();
    for (args, words) in [
        (vec!["fold", plain, "--lines"], "no addresses"),
        (vec!["top", plain, "--by", "line"], "no addresses"),
        (vec!["top", plain, "--of", "a"], "--by line"),
        (vec!["fold", plain, "--binary", module], "--inlines"),
        (
            vec!["fold", plain, "--inlines", "--binary", "/no/such"],
            "/no/such",
        ),
        (
            vec![
                "fold",
                plain,
                "--from",
                "stap",
                "--compat-flamegraph",
                "--inlines",
            ],
            "--inlines",
        ),
    ] {
        let output = fleetflame(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(words),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn a_recording_of_perf_has_the_frames_that_perf_itself_inlines() {
    let built = Built::new(&["-pie", "-fPIE"]);
    let data = built.path("perf.data");
    let perf = |args: &[&str]| run("perf", args);
    perf(&[
        "record",
        "-q",
        "-e",
        "cpu-clock:u",
        "-F",
        "499",
        "--call-graph",
        "dwarf,4096",
        "-o",
        &data,
        &built.app,
        "400",
    ]);
    let script = |how: &str| {
        let text = perf(&[
            "script",
            "-i",
            &data,
            how,
            "-F",
            "comm,pid,tid,time,period,event,ip,sym,symoff,dso",
        ]);
        write(&built, "perf.txt", &text)
    };
    // What stands above main is libc's, which may have debug info here or not.
    let of = |stacks: BTreeMap<String, u64>| {
        let mut ours: BTreeMap<String, u64> = BTreeMap::new();
        for (stack, count) in stacks {
            if let Some(at) = stack.find(";main;") {
                *ours.entry(stack[at..].to_owned()).or_default() += count;
            }
        }
        ours
    };
    let own = of(stacks(&fleetflame(&[
        "fold",
        script("--inline").to_str().unwrap(),
    ])));
    let text = script("--no-inline");
    let output = fleetflame(&["fold", text.to_str().unwrap(), "--inlines"]);
    assert!(
        own.keys().any(|s| s.contains("work;turn_[i];mix_[i]")),
        "{own:?}"
    );
    assert_eq!(of(stacks(&output)), own);
}

#[test]
fn damaged_files_are_an_answer_and_no_end() {
    let built = Built::new(&["-pie", "-fPIE"]);
    let app = PathBuf::from(&built.app);
    let image = std::fs::read(&app).unwrap();
    let ask = |path: &Path| {
        let given = vec![(None, path.to_owned())];
        let mut files = DebugFiles::new(Where::new(None, given));
        let place = |offset| CodePlace {
            module: b"/usr/bin/app",
            symbol: b"work",
            offset: Some(offset),
            ..CodePlace::default()
        };
        (0..64).map(|o| files.frames(&place(o))).collect::<Vec<_>>()
    };
    let whole = ask(&app);
    assert!(
        whole.iter().flatten().any(|f| f[0].function == "mix"),
        "{whole:?}"
    );
    // Numbers that always come the same (a linear congruential generator, Knuth's constants).
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let (mut same, mut told) = (0, 0);
    for turn in 0..300 {
        let mut bytes = image.clone();
        for _ in 0..1 + turn % 8 {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        if turn % 10 == 0 {
            bytes.truncate(next(image.len()));
        }
        std::fs::write(&app, &bytes).unwrap();
        let now = ask(&app);
        same += usize::from(now == whole);
        told += usize::from(now.iter().any(Result::is_ok));
    }
    assert!(same < 300 && told > 0, "{same} {told}");
}

#[test]
fn entries_nested_deeper_than_a_compiler_nests_them_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, file) = (folder.path().join("a.c"), folder.path().join("a.so"));
    let ask = |depth: usize| {
        let blocks = "{ int b = a + 1; a = b; ".repeat(depth);
        let text = format!(
            "int f(int a) {{ {blocks} {} return a; }}\n",
            "}".repeat(depth)
        );
        std::fs::write(&source, text).unwrap();
        let (source, file) = (source.to_str().unwrap(), file.to_str().unwrap());
        run(
            "gcc",
            &["-shared", "-fPIC", "-O0", "-g", "-o", file, source],
        );
        let given = vec![(None, PathBuf::from(file))];
        let place = CodePlace {
            symbol: b"f",
            offset: Some(8),
            ..CodePlace::default()
        };
        DebugFiles::new(Where::new(None, given)).frames(&place)
    };
    assert!(ask(100).is_ok());
    assert_eq!(ask(600), Err(Untold::Damaged));
}
