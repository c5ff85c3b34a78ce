//! Tests: each shape, each fault of stackcollapse-stap.pl, recordings, and what goes in comes out.

use crate::format::fold::FoldLimits;
use crate::format::folded;
use crate::format::import::{Format, Import, ImportOptions, ImportStats, Imported, import};
use crate::profile::FrameKind;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn read_as(text: &[u8], keep_offsets: bool) -> Imported {
    let options = ImportOptions {
        format: Some(Format::Stap),
        keep_offsets,
        ..ImportOptions::new("h")
    };
    import(text, options).unwrap()
}

fn written(imported: &Imported) -> String {
    let profile = &imported.profile;
    folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
}

fn read(text: &str) -> (String, ImportStats) {
    let imported = read_as(text.as_bytes(), false);
    (written(&imported), imported.stats)
}

fn recording(name: &str) -> (String, ImportStats) {
    let path = format!("{}/testdata/stap/{name}", env!("CARGO_MANIFEST_DIR"));
    let imported = import(&std::fs::read(path).unwrap(), ImportOptions::new("h")).unwrap();
    assert_eq!(imported.detections[0].format, Format::Stap);
    (written(&imported), imported.stats)
}

fn foreign(stats: &ImportStats) -> Vec<(&str, u64)> {
    let kinds = stats.foreign.kinds();
    kinds.map(|(kind, lines)| (kind, lines.lines)).collect()
}

#[test]
fn every_shape_of_a_frame_is_read() {
    for (line, label) in [
        (" 0x40252a : main+0x32a/0xd9b [/usr/sbin/nginx]", "main"),
        (" 0x40252a : main+0x32a/0xd9b", "main"),
        (" 0x40252a : a+0x1/0x2 [/b] (inexact)", "a"),
        (" 0x40252a : a+0x1/0x0 [/b]", "a"),
        (" 0x40252a : a+0x1/0 [/b]", "a"),
        (" 0x40252a : a+0x123456789a/0x123456789abc [/b]", "a"),
        (
            " 0x40252a : main+0x1/0x2 at /src/a b.c:12 [/usr/sbin/nginx]",
            "main",
        ),
        (" 0x40252a : main+0x1/0x2 at /src/a.c:12", "main"),
        (
            " 0xffffffff81022160 : ep_poll+0x160/0xf02 [kernel]",
            "ep_poll_[k]",
        ),
        (
            " 0xffffffffc0a01010 : nf_ct_get+0x1/0xf [nf_conntrack]",
            "nf_ct_get_[k]",
        ),
        (" 0xffff800008123456 : el0_svc+0x1/0xf", "el0_svc_[k]"),
        (
            " 0xffff7fffffffffff : not_kernel+0x1/0xf [/a]",
            "not_kernel",
        ),
        (" 0xffffffff920677a5 (inexact)", "[unknown]_[k]"),
        (" 0xffffffffc068e942 [fmt+0xd942/0x0]", "[fmt]_[k]"),
        (
            " 0x7f0050485f82 [/usr/lib/libluajit-5.1.so.2.1.0+0x17382/0x200000]",
            "[libluajit-5.1.so.2.1.0]",
        ),
        (" 0x7f00 [/a/b.so+0x1/0x2] at /src/b.c:3", "[b.so]"),
        (
            " 0x7f2a45f4224a : 0x7f2a45f4224a [/lib/libc.so.6+0x2724a/0x1d5000]",
            "[libc.so.6]",
        ),
        (" 0x555ae85a0173 : 0x555ae85a0173", "[unknown]"),
        (" 0x400003e0", "[unknown]"),
        ("0x400003e0", "[unknown]"),
        ("0x7f2a45f4224a [libc.so.6+0x2724a]", "[libc.so.6]"),
        ("spin+0xa [deep]", "spin"),
        ("spin+0xa", "spin"),
        (" spin+0xa/0x2c [/w/deep]", "spin"),
        ("do_sys+0xa/0x2c [kernel]", "do_sys_[k]"),
        (" 0x1 : a [b] c+0x1/0x2 [/d [e]/f]", "a [b] c"),
        (
            " 0x1 : operator+(A const&, B)+0x10/0x20 [/x]",
            "operator+(A const&, B)",
        ),
        ("std::f(int, char)+0x10", "std::f(int, char)"),
        (" 0x1 : a;b+0x1/0x2 [/x]", "a:b"),
        (" 0x1 : 100%done+0x1/0x2 [/x]", "100%done"),
        (" 0x1 : 12345+0x1/0x2 [/x]", "12345"),
        (" 0x1 : x : y+0x1/0x2 [/x]", "x : y"),
        (" 0x1 : nooffset [/x]", "nooffset"),
        ("@/opt/a+b/c.lua:3", "/opt/a+b/c.lua:3"),
        ("@/opt/with blank.lua:3", "/opt/with blank.lua:3"),
        ("/opt/a/handler.lua:42", "/opt/a/handler.lua:42"),
        ("T:@/opt/a/handler.lua:42", "/opt/a/handler.lua:42_[j]"),
        (
            "=access_by_lua(nginx.conf:12):1",
            "access_by_lua(nginx.conf:12):1",
        ),
        ("access_by_lua:1", "access_by_lua:1"),
        ("resty.redis:connect", "resty.redis:connect"),
        ("C:ngx_http_lua_ngx_echo", "ngx_http_lua_ngx_echo"),
        ("C:0x7f001122", "[unknown]"),
        ("builtin#23", "builtin#23"),
        ("[tail]", "[tail]"),
    ] {
        let (out, stats) = read(&format!("{line}\n\t7\n"));
        assert_eq!(out, format!("{label} 7\n"), "{line}");
        assert_eq!((stats.stacks, stats.foreign.lines()), (1, 0), "{line}");
    }
}

