//! What must hold of any profile and of any bytes. In: frames, series and rows of all kinds. Out:
//! the same stacks after writing and reading. Never: a profile that only its writer could read.

use super::{proto, read, unpack};
use crate::format::pprof::write;
use crate::profile::{
    BuildId, Frame, FrameId, FrameKind, Measure, Process, Profile, Series, Values,
};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;

/// Frames of all kinds, with and without everything that a frame can have.
fn any_frame() -> impl Strategy<Value = Frame> {
    let kind = (0_u8..6).prop_map(|k| FrameKind::from_u8(k).unwrap());
    let name = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => Just(String::new()),
        1 => Just("x_[k]".to_owned()),
        1 => Just("0x7f12".to_owned()),
        1 => Just("a;b::<[T; 3]>()".to_owned()),
        1 => Just("f.lua:3 g".to_owned()),
        1 => Just("[nginx]+0x10".to_owned()),
    ];
    let module = prop_oneof![
        2 => Just(""),
        2 => Just("nginx"),
        1 => Just("vmlinux"),
        1 => Just("[vdso]"),
        1 => Just("[nf_tables]"),
        1 => Just("jit"),
        1 => Just("perf-7.map"),
        1 => Just("x.ko"),
    ];
    let file = prop_oneof![Just(""), Just("f.lua"), Just("dir/g.lua")];
    let about = (file, 0_u32..4, 0_u8..3, 0_u64..3, any::<bool>());
    (kind, name, module, about).prop_map(|(kind, name, module, (file, line, id, address, racy))| {
        Frame {
            file: file.into(),
            line,
            build_id: BuildId::new(&[id; 20][..usize::from(id) * 10]),
            address,
            racy,
            ..Frame::named(kind, name, module)
        }
    })
}

fn any_series() -> impl Strategy<Value = Series> {
    let process = (
        0_u32..3,
        0_u64..3,
        0_u32..2,
        "[ab]?",
        prop::option::of(0_u32..3),
    );
    let texts = ("[ab]{1,2}", "[ab]?", "[ab]{1,2}", "[ab]?", "[ab]?");
    (process, texts, prop_oneof![Just(0_u64), Just(10_101_010)]).prop_map(
        |(
            (pid, start_ticks, generation, comm, worker),
            (host, thread, engine, mode, event),
            period_ns,
        )| Series {
            host,
            process: Process {
                pid,
                start_ticks,
                generation,
                role: if comm.is_empty() {
                    String::new()
                } else {
                    format!("{comm}: worker")
                },
                comm,
                worker,
            },
            thread,
            engine,
            mode,
            event,
            period_ns,
        },
    )
}

type Row = (usize, Vec<usize>, [u64; 2]);

/// Rows of series, frames from the root, and values.
fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let value = prop_oneof![4 => 1_u64..1000, 1 => Just(0), 1 => Just(u64::MAX / 2 + 9)];
    let row = (
        0_usize..4,
        prop::collection::vec(0_usize..8, 0..7),
        [value.clone(), value],
    );
    prop::collection::vec(row, 0..20)
}

fn built(frames: &[Frame], series: &[Series], rows: &[Row]) -> Profile {
    let mut profile = Profile::new(
        "lua",
        vec![
            Measure::new("events", "count"),
            Measure::new("blocked", "ns"),
        ],
    );
    let frames: Vec<FrameId> = frames.iter().map(|f| profile.frames.intern(f)).collect();
    for (one, stack, values) in rows {
        let id = profile.series.intern(&series[*one]);
        let stack: Vec<FrameId> = stack.iter().map(|f| frames[*f]).collect();
        profile.add_stack(id, &stack, &[values[0], values[1], 0]);
    }
    profile
}

