//! The language by example: forms, quirks and words of stap++ as they were seen in the original.

use super::*;
use std::collections::BTreeMap;

/// Expands with modules by name.
fn run(
    script: &str,
    bindings: &Bindings,
    purpose: Purpose,
    modules: &[(&str, &str)],
) -> Result<Expansion, ExpandError> {
    let source = |file: String, text: &str| Source {
        file,
        bytes: text.into(),
    };
    let modules: BTreeMap<&str, &str> = modules.iter().copied().collect();
    expand(
        &source("-e".into(), script),
        bindings,
        purpose,
        &mut |name| Some(source(format!("./{name}.sxx"), modules.get(name)?)),
    )
}

fn bound() -> Bindings {
    let mut bindings = Bindings {
        exec_path: Some("/sbin/nginx".into()),
        ..Bindings::default()
    }
    .for_process(7);
    bindings.libraries = [
        "/l/libluajit-5.1.so.2",
        "/l/libpcre2-8.so.0",
        "/l/libz.so.1",
    ]
    .map(str::to_owned)
    .into();
    bindings.arguments = [("time", "5"), ("f", "@pfunc(a)")]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
    bindings
}

fn text(script: &str) -> String {
    let done = run(script, &bound(), Purpose::Run, &[]).expect(script);
    String::from_utf8(done.script.text).expect("UTF-8")
}

fn error(script: &str) -> String {
    run(
        script,
        &bound(),
        Purpose::Run,
        &[("m", "a\nb $^arg_q"), ("e", "")],
    )
    .expect_err(script)
    .to_string()
}

#[test]
fn each_form_is_replaced() {
    for (script, expanded) in [
        ("#!/usr/bin/stap++ $^none\nx", "#!/usr/bin/env stap\nx"),
        ("#! $^none", "#!/usr/bin/env stap\n"),
        ("a\n#! $^target\n", "a\n#! 7\n"),
        ("timer.s($^arg_time)", "timer.s(5)"),
        ("$^arg_x :default(1) $^arg_x", "1 1"),
        ("$^arg_x:default () .$^arg_x.", " .."),
        ("$^arg_time :default(1)", "5"),
        ("$^arg_time:other(1)", "5"),
        (
            "@pfunc( g ) @pfunc g",
            "process(\"/sbin/nginx\").function(\"g\") @pfunc g",
        ),
        ("$^arg_f", "process(\"/sbin/nginx\").function(\"a\")"),
        (
            "$^exec_path|$^target|$^pid_ok",
            "/sbin/nginx|7|pid() == target()",
        ),
        (
            "$^libluajit_path $^libssl_path",
            "/l/libluajit-5.1.so.2 /sbin/nginx",
        ),
        ("$*a := @cast(b, \"c\")[0] $*a", " @cast(b, \"c\")[0]"),
        ("x $*a:=&@var(\"b\")[12]; $*a->c", "x ; &@var(\"b\")[12]->c"),
        ("$*a := @cast(b(c), \"d\") $*a", ", \"d\") @cast(b(c)"),
        (
            "%( \"$^arg_time\" != \"\" %? x %)",
            "%( \"5\" != \"\" %? x %)",
        ),
        ("# $^arg_time", "# 5"),
        ("$^ $* @use @use", "$^ $* @use @use"),
        ("$^x :default($^target) $^x", "$^target $^target"),
        ("$^arg_y :default($^target)", "7"),
        ("\u{e4}$^target\u{e4} \r\n", "\u{e4}7\u{e4} \r\n"),
    ] {
        assert_eq!(text(script), expanded, "{script}");
    }
}

