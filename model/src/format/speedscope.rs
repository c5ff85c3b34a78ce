//! speedscope's JSON (<https://www.speedscope.app/file-format-schema.json>).
//!
//! In: a profile and its name. Out: one sampled profile for each series and measure, over one table
//! of frames, written piece by piece. Never: a weight that JavaScript cannot hold exactly, or the
//! whole text in memory.
//!
//! JavaScript's numbers are exact up to 2^53 (ECMAScript, `Number.MAX_SAFE_INTEGER`). A larger
//! weight is written as several samples of the same stack, so that each is exact; the sums that
//! speedscope makes of more than 2^53 (104 days in nanoseconds) are not.

use super::in_order::{Walk, series};
use crate::profile::{Frame, MEASURES_MAX, Measure, NodeId, Process, Profile, Series};
use std::io::{self, Write};

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";
/// `Number.MAX_SAFE_INTEGER` and one: the largest power of two below which every integer is exact.
const WEIGHT_MAX: u64 = 1 << 53;

/// Writes a profile. What speedscope has no place for is left out: kernel and JIT-compiled frames
/// are known by the ends of their names, and a frame's file is its module where it has no source.
///
/// # Errors
/// Those of `sink`.
pub fn write(profile: &Profile, name: &str, sink: &mut dyn Write) -> io::Result<()> {
    write!(sink, "{{\"$schema\":")?;
    text(sink, SCHEMA)?;
    write!(sink, ",\"exporter\":\"fleetflame\",\"name\":")?;
    text(sink, name)?;
    write!(sink, ",\"shared\":{{\"frames\":[")?;
    for (i, frame) in profile.frames.as_slice().iter().enumerate() {
        separate(sink, i)?;
        put_frame(sink, frame)?;
    }
    write!(sink, "]}},\"profiles\":[")?;
    let walk = Walk::of(profile);
    let mut written = 0;
    let measures = profile.measures.iter().take(MEASURES_MAX).enumerate();
    for id in series(profile) {
        let (Some(series), Some(totals)) = (profile.series.get(id), profile.totals.get(&id)) else {
            continue;
        };
        let rows = walk.rows(totals);
        for (column, measure) in measures.clone() {
            let rows: Vec<(NodeId, u64)> = rows
                .iter()
                .map(|(node, values)| (NodeId(*node), values[column]))
                .filter(|(_, value)| *value > 0)
                .collect();
            if !rows.is_empty() {
                separate(sink, written)?;
                written += 1;
                put_profile(sink, profile, series, measure, &rows)?;
            }
        }
    }
    if written == 0 {
        // speedscope opens no file without a profile.
        let measure = Measure::new("samples", "count");
        let measure = profile.measures.first().unwrap_or(&measure);
        put_profile(sink, profile, &Series::default(), measure, &[])?;
    }
    write!(sink, "]}}")
}

fn put_frame(sink: &mut dyn Write, frame: &Frame) -> io::Result<()> {
    write!(sink, "{{\"name\":")?;
    text(sink, &frame.label())?;
    let file = if frame.file.is_empty() {
        &frame.module
    } else {
        &frame.file
    };
    if !file.is_empty() {
        write!(sink, ",\"file\":")?;
        text(sink, file)?;
    }
    if frame.line > 0 && !frame.file.is_empty() {
        write!(sink, ",\"line\":{}", frame.line)?;
    }
    write!(sink, "}}")
}

fn put_profile(
    sink: &mut dyn Write,
    profile: &Profile,
    series: &Series,
    measure: &Measure,
    rows: &[(NodeId, u64)],
) -> io::Result<()> {
    write!(sink, "{{\"type\":\"sampled\",\"name\":")?;
    text(sink, &called(series, measure))?;
    write!(sink, ",\"unit\":\"{}\"", unit(measure))?;
    let total: u128 = rows.iter().map(|(_, value)| u128::from(*value)).sum();
    write!(sink, ",\"startValue\":0,\"endValue\":{total},\"samples\":[")?;
    let mut written = 0;
    for (node, value) in rows {
        let stack = profile.tree.stack(*node);
        for _ in parts(*value) {
            separate(sink, written)?;
            written += 1;
            write!(sink, "[")?;
            for (i, frame) in stack.iter().enumerate() {
                separate(sink, i)?;
                write!(sink, "{}", frame.0)?;
            }
            write!(sink, "]")?;
        }
    }
    write!(sink, "],\"weights\":[")?;
    for (i, part) in rows.iter().flat_map(|(_, value)| parts(*value)).enumerate() {
        separate(sink, i)?;
        write!(sink, "{part}")?;
    }
    write!(sink, "]}}")
}

/// A value in pieces that JavaScript holds exactly.
fn parts(value: u64) -> impl Iterator<Item = u64> {
    let whole = std::iter::repeat_n(WEIGHT_MAX, (value / WEIGHT_MAX) as usize);
    let rest = value % WEIGHT_MAX;
    whole.chain((rest > 0).then_some(rest))
}

