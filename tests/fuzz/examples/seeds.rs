//! Writes the seed corpora: `cargo run --example seeds` in tests/fuzz. In: nothing. Out: files in
//! corpus/TARGET. Never: two runs that differ, or 200 KB in all.

use model::format::ffz::{Head, encode_profile, encode_segment};
use model::profile::{
    CounterKind, CounterSource, Frame, FrameId, FrameKind, IdMap, Keep, Measure, Process, Profile,
    Recorder, RecorderLimits, Series,
};
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    ffz()?;
    folded()?;
    perf_text()?;
    stap_said()?;
    stacks()?;
    batch()?;
    yaml()?;
    scripts()?;
    records()?;
    pprof()?;
    lua()?;
    elf()
}

/// Words of a VM that are replaced: how, where, by what.
fn lua() -> std::io::Result<()> {
    let damage = |how: u8, at: u16, word: u64| -> Vec<u8> {
        [&[how][..], &at.to_le_bytes(), &word.to_le_bytes()].concat()
    };
    seed("native_lua", "whole", &[1, 2])?;
    let one = [&[1, 3][..], &damage(1, 0x10, 0x70), &damage(0, 0x188, 3)].concat();
    seed("native_lua", "links", &one)?;
    let two = [&[2, 0][..], &damage(4, 80, 64), &damage(6, 1, 9), &damage(2, 88, 1)].concat();
    seed("native_lua", "stack", &two)?;
    let source = b"\0local function a()\nend\n_M.b = function() return 'x' end\n";
    seed("native_lua", "source", source)
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn recorder() -> Recorder {
    let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
    for pid in 1..4 {
        let process = Process {
            pid,
            role: "nginx: worker".into(),
            worker: Some(pid),
            ..Process::default()
        };
        let series = recorder.series(&Series {
            host: "h".into(),
            process,
            ..Series::default()
        });
        let kinds = [
            FrameKind::User,
            FrameKind::Kernel,
            FrameKind::Lua,
            FrameKind::Inline,
        ];
        let frames: Vec<FrameId> = kinds
            .into_iter()
            .zip(["main", "do_syscall_64", "access", "memcpy"])
            .map(|(kind, name)| Frame::named(kind, name, "nginx"))
            .chain([Frame::unnamed(FrameKind::User, "nginx", None, 0x1a2b)])
            .map(|frame| recorder.frame(&frame))
            .collect();
        for depth in 0..frames.len() {
            recorder.add_stack(series, pid * 2, &frames[..depth], &[1, 10_101_010, 0]);
        }
        recorder.count(
            CounterSource::Series(series),
            pid,
            CounterKind::CpuNs,
            9_000_000,
        );
        recorder.count(CounterSource::Host, pid, CounterKind::Lost, 1);
    }
    recorder
}

/// Choices, a value, a module and a script, as the target takes them apart; what scripts print.
fn scripts() -> std::io::Result<()> {
    let value = b"process(\"$^exec_path\").function(\"f\")";
    let module = b"# a module:  \n$*v := @var(\"v\") $^arg_d :default(1)  ";
    let script = b"#!/usr/bin/env stap++\n@use m\nprobe $^arg_v {\n  if ($^pid_ok) { $^target }\n\
        $*a := &@cast(b, \"c\")[0] $*a @pfunc(g) $^libz_path $^arg_d :default(2)\n}\n# @use n\n";
    let lens = [value.len(), module.len() / 4].map(|len| u8::try_from(len).unwrap_or(u8::MAX));
    for choice in [1, 3, 5, 16] {
        let parts: [&[u8]; 4] = [&[choice, lens[0], lens[1]], value, module, script];
        seed("stapxx", &format!("choice-{choice}"), &parts.concat())?;
    }
    let printed = "Latency of 12 requests:\nvalue |---------- count\n    1 |@@ 2\n    2 |  0\n      ~\n\
        \x20  64 |@ 1\n\nrate 5\nvalue |---------- count\n   <0 |@ 1\n    0 | 0\n    5 | 0\n  >10 |@ 1\n";
    seed("script_output", "histograms", &[&[9], printed.as_bytes()].concat())?;
    let printed = "begun\n 0x401136 : a+0x6/0x20 [/bin/a]\n 0x7f01 [/lib/c.so+0x12/0x20]\n\t70\nlj_str_new\n\
        @/a.lua:12\nT:@/a.lua:3\nC:0x5a\n\t5\n0x40 0x41 \t3\n\n\t2\nfree+0x1/0x2 [a]\n\t-64\n";
    seed("script_output", "stacks", &[&[9], printed.as_bytes()].concat())?;
    let modules = "#!/usr/bin/env stap++\n@use a.b, c\nprobe p { if ($^pid_ok) f() }\n\0a.b\nfunction f() { g() }\n@use c\n\0\
        c\nfunction g() { return $^target }\n";
    seed("script_modules", "modules", &[&[8], modules.as_bytes()].concat())?;
    let circle = "# @use a\n%( kernel_v > \"3\" %? @use a %)\n\0a\n@use a\n";
    seed("script_modules", "circle", &[&[0], circle.as_bytes()].concat())
}

/// Whole documents for mode 0, and the document language of src/document.rs for mode 2.
fn ffz() -> std::io::Result<()> {
    let head = Head {
        probe: "on-cpu".into(),
        measures: Measure::on_cpu(),
    };
    let segment = recorder().take(usize::MAX);
    let bytes = encode_segment(&head, &segment).map_err(std::io::Error::other)?;
    seed("ffz", "segment", &[&[0], &bytes[..]].concat())?;
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    profile
        .absorb(&mut IdMap::default(), "h", &segment, Keep::Cells)
        .map_err(std::io::Error::other)?;
    let bytes = encode_profile(&profile).map_err(std::io::Error::other)?;
    seed("ffz", "profile", &[&[0], &bytes[..]].concat())?;
    seed("ffz", "built", &[&[2], &small_document()[..]].concat())?;
    seed(
        "ffz",
        "repeated",
        &[
            2, 1, 14, 0, 1, b'p', 1, 1, b's', 5, b'c', b'o', b'u', b'n', b't', 0, 1, 0, 12, 1, 0,
            0xff, 0xff, 0,
        ],
    )
}

/// Head, one frame, one node, one series, totals, cells, counters, end.
fn small_document() -> Vec<u8> {
    let blocks: [(u8, &[u8]); 6] = [
        (1, b"\x01p\x01\x07samples\x05count\x00\x01\x00"),
        (2, b"\x02\x01h\x00\x01\x00\x00\x01\x01\x00\x01\x00\x01\x01\x00\x01\x00\x01\x01\x01\x01\x01\x01\x07\x05\x00\x00\x00"),
        (3, b"\x00\x01\x01\x07"),
        (4, b"\x00\x03\x01\x01\x07"),
        (5, b"\x01\x01h\x01\x00\x00\x03\x03\x02"),
        (6, b"\x00"),
    ];
    blocks
        .iter()
        .flat_map(|(kind, content)| [&[*kind, content.len() as u8, 0], *content].concat())
        .collect()
}

fn folded() -> std::io::Result<()> {
    seed(
        "folded",
        "field",
        b"a;b;c 3\r\na;b 1.6\n\n# comment\nmain;do work(int, char) 7\n",
    )?;
    seed(
        "folded",
        "unnamed",
        b"[nginx]+0x1a2b;[nginx];[unknown];do_syscall_64_[k];[pruned] 4\n",
    )?;
    seed(
        "folded",
        "lua",
        b"nginx: worker;ngx_http_lua_run_thread;a/handler.lua:42 access_[j] 12\n",
    )?;
    seed(
        "folded",
        "odd",
        b"\x01a 1\n #x 2\n[[]+0x0 3\n;; 4\nx 99999999999999999999\n",
    )?;
    seed("folded", "numbers", b"a;b 0.4\na;b 0.75\na;worker 10 20\n")?;
    seed("folded", "difference", b"a;b 10 20\na;c 1 0\nd 5\n")
}

/// Recordings of perf behind the bytes that choose options and where the text is cut.
fn perf_text() -> std::io::Result<()> {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/testdata/perf");
    for (name, choices) in [
        ("default", 0),
        ("pid-tid-cpu", 2),
        ("no-time", 8),
        ("comm-only", 0),
        ("bare", 1),
        ("no-dso", 1),
        ("ns-misc", 3),
        ("srcline", 1),
        ("two-events", 4),
        ("no-callchain", 9),
        ("lost", 0),
        ("odd", 11),
        ("bytes", 0),
    ] {
        let text = std::fs::read(recordings.join(format!("{name}.txt")))?;
        let seed_bytes = [&[choices, 200, 0], &text[..text.len().min(2048)]].concat();
        seed("perf_script", name, &seed_bytes)?;
        seed("compat_perf", name, &seed_bytes)?;
    }
    Ok(())
}

/// What SystemTap said, and what a probe of ours printed.
fn stap_said() -> std::io::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../agent/testdata/stap");
    for name in [
        "field-map-full.stderr",
        "pass4-fail-kernel-api-drift.stderr",
        "stap5.1-kernel6.12.stderr",
        "flood-transport-failures.stderr",
        "oncpu-user.stdout",
    ] {
        let text = std::fs::read(data.join(name))?;
        seed("stap_said", name, &[&[4, 200, 0], &text[..text.len().min(4096)]].concat())?;
    }
    // A copied sample: a pid and nine registers, two pieces of memory, the end.
    let words = [7_u64, 1, 0x7ffc, 3, 4, 5, 6, 7, 8, 9, 0x1000, 2, 10, 11, 0x7ffc, 2, 12, 13, 0, 0];
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let sample = [b"*      ", &words[..], b"\n"].concat();
    let end = format!("@{:<22}\n={:<22}{:<16}\n", 5, 1, 1);
    seed("stap_said", "copied", &[&[4, 40, 0], &sample[..], end.as_bytes()].concat())
}