#[test]
fn offsets_in_modules_are_kept_when_asked_for() {
    let text = b" 0x7f0050485f82 [/usr/lib/libluajit-5.1.so.2+0x17382/0x200000]\n \
                 0xffffffffc0000010 [nf+0x10/0x0]\n 0x40\n\t2\n";
    let out = written(&read_as(text, true));
    assert_eq!(
        out,
        "[unknown];[nf]+0x10_[k];[libluajit-5.1.so.2]+0x17382 2\n"
    );
}

#[test]
fn lines_that_are_no_frames_are_counted_by_kind_and_disturb_nothing() {
    let (out, stats) = read(
        "WARNING: Number of errors: 0, skipped probes: 2\n\
         unwind_frame:1207: libc.so: fde=ffffffffa03b87e3\n\
         \x20 0x1 : leaf+0x1/0x2 [/x]\n\
         processCFI:629: map DW_CFA_offset value 16 to reg_info idx 16\n\
         == 1795394685682\n\
         \n\
         hello world\n\
         123\n 45\n\
         n=3000\n\
         http://example.org/\n\
         <no user backtrace at perf.type>\n\
         \x1b[00;33m\x1b[KWARNING: x\n\
         timer.s(5), (/s/a.stp:5:1), hits: 1, cycles: 3min/3avg/3max, variance: 0, from: timer.s(5), index: 2\n\
         \x20 0x2 : root+0x1/0x2 [/x]\n\
         \t5\n\
         \t6 \n\
         \t- 7\n",
    );
    assert_eq!(out, "root;leaf 5\n");
    let kinds: Vec<u64> = foreign(&stats).iter().map(|(_, lines)| *lines).collect();
    assert_eq!(stats.foreign.lines(), 14, "{:?}", foreign(&stats));
    assert_eq!(kinds.len(), 5, "{:?}", foreign(&stats));
    let of = |words: &str| {
        let mut kinds = stats.foreign.kinds();
        kinds.find(|(kind, _)| kind.contains(words)).unwrap().1
    };
    assert_eq!(of("debug output").lines, 2);
    assert!(of("debug output").examples[0].starts_with("line 2: unwind_frame:1207: "));
    assert_eq!(of("warnings").lines, 2);
    assert_eq!(of("timing").lines, 1);
    assert_eq!(of("no backtrace").lines, 1);
}

#[test]
fn much_debug_output_is_counted_exactly() {
    let line = "processCFI:537: DW_CFA_def_cfa_offset offs=10\n";
    let text = line.repeat(1_000) + " 0x1 : a+0x1/0x2 [/x]\n\t3\n";
    let imported = import(text.as_bytes(), ImportOptions::new("h")).unwrap();
    assert_eq!(imported.detections[0].format, Format::Stap);
    let stats = &imported.stats;
    assert_eq!(stats.foreign.lines(), 1_000);
    assert_eq!(stats.foreign.bytes(), 1_000 * line.len() as u64);
    assert_eq!((written(&imported).as_str(), stats.stacks), ("a 3\n", 1));
    let only = import(line.repeat(9).as_bytes(), ImportOptions::new("h")).unwrap();
    assert_eq!(only.detections[0].format, Format::Stap);
}

