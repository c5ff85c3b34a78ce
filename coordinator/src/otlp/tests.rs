//! What is written as OTLP is decoded by opentelemetry-proto and is the profile again. In: profiles that were made up.
//! Out: equal frames, sums and seconds. Never: a decoder of our own.

use super::{SECOND_NS, message, write};
use model::profile::{
    BuildId, Cell, Frame, FrameId, FrameKind, MEASURES_MAX, Measure, Process, Profile, Series,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development as wire;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// 2026-02-02T02:40:00Z.
const ZERO: u64 = 1_770_000_000 * SECOND_NS;

fn frames() -> Vec<Frame> {
    let lua = |kind, name: &str, racy| Frame {
        file: "acl/handler.lua".into(),
        line: 42,
        racy,
        ..Frame::named(kind, name, "")
    };
    vec![
        Frame {
            build_id: BuildId::new(&[0x1f; 20]),
            address: 0x4_2000,
            ..Frame::named(FrameKind::User, "main", "nginx")
        },
        Frame::named(FrameKind::Inline, "ngx_memcpy", ""),
        lua(FrameKind::Lua, "access", true),
        lua(FrameKind::Jit, "access", false),
        Frame::unnamed(
            FrameKind::User,
            "libc.so.6",
            BuildId::new(&[7; 20]),
            0x9_1a20,
        ),
        Frame::named(FrameKind::Kernel, "do_syscall_64", "vmlinux"),
        Frame::named(FrameKind::Marker, "[pruned]", ""),
    ]
}

/// Host, process, second, frames, samples.
type Row = (u8, u8, u32, Vec<usize>, u64);

fn profile_of(rows: &[Row]) -> Profile {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let frames: Vec<FrameId> = frames().iter().map(|f| profile.frames.intern(f)).collect();
    let mut cells: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (host, process, second, stack, samples) in rows {
        let series = profile.series.intern(&Series {
            host: format!("kong-{host}"),
            process: Process {
                pid: 800 + u32::from(*process / 2),
                start_ticks: 77,
                comm: "nginx".into(),
                role: "nginx: worker".into(),
                worker: Some(u32::from(*process / 2)),
                ..Process::default()
            },
            thread: if process % 2 == 0 { "nginx" } else { "aio" }.into(),
            engine: "native".into(),
            event: "cpu-clock".into(),
            period_ns: 10_101_010,
            ..Series::default()
        });
        let stack: Vec<FrameId> = stack.iter().map(|f| frames[f % frames.len()]).collect();
        let mut values = [0; MEASURES_MAX];
        (values[0], values[1]) = (*samples, samples.saturating_mul(10));
        profile.add_stack(series, &stack, &values);
        let node = stack
            .iter()
            .fold(model::profile::ROOT, |at, f| profile.tree.intern(at, *f));
        cells
            .entry((series, *second))
            .or_default()
            .push((node, values));
    }
    let cells = cells
        .into_iter()
        .map(|(key, rows)| (key, Cell::from_rows(rows)));
    profile.cells = cells.collect();
    profile
}

/// Host, pid, thread, measure, instant, frames from the root.
type Key = (String, i64, String, String, Option<u64>, Vec<Frame>);

/// The sums in a profile.
fn wanted(profile: &Profile, zero: Option<u64>) -> BTreeMap<Key, u128> {
    let mut sums = BTreeMap::new();
    let mut add = |series, at: Option<u64>, node, values: &[u64; MEASURES_MAX]| {
        let series: &Series = profile.series.get(series).unwrap();
        let stack = profile.tree.stack(node).into_iter();
        let stack: Vec<Frame> = stack
            .map(|f| profile.frames.get(f).unwrap().clone())
            .collect();
        for (measure, value) in profile.measures.iter().zip(values).filter(|(_, v)| **v > 0) {
            let key = (
                series.host.clone(),
                i64::from(series.process.pid),
                series.thread.clone(),
                measure.name.clone(),
                at,
                stack.clone(),
            );
            *sums.entry(key).or_default() += u128::from(*value);
        }
    };
    match zero {
        Some(zero) => {
            for ((series, second), cell) in &profile.cells {
                let at = zero + u64::from(*second) * SECOND_NS;
                cell.rows()
                    .for_each(|(node, values)| add(*series, Some(at), node, values));
            }
        }
        None => {
            for (series, totals) in &profile.totals {
                totals
                    .iter()
                    .for_each(|(node, values)| add(*series, None, *node, values));
            }
        }
    }
    sums
}

/// An OTLP message with its tables.
struct Read(wire::ProfilesData);

impl Read {
    fn of(bytes: &[u8]) -> Self {
        Self(wire::ProfilesData::decode(bytes).unwrap())
    }

    fn tables(&self) -> &wire::ProfilesDictionary {
        self.0.dictionary.as_ref().unwrap()
    }

    fn text(&self, number: i32) -> String {
        self.tables().string_table[number as usize].clone()
    }

    fn attributes(&self, numbers: &[i32]) -> BTreeMap<String, Value> {
        let entry = |number: &i32| {
            let entry = &self.tables().attribute_table[*number as usize];
            let value = entry.value.clone().unwrap().value.unwrap();
            (self.text(entry.key_strindex), value)
        };
        numbers.iter().map(entry).collect()
    }

    fn frame(&self, number: i32) -> Frame {
        let location = &self.tables().location_table[number as usize];
        let mapping = &self.tables().mapping_table[location.mapping_index as usize];
        let [line] = &location.lines[..] else {
            panic!("one line")
        };
        let function = &self.tables().function_table[line.function_index as usize];
        let said = self.attributes(&location.attribute_indices);
        let kinds = [
            ("user", FrameKind::User),
            ("kernel", FrameKind::Kernel),
            ("lua", FrameKind::Lua),
            ("jit", FrameKind::Jit),
            ("inline", FrameKind::Inline),
            ("marker", FrameKind::Marker),
        ];
        let kind = string(&said["fleetflame.frame.kind"]);
        let (_, kind) = kinds.into_iter().find(|(word, _)| *word == kind).unwrap();
        let build_id = self.attributes(&mapping.attribute_indices);
        let build_id = build_id
            .get("process.executable.build_id.gnu")
            .map(|value| {
                let digits = string(value);
                let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
                let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
                BuildId::new(&bytes).unwrap()
            });
        let frame = Frame {
            kind,
            name: self.text(function.system_name_strindex),
            module: self.text(mapping.filename_strindex),
            file: self.text(function.filename_strindex),
            line: u32::try_from(function.start_line).unwrap(),
            build_id,
            address: location.address,
            racy: said.contains_key("fleetflame.frame.racy"),
        };
        assert_eq!(self.text(function.name_strindex), frame.title());
        frame
    }

    fn sums(&self) -> BTreeMap<Key, u128> {
        let mut sums = BTreeMap::new();
        for resource in &self.0.resource_profiles {
            let owner = resource.resource.as_ref().unwrap().attributes.iter();
            let owner: BTreeMap<&str, Value> = owner
                .map(|a| (a.key.as_str(), a.value.clone().unwrap().value.unwrap()))
                .collect();
            let Value::IntValue(pid) = owner["process.pid"] else {
                panic!("a pid")
            };
            for profile in resource.scope_profiles.iter().flat_map(|s| &s.profiles) {
                let measure = self.text(profile.sample_type.unwrap().type_strindex);
                for sample in &profile.samples {
                    let stack = &self.tables().stack_table[sample.stack_index as usize];
                    let stack = stack.location_indices.iter().rev();
                    let stack: Vec<Frame> = stack.map(|l| self.frame(*l)).collect();
                    let thread = string(&self.attributes(&sample.attribute_indices)["thread.name"]);
                    let times = &sample.timestamps_unix_nano;
                    assert!(times.is_empty() || times.len() == sample.values.len());
                    for (i, value) in sample.values.iter().enumerate() {
                        let at = times.get(i).copied();
                        let range =
                            profile.time_unix_nano..profile.time_unix_nano + profile.duration_nano;
                        assert!(at.is_none_or(|at| range.contains(&at)));
                        let host = string(&owner["host.name"]);
                        let key = (
                            host,
                            pid,
                            thread.clone(),
                            measure.clone(),
                            at,
                            stack.clone(),
                        );
                        *sums.entry(key).or_default() += u128::from(value.unsigned_abs());
                    }
                }
            }
        }
        sums
    }
}

fn string(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn small() -> Vec<Row> {
    vec![
        (1, 0, 0, vec![0, 5], 3),
        (1, 0, 2, vec![0, 5], 4),
        (1, 1, 2, vec![0, 1], 5),
        (1, 2, 1, vec![0, 2], 6),
        (2, 0, 1, vec![0, 3], 7),
        (2, 0, 1, vec![0, 4], u64::MAX - 1),
        (2, 0, 3, vec![6], 8),
        (2, 0, 3, vec![], 9),
    ]
}

#[test]
fn a_small_profile_is_the_same_stack_by_stack_and_second_by_second() {
    let profile = profile_of(&small());
    let read = Read::of(&write(&profile, Some(ZERO)).unwrap());
    let sums = read.sums();
    assert_eq!(sums, wanted(&profile, Some(ZERO)));
    let stack = [0, 5].map(|f| frames()[f].clone()).to_vec();
    let at = |second| Some(ZERO + second * SECOND_NS);
    let key = |second| {
        let (host, thread, measure) = ("kong-1".into(), "nginx".into(), "samples".into());
        (host, 800, thread, measure, at(second), stack.clone())
    };
    assert_eq!((sums[&key(0)], sums[&key(2)]), (3, 4));
    // Each process of each host is a resource of its own, named once.
    let owners = &read.0.resource_profiles;
    assert_eq!(owners.len(), 3);
    let of_first: Vec<String> = owners[0].scope_profiles[0]
        .profiles
        .iter()
        .map(|p| {
            let kind = p.sample_type.unwrap();
            format!(
                "{}/{}",
                read.text(kind.type_strindex),
                read.text(kind.unit_strindex)
            )
        })
        .collect();
    let of_thread = ["samples/count", "cpu/nanoseconds"];
    assert_eq!(of_first, [of_thread, of_thread].concat());
    // Without an instant the sums are there without one.
    let read = Read::of(&write(&profile, None).unwrap());
    assert_eq!(read.sums(), wanted(&profile, None));
}

#[test]
fn seconds_that_are_not_whole_are_left_out_and_their_sums_are_not() {
    let mut profile = profile_of(&small());
    let first = *profile.cells.keys().next().unwrap();
    profile.cells.remove(&first);
    let sums = Read::of(&write(&profile, Some(ZERO)).unwrap()).sums();
    let mut untimed: BTreeMap<Key, u128> = BTreeMap::new();
    for (mut key, value) in sums {
        key.4 = None;
        *untimed.entry(key).or_default() += value;
    }
    assert_eq!(untimed, wanted(&profile, None));
}

#[test]
fn tables_begin_with_nothing_and_have_every_entry_once() {
    let read = Read(message(&profile_of(&small()), Some(ZERO)));
    let tables = read.tables();
    assert_eq!(tables.string_table[0], "");
    assert_eq!(tables.mapping_table[0], wire::Mapping::default());
    assert_eq!(tables.location_table[0], wire::Location::default());
    assert_eq!(tables.function_table[0], wire::Function::default());
    assert_eq!(tables.stack_table[0], wire::Stack::default());
    assert_eq!(tables.link_table, [wire::Link::default()]);
    assert_eq!(tables.attribute_table[0], wire::KeyValueAndUnit::default());
    fn once<T: std::fmt::Debug>(table: &[T]) {
        let shown: BTreeSet<String> = table.iter().map(|t| format!("{t:?}")).collect();
        assert_eq!(shown.len(), table.len(), "{table:?}");
    }
    once(&tables.string_table);
    once(&tables.attribute_table);
    once(&tables.mapping_table);
    once(&tables.location_table);
    once(&tables.function_table);
    once(&tables.stack_table);
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let stack = prop::collection::vec(0_usize..7, 0..6);
    let row = (0_u8..3, 0_u8..4, 0_u32..5, stack, any::<u32>());
    let row = row.prop_map(|(host, process, second, stack, samples)| {
        (host, process, second, stack, u64::from(samples))
    });
    prop::collection::vec(row, 0..30)
}

proptest! {
    #[test]
    fn every_value_of_every_second_is_there(rows in any_rows()) {
        let profile = profile_of(&rows);
        let timed = Read::of(&write(&profile, Some(ZERO)).unwrap()).sums();
        prop_assert_eq!(timed, wanted(&profile, Some(ZERO)));
        let read = Read::of(&write(&profile, None).unwrap()).sums();
        prop_assert_eq!(read, wanted(&profile, None));
    }

    #[test]
    fn equal_profiles_are_equal_bytes(rows in any_rows()) {
        let mut back = rows.clone();
        back.reverse();
        let (one, other) = (profile_of(&rows), profile_of(&back));
        prop_assert_eq!(write(&one, Some(ZERO)).unwrap(), write(&other, Some(ZERO)).unwrap());
    }
}
