//! Frames with their source, of both formats that have addresses.

use super::*;
use crate::format::folded;
use crate::format::import::{Format, Import, ImportError, ImportOptions, Imported};
use proptest::prelude::*;

/// Knows `hot` in `/bin/app`: `deep` inlined into `mid` inlined into it. Says what it was asked.
#[derive(Debug, Default)]
struct Known {
    places: std::rc::Rc<std::cell::RefCell<Vec<String>>>,
}

impl DebugInfo for Known {
    fn frames(&mut self, place: &CodePlace<'_>) -> Result<Vec<SourceFrame>, Untold> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| format!("{n:x}"));
        self.places.borrow_mut().push(format!(
            "{} {}+{}/{} {} {:?} {} {}",
            text(place.module),
            text(place.symbol),
            number(place.offset),
            number(place.size),
            number(place.address),
            place.mapped,
            number(place.in_file),
            if place.is_return { "return" } else { "leaf" },
        ));
        let frame = |function: &str, line| SourceFrame {
            function: function.into(),
            file: "a.c".into(),
            line,
        };
        match place.symbol {
            b"hot" => Ok(vec![
                frame("deep", 3),
                frame("mid", 2),
                frame("", if place.is_return { 1 } else { 9 }),
            ]),
            b"wrong" => Ok(vec![frame("right", 5)]),
            b"" if place.address == Some(0x40) || place.mapped.is_some() => {
                Ok(vec![frame("by_address", 6)])
            }
            b"" => Err(Untold::NoFile),
            _ => Err(Untold::NoSymbol),
        }
    }

    fn build_id(&self, module: &[u8]) -> Option<String> {
        (module == b"/bin/app").then(|| "abcd".to_owned())
    }
}

const BOTH: SourceOptions = SourceOptions {
    inlines: true,
    lines: true,
};

fn read(text: &str, format: Format, options: SourceOptions) -> (Imported, Vec<String>) {
    let known = Known::default();
    let places = std::rc::Rc::clone(&known.places);
    let how = ImportOptions {
        format: Some(format),
        ..ImportOptions::new("h")
    };
    let mut import = Import::new(how).with_source(Box::new(known), options);
    import.feed(text.as_bytes()).unwrap();
    let imported = import.finish().unwrap();
    let places = places.borrow().clone();
    (imported, places)
}

fn written(imported: &Imported) -> String {
    let profile = &imported.profile;
    folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
}

const STAP: &str = " 0xffffffff81000010 : do_idle+0x10/0x20 [kernel]
 0x55550010 : hot+0x10/0x90 [/bin/app]
 0x55550020 : hot+0x20/0x90 at x.c:1 [/bin/app] (inexact)
 0x55550030 : wrong+0x30/0x90 [/bin/app (deleted)]
 0x55550040 [/bin/app+0x40/0x1000]
 0x55550050 : other+0x50/0x90 [/bin/app]
 0x7fff0010 : time+0x10/0x20 [[vdso]]
@/a.lua:12
\t3
hot+0x11 [app]
hot+0x22
\t2
0x40 0x41 \t1
";

#[test]
fn frames_of_systemtap_get_their_inlined_functions_and_lines() {
    let (imported, places) = read(STAP, Format::Stap, BOTH);
    assert_eq!(
        written(&imported),
        "/a.lua:12;time;other;by_address(a.c:6);right(a.c:5);hot(a.c:1);mid(a.c:2)_[i];deep(a.c:3)_[i];\
         hot(a.c:9);mid(a.c:2)_[i];deep(a.c:3)_[i];do_idle_[k] 3\n\
         [unknown];by_address(a.c:6) 1\n\
         hot(a.c:1);mid(a.c:2)_[i];deep(a.c:3)_[i];hot(a.c:9);mid(a.c:2)_[i];deep(a.c:3)_[i] 2\n"
    );
    assert_eq!(
        places,
        [
            "/bin/app hot+10/90 55550010 None - leaf",
            "/bin/app hot+20/90 55550020 None - return",
            "/bin/app (deleted) wrong+30/90 55550030 None - return",
            "/bin/app +-/- 55550040 Some((64, Some(4096))) - return",
            "/bin/app other+50/90 55550050 None - return",
            "app hot+11/- - None - leaf",
            " hot+22/- - None - return",
            " +-/- 40 None - leaf",
            " +-/- 41 None - return",
        ]
    );
    let stats = imported.stats.source.unwrap();
    assert_eq!(stats.told, 7);
    let untold: Vec<_> = (stats.untold.iter())
        .map(|u| (u.file.as_str(), u.why, u.build_id.as_deref(), u.frames))
        .collect();
    assert_eq!(
        untold,
        [
            ("", Untold::NoFile, None, 1),
            ("/bin/app", Untold::NoSymbol, Some("abcd"), 1),
        ]
    );
    assert_eq!(imported.stats.notes.len(), 1, "{:?}", imported.stats.notes);
}

