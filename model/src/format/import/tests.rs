//! Tests of the import: detection, gzip, several inputs.

use super::*;

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