#[test]
fn a_default_ends_at_the_first_parenthesis_and_stays() {
    assert_eq!(text("$^arg_x :default(foo(1))  $^arg_x"), "foo(1)  foo(1");
    let done = run(
        "$^arg_x :default(1)\n$^arg_x :default(f(2))",
        &bound(),
        Purpose::Run,
        &[],
    )
    .unwrap();
    assert_eq!(done.script.text, b"1\n1)");
    let kinds: Vec<NoticeKind> = done.notices.iter().map(|n| n.kind).collect();
    assert_eq!(
        kinds,
        [
            NoticeKind::DefaultShadowed,
            NoticeKind::ArgumentUnused,
            NoticeKind::ArgumentUnused
        ]
    );
}

#[test]
fn modules_share_arguments_and_keep_their_own_variables() {
    let modules = [
        ("a.b", "#!x\n$*v := @var(\"v\") $^arg_x :default(3)\n@use c"),
        ("c", "function c() { }"),
    ];
    let done = run("@use a.b , c.\n$^arg_x", &bound(), Purpose::Run, &modules).unwrap();
    assert_eq!(done.script.text, b".\n3");
    assert_eq!(done.modules["a.b"].text, b"#!/usr/bin/env stap\n 3\n");
    assert_eq!(done.modules["c"].text, b"function c() { }");
    let leak = run("@use a.b\n$*v", &bound(), Purpose::Run, &modules).unwrap_err();
    assert_eq!(leak.to_string(), "-e: line 2: Undefined user varaible $*v.");
}

#[test]
fn errors_are_in_stapxx_s_words() {
    for (script, said) in [
        (
            "\n$^arg_x",
            "-e: line 2: $^arg_x is used but no --arg x=VAL option is specified.",
        ),
        (
            "$^arg_x : default(1)",
            "-e: line 1: $^arg_x is used but no --arg x=VAL option is specified.",
        ),
        (
            "$^arg_x $^arg_x :default(1)",
            "-e: line 1: $^arg_x is used but no --arg x=VAL option is specified.",
        ),
        ("$^arg_x:foo(1)", "-e: line 1: unknown trait name: foo"),
        ("$^arg_", "-e: line 1: Undefined built-in variable $^arg_."),
        (
            "$^ab-c_path",
            "-e: line 1: Undefined built-in variable $^ab.",
        ),
        ("$*v", "-e: line 1: Undefined user varaible $*v."),
        ("$*v := 1", "-e: line 1: Undefined user varaible $*v."),
        (
            "@use e, missing",
            "-e: line 1: cannot find @use library missing",
        ),
        (
            "@use m",
            "./m.sxx: line 2: $^arg_q is used but no --arg q=VAL option is specified.",
        ),
    ] {
        assert_eq!(error(script), said, "{script}");
    }
    let nothing = Bindings::default();
    let said = |script| {
        run(script, &nothing, Purpose::Run, &[])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said("@pfunc(a)"),
        "-e: line 1: $^exec_path is used but neither -x <pid> nor --exec <path> is specified."
    );
    assert_eq!(said("$^libx_path"), "No -x <pid> option is specified.");
    assert_eq!(
        said("$^pid_ok"),
        "-e: line 1: Undefined built-in variable $^pid_ok."
    );
}

#[test]
fn a_module_that_uses_itself_is_an_error() {
    let modules = [
        ("a", "@use b"),
        ("b", "\n @use a"),
        ("c", "@use d"),
        ("d", ""),
    ];
    let error = run("@use a", &bound(), Purpose::Run, &modules).unwrap_err();
    assert_eq!(error.place.line, 2);
    assert_eq!(error.place.column, 2);
    assert_eq!(
        error.to_string(),
        "./b.sxx: line 2: @use library a uses itself: a -> b -> a."
    );
    assert!(run("@use c, d, c", &bound(), Purpose::Run, &modules).is_ok());
}

#[test]
fn growth_is_bounded() {
    let line = format!(
        "$^arg_x :default({}) {}",
        "y".repeat(60_000),
        "$^arg_x ".repeat(60_000)
    );
    assert_eq!(error(&line), "-e: line 1: the line becomes too long.");
    let script = format!("$^arg_x :default({})\n", "y".repeat(60_000)) + &"$^arg_x\n".repeat(100);
    assert!(error(&script).ends_with("the script becomes larger than 4 MiB."));
}

