//! Tests of the parser: every form of header and frame that perf prints, and what is none.
//!
//! In: texts as perf prints them. Out: what was heard of them. Never: a form that no perf prints,
//! but where the test says so.

mod perf_headers;
mod perf_inferno;
mod perf_printed;
mod perf_recorded;
mod perf_samples;

use super::*;
use crate::format::import::{Format, ImportOptions, Imported, import};
use crate::format::lines::Lines;
use crate::profile::FrameKind;

/// One sample as it was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    comm: String,
    ids: (Option<u32>, Option<u32>),
    time_ns: Option<u64>,
    period: Option<u64>,
    event: String,
    /// `NAME@MODULE`, leaf first.
    frames: Vec<String>,
}

#[derive(Debug, Default)]
struct Ear {
    samples: Vec<Heard>,
    open: bool,
    foreign: Vec<(&'static str, String)>,
    lost: Vec<u64>,
    cut: bool,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Samples for Ear {
    fn begin(&mut self, header: &Header<'_>) {
        assert!(!self.open, "a sample begins in another");
        self.open = true;
        self.samples.push(Heard {
            comm: text(header.comm),
            ids: (header.pid, header.tid),
            time_ns: header.time_ns,
            period: header.period,
            event: text(header.event),
            frames: Vec::new(),
        });
    }

    fn frame(&mut self, frame: &FrameText<'_>) {
        assert!(self.open, "a frame outside of a sample");
        let frame = format!("{}@{}", text(frame.name), text(frame.module));
        self.samples.last_mut().unwrap().frames.push(frame);
    }

    fn end(&mut self) {
        assert!(std::mem::take(&mut self.open), "an end without a beginning");
    }

    fn foreign(&mut self, kind: &'static str, line: Line<'_>) {
        self.foreign.push((kind, text(line.bytes)));
    }

    fn lost(&mut self, count: u64) {
        self.lost.push(count);
    }

    fn cut(&mut self) {
        self.cut = true;
    }
}

fn hear(bytes: &[u8]) -> Ear {
    let (mut parser, mut ear, mut lines) = (Parser::default(), Ear::default(), Lines::default());
    lines.feed(bytes, |line| parser.line(line, &mut ear));
    lines.end(|line| parser.line(line, &mut ear));
    parser.end(&mut ear);
    assert!(!ear.open, "a sample without an end");
    ear
}

#[test]
fn frames_give_their_name_and_module() {
    let cases = [
        (
            "ffffffff8103ce3b native_safe_halt+0xb ([kernel.kallsyms])",
            "native_safe_halt@[kernel.kallsyms]",
        ),
        (
            "ffffffff81aebbfe start_kernel ([kernel.kallsyms].init.text)",
            "start_kernel@[kernel.kallsyms].init.text",
        ),
        (
            "        7d8 ipv4_conntrack_local+0x7f8f80b8 ([nf_conntrack_ipv4])",
            "ipv4_conntrack_local@[nf_conntrack_ipv4]",
        ),
        ("7f1e2215d058 [unknown] ([unknown])", "@"),
        ("           0 [unknown] ([unknown])", "@"),
        ("7f1e2215d058  (/lib/libc-2.15.so)", "@/lib/libc-2.15.so"),
        (
            "7f1e2215d058 [unknown] (/opt/a b/plugin (x86).so (deleted))",
            "@/opt/a b/plugin (x86).so (deleted)",
        ),
        ("7f1e2215d058 [unknown] (//anon)", "@//anon"),
        (
            "7f1e2215d058 operator new(unsigned long)+0x1a (/lib/libstdc++.so.6)",
            "operator new(unsigned long)@/lib/libstdc++.so.6",
        ),
        (
            "7f1e2215d058 v8::(anonymous namespace)::Invoke(bool) (/bin/node)",
            "v8::(anonymous namespace)::Invoke(bool)@/bin/node",
        ),
        ("7f1e2215d058 operator+ (/bin/a)", "operator+@/bin/a"),
        ("7f1e2215d058 f+0xdeadbeefcafe (/bin/a)", "f@/bin/a"),
        ("7f1e2215d058 f+0x (/bin/a)", "f+0x@/bin/a"),
        (
            "7f1e2215d058 RegExp:[&<>\"\\'] (/tmp/perf-7539.map)",
            "RegExp:[&<>\"\\']@/tmp/perf-7539.map",
        ),
        (
            "7f1e2215d058 La/b;::c(La/d;)V+0x3 (/tmp/perf-7539.map)",
            "La/b;::c(La/d;)V@/tmp/perf-7539.map",
        ),
        (
            "7f1e2215d058 La/b;::c(La/d (/tmp/perf-7539.map)",
            "La/b;::c(La/d@/tmp/perf-7539.map",
        ),
        ("7f1e2215d058 main (inlined)", "main@inlined"),
        ("7f1e2215d058 f ((deleted))", "f@(deleted)"),
    ];
    for (line, expected) in cases {
        let padded = format!("{line:>16}");
        for frame in [
            format!("\t{padded}"),
            format!("        {line}"),
            format!("\t{line}"),
        ] {
            let text = format!("a 1 1.5: 1 c: \n{frame}\n{frame}\r\n\n");
            let ear = hear(text.as_bytes());
            assert_eq!(ear.samples[0].frames, [expected, expected], "{frame:?}");
            assert_eq!(ear.foreign, [], "{frame:?}");
        }
    }
}

#[test]
fn frames_without_a_module_are_known_by_their_columns() {
    let ear = hear(
        b"a 1 1.5: 1 c: \n\
          \t          401136 main\n\
          \t          401136 f(int)\n\
          \t          401136\n\
          \t          401136 [unknown]\n\
          \tno frame\n\n",
    );
    assert_eq!(ear.samples[0].frames, ["main@", "f(int)@", "@", "@"]);
    assert_eq!(ear.foreign.len(), 1);
    assert_eq!(ear.foreign[0].0, "lines in a stack that are no frames");
}

#[test]
fn lines_of_the_source_belong_to_the_frame_above() {
    let ear = hear(
        b"a 1 1.5: 1 c: \n\
          \t            12c5 mix+0x34\n  work.c:19 (inlined)\n\
          \t            12c5 outer+0x34\n  a b.c:20 (inlined)\n\
          \t            12c5 hash+0x34 (/bin/app)\n  work.c:21\n\
          \t            12c5 [unknown] (/lib/x.so (deleted))\n  x.so (deleted)[12c5]\n\
          \t            12c5 [unknown] ([unknown])\n  [unknown][0]\n\
          \t            12c5 last\n  work.c:30\n\n",
    );
    let frames = [
        "mix@inlined",
        "outer@inlined",
        "hash@/bin/app",
        "@/lib/x.so (deleted)",
        "@",
        "last@",
    ];
    assert_eq!(ear.samples[0].frames, frames);
    assert_eq!(ear.foreign, []);
}

#[test]
fn a_sample_of_one_frame_stands_on_one_line() {
    let ear = hear(
        b"    perf 12 1.5:   1000 cpu-clock:  ffffffff81 do_idle+0x1 ([kernel.kallsyms])\n\
          log (x) 3 12/13 [001] 1.6: cycles:u:  ffffffff9aa3c8de [unknown] ([unknown])\n\
          a 12 1.7:  7f0012 main (/bin/a (deleted))\n\
          a 12 1.8:   1000   7f0012 main (/bin/a)\n\n",
    );
    let frames: Vec<&str> = ear.samples.iter().map(|s| s.frames[0].as_str()).collect();
    assert_eq!(
        frames,
        [
            "do_idle@[kernel.kallsyms]",
            "@",
            "main@/bin/a (deleted)",
            "main@/bin/a"
        ]
    );
    assert_eq!(ear.samples[3].period, Some(1000));
    assert_eq!((ear.foreign.len(), ear.cut), (0, false));
}

#[test]
fn what_perf_says_beside_the_samples_is_no_sample() {
    let ear = hear(
        b"# ========\n# cmdline : /usr/bin/perf record -g\n#\n\
          Failed to open /tmp/perf-12.map, continuing without symbols\n\
          a 1 1.5: PERF_RECORD_LOST lost 305\n\
          a 1 1.5: 1 cycles: \n\t          401136 f (/b)\n\n\
          a 1 PERF_RECORD_LOST lost 7\n\
          a 1 1.5: PERF_RECORD_LOST_SAMPLES lost 2\n\
          a 1 1.5: PERF_RECORD_COMM exec: b:1/1\n\
          # in the middle\n\
          a 1 1.6: 1 cycles: \n\t          401136 f (/b)\n# in a stack\n\t          401137 g (/b)\n\n",
    );
    assert_eq!(ear.samples.len(), 2);
    assert_eq!(ear.samples[1].frames, ["f@/b", "g@/b"]);
    assert_eq!(ear.lost, [305, 7, 2]);
    let kinds: Vec<&str> = ear.foreign.iter().map(|f| f.0).collect();
    assert_eq!(
        kinds,
        [
            "lines outside the stacks",
            "perf's records of other things than samples"
        ]
    );
}

#[test]
fn a_text_that_is_cut_says_so_and_keeps_what_it_has() {
    let whole = "a 1 1.5: 1 c: \n\t          401136 f+0x1 (/bin/app)\n\t          401200 main+0x2 (/bin/app)\n\n";
    assert!(!hear(whole.as_bytes()).cut);
    for len in 15..whole.len() - 1 {
        if whole[..len].ends_with([' ', '\t']) {
            continue; // blanks alone could as well be an empty line
        }
        let ear = hear(&whole.as_bytes()[..len]);
        assert_eq!(ear.samples.len(), 1, "{:?}", &whole[..len]);
        assert!(ear.cut);
        for frame in &ear.samples[0].frames {
            let (name, module) = frame.split_once('@').unwrap();
            assert!(
                "f+0x1".starts_with(name) || "main+0x2".starts_with(name),
                "{frame}"
            );
            assert!(["", "/bin/app"].contains(&module), "{frame}");
        }
    }
    // The next header ends a stack too.
    let ear = hear(
        b"a 1 1.5: 1 c: \n\t          401136 f (/b)\na 1 1.6: 1 c: \n\t          401136 f (/b)\n\n",
    );
    assert_eq!((ear.samples.len(), ear.cut), (2, false));
}

#[test]
fn lines_too_long_and_bytes_that_are_no_text_are_counted() {
    let mut bytes = b"a 1 1.5: 1 c: \n\t          401136 f (/b)\n".to_vec();
    bytes.extend_from_slice(&vec![b'x'; 2 << 20]);
    bytes
        .extend_from_slice(b"\n\t          401136 g\xff\xfe\x00\x01 (/b)\n\n\x7fELF\x02\x01\x00\n");
    let ear = hear(&bytes);
    assert_eq!(ear.samples.len(), 1);
    assert_eq!(
        ear.samples[0].frames,
        ["f@/b", "g\u{fffd}\u{fffd}\0\u{1}@/b"]
    );
    let kinds: Vec<&str> = ear.foreign.iter().map(|f| f.0).collect();
    assert_eq!(
        kinds,
        ["lines longer than 1 MiB", "lines outside the stacks"]
    );
    // A comm alone is no longer than a comm can be.
    let long = "x".repeat(70);
    let ear = hear(format!("{long}\n\t          401136 f (/b)\n\n").as_bytes());
    assert_eq!((ear.samples[0].comm.as_str(), ear.foreign.len()), ("", 1));
}

#[test]
fn modules_say_where_code_runs() {
    let cases = [
        ("[kernel.kallsyms]", FrameKind::Kernel, "vmlinux"),
        ("[kernel.vmlinux]", FrameKind::Kernel, "vmlinux"),
        ("[kernel.kallsyms].init.text", FrameKind::Kernel, "vmlinux"),
        (
            "[guest.kernel.kallsyms.12]",
            FrameKind::Kernel,
            "guest.kernel",
        ),
        (
            "/usr/lib/debug/boot/vmlinux-5.4.14-cloud",
            FrameKind::Kernel,
            "vmlinux",
        ),
        (
            "/usr/lib/debug/lib/modules/6.1/vmlinux",
            FrameKind::Kernel,
            "vmlinux",
        ),
        ("[nf_tables]", FrameKind::Kernel, "nf_tables"),
        (
            "/lib/modules/6.1/kernel/net/nf_tables.ko",
            FrameKind::Kernel,
            "nf_tables",
        ),
        (
            "/lib/modules/6.1/kernel/net/nf_tables.ko.xz",
            FrameKind::Kernel,
            "nf_tables",
        ),
        (
            "bpf_prog_6deef7357e7b4530_sd_devices",
            FrameKind::Kernel,
            "bpf",
        ),
        ("[vdso]", FrameKind::User, "[vdso]"),
        ("[vsyscall]", FrameKind::User, "[vsyscall]"),
        ("[heap]", FrameKind::User, "[heap]"),
        ("/tmp/perf-7539.map", FrameKind::Jit, "jit"),
        ("/tmp/.debug/jit/x/jitted-7539-12.so", FrameKind::Jit, "jit"),
        ("/opt/vmlinuxy/app", FrameKind::User, "/opt/vmlinuxy/app"),
        ("/opt/perf-x.map", FrameKind::User, "/opt/perf-x.map"),
        (
            "/usr/lib/libc.so.6 (deleted)",
            FrameKind::User,
            "/usr/lib/libc.so.6",
        ),
        ("inlined", FrameKind::Inline, ""),
    ];
    for (module, kind, name) in cases {
        let frame = FrameText {
            address: b"401136",
            name: b"f",
            module: module.as_bytes(),
            offset: b"",
        };
        assert_eq!(kind_of(&frame), kind, "{module}");
        assert_eq!(text(module_of(kind, module.as_bytes())), name, "{module}");
    }
    let bare = |address: &'static [u8], name: &'static [u8]| {
        kind_of(&FrameText {
            address,
            name,
            module: b"",
            offset: b"",
        })
    };
    assert_eq!(bare(b"ffffffff81000000", b"do_idle"), FrameKind::Kernel);
    assert_eq!(bare(b"7f0000000000", b"main"), FrameKind::User);
    // Nothing but garbage of a stack without frame pointers is known of it.
    assert_eq!(bare(b"ffffffff81000000", b""), FrameKind::User);
}

/// Reads perf's text.
fn read(text: &[u8], change: impl FnOnce(&mut ImportOptions)) -> Imported {
    let mut options = ImportOptions {
        format: Some(Format::Perf),
        ..ImportOptions::new("h")
    };
    change(&mut options);
    import(text, options).unwrap()
}

/// The folded lines of one measure.
fn folded(imported: &Imported, measure: usize) -> Vec<String> {
    let profile = &imported.profile;
    let rows = profile.select(|_| true);
    let text = crate::format::folded::write(&profile.tree, &profile.frames, &rows, measure);
    text.lines().map(str::to_owned).collect()
}
