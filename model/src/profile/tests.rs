//! The algebra of profiles, by properties.

use super::*;
use proptest::prelude::*;

/// A small world of frames and series, so that random profiles overlap.
pub(crate) fn profile_from(rows: &[(u8, u8, Vec<u8>, u16)]) -> Profile {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let mut recorders: BTreeMap<u8, Recorder> = BTreeMap::new();
    for (host, bin, stack, value) in rows {
        let host = host % 3;
        let recorder = recorders.entry(host).or_insert_with(|| {
            Recorder::new(
                &format!("host-{host}"),
                Measure::on_cpu(),
                RecorderLimits::default(),
            )
        });
        let process = Process {
            pid: u32::from(bin % 4),
            ..Process::default()
        };
        let series = recorder.series(&Series {
            host: format!("host-{host}"),
            process,
            ..Series::default()
        });
        let frames: Vec<FrameId> = stack
            .iter()
            .map(|f| {
                let build_id = BuildId::new(&[host + 1; 4]);
                let frame = match f % 5 {
                    0 => Frame::unnamed(FrameKind::User, "m", build_id, u64::from(*f)),
                    1 => Frame::named(FrameKind::Kernel, format!("k{f}"), "vmlinux"),
                    _ => Frame {
                        build_id,
                        ..Frame::named(FrameKind::User, format!("f{f}"), "m")
                    },
                };
                recorder.frame(&frame)
            })
            .collect();
        let value = u64::from(*value);
        recorder.add_stack(series, u32::from(*bin), &frames, &[value, value * 10, 0]);
        recorder.count(
            CounterSource::Host,
            u32::from(*bin),
            CounterKind::CpuNs,
            value,
        );
        recorder.count(
            CounterSource::Series(series),
            u32::from(*bin),
            CounterKind::Lost,
            1,
        );
    }
    for (host, mut recorder) in recorders {
        let mut map = IdMap::default();
        loop {
            let segment = recorder.take(3);
            if segment.is_empty() {
                break;
            }
            profile
                .absorb(&mut map, &format!("host-{host}"), &segment, Keep::Cells)
                .unwrap();
        }
    }
    profile
}

pub(crate) fn any_rows() -> impl Strategy<Value = Vec<(u8, u8, Vec<u8>, u16)>> {
    prop::collection::vec(
        (
            any::<u8>(),
            0_u8..12,
            prop::collection::vec(0_u8..12, 0..6),
            any::<u16>(),
        ),
        0..40,
    )
}

use std::collections::BTreeMap;

fn merged(parts: &[&Profile]) -> Profile {
    let mut sum = Profile::default();
    for part in parts {
        sum.merge(part).unwrap();
    }
    sum
}