/// Recordings, the inputs beside the outputs of the real script, and other tracers' shapes.
fn stacks() -> std::io::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/testdata");
    for name in ["timing-t", "formats", "missing-unwind-data", "raw-hex"] {
        let text = std::fs::read(data.join(format!("stap/{name}.txt")))?;
        seed("stap", name, &text)?;
    }
    for name in ["faults", "printf", "printf-more", "bytes"] {
        let text = std::fs::read(data.join(format!("compat/stap/{name}.txt")))?;
        seed("stap", name, &text)?;
        seed("compat_stap", name, &text)?;
    }
    seed(
        "stap",
        "signed",
        b" 0x1 : free+0x1/0x2 [/x]\n\t-64\n 0x1 : free+0x1/0x2 [/x]\n\t100\n",
    )?;
    seed(
        "stap",
        "lua",
        b"lj_str_new\nC:ngx_echo\nT:@/a/b.lua:3\n=access_by_lua:1\nbuiltin#7\n[tail]\n\n\t2\n",
    )?;
    seed(
        "bpftrace",
        "two-stacks",
        b"@s[\n    ep_poll+10\n, \n    main+3\n, nginx, 1234]: 7\n@[nginx, \n    a+1@/a.c:3\n]: -2\n",
    )?;
    seed(
        "bpftrace",
        "modes",
        b"@[\n\tffffffff81022160 ep_poll+10 ([unknown])\n\t7f00 f(int)+3 (/x)\n7ff013\n    [inlined] b\n    <unwind failure>\n]: 1\n",
    )?;
    seed(
        "bpftrace",
        "histogram",
        b"@h[\n    main+1\n]: \n[2, 4)   3 |@@@ |\n@[, x]: 2\n@n: 3\n",
    )?;
    seed(
        "dtrace",
        "both",
        b"CPU     ID\n\n  zfs`w+0x4\n  unix`0xfb8001d6\n\n  libc`f(int, char)+0x1\n  0x104d\n   3\n",
    )?;
    seed(
        "dtrace",
        "keys",
        b"\n  nginx  \n  libc`read+0x1\n   5\n  1234\n  libc`read\n  6\n  a`b\n  nginx  99  -7\n",
    )
}

