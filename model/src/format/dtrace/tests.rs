//! Tests: the shapes that DTrace prints, and hostile input.

use crate::format::folded;
use crate::format::import::{Format, ImportOptions, Imported, import};
use proptest::prelude::*;

fn read(text: &[u8]) -> Imported {
    let options = ImportOptions {
        format: Some(Format::Dtrace),
        ..ImportOptions::new("h")
    };
    import(text, options).unwrap()
}

fn written(imported: &Imported) -> String {
    let profile = &imported.profile;
    folded::write(&profile.tree, &profile.frames, &profile.select(|_| true), 0)
}

#[test]
fn kernel_and_user_stacks_are_one_and_keep_their_boundary() {
    let text = "CPU     ID                    FUNCTION:NAME\n  8  35077                        :tick-60s \n\n\n\
        \x20             zfs`zfs_write+0x475\n              genunix`pwrite+0x172\n              unix`0xfffffffffb8001d6\n\n\
        \x20             libc.so.1`__pwrite+0xa\n              a.out`std::f(int, char)+0x1128\n              0x104d08831\n\
        \x20               3\n\n\
        \x20             libc.so.1`__pwrite+0xb\n              a.out`main\n                1\n\n";
    let imported = import(text.as_bytes(), ImportOptions::new("h")).unwrap();
    assert_eq!(imported.detections[0].format, Format::Dtrace);
    assert_eq!(
        written(&imported),
        "[unknown];std::f(int, char);__pwrite;[vmlinux]_[k];pwrite_[k];zfs_write_[k] 3\nmain;__pwrite 1\n"
    );
    assert_eq!(
        (imported.stats.stacks, imported.stats.foreign.lines()),
        (2, 2)
    );
}

#[test]
fn keys_before_and_behind_stacks_are_the_series() {
    let imported = read(
        b"\n  nginx                                             \n              libc.so.1`read+0x1\n                5\n\
          \x20    1234\n              libc.so.1`read+0x1\n                6\n\
          \x20             libc.so.1`read+0x1\n  nginx                                                 99        7\n\
          \x20   17\n\n",
    );
    assert_eq!(written(&imported), "[unknown] 17\nread 18\n");
    let all = imported.profile.series.as_slice();
    let found = |comm: &str, pid: u32| {
        all.iter()
            .any(|s| (s.process.comm.as_str(), s.process.pid) == (comm, pid))
    };
    assert!(found("nginx", 0) && found("", 1234) && found("nginx", 99) && found("", 0));
}

#[test]
fn what_is_no_frame_is_counted_and_a_cut_end_is_said() {
    let imported = read(
        b"dtrace: description matched 3 probes\n\n  a`f+0x1\n  a value\n  a`g`h+0x2\n  a`op+\n   4\n\n  a`cut+0x1\n",
    );
    assert_eq!(written(&imported), "op+;g`h;f 4\n");
    assert_eq!(imported.stats.foreign.lines(), 2);
    assert_eq!(imported.stats.notes.len(), 1);
    let imported = read(b"  a`f\n  -5\n  a`f\n  9\n  a`g\n  0\n");
    assert_eq!(written(&imported), "f 4\n");
}

proptest! {
    #[test]
    fn entries_come_back_with_their_counts(
        entries in prop::collection::vec((prop::collection::vec("[a-z]{1,5}`[a-z_]{1,9}", 1..5), 1_u64..900), 1..9),
    ) {
        let mut text = "\n".to_owned();
        for (frames, count) in &entries {
            let frames: String = frames.iter().map(|f| format!("              {f}+{count:#x}\n")).collect();
            text.push_str(&format!("{frames}{count:17}\n\n"));
        }
        let imported = read(text.as_bytes());
        prop_assert_eq!(imported.stats.samples, entries.iter().map(|e| e.1).sum::<u64>());
        prop_assert_eq!(imported.stats.foreign.lines(), 0);
    }

    #[test]
    fn any_bytes_are_read(text in "[a-z`0-9x+ \n\t-]{0,120}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // That would be gzip, and not a whole one.
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        read(text.as_bytes());
        read(&bytes);
    }
}