#[test]
fn each_of_the_two_can_be_had_alone() {
    let text = " 0x10 : hot+0x1/0x9 [/bin/app]\n\t1\n";
    let (inlines, lines) = (true, true);
    let only_inlines = SourceOptions {
        inlines,
        lines: false,
    };
    let (imported, _) = read(text, Format::Stap, only_inlines);
    assert_eq!(written(&imported), "hot;mid_[i];deep_[i] 1\n");
    let only_lines = SourceOptions {
        inlines: false,
        lines,
    };
    let (imported, _) = read(text, Format::Stap, only_lines);
    assert_eq!(written(&imported), "hot(a.c:9) 1\n");
}

const PERF: &str = "app 7/7 1.5: 1000 cpu-clock:
\tffffffff81000010 do_idle+0x10 ([kernel.kallsyms])
\t        55550010 hot+0x10 (/bin/app)
\t        55550020 wrong+0x20 (/bin/app+0x20)
\t        55550030 inner (inlined)
\t        55550030 hot+0x30 (/bin/app)
\t        55550040 [unknown] ([heap])
\t        55550050 js+0x1 (/tmp/perf-7.map)

app 7/7 1.6: 1000 cpu-clock:
\t        55550010 hot+0x10 (/bin/app)
\t        55550020 stop+0x1 (/bin/app)

";

#[test]
fn frames_of_perf_get_theirs_and_what_it_has_inlined_itself_is_not_there_twice() {
    let (imported, places) = read(PERF, Format::Perf, BOTH);
    assert_eq!(
        written(&imported),
        "js_[j];[heap];hot(a.c:1);inner_[i];right(a.c:5);hot(a.c:9);mid(a.c:2)_[i];deep(a.c:3)_[i];do_idle_[k] 1\n\
         stop;hot(a.c:9);mid(a.c:2)_[i];deep(a.c:3)_[i] 1\n"
    );
    assert_eq!(
        places,
        [
            "/bin/app hot+10/- 55550010 None - leaf",
            "/bin/app wrong+20/- 55550020 None 20 return",
            "/bin/app hot+30/- 55550030 None - return",
            "/bin/app stop+1/- 55550020 None - return",
        ]
    );
    let mut how = ImportOptions {
        format: Some(Format::Perf),
        ..ImportOptions::new("h")
    };
    how.perf.skip_after = vec!["wrong".to_owned()];
    let mut import = Import::new(how).with_source(Box::new(Known::default()), BOTH);
    import.feed(PERF.as_bytes()).unwrap();
    let imported = import.finish().unwrap();
    let text = written(&imported);
    assert!(text.starts_with("right(a.c:5);hot(a.c:9);"), "{text}");
}

#[test]
fn what_has_no_addresses_is_refused() {
    for (format, text) in [
        (Format::Folded, "a;b 1\n"),
        (Format::Bpftrace, "@[\n a\n]: 1\n"),
    ] {
        let how = ImportOptions {
            format: Some(format),
            ..ImportOptions::new("h")
        };
        let mut import = Import::new(how).with_source(Box::new(Known::default()), BOTH);
        let fed = import.feed(text.as_bytes());
        let ended = fed.and_then(|()| import.finish().map(|_| ()));
        assert_eq!(ended, Err(ImportError::NoAddresses(format.word())));
    }
}

#[test]
fn names_with_lines_come_apart() {
    let split = |name| split_line(name);
    assert_eq!(split("f(a.c:12)"), Some(("f", "a.c", 12)));
    assert_eq!(split("f(int)(a b.c:1)"), Some(("f(int)", "a b.c", 1)));
    for none in [
        "f",
        "f()",
        "(a.c:1)",
        "f(a.c:0)",
        "f(:1)",
        "f(a.c:1",
        "f(a.c:-1)",
    ] {
        assert_eq!(split(none), None, "{none}");
    }
}

proptest! {
    /// Counts, stacks and what is no stack are the same with somebody who knows, and with somebody who
    /// does not, all is the same.
    #[test]
    fn looking_up_changes_names_only(lines in prop::collection::vec(0_usize..12, 0..60)) {
        let all: Vec<&str> = STAP.lines().chain([" 0x0", "WARNING: x", ""]).collect();
        let text: String = lines.iter().map(|i| format!("{}\n", all[i % all.len()])).collect();
        let plain = crate::format::import::import(text.as_bytes(), ImportOptions {
            format: Some(Format::Stap),
            ..ImportOptions::new("h")
        }).unwrap();
        let (with, _) = read(&text, Format::Stap, BOTH);
        let numbers = |i: &Imported| (i.stats.samples, i.stats.stacks, i.stats.lines, i.stats.foreign.clone(), i.stats.notes.clone());
        prop_assert_eq!(numbers(&with), numbers(&plain));
        let nobody = SourceOptions { inlines: false, lines: false };
        let text = text.replace("wrong", "hot").replace("/bin/app+0x40", "[heap]+0x40").replace("0x40 ", "0x41 ");
        let (without, _) = read(&text, Format::Stap, nobody);
        let plain = crate::format::import::import(text.as_bytes(), ImportOptions {
            format: Some(Format::Stap),
            ..ImportOptions::new("h")
        }).unwrap();
        prop_assert_eq!(written(&without), written(&plain));
    }
}