#[test]
fn counts_have_signs_and_are_added_up_before_any_is_dropped() {
    let (freed, malloc) = (" 0x1 : free+0x1/0x2 [/x]\n", " 0x1 : malloc+0x1/0x2 [/x]\n");
    let text = format!("{freed}\t-64\n{malloc}\t100\n{malloc}\t-36\n{freed}\t4\n 0x2\n\t0\n");
    let (out, stats) = read(&text);
    assert_eq!((out.as_str(), stats.samples), ("malloc 64\n", 64));
    let notes: Vec<(&str, u64)> = stats.notes.into_iter().collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes
            .iter()
            .any(|(n, times)| n.contains("nothing or less") && *times == 2)
    );
    assert!(
        notes
            .iter()
            .any(|(n, times)| n.contains("below zero") && *times == 60)
    );
    // In any order of inputs.
    for order in [[0, 1], [1, 0]] {
        let parts = [format!("{malloc}\t-36\n"), format!("{malloc}\t100\n")];
        let mut import = Import::new(ImportOptions::new("h"));
        for at in order {
            import.next_input("h").unwrap();
            import.feed(parts[at].as_bytes()).unwrap();
        }
        assert_eq!(import.finish().unwrap().stats.samples, 64);
    }
}

#[test]
fn what_is_taken_from_stacks_that_were_cut_is_taken() {
    let options = ImportOptions {
        limits: FoldLimits {
            nodes_max: 2,
            ..FoldLimits::default()
        },
        ..ImportOptions::new("h")
    };
    let text =
        " 0x1 : a+0x1/0x2 [/x]\n\t5\n 0x1 : b+0x1/0x2 [/x]\n\t9\n 0x1 : b+0x1/0x2 [/x]\n\t-2\n";
    let stats = import(text.as_bytes(), options).unwrap().stats;
    assert_eq!((stats.samples, stats.pruned), (12, 7));
}

#[test]
fn an_end_without_a_count_and_a_count_without_a_stack_are_said() {
    let (out, stats) = read(" 0x1 : a+0x1/0x2 [/x]\n\t3\n\t4\n 0x1 : cut+0x1/0x2 [/x]\n 0x2 : ro");
    assert_eq!(out, "[unknown] 4\na 3\n");
    let notes: Vec<&str> = stats.notes.keys().copied().collect();
    assert!(notes[0].starts_with("counts without a stack"), "{notes:?}");
    assert!(notes[1].starts_with("stacks without a count"), "{notes:?}");
    assert_eq!(read("").0, "");
    assert_eq!(read("\t99999999999999999999999\n").1.samples, u64::MAX);
}

#[test]
fn lua_stacks_may_begin_with_the_function_that_was_hit() {
    let (out, stats) =
        read("lj_str_new\nC:ngx_echo\n@/a.lua:3\n\n\t2\nalone\n@/a.lua\nword\n\t1\n");
    assert_eq!(out, "/a.lua:3;ngx_echo;lj_str_new 2\n[unknown] 1\n");
    assert_eq!(stats.foreign.lines(), 3);
}

#[test]
fn kernel_and_user_frames_keep_their_boundary() {
    let (out, _) = read(
        " 0xffffffff81022160 : ep_poll+0x160/0xf02 [kernel]\n 0xffffffff81a00088 : entry+0x44/0x9e\n \
         0x7f0a : epoll_wait+0x1/0x2 [/lib/libc.so.6]\n 0x40 : main+0x1/0x2 [/nginx]\n\t3\n",
    );
    assert_eq!(out, "main;epoll_wait;entry_[k];ep_poll_[k] 3\n");
}

#[test]
fn a_stack_without_end_takes_bounded_memory() {
    let mut text = " 0x1 : leaf+0x1/0x2 [/x]\n".repeat(50_000);
    text.push_str(" 0x1 : root+0x1/0x2 [/x]\n\t3\n");
    let imported = read_as(text.as_bytes(), false);
    assert_eq!((imported.stats.samples, imported.stats.deeper), (3, 3));
    assert!(written(&imported).starts_with("root;leaf;leaf"));
}