proptest! {
    #[test]
    fn merge_is_commutative(a in any_rows(), b in any_rows()) {
        let (a, b) = (profile_from(&a), profile_from(&b));
        prop_assert_eq!(merged(&[&a, &b]).canonical(), merged(&[&b, &a]).canonical());
    }

    #[test]
    fn merge_is_associative(a in any_rows(), b in any_rows(), c in any_rows()) {
        let (a, b, c) = (profile_from(&a), profile_from(&b), profile_from(&c));
        let left = merged(&[&merged(&[&a, &b]), &c]);
        let right = merged(&[&a, &merged(&[&b, &c])]);
        prop_assert_eq!(left.canonical(), right.canonical());
    }

    #[test]
    fn the_empty_profile_is_the_identity(a in any_rows()) {
        let a = profile_from(&a);
        let empty = Profile::new("on-cpu", Measure::on_cpu());
        prop_assert_eq!(merged(&[&a, &empty]).canonical(), a.canonical());
        prop_assert_eq!(merged(&[&empty, &a]).canonical(), a.canonical());
    }

    #[test]
    fn merging_adds_totals_exactly(a in any_rows(), b in any_rows()) {
        let (a, b) = (profile_from(&a), profile_from(&b));
        let mut sum = a.grand_total();
        add_values(&mut sum, &b.grand_total());
        prop_assert_eq!(merged(&[&a, &b]).grand_total(), sum);
    }

    #[test]
    fn totals_are_the_sum_of_cells(a in any_rows()) {
        let a = profile_from(&a);
        let mut by_cells: BTreeMap<SeriesId, BTreeMap<NodeId, Values>> = BTreeMap::new();
        for ((series, _), cell) in &a.cells {
            for (node, values) in cell.rows() {
                add_values(by_cells.entry(*series).or_default().entry(node).or_default(), values);
            }
        }
        let totals: BTreeMap<SeriesId, BTreeMap<NodeId, Values>> =
            a.totals.iter().map(|(s, t)| (*s, t.iter().map(|(n, v)| (*n, *v)).collect())).collect();
        prop_assert_eq!(by_cells, totals);
    }

    #[test]
    fn the_difference_of_a_side_with_itself_is_nothing(a in any_rows()) {
        let a = profile_from(&a);
        let side = a.select(|_| true);
        let d = diff(&side, &side, 0);
        prop_assert!(d.rows.iter().all(|r| r.delta() == 0));
        prop_assert_eq!(d.left_total, a.grand_total()[0]);
    }

    #[test]
    fn drawing_conserves_both_totals_and_keeps_its_bounds(
        a in any_rows(), frames_max in 0_usize..30, depth_max in 1_usize..5,
    ) {
        let a = profile_from(&a);
        let left = a.select(|s| s.host == "host-0");
        let right = a.select(|s| s.host != "host-0");
        let d = diff(&left, &right, 1);
        let limits = DrawLimits { frames_max, depth_max, width_min: 0.01 };
        let inclusive = d.inclusive(&a.tree);
        let drawing = draw(&a.tree, &a.frames, &d, &inclusive, limits, Frame::label);
        prop_assert!(drawing.stacks.is_sorted_by(|a, b| a.labels < b.labels));
        prop_assert_eq!(drawing.stacks.iter().map(|s| s.left).sum::<u64>(), d.left_total);
        prop_assert_eq!(drawing.stacks.iter().map(|s| s.right).sum::<u64>(), d.right_total);
        prop_assert!(drawing.frames <= frames_max);
        prop_assert!(drawing.stacks.iter().all(|s| s.labels.len() <= depth_max + 1));
        // The same by walking up from every row.
        let mut slowly: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for row in &d.rows {
            let mut at = row.node;
            while let Some(node) = a.tree.get(at) {
                let sum = slowly.entry(at).or_default();
                *sum = (sum.0 + row.left, sum.1 + row.right);
                at = node.parent;
            }
        }
        slowly.retain(|_, v| *v != (0, 0));
        let quickly: BTreeMap<NodeId, (u64, u64)> = inclusive.nodes().map(|n| (n, inclusive.get(n))).collect();
        prop_assert_eq!(&quickly, &slowly);
    }
}

#[test]
fn a_segment_from_another_host_or_base_changes_nothing() {
    let mut recorder = Recorder::new("b", Measure::on_cpu(), RecorderLimits::default());
    let series = recorder.series(&Series {
        host: "a".into(),
        ..Series::default()
    });
    recorder.add_stack(series, 0, &[], &[1, 1, 0]);
    let mut segment = recorder.take(usize::MAX);
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let mut map = IdMap::default();
    let swapped = profile.absorb(&mut map, "b", &segment, Keep::Totals);
    assert!(
        matches!(swapped, Err(MergeError::Host { .. })),
        "{swapped:?}"
    );
    segment.base_frames = 3;
    let gap = profile.absorb(&mut map, "a", &segment, Keep::Totals);
    assert!(matches!(gap, Err(MergeError::Base { .. })), "{gap:?}");
    assert_eq!(profile.grand_total(), Values::default());
    assert!(profile.series.is_empty());
}

#[test]
fn different_measures_never_add() {
    let mut a = Profile::new("on-cpu", Measure::on_cpu());
    let b = Profile::new("on-cpu", Measure::samples_only());
    assert!(matches!(a.merge(&b), Err(MergeError::Measures { .. })));
}