/// What a series is called in speedscope's list: `kong-1 nginx: worker 3 (pid 812) thread, cpu`.
fn called(series: &Series, measure: &Measure) -> String {
    let Process {
        pid,
        comm,
        role,
        worker,
        generation,
        ..
    } = &series.process;
    let mut words: Vec<String> = vec![series.host.clone()];
    words.push(if role.is_empty() { comm } else { role }.clone());
    words.extend(worker.map(|w| w.to_string()));
    words.extend((*pid > 0).then(|| format!("(pid {pid})")));
    words.extend((*generation > 0).then(|| format!("after reload {generation}")));
    if series.thread != *comm {
        words.push(series.thread.clone());
    }
    words.push(series.event.clone());
    words.retain(|w| !w.is_empty());
    if words.is_empty() {
        return measure.name.clone();
    }
    format!("{}, {}", words.join(" "), measure.name)
}

/// speedscope's word for a unit.
fn unit(measure: &Measure) -> &'static str {
    match measure.unit.as_str() {
        "ns" => "nanoseconds",
        "bytes" => "bytes",
        _ => "none",
    }
}

fn separate(sink: &mut dyn Write, before: usize) -> io::Result<()> {
    if before > 0 {
        write!(sink, ",")
    } else {
        Ok(())
    }
}

fn text(sink: &mut dyn Write, text: &str) -> io::Result<()> {
    serde_json::to_writer(sink, text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{any_rows, profile_from};
    use crate::profile::{FrameKind, Series};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, serde::Deserialize)]
    struct File {
        shared: Shared,
        profiles: Vec<Sampled>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Shared {
        frames: Vec<Named>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Named {
        name: String,
        file: Option<String>,
        line: Option<u32>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sampled {
        name: String,
        unit: String,
        end_value: u128,
        samples: Vec<Vec<usize>>,
        weights: Vec<u64>,
    }

    fn written(profile: &Profile) -> File {
        let mut json = Vec::new();
        write(profile, "a \"name\"\n", &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn frames_say_their_file_and_series_their_name() {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let series = profile.series.intern(&Series {
            host: "kong-1".into(),
            process: Process {
                pid: 812,
                comm: "nginx".into(),
                role: "nginx: worker".into(),
                worker: Some(3),
                ..Process::default()
            },
            thread: "nginx".into(),
            ..Series::default()
        });
        let lua = Frame {
            file: "a/handler.lua".into(),
            line: 42,
            ..Frame::named(FrameKind::Jit, "access", "")
        };
        let frames = [
            Frame::named(FrameKind::User, "say \"hi\"\\", "nginx"),
            lua,
            Frame::named(FrameKind::Kernel, "read", "vmlinux"),
        ]
        .map(|f| profile.frames.intern(&f));
        profile.add_stack(series, &frames, &[2, WEIGHT_MAX * 2 + 1, 0]);
        let file = written(&profile);
        let frames: Vec<(&str, Option<&str>, Option<u32>)> = file
            .shared
            .frames
            .iter()
            .map(|f| (f.name.as_str(), f.file.as_deref(), f.line))
            .collect();
        assert_eq!(
            frames,
            [
                ("say \"hi\"\\", Some("nginx"), None),
                (
                    "a/handler.lua:42 access_[j]",
                    Some("a/handler.lua"),
                    Some(42)
                ),
                ("read_[k]", Some("vmlinux"), None),
            ]
        );
        let [samples, cpu] = &file.profiles[..] else {
            panic!("{:?}", file.profiles)
        };
        assert_eq!(samples.name, "kong-1 nginx: worker 3 (pid 812), samples");
        assert_eq!(
            (samples.unit.as_str(), &samples.weights[..]),
            ("none", &[2][..])
        );
        assert_eq!(cpu.unit, "nanoseconds");
        assert_eq!(cpu.weights, [WEIGHT_MAX, WEIGHT_MAX, 1]);
        assert_eq!(cpu.samples, vec![vec![0, 1, 2]; 3]);
        assert_eq!(cpu.end_value, u128::from(WEIGHT_MAX * 2 + 1));
    }

    #[test]
    fn an_empty_profile_has_one_empty_series() {
        let file = written(&Profile::new("on-cpu", Measure::on_cpu()));
        assert_eq!(file.profiles.len(), 1);
        assert_eq!(file.profiles[0].name, "samples");
        assert!(file.profiles[0].samples.is_empty());
    }

    proptest! {
        #[test]
        fn every_count_of_every_series_is_there(rows in any_rows()) {
            let profile = profile_from(&rows);
            let file = written(&profile);
            let mut sums: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
            for one in &file.profiles {
                prop_assert_eq!(one.samples.len(), one.weights.len());
                prop_assert_eq!(one.weights.iter().map(|w| u128::from(*w)).sum::<u128>(), one.end_value);
                for (stack, weight) in one.samples.iter().zip(&one.weights) {
                    let stack = stack.iter().map(|f| file.shared.frames[*f].name.clone()).collect();
                    *sums.entry((one.name.clone(), stack)).or_default() += weight;
                }
            }
            let mut wanted: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
            for (id, totals) in &profile.totals {
                for (node, values) in totals {
                    for (measure, value) in profile.measures.iter().zip(values) {
                        let name = called(profile.series.get(*id).unwrap(), measure);
                        let stack = profile.tree.stack(*node).iter().map(|f| profile.frames.get(*f).unwrap().label()).collect();
                        *wanted.entry((name, stack)).or_default() += value;
                    }
                }
            }
            wanted.retain(|_, value| *value > 0);
            prop_assert_eq!(sums, wanted);
        }
    }
}