fn batch() -> std::io::Result<()> {
    let document = small_document();
    let len = (document.len() as u16).to_le_bytes();
    seed(
        "batch",
        "hostile",
        &[&[0], &len[..], &document, &len, &document].concat(),
    )?;
    let mut honest = vec![1, 40, 3];
    for i in 0..12_u8 {
        honest.extend_from_slice(&[i % 4, i, i * 3, 4, i, i + 1, i + 2, i + 3, 9]);
        honest.extend_from_slice(&u64::from(i).to_le_bytes());
        honest.extend_from_slice(&[7, 3]);
    }
    honest.extend_from_slice(&[4, 1, 5, 0, 0, 0, 0, 0, 0, 0, 5, 6, 2, 7, 9]);
    seed("batch", "honest", &honest)
}

fn yaml() -> std::io::Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../coordinator/src/spec");
    seed(
        "job_yaml",
        "example",
        &std::fs::read(examples.join("example-capture.yaml"))?,
    )?;
    seed(
        "job_yaml",
        "local",
        b"version: 1\nhosts: [{name: a, local: true}]\ntargets: [nginx, pid:7]\npick: busiest:2\n",
    )?;
    seed(
        "job_yaml",
        "aliases",
        b"version: 1\nhosts: &h [{name: a, local: true}]\ntargets: *h\n",
    )?;
    seed(
        "policy_yaml",
        "example",
        &std::fs::read(examples.join("example-policy.yaml"))?,
    )?;
    seed(
        "policy_yaml",
        "short",
        b"version: 1\nengines: [native, simulated]\nallow_ptrace: true\n",
    )?;
    seed(
        "policy_yaml",
        "aliases",
        b"version: &v 1\ncaptures_max: *v\n? [a]\n: |\n  text\n",
    )
}

