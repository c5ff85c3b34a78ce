//! Tests of the import: detection, gzip, several inputs.

use super::*;
use proptest::prelude::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn packed_text_is_read_like_text() {
    let text = b"a;b 3\na;c 4\n";
    for bytes in [text.to_vec(), gzip(text)] {
        let imported = import(&bytes, ImportOptions::new("h")).unwrap();
        assert_eq!(imported.detections[0].format, Format::Folded);
        assert_eq!(imported.stats.samples, 7);
        assert_eq!(imported.stats.unpacked_bytes, text.len() as u64);
    }
    let mut cut = gzip(&text.repeat(1_000));
    cut.truncate(cut.len() / 2);
    let error = import(&cut, ImportOptions::new("h")).unwrap_err();
    assert!(matches!(error, ImportError::Gzip { .. }), "{error}");
}

#[test]
fn a_gzip_bomb_is_read_in_bounded_memory_and_counted() {
    let bomb = gzip(&vec![b'a'; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    let options = ImportOptions {
        format: Some(Format::Folded),
        ..ImportOptions::new("h")
    };
    let imported = import(&bomb, options).unwrap();
    assert_eq!(
        (imported.stats.foreign.lines(), imported.stats.samples),
        (1, 0)
    );
    assert_eq!(imported.stats.foreign.bytes(), (64 << 20) + 1);
}

#[test]
fn every_format_is_told_from_the_others() {
    let cases: [(&[u8], Format); 6] = [
        (b"main;read 3\n", Format::Folded),
        (b" 0xffffffff81 : do_idle+0x1/0x2 [kernel]\n\t3\n", Format::Stap),
        (b"WARNING: x\n 0x7f1234 [nginx+0x10/0x20]\n 0x7f\n\t-1\n", Format::Stap),
        (
            b"nginx 12/12 [000] 1.5: 10101010 cpu-clock: \n\t  ffffffff81 do_idle+0x1a ([kernel.kallsyms])\n\n",
            Format::Perf,
        ),
        (b"Attaching 1 probe...\n@[\n    main+3\n]: 5\n", Format::Bpftrace),
        (b"\n  genunix`idle+0x3\n  unix`main\n   17\n", Format::Dtrace),
    ];
    for (bytes, format) in cases {
        let detection = detect::detect(bytes, false).unwrap();
        assert_eq!(detection.format, format, "{}", detection.because);
    }
    for (bytes, says) in [
        (&b"PERFILE2xxxx"[..], "perf script"),
        (b"{\"$schema\": 1}", "JSON"),
        (b"\x7fELF\x02\x01\x01\0\0", "binary"),
        (b"hello world\n", "no line"),
    ] {
        let error = detect::detect(bytes, false).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn several_inputs_add_up_and_keep_their_hosts() {
    let mut import = Import::new(ImportOptions::new("one"));
    for (host, bytes) in [
        ("one", b"a;b 3\n".to_vec()),
        ("two", gzip(b"a;b 4\nc 1\n")),
        ("three", Vec::new()),
        (
            "four",
            b" 0xffffffff81 : idle+0x1/0x2 [kernel]\n\t3\n".to_vec(),
        ),
    ] {
        import.next_input(host).unwrap();
        import.feed(&bytes).unwrap();
    }
    let imported = import.finish().unwrap();
    let formats: Vec<&str> = imported
        .detections
        .iter()
        .map(|d| d.format.word())
        .collect();
    assert_eq!(formats[..2], ["folded", "folded"]);
    assert_eq!(formats.last(), Some(&"stap"));
    assert_eq!(imported.profile.hosts(), ["four", "one", "two"]);
    let two = imported.profile.select(|s| s.host == "two");
    assert_eq!(two.values().map(|v| v[0]).sum::<u64>(), 5);
}

/// Lines of stap's text: frames, the same address with another text, counts, words that the next line
/// decides on, noise.
const STAP_LINES: [&str; 12] = [
    " 0x7f0000001000 : ngx_http_handler+0x10/0x20 [/usr/sbin/nginx]",
    " 0x7f0000001000 : ngx_http_handler+0x10/0x20 [/usr/sbin/nginx] (inexact)",
    " 0x7f0000001000 : ngx_http_filter+0x10/0x20 [/usr/sbin/nginx]",
    " 0xffffffff811398c4 : ep_poll+0x1c4/0x37b [kernel]",
    " 0x7f0000002000 [/usr/lib/libc-2.17.so+0x1234/0x5000]",
    " 0x7f01 : f",
    "lj_BC_CALL",
    "@/usr/local/kong/handler.lua:12",
    "WARNING: Number of errors: 0, skipped probes: 3",
    "\t3",
    "\t-1",
    "",
];

/// Lines of perf's text: headers of two events, frames of all kinds, lines that belong to the frame
/// above them, what was lost, noise.
const PERF_LINES: [&str; 14] = [
    "nginx 12/12 [000] 1.500000: 10101010 cpu-clock: ",
    "nginx 12/13 [001] 2.500000: 10101010 cpu-clock: ",
    "kong 14/14 [001] 2.500000: 77 cycles: ",
    "nginx",
    "\t    7f0c99a61d42 ngx_http_handler+0x12 (/usr/sbin/nginx)",
    "\t    7f0c99a61d42 ngx_http_filter+0x12 (/usr/sbin/nginx)",
    "\t    7f0c99a61d43 [unknown] (/usr/lib/libfoo.so)",
    "\t    7f0c99a61d44 ngx_palloc+0x3 (inlined)",
    "\t    7f0c99a61d45 outer->inner+0x12 (/tmp/perf-12.map)",
    "\tffffffff81139842 ep_poll+0x1a ([kernel.kallsyms])",
    "\t    7f0c99a61d46 without_a_module+0x12",
    "  ngx_palloc.c:12 (inlined)",
    "nginx 12/12 [000] 3.500000: PERF_RECORD_LOST lost 42",
    "",
];

/// Reads `text` whole, where lines that come again are known, and byte by byte, where none is.
fn both_ways(text: &str, options: &ImportOptions) -> [(String, ImportStats); 2] {
    // So much is collected before the format is decided, and read at once. Empty lines are nothing.
    let before = vec![b'\n'; HEAD_BYTES];
    [text.len().max(1), 1].map(|piece_bytes| {
        let mut import = Import::new(options.clone());
        import.feed(&before).unwrap();
        for piece in text.as_bytes().chunks(piece_bytes) {
            import.feed(piece).unwrap();
        }
        let Imported { profile, stats, .. } = import.finish().unwrap();
        let all = profile.select(|_| true);
        let folded = crate::format::folded::write(&profile.tree, &profile.frames, &all, 0);
        (folded, stats)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn known_lines_are_read_like_new_ones(
        stap in prop::collection::vec(prop::sample::select(&STAP_LINES[..]), 0..80),
        perf in prop::collection::vec(prop::sample::select(&PERF_LINES[..]), 0..80),
        keep_offsets in any::<bool>(),
        skips in any::<bool>(),
        end in prop::sample::select(&["\n", "\r\n"][..]),
    ) {
        let mut options = ImportOptions::new("h");
        options.keep_offsets = keep_offsets;
        if skips {
            options.perf.skip_after = vec!["ngx_http_filter".to_owned()];
        }
        for (lines, format) in [(&stap, Format::Stap), (&perf, Format::Perf)] {
            options.format = Some(format);
            let [whole, bytewise] = both_ways(&lines.iter().flat_map(|l| [l, end]).collect::<String>(), &options);
            prop_assert_eq!(whole, bytewise);
        }
    }
}
