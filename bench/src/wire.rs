//! What a minute of a host weighs in ffz, with and without its seconds.
//!
//! In: a made-up gateway host: 8 workers, 60 s, 99 Hz. Out: bytes. Never: a peer that carries less
//! (folded text has no seconds).

use crate::figures::Report;
use model::format::ffz::{Head, encode_profile, encode_segment};
use model::profile::{
    Frame, FrameKind, IdMap, Keep, Measure, Process, Profile, Recorder, RecorderLimits, Series,
};

/// Measures and reports.
pub fn measure(report: &mut Report) {
    for (name, dithered) in [("one period", false), ("dithered periods", true)] {
        let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
        fill(&mut recorder, dithered);
        let segment = recorder.take(usize::MAX);
        let head = Head {
            probe: "on-cpu".into(),
            measures: Measure::on_cpu(),
        };
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        if profile
            .absorb(&mut IdMap::default(), "h", &segment, Keep::Cells)
            .is_err()
        {
            return;
        }
        let batch = encode_segment(&head, &segment).map_or(0, |b| b.len());
        profile.cells.clear();
        let totals = encode_profile(&profile).map_or(0, |b| b.len());
        let value = format!("{batch} B with seconds, {totals} B totals alone");
        report.single(
            &format!("ffz of 8 workers × 60 s × 99 Hz, {name}"),
            value,
            "printed",
        );
    }
}

fn fill(recorder: &mut Recorder, dithered: bool) {
    let mut seed = 7_u64;
    let mut random = |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for pid in 100..108 {
        let process = Process {
            pid,
            role: "nginx: worker".into(),
            ..Process::default()
        };
        let series = recorder.series(&Series {
            host: "h".into(),
            process,
            ..Series::default()
        });
        for bin in 0..60 {
            for _ in 0..99 {
                let leaf = random(40) * random(40) % 400;
                let mut stack = Vec::new();
                for depth in 0..20 + leaf % 10 {
                    let name = format!(
                        "function_{depth}_{}",
                        leaf >> (10_u64.saturating_sub(depth / 2))
                    );
                    stack.push(recorder.frame(&Frame::named(FrameKind::User, name, "nginx")));
                }
                let period = if dithered {
                    6_000_000 + random(8_000_000)
                } else {
                    10_101_010
                };
                recorder.add_stack(series, bin, &stack, &[1, period, 0]);
            }
        }
    }
}