fn stacks(profile: &Profile) -> BTreeMap<(Series, Option<u32>, Vec<Frame>), Values> {
    let mut stacks = profile.canonical().stacks;
    stacks.retain(|_, values| *values != Values::default());
    stacks
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        frames in prop::collection::vec(any_frame(), 8),
        series in prop::collection::vec(any_series(), 4),
        rows in any_rows(),
    ) {
        let profile = built(&frames, &series, &rows);
        let bytes = write(&profile);
        let back = read(&bytes).unwrap().profile;
        prop_assert_eq!(&back.measures, &profile.measures);
        prop_assert_eq!(&back.probe, &profile.probe);
        prop_assert_eq!(stacks(&back), stacks(&profile));
        prop_assert_eq!(write(&back), bytes);
    }

    #[test]
    fn the_order_of_merging_does_not_show(
        frames in prop::collection::vec(any_frame(), 8),
        series in prop::collection::vec(any_series(), 4),
        rows in any_rows(),
        more in any_rows(),
    ) {
        let (a, b) = (built(&frames, &series, &rows), built(&frames, &series, &more));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        prop_assert_eq!(write(&ab), write(&ba));
    }

    #[test]
    fn what_is_written_is_valid(
        frames in prop::collection::vec(any_frame(), 8),
        series in prop::collection::vec(any_series(), 4),
        rows in any_rows(),
    ) {
        let profile = built(&frames, &series, &rows);
        let seen = proto::Profile::decode(&unpack(&write(&profile))[..]).unwrap();
        let sum = |i: usize| seen.sample.iter().map(|s| i128::from(s.value[i])).sum::<i128>();
        let total = rows.iter().fold([0_i128; 2], |[a, b], (.., [x, y])| {
            [a + i128::from(*x), b + i128::from(*y)]
        });
        // Totals of the model saturate, and only those.
        if total.iter().all(|t| *t <= i128::from(u64::MAX)) {
            prop_assert_eq!([sum(0), sum(1)], total);
        }
        prop_assert!(seen.sample.iter().all(|s| s.value.iter().all(|v| *v >= 0)));
        let texts = i64::try_from(seen.string_table.len()).unwrap();
        prop_assert!(seen.function.iter().all(|f| f.name < texts && f.system_name < texts));
        let ids: Vec<u64> = seen.location.iter().map(|l| l.id).collect();
        prop_assert!(seen.sample.iter().flat_map(|s| &s.location_id).all(|id| ids.contains(id)));
        let mappings: Vec<u64> = seen.mapping.iter().map(|m| m.id).chain([0]).collect();
        prop_assert!(seen.location.iter().all(|l| mappings.contains(&l.mapping_id)));
        let functions: Vec<u64> = seen.function.iter().map(|f| f.id).collect();
        let mut lines = seen.location.iter().flat_map(|l| &l.line);
        prop_assert!(lines.all(|l| functions.contains(&l.function_id)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(
        frames in prop::collection::vec(any_frame(), 8),
        series in prop::collection::vec(any_series(), 4),
        rows in any_rows(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut bytes = unpack(&write(&built(&frames, &series, &rows)));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(imported) = read(&bytes) {
            prop_assert!(imported.profile.series.len() <= imported.stats.stacks as usize);
        }
    }
}

#[test]
fn a_long_name_is_cut_once_and_what_was_cut_stays() {
    let mut profile = Profile::new("lua", vec![Measure::new("events", "count")]);
    for name in [
        "x".repeat(70_000),
        "\u{e9}".repeat(40_000),
        "y".repeat(16 << 10),
    ] {
        let racy = Frame {
            racy: true,
            ..Frame::named(FrameKind::Lua, name, "")
        };
        let frame = profile.frames.intern(&racy);
        let series = profile.series.intern(&Series::default());
        profile.add_stack(series, &[frame], &[1, 0, 0]);
    }
    let once = read(&write(&profile)).unwrap();
    let (_, times) = once
        .stats
        .notes
        .iter()
        .find(|(n, _)| n.contains("16 KiB"))
        .unwrap();
    assert_eq!((once.profile.grand_total()[0], *times), (3, 3));
    assert!(
        once.profile
            .frames
            .as_slice()
            .iter()
            .all(|f| f.name.len() <= 16 << 10)
    );
    let twice = read(&write(&once.profile)).unwrap().profile;
    assert_eq!(stacks(&twice), stacks(&once.profile));
}
