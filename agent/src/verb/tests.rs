//! The verbs expand and args as they are typed, and every example script.

use super::{args, expand};
use clap::Parser;
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Typed {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Expand(Box<expand::Arguments>),
    Args(args::Arguments),
}

/// What a line prints, or what it is refused with.
fn typed(words: &[&str]) -> Result<String, String> {
    let line = std::iter::once("fleetflame-agent").chain(words.iter().copied());
    let bytes = match Typed::try_parse_from(line).map_err(|e| e.to_string())?.verb {
        Verb::Expand(arguments) => expand::answer(&arguments)?,
        Verb::Args(arguments) => args::answer(&arguments)?.into_bytes(),
    };
    Ok(String::from_utf8(bytes).expect("UTF-8"))
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("probes/examples")
}

/// The path of an example.
fn example(name: &str) -> String {
    examples().join(name).display().to_string()
}

#[test]
fn every_example_expands_for_every_kind_of_target() {
    let own = std::process::id().to_string();
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sxx") {
            continue;
        }
        seen += 1;
        let file = path.display().to_string();
        for target in [&["-x", &own][..], &["--exec", "/bin/sh"]] {
            let text = typed(&[&["expand", "--strict", &file][..], target].concat()).unwrap();
            assert!(
                !text.contains("$^") && !text.contains("@use "),
                "{file}: {text}"
            );
        }
        let listed = typed(&["args", "--json", &file]).unwrap();
        assert!(!listed.contains("\"required\": true"), "{listed}");
        assert!(
            !typed(&["expand", "-x", &own, &file])
                .unwrap()
                .contains("\r")
        );
    }
    assert!(seen >= 6, "{seen} examples");
}

#[test]
fn a_hostile_value_is_refused_before_anything_is_read() {
    for value in ["x\"); system(\"id", "1\nprobe begin { }", "%{ x %}", "a'b"] {
        let pair = format!("str={value}");
        let said = typed(&["expand", "/no/such/file", "--arg", "time=5", "--arg", &pair]);
        let said = said.unwrap_err();
        assert!(
            said.contains("[script-argument]") && said.contains("--arg str"),
            "{said}"
        );
    }
    let said = typed(&["expand", "/no/such/file", "--arg", "time=5"]).unwrap_err();
    assert_eq!(
        said,
        "Cannot open /no/such/file for reading: No such file or directory"
    );
    assert!(typed(&["expand", "-e", "x", "--arg", "time"]).is_err());
    assert!(
        typed(&["expand", "-e", "x", "--stap=-g"])
            .unwrap_err()
            .contains("kernel")
    );
}

#[test]
fn the_command_and_the_modules_are_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let modules = dir.path().join("it's m").display().to_string();
    let own = std::process::id().to_string();
    let file = example("syscall-latency.sxx");
    let line = [
        "expand", &file, "-x", &own, "-DX=1", "-D", "Y=2", "-v", "-c", "sleep 1",
    ];
    let command = typed(&[&line[..], &["--command", "--modules", &modules]].concat()).unwrap();
    assert!(
        command.starts_with("stap -v -DX=1 -DY=2 -DMAXACTION=100000 "),
        "{command}"
    );
    assert!(
        command.ends_with("it'\\''s m' -c 'sleep 1' -\n"),
        "{command}"
    );
    let module = std::fs::read_to_string(Path::new(&modules).join("elapsed.stp")).unwrap();
    assert!(module.contains("function elapsed_us"), "{module}");

    // What stap 4.8 said to this script when its module had a mistake in line 11.
    let stderr = dir.path().join("err").display().to_string();
    let plain = dir.path().join("m").display().to_string();
    let said = |place: &str| {
        format!(
            "semantic error: type definition 'nosuch' not found in '': operator '@cast' at {place}:11:12\n"
        )
    };
    std::fs::write(&stderr, said(&format!("{plain}/elapsed.stp"))).unwrap();
    let line = [
        "expand",
        &file,
        "-x",
        &own,
        "--modules",
        &plain,
        "--explain",
        &stderr,
    ];
    let source = example("tapset/elapsed.sxx");
    assert_eq!(typed(&line).unwrap(), said(&source));
}