/// Records in the layout of include/uapi/linux/perf_event.h.
fn records() -> std::io::Result<()> {
    let record = |kind: u32, words: &[u64]| -> Vec<u8> {
        let size = 8 + words.len() as u64 * 8;
        std::iter::once(u64::from(kind) | size << 48)
            .chain(words.iter().copied())
            .flat_map(u64::to_ne_bytes)
            .collect()
    };
    let mut sample = vec![0xffff_8000_0000_1000, (8 << 32) | 7, 123, 1_000_000];
    sample.extend([2, u64::MAX - 127, 0xffff_8000_0000_1000, 2]);
    sample.extend(0x1000..0x1014);
    sample.extend([16, 0xaa, 0xbb, 16]);
    seed("native_records", "sample", &record(9, &sample))?;
    seed(
        "native_records",
        "comm",
        &record(3, &[(6 << 32) | 5, 0x6161, (6 << 32) | 5, 99]),
    )?;
    seed(
        "native_records",
        "fork",
        &record(7, &[(1 << 32) | 2, (1 << 32) | 2, 77, 0, 77]),
    )?;
    seed(
        "native_records",
        "mmap2",
        &record(10, &[7, 0x40_0000, 0x1000, 0, 0, 0]),
    )?;
    seed("native_records", "lost", &record(2, &[1, 42]))
}

