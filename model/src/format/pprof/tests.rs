//! Against types that prost derives, and against itself.

use super::*;
use crate::format::fold::FoldLimits;
use crate::format::import::{Format, ImportError, ImportOptions, Imported, import};
use crate::profile::{BuildId, Frame, FrameKind, Measure, Process, Profile, ROOT, Series};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io::Read as _;

mod properties;
mod proto;

/// Makes messages as another program would.
#[derive(Default)]
struct Other {
    profile: proto::Profile,
}

impl Other {
    fn new(types: &[(&str, &str)]) -> Self {
        let mut other = Self::default();
        other.text("");
        for (kind, unit) in types {
            let (r#type, unit) = (other.text(kind), other.text(unit));
            other
                .profile
                .sample_type
                .push(proto::ValueType { r#type, unit });
        }
        other
    }

    fn text(&mut self, text: &str) -> i64 {
        let texts = &mut self.profile.string_table;
        let found = texts.iter().position(|t| t == text).unwrap_or_else(|| {
            texts.push(text.to_owned());
            texts.len() - 1
        });
        i64::try_from(found).unwrap()
    }

    fn mapping(&mut self, file: &str, build_id: &str) -> u64 {
        let id = self.profile.mapping.len() as u64 + 1;
        let (filename, build_id) = (self.text(file), self.text(build_id));
        self.profile.mapping.push(proto::Mapping {
            id,
            memory_start: id << 32,
            memory_limit: (id + 1) << 32,
            file_offset: 0x1000,
            filename,
            build_id,
            has_functions: true,
        });
        id
    }

    /// A location whose functions are given innermost first.
    fn location(&mut self, mapping_id: u64, address: u64, functions: &[&str]) -> u64 {
        let id = self.profile.location.len() as u64 + 1;
        let mut line = Vec::new();
        for name in functions {
            let function_id = self.profile.function.len() as u64 + 1;
            let (name, filename) = (self.text(name), self.text("/src/x.c"));
            self.profile.function.push(proto::Function {
                id: function_id,
                name,
                system_name: name,
                filename,
                start_line: 7,
            });
            line.push(proto::Line {
                function_id,
                line: 9,
            });
        }
        self.profile.location.push(proto::Location {
            id,
            mapping_id,
            address,
            line,
        });
        id
    }

    fn sample(&mut self, leaf_first: &[u64], value: &[i64], labels: &[(&str, &str, i64)]) {
        let label = labels
            .iter()
            .map(|(key, str, num)| proto::Label {
                key: self.text(key),
                str: if str.is_empty() { 0 } else { self.text(str) },
                num: *num,
                num_unit: 0,
            })
            .collect();
        self.profile.sample.push(proto::Sample {
            location_id: leaf_first.to_vec(),
            value: value.to_vec(),
            label,
        });
    }

    fn read(&self) -> Imported {
        read(&self.profile.encode_to_vec()).unwrap()
    }
}

fn read(bytes: &[u8]) -> Result<Imported, ImportError> {
    let options = ImportOptions {
        format: Some(Format::Pprof),
        ..ImportOptions::new("h")
    };
    import(bytes, options)
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut unpack = flate2::read::GzDecoder::new(packed);
    unpack.read_to_end(&mut plain).unwrap();
    plain
}

fn folded(profile: &Profile) -> String {
    let rows = profile.select(|_| true);
    crate::format::folded::write(&profile.tree, &profile.frames, &rows, 0)
}

#[test]
fn the_time_is_written_where_it_is_known() {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let series = profile.series.intern(&Series::default());
    profile.add_stack(series, &[], &[1, 2, 0]);
    let decoded = |packed: Vec<u8>| {
        let mut plain = Vec::new();
        let mut gzip = flate2::read::GzDecoder::new(&packed[..]);
        gzip.read_to_end(&mut plain).unwrap();
        proto::Profile::decode(&plain[..]).unwrap()
    };
    let taken = Taken {
        from_unix_ns: 1_770_000_000_000_000_000,
        duration_ns: 30_000_000_000,
    };
    let timed = decoded(write_taken(&profile, taken));
    assert_eq!(timed.time_nanos, 1_770_000_000_000_000_000);
    assert_eq!(timed.duration_nanos, 30_000_000_000);
    let untimed = decoded(write(&profile));
    assert_eq!((untimed.time_nanos, untimed.duration_nanos), (0, 0));
    assert_eq!(timed.sample, untimed.sample);
}

#[test]
fn what_prost_encodes_is_read() {
    let mut other = Other::new(&[("samples", "count"), ("cpu", "microseconds")]);
    let nginx = other.mapping("/usr/sbin/nginx (deleted)", "0aff");
    let kernel = other.mapping("[kernel.kallsyms]", "");
    let module = other.mapping("/lib/modules/6.1/kernel/nf_tables.ko.xz", "go.id/not-hex");
    let main = other.location(nginx, (1 << 32) + 16, &["main"]);
    let handler = other.location(nginx, (1 << 32) + 32, &["memcpy", "ngx_copy", "handler"]);
    let bare = other.location(nginx, (1 << 32) + 48, &[]);
    let hex = other.location(nginx, (1 << 32) + 48, &["0x7f0012ab"]);
    let call = other.location(kernel, 0xffff_ffff_8100_0000, &["do_syscall_64"]);
    let rule = other.location(module, 0xffff_ffff_c000_0000, &["nft_do_chain"]);
    let nowhere = other.location(0, 0x7f00, &[]);
    let labels = [
        ("host", "kong-1", 0),
        ("pid", "", 812),
        ("process", "nginx", 0),
        ("thread", "worker", 0),
    ];
    other.sample(&[handler, main], &[3, 30], &labels);
    other.sample(&[bare, main], &[4, 40], &labels);
    other.sample(&[hex, main], &[5, 50], &[("request", "/secret", 0)]);
    other.sample(&[rule, call, main], &[6, 60], &[("tid", "", 7)]);
    other.sample(&[nowhere], &[7, -70], &[]);
    other.sample(&[main], &[0, 0], &[]);
    other.profile.period_type = Some(other.profile.sample_type[1]);
    other.profile.period = 10_000;
    let imported = other.read();
    let profile = &imported.profile;
    assert_eq!(profile.measures, Measure::on_cpu());
    assert_eq!(
        folded(profile),
        "[unknown] 7\n\
         main;[nginx] 9\n\
         main;do_syscall_64_[k];nft_do_chain_[k] 6\n\
         main;handler;ngx_copy_[i];memcpy_[i] 3\n"
    );
    assert_eq!(profile.grand_total(), [25, 180_000, 0]);
    let worker = &profile.series.as_slice()[0];
    assert_eq!(
        (
            worker.host.as_str(),
            worker.process.pid,
            worker.thread.as_str()
        ),
        ("kong-1", 812, "worker")
    );
    assert_eq!(worker.process.role, "nginx");
    assert_eq!(worker.period_ns, 10_000_000);
    assert_eq!(profile.series.as_slice()[1].host, "h");
    let by_name = |name: &str| {
        let frames = profile.frames.as_slice();
        frames.iter().find(|f| f.name == name).unwrap()
    };
    assert_eq!(by_name("main").build_id, BuildId::new(&[0x0a, 0xff]));
    assert_eq!(by_name("main").module, "nginx");
    assert_eq!(by_name("nft_do_chain").module, "nf_tables");
    assert_eq!(by_name("do_syscall_64").module, "vmlinux");
    assert!(profile.frames.as_slice().iter().all(|f| f.address == 0));
    let notes: Vec<(&str, u64)> = imported.stats.notes.into_iter().collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes
            .iter()
            .any(|(n, times)| n.contains("below zero") && *times == 1)
    );
    assert!(
        notes
            .iter()
            .any(|(n, times)| n.contains("labels other") && *times == 1)
    );
    assert_eq!(imported.stats.stacks, 6);
}

#[test]
fn of_many_sample_types_the_first_three_are_kept_and_it_is_said() {
    let mut other = Other::new(&[
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "kilobytes"),
    ]);
    let main = other.location(0, 1, &["main"]);
    other.sample(&[main], &[1, 2, 3, 4], &[]);
    let imported = other.read();
    assert_eq!(imported.profile.grand_total(), [1, 2, 3]);
    assert_eq!(imported.profile.probe, "alloc");
    assert_eq!(
        imported.profile.measures[1],
        Measure::new("alloc_space", "bytes")
    );
    assert!(
        imported
            .stats
            .notes
            .keys()
            .any(|n| n.contains("first three"))
    );
}

#[test]
fn offsets_are_kept_where_they_are_asked_for() {
    let mut other = Other::new(&[("samples", "count")]);
    let nginx = other.mapping("nginx", "");
    let bare = other.location(nginx, (1 << 32) + 0x30, &[]);
    other.sample(&[bare], &[2], &[]);
    let options = ImportOptions {
        keep_offsets: true,
        ..ImportOptions::new("h")
    };
    let imported = import(&other.profile.encode_to_vec(), options).unwrap();
    assert_eq!(folded(&imported.profile), "[nginx]+0x1030 2\n");
}

#[test]
fn the_budget_of_nodes_and_depth_holds_and_totals_stay() {
    let mut other = Other::new(&[("samples", "count")]);
    let ids: Vec<u64> = (0..60)
        .map(|i| other.location(0, 1, &[&format!("a{i}"), &format!("b{i}")]))
        .collect();
    for from in 0..60 {
        other.sample(&ids[from..], &[1], &[]);
    }
    for limits in [
        FoldLimits {
            nodes_max: 30,
            ..FoldLimits::default()
        },
        FoldLimits {
            depth_max: 9,
            ..FoldLimits::default()
        },
        FoldLimits {
            text_bytes_max: 2_000,
            ..FoldLimits::default()
        },
    ] {
        let options = ImportOptions {
            limits,
            ..ImportOptions::new("h")
        };
        let imported = import(&other.profile.encode_to_vec(), options).unwrap();
        assert_eq!(imported.profile.grand_total()[0], 60);
        let cut = imported.stats.pruned + imported.stats.deeper;
        assert!(cut > 0 && cut < 60, "{limits:?}: {cut}");
        // The root's side is what is kept.
        let tree = &imported.profile.tree;
        let first = tree
            .as_slice()
            .iter()
            .skip(1)
            .find(|n| n.parent == ROOT)
            .unwrap();
        assert_eq!(
            imported.profile.frames.get(first.frame).unwrap().name,
            "b59"
        );
    }
}

#[test]
fn damage_is_said_with_its_place() {
    let mut other = Other::new(&[("samples", "count")]);
    let main = other.location(0, 1, &["main"]);
    other.sample(&[main], &[1], &[]);
    let good = other.profile.clone();
    let bad = |change: &dyn Fn(&mut proto::Profile)| {
        let mut profile = good.clone();
        change(&mut profile);
        read(&profile.encode_to_vec()).unwrap_err().to_string()
    };
    for (said, change) in [
        (
            "location 9, which is not there",
            (&|p: &mut proto::Profile| p.sample[0].location_id[0] = 9)
                as &dyn Fn(&mut proto::Profile),
        ),
        ("2 values, but there are 1", &|p| p.sample[0].value.push(1)),
        ("function 5, which is not there", &|p| {
            p.location[0].line[0].function_id = 5
        }),
        ("mapping 3, which is not there", &|p| {
            p.location[0].mapping_id = 3
        }),
        ("a function has no id", &|p| p.function[0].id = 0),
        ("location 1 is there twice", &|p| {
            p.location.push(p.location[0].clone())
        }),
    ] {
        let error = bad(change);
        assert!(
            error.contains(said) && error.starts_with("pprof at byte "),
            "{error}"
        );
    }
    let bytes = good.encode_to_vec();
    let error = read(&bytes[..bytes.len() - 1]).unwrap_err();
    assert!(
        error.to_string().contains("longer than what holds it"),
        "{error}"
    );
    for (bytes, said) in [
        (&b"\x12\x80"[..], "at byte 1: a number does not end"),
        (b"\x03", "at byte 0: a field has number 0"),
        (b"\x13", "at byte 0: field 2 has wire type 3"),
        (
            b"\x10\x01",
            "at byte 0: field 2 holds no text and no message",
        ),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn our_bytes_are_profile_proto_and_say_what_pprof_users_look_for() {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let process = Process {
        pid: 812,
        comm: "nginx".into(),
        role: "nginx: worker".into(),
        worker: Some(0),
        ..Process::default()
    };
    let series = profile.series.intern(&Series {
        host: "kong-1".into(),
        process,
        thread: "nginx".into(),
        period_ns: 10_101_010,
        ..Series::default()
    });
    let frames = [
        Frame {
            build_id: BuildId::new(&[0xab; 20]),
            address: 0x1a2b,
            ..Frame::named(FrameKind::User, "main", "nginx")
        },
        Frame {
            file: "a/handler.lua".into(),
            line: 42,
            ..Frame::named(FrameKind::Lua, "access", "")
        },
        Frame::named(FrameKind::Kernel, "do_syscall_64", "vmlinux"),
    ]
    .map(|f| profile.frames.intern(&f));
    profile.add_stack(series, &frames, &[3, u64::MAX, 0]);
    let bytes = write(&profile);
    assert_eq!(bytes, write(&profile.clone()));
    let seen = proto::Profile::decode(&unpack(&bytes)[..]).unwrap();
    let text = |number: i64| seen.string_table[usize::try_from(number).unwrap()].as_str();
    assert_eq!(seen.string_table[0], "");
    let types: Vec<(&str, &str)> = seen
        .sample_type
        .iter()
        .map(|t| (text(t.r#type), text(t.unit)))
        .collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(seen.period, 10_101_010);
    assert_eq!(text(seen.comment[0]), "#fleetflame probe: on-cpu");
    let sum: i128 = seen.sample.iter().map(|s| i128::from(s.value[1])).sum();
    assert_eq!(sum, i128::from(u64::MAX));
    let labels: BTreeMap<&str, (&str, i64)> = seen.sample[0]
        .label
        .iter()
        .map(|l| (text(l.key), (text(l.str), l.num)))
        .collect();
    assert_eq!(labels["host"], ("kong-1", 0));
    assert_eq!(labels["pid"], ("", 812));
    assert_eq!(labels["role"], ("nginx: worker", 0));
    assert_eq!(labels["worker"], ("0", 0));
    let functions: Vec<(&str, &str, &str, i64)> = seen
        .function
        .iter()
        .map(|f| {
            (
                text(f.name),
                text(f.system_name),
                text(f.filename),
                f.start_line,
            )
        })
        .collect();
    assert_eq!(
        functions,
        [
            ("do_syscall_64", "do_syscall_64", "", 0),
            ("a/handler.lua:42 access", "access_[l]", "a/handler.lua", 42),
            ("main", "main_[u]", "", 0),
        ]
    );
    let mapping = seen
        .mapping
        .iter()
        .find(|m| text(m.filename) == "nginx")
        .unwrap();
    assert_eq!(text(mapping.build_id), "ab".repeat(20));
    assert_eq!(
        read(&bytes).unwrap().profile.grand_total(),
        [3, u64::MAX, 0]
    );
}