#[test]
fn targets_that_are_not_there_are_told_in_stapxx_s_words() {
    for (line, said) in [
        (
            &["-x", "4294967295"][..],
            "Nginx process 4294967295 is not running or you do not have enough permissions.",
        ),
        (
            &["-x", "1", "--master", "1"],
            "-x <pid> and --master <pid> are exclusive.",
        ),
        (&["--exec", "/no/such"], "/no/such not found."),
        (
            &["--args", "--arg", "a=1"],
            "No --arg is allowed when --args is specified.",
        ),
    ] {
        let words = [&["expand", "-e", "probe begin { }"], line].concat();
        assert_eq!(typed(&words).unwrap_err(), said);
    }
    assert_eq!(typed(&["expand"]).unwrap_err(), "No input file specified.");
    let own = std::process::id().to_string();
    let none = typed(&["expand", "-e", "x", "--master", &own]).unwrap_err();
    assert_eq!(none, format!("No child processes found for {own}."));
}

#[test]
fn arguments_are_listed_with_what_is_required() {
    let text = typed(&[
        "args",
        "-e",
        "$^arg_a $^arg_b :default(1) $^arg_a :default(2)",
    ])
    .unwrap();
    assert_eq!(
        text,
        "\t--arg a=VALUE (required: its default \"2\" stands behind its first use)\n\t--arg b=VALUE (default: 1)\n"
    );
    assert_eq!(
        typed(&["expand", "--args", "-e", "$^arg_b:default()"]).unwrap(),
        "\t--arg b=VALUE (default: )\n"
    );
}

#[test]
fn strict_refuses_what_is_almost_surely_a_mistake() {
    for script in [
        "x",
        "$^arg_a :default(1)\n$^arg_a :default(2)",
        "$^arg_q :default(f(1))",
    ] {
        let line = ["expand", "-e", script, "--arg", "b=1", "--strict"];
        let said = typed(&line).unwrap_err();
        assert!(said.contains("[script-suspicious]"), "{said}");
        assert!(typed(&line[..5]).is_ok());
    }
}

#[test]
fn lua_functions_are_named_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core.lua");
    std::fs::write(&path, "local M = {}\nfunction M.get(k)\n").unwrap();
    let path = path.display();
    let stacks = format!("@{path}:2\nT:@{path}:2\n@/gone.lua:2\nmain\n\t3\r\n\u{e4}@\n");
    let mut bytes = stacks.into_bytes();
    bytes.extend_from_slice(b"\xff\xfe@x:1\nend");
    let mut named = Vec::new();
    super::lua_names::rename(&bytes[..], &mut named).unwrap();
    let named = String::from_utf8_lossy(&named).into_owned();
    let begin = "core.lua:M.get\nT:core.lua:M.get\n@/gone.lua:2\nmain\n\t3\r\n";
    assert!(
        named.starts_with(begin) && named.ends_with("@x:1\nend"),
        "{named}"
    );
}

#[test]
fn a_hash_changes_with_the_script_and_its_modules() {
    let file = example("syscall-latency.sxx");
    let hash = typed(&["expand", "--hash", &file]).unwrap();
    assert_eq!(hash.len(), 65, "{hash}");
    let text = std::fs::read_to_string(&file).unwrap();
    let tapset = example("tapset");
    assert_eq!(
        typed(&["expand", "--hash", "-I", &tapset, "-e", &text]).unwrap(),
        hash
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("elapsed.sxx"), "# another").unwrap();
    let other = dir.path().display().to_string();
    assert_ne!(
        typed(&["expand", "--hash", "-I", &other, "-e", &text]).unwrap(),
        hash
    );
}