#[test]
fn notices_are_what_stapxx_says() {
    let script = "$^libluajit_path $^libpcre_path\n $^libssl_path $^libssl_path $^arg_f";
    let done = run(script, &bound(), Purpose::Run, &[]).unwrap();
    let said: Vec<String> = done.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        said[0],
        "Found exact match for libluajit: /l/libluajit-5.1.so.2"
    );
    assert_eq!(said[1], "Found exact match for libpcre: /l/libpcre2-8.so.0");
    assert!(said[2].contains("probably another library"), "{said:?}");
    assert_eq!(
        said[3],
        "-e: line 2: libssl is not found, assuming it is statically linked."
    );
    assert_eq!(
        said[4],
        "WARNING: $^arg_time is defined by \"--arg time=5\", but never used."
    );
    let mistakes = done.notices.iter().filter(|n| n.is_mistake()).count();
    assert_eq!((said.len(), mistakes), (5, 2));
}

#[test]
fn arguments_are_listed_as_they_really_are() {
    let script = "$^arg_a $^arg_b :default(1)\n$^arg_a :default(2) $^libx_path @use m";
    let nothing = Bindings::default();
    let modules = [("m", "$^arg_c :default(x y) $^exec_path")];
    let done = run(script, &nothing, Purpose::List, &modules).unwrap();
    let list: Vec<_> = done
        .arguments
        .iter()
        .map(|(name, asked)| {
            let text =
                |b: &Option<Vec<u8>>| b.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            (
                name.as_str(),
                asked.first.line,
                text(&asked.default),
                text(&asked.late_default),
            )
        })
        .collect();
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(
        list,
        [
            ("a", 1, None, some("2")),
            ("b", 1, some("1"), None),
            ("c", 1, some("x y"), None)
        ]
    );
}

#[test]
fn places_lead_back_to_the_user_s_lines() {
    let script = "probe @pfunc(f) { x($^target) y }\n";
    let modules = [(
        "lua.gc",
        "\nfunction g() { $*v := @var(\"v\") return $*v->oops }",
    )];
    let done = run(
        &format!("{script}@use lua.gc"),
        &bound(),
        Purpose::Run,
        &modules,
    )
    .unwrap();
    let line = String::from_utf8_lossy(&done.script.text).into_owned();
    let at = |what: &str| u32::try_from(line.find(what).unwrap()).unwrap() + 1;
    let column = |what: &str| u32::try_from(script.find(what).unwrap()).unwrap() + 1;
    for (expanded, written, is_macro) in [
        ("probe", "probe", false),
        ("function(\"f", "@pfunc", true),
        ("{ x", "{ x", false),
        ("7)", "$^target", true),
        ("y }", "y }", false),
    ] {
        let place = done.script.place(1, at(expanded));
        assert_eq!(
            (place.column, place.is_macro),
            (column(written), is_macro),
            "{expanded}"
        );
    }
    let module = String::from_utf8_lossy(&done.modules["lua.gc"].text).into_owned();
    let oops = module.lines().nth(1).unwrap().find("oops").unwrap() + 1;
    let said = format!(
        "semantic error: unable to find member: operator '->' at stapxx-X1/lua.gc.stp:2:{oops}\n\
         parse error at <input>:1:1 and other.stp:1:1"
    );
    let wanted = modules[0].1.lines().nth(1).unwrap().find("oops").unwrap() + 1;
    assert_eq!(
        done.map_back(&said, "<input>", "stapxx-X1"),
        format!(
            "semantic error: unable to find member: operator '->' at ./lua.gc.sxx:2:{wanted}\n\
             parse error at -e:1:1 and other.stp:1:1"
        )
    );
}