/// The smallest C program that the compiler makes, and its unwind tables alone.
fn elf() -> std::io::Result<()> {
    let folder: PathBuf =
        std::env::temp_dir().join(format!("fleetflame-seeds-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (source, object) = (folder.join("a.c"), folder.join("a.so"));
    std::fs::write(&source, "int g(int); int f(int a) { return g(a) + 1; }\n")?;
    let flags = [
        "-shared",
        "-nostdlib",
        "-Os",
        "-fPIC",
        "-Wl,--build-id=sha1",
        "-Wl,-z,noseparate-code",
    ];
    let status = std::process::Command::new("gcc")
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status()?;
    assert!(status.success(), "gcc failed");
    let image = std::fs::read(&object)?;
    for (name, flags) in [
        ("plain", &["-gdwarf-5"][..]),
        ("four", &["-gdwarf-4"]),
        ("packed", &["-gdwarf-5", "-gz=zlib"]),
    ] {
        let text = "static inline int g(int a) { return a * a; }\nint f(int a) { while (a > 9) a -= g(a); return a; }\n";
        std::fs::write(&source, text)?;
        let status = std::process::Command::new("gcc")
            .args(["-shared", "-nostdlib", "-O2", "-fPIC", "-Wl,-z,noseparate-code"])
            .args(flags)
            .arg(format!("-ffile-prefix-map={}=/src", folder.display()))
            .args(["-o", "a.so", "a.c"])
            .current_dir(&folder)
            .status()?;
        assert!(status.success(), "gcc failed");
        seed("debug_info", name, &std::fs::read(&object)?)?;
    }
    std::fs::remove_dir_all(&folder)?;
    seed("native_elf", "shared", &[&[0], &image[..]].concat())?;
    // One CIE with augmentation "zR", one FDE, the end; as gcc writes them for x86-64.
    let mut frames =
        b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0".to_vec();
    frames.extend_from_slice(
        b"\x18\0\0\0\x1c\0\0\0\x10\0\0\0\x40\0\0\0\0\x41\x0e\x10\x86\x02\x43\x0d\x06\0\0\0\0\0\0\0",
    );
    seed("native_elf", "eh_frame", &[&[1], &frames[..]].concat())
}

/// Our own, without gzip, and what another program would write: inlined lines, a kernel's mapping,
/// a location without a name, numbers that are not packed.
fn pprof() -> std::io::Result<()> {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    profile
        .absorb(
            &mut IdMap::default(),
            "h",
            &recorder().take(usize::MAX),
            Keep::Totals,
        )
        .map_err(std::io::Error::other)?;
    let mut plain = Vec::new();
    let packed = model::format::pprof::write(&profile);
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain)?;
    seed("pprof", "ours", &plain)?;
    let texts = [
        "",
        "cpu",
        "milliseconds",
        "main",
        "memcpy",
        "/usr/sbin/nginx",
        "[kernel.kallsyms]",
        "0aff",
        "pid",
        "host",
        "kong-1",
        "do_syscall_64",
        "x_[j?]",
    ];
    let mut other = b"\x0a\x04\x08\x01\x10\x02".to_vec();
    for sample in [
        &b"\x0a\x02\x02\x01\x12\x01\x05\x1a\x04\x08\x08\x18\x07"[..],
        b"\x08\x03\x08\x01\x10\x07\x1a\x04\x08\x09\x10\x0a",
        b"\x0a\x01\x04\x12\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        other.extend_from_slice(&[0x12, sample.len() as u8]);
        other.extend_from_slice(sample);
    }
    other.extend_from_slice(b"\x1a\x0b\x08\x01\x10\x80\x20\x28\x05\x30\x07\x38\x01");
    other.extend_from_slice(b"\x1a\x04\x08\x02\x28\x06");
    other.extend_from_slice(b"\x22\x0d\x08\x01\x10\x01\x18\x90\x20\x22\x04\x08\x01\x10\x09");
    other.extend_from_slice(b"\x22\x0e\x08\x02\x10\x01\x22\x02\x08\x02\x22\x04\x08\x01\x10\x07");
    other.extend_from_slice(b"\x22\x08\x08\x03\x10\x02\x22\x02\x08\x03");
    other.extend_from_slice(b"\x22\x06\x08\x04\x10\x01\x18\x05");
    other.extend_from_slice(b"\x2a\x06\x08\x01\x10\x03\x18\x03\x2a\x06\x08\x02\x10\x04\x18\x0c");
    other.extend_from_slice(b"\x2a\x04\x08\x03\x10\x0b");
    for text in texts {
        other.extend_from_slice(&[0x32, text.len() as u8]);
        other.extend_from_slice(text.as_bytes());
    }
    other.extend_from_slice(b"\x5a\x04\x08\x01\x10\x02\x60\x0a");
    seed("pprof", "other", &other)
}
