//! Tests: the shapes that bpftrace prints, and hostile input.

use crate::format::folded;
use crate::format::import::{Format, ImportOptions, Imported, import};
use proptest::prelude::*;

fn read(text: &[u8]) -> Imported {
    let options = ImportOptions {
        format: Some(Format::Bpftrace),
        ..ImportOptions::new("h")
    };
    import(text, options).unwrap()
}

fn written(imported: &Imported) -> String {
    let profile = &imported.profile;
    folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
}

#[test]
fn maps_with_stacks_and_other_keys_are_read() {
    let text = "Attaching 1 probe...\n^C\n\n\
        @[\n    main+3\n    _start+42\n]: 5\n\
        @stacks[\n    ep_poll+10\n    do_syscall_64+59\n, \n    epoll_wait+78\n    main+3\n, nginx, 1234]: 7\n\
        @stacks[nginx, \n    main+9\n]: 2\n\
        @stacks[99, \n    main+9\n, cpu]: 1\n\
        @[(nginx, \n    main+1\n)]: 4\n";
    let imported = import(text.as_bytes(), ImportOptions::new("h")).unwrap();
    assert_eq!(imported.detections[0].format, Format::Bpftrace);
    assert_eq!(
        written(&imported),
        "_start;main 5\nmain 7\nmain;epoll_wait;do_syscall_64;ep_poll 7\n"
    );
    assert_eq!(
        (imported.stats.stacks, imported.stats.foreign.lines()),
        (5, 2)
    );
    let all = imported.profile.series.as_slice();
    let found = |comm: &str, pid: u32, map: &str| {
        all.iter()
            .any(|s| (s.process.comm.as_str(), s.process.pid, s.event.as_str()) == (comm, pid, map))
    };
    assert!(found("nginx", 1234, "stacks") && found("nginx", 0, "stacks") && found("nginx", 0, ""));
    assert!(found("cpu", 99, "stacks") && found("", 0, ""));
}

#[test]
fn frames_of_every_mode_lose_their_addresses() {
    for (line, label) in [
        (
            "    ngx_epoll_process_events+632",
            "ngx_epoll_process_events",
        ),
        ("        std::f(int, char)+12", "std::f(int, char)"),
        ("    operator+", "operator+"),
        ("    memcpy@@GLIBC_2.14+7", "memcpy@@GLIBC_2.14"),
        ("    a+7@/src/a.c:12", "a"),
        ("    [inlined] b@/src/a.c:12", "b_[i]"),
        ("    0x7f1234", "[unknown]"),
        ("    0xffffffff81022160", "[unknown]_[k]"),
        ("    deadbeef+1", "deadbeef"),
        ("\t55e79dd4264a lele+0 (/home/a b/main)", "lele"),
        ("\t7f00 0x7f00 ([unknown])", "[unknown]"),
        ("\t7f00 0x7f00 (/lib/libc.so.6)", "[libc.so.6]"),
        ("\tffffffff81022160 ep_poll+10", "ep_poll_[k]"),
        ("\tffffffff81022160 ep_poll+10 ([unknown])", "ep_poll_[k]"),
        ("\t7f00 f(int)+3 (/x)", "f(int)"),
        ("\t7f00 g (inlined)", "g_[i]"),
        ("7ff013", "[unknown]"),
        ("ffffffff81022160", "[unknown]_[k]"),
        ("    a;b+3", "a:b"),
    ] {
        let out = written(&read(format!("@[\n{line}\n]: 3\n").as_bytes()));
        assert_eq!(out, format!("{label} 3\n"), "{line}");
    }
}

#[test]
fn what_is_no_stack_with_a_number_is_counted_and_said() {
    let imported = read(
        b"@n: 5\n@[nginx]: 3\n@h[\n    main+1\n]: \n[2, 4)   3 |@@@ |\n@s[\n    main+1\n]: count 5, average 3, total 15\n\
          @[, nginx]: 2\n@[\n]: 4\n@d[\n    a+1\n]: -3\n@[\n    <unwind failure>\n]: 1\n@[\n    lost+1\n@[\n    cut+1\n",
    );
    assert_eq!(written(&imported), "[unknown] 7\n");
    let kinds: Vec<u64> = imported
        .stats
        .foreign
        .kinds()
        .map(|(_, lines)| lines.lines)
        .collect();
    assert_eq!(kinds.iter().sum::<u64>(), 5, "{:?}", imported.stats.foreign);
    let notes = &imported.stats.notes;
    assert_eq!(notes[super::CUT], 2);
    assert!(notes.keys().any(|note| note.contains("empty stack")));
    assert!(
        notes.keys().any(|note| note.contains("nothing or less")),
        "{notes:?}"
    );
}

proptest! {
    #[test]
    fn entries_come_back_with_their_counts(
        entries in prop::collection::vec((prop::collection::vec("[a-z_]{1,9}", 1..5), 1_u64..900, "[a-z]{0,5}"), 1..9),
    ) {
        let mut text = String::new();
        for (frames, count, comm) in &entries {
            let frames: String = frames.iter().map(|f| format!("    {f}+{count}\n")).collect();
            let comm = if comm.is_empty() { String::new() } else { format!(", {comm}") };
            text.push_str(&format!("@x[\n{frames}{comm}]: {count}\n"));
        }
        let imported = read(text.as_bytes());
        prop_assert_eq!(imported.stats.samples, entries.iter().map(|e| e.1).sum::<u64>());
        prop_assert_eq!(imported.stats.foreign.lines(), 0);
    }

    #[test]
    fn any_bytes_are_read(text in "[@a-z\\[\\]:, 0-9(){}\n\t+]{0,120}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // That would be gzip, and not a whole one.
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        read(text.as_bytes());
        read(&bytes);
    }
}