#[test]
fn recordings_are_read_whole() {
    let (out, stats) = recording("success.txt");
    assert_eq!((stats.samples, stats.foreign.lines()), (1_493 + 512 + 8, 0));
    assert_eq!(
        out.lines().nth(1).unwrap(),
        "[libc.so.6];main;recurse;recurse;recurse;recurse;level1;level2;level3;leaf_hot;spin 1493"
    );
    let (_, stats) = recording("timing-t.txt");
    assert_eq!((stats.samples, stats.stacks), (2_904, 6));
    assert_eq!(foreign(&stats), [("timing reports of stap -t", 5)]);
    assert_eq!(recording("missing-unwind-data.txt").0, "[deep] 3800\n");
    assert_eq!(
        recording("read-address-failed.txt").0,
        "[unknown] 2\nbadaddr 4079\n"
    );
    assert_eq!(recording("raw-hex.txt").0, "[unknown] 1569\n");
    assert_eq!(foreign(&recording("stream-1s.txt").1)[0].1, 5);
    let (out, stats) = recording("nginx-lua.txt");
    assert_eq!((stats.stacks, stats.foreign.lines()), (14, 0));
    assert!(out.contains("ngx_http_core_content_phase;"));
    assert!(!out.contains("0x"), "{out}");
    let (out, stats) = recording("formats.txt");
    assert_eq!((out.as_str(), stats.foreign.lines()), ("", 28));
}

/// A frame's line in SystemTap's grammar, and the label that is due for it.
fn frame_line() -> impl Strategy<Value = (String, String)> {
    let name = "[a-z_][a-zA-Z0-9_.%:<>,&*+ -]{0,30}[a-z)]";
    let module = "/[a-z/]{0,12}[a-z]";
    (name, module, any::<u32>(), any::<u32>(), 0..6_u8).prop_map(|(name, module, a, b, shape)| {
        let base = module.rsplit('/').next().unwrap_or_default().to_owned();
        match shape {
            0 => (format!(" {a:#x} : {name}+{b:#x}/0x10 [{module}]"), name),
            1 => (format!(" {a:#x} : {name}+{b:#x}/0x10"), name),
            2 => (
                format!(" {a:#x} [{module}+{b:#x}/0x9]"),
                format!("[{base}]"),
            ),
            3 => (format!(" {a:#x}"), "[unknown]".to_owned()),
            4 => (
                format!(" 0xffffffff{a:08x} : {name}+{b:#x}/{a:#x} [kernel]"),
                format!("{name}_[k]"),
            ),
            _ => (
                format!(" {a:#x} : {a:#x} [{module}+{b:#x}/0x9] (inexact)"),
                format!("[{base}]"),
            ),
        }
    })
}

proptest! {
    #[test]
    fn generated_stacks_come_back_with_their_counts(
        stacks in prop::collection::vec((prop::collection::vec(frame_line(), 1..6), -50_i64..500), 1..12),
        noise in prop::collection::vec("(WARNING: [a-z ]{0,9}|unwind:[0-9]{1,4}: [a-z=0-9]{0,9}| [a-z]+ [a-z]+)", 0..4),
        piece in 1_usize..90,
    ) {
        let (mut text, mut due) = (String::new(), BTreeMap::<String, i64>::new());
        for (at, (frames, count)) in stacks.iter().enumerate() {
            for (line, _) in frames {
                text.push_str(line);
                text.push('\n');
                if let Some(noise) = noise.get(at) {
                    text.push_str(noise);
                    text.push('\n');
                }
            }
            text.push_str(&format!("\t{count}\n"));
            let labels: Vec<&str> = frames.iter().rev().map(|(_, label)| label.trim()).collect();
            *due.entry(labels.join(";")).or_default() += count;
        }
        due.retain(|_, count| *count > 0);
        let options = ImportOptions { format: Some(Format::Stap), ..ImportOptions::new("h") };
        let mut import = Import::new(options);
        for piece in text.as_bytes().chunks(piece) {
            import.feed(piece).unwrap();
        }
        let imported = import.finish().unwrap();
        prop_assert_eq!(imported.stats.samples, due.values().sum::<i64>().unsigned_abs());
        let mut lines: Vec<String> = due.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
        lines.sort();
        let out = written(&imported);
        let mut got: Vec<&str> = out.lines().collect();
        got.sort_unstable();
        prop_assert_eq!(got, lines);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        // That would be gzip, and not a whole one.
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        let imported = read_as(&bytes, true);
        prop_assert!(imported.profile.frames.as_slice().iter().all(|f| f.kind != FrameKind::Inline));
    }
}
