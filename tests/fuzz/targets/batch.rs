//! Batches on their way from a recorder, over ffz, into the live merge: no count is lost or made
//! up, whatever the order of operations; and a hostile batch changes nothing when it is refused.
#![no_main]

use fleetflame_fuzz::{Input, document};
use libfuzzer_sys::fuzz_target;
use model::format::ffz::{Head, Limits, decode_segment, encode_segment};
use model::profile::{
    CounterKind, CounterSource, Frame, FrameKind, IdMap, Keep, Measure, Process, Profile, Recorder,
    RecorderLimits, Segment, Series, Values, add_values,
};

const LIMITS: Limits = Limits {
    block_raw_bytes_max: 4 << 20,
    total_raw_bytes_max: 8 << 20,
};
const SENDER: &str = "h";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.byte() % 2 == 0 {
        hostile(input)
    } else {
        honest(input)
    }
});

/// The sum of a segment's values.
fn sum(segment: &Segment) -> Values {
    let mut sum = Values::default();
    segment
        .cells
        .iter()
        .flat_map(|c| &c.2.values)
        .for_each(|v| add_values(&mut sum, v));
    sum
}

fn counted(profile: &Profile) -> u64 {
    profile
        .counters
        .values()
        .fold(0, |sum, v| sum.saturating_add(*v))
}

/// Several documents of the fuzzer's, absorbed one after the other.
fn hostile(mut input: Input<'_>) {
    let mut profile = Profile::new("p", Measure::samples_only());
    let mut map = IdMap::default();
    let (mut total, mut counters) = (Values::default(), 0_u64);
    for _ in 0..8 {
        let len = usize::from(input.word());
        let Ok((_, segment)) =
            decode_segment(&document(&mut Input::new(input.slice(len)), 8), LIMITS)
        else {
            continue;
        };
        let keep = if len % 2 == 0 {
            Keep::Cells
        } else {
            Keep::Totals
        };
        let before = profile.clone();
        if profile.absorb(&mut map, SENDER, &segment, keep).is_ok() {
            add_values(&mut total, &sum(&segment));
            let more = segment
                .counters
                .iter()
                .fold(0_u64, |sum, c| sum.saturating_add(c.value));
            counters = counters.saturating_add(more);
        } else {
            assert_eq!(profile.frames.as_slice(), before.frames.as_slice());
            assert_eq!(profile.tree.as_slice(), before.tree.as_slice());
            assert_eq!(profile.canonical(), before.canonical());
        }
        assert_eq!(profile.grand_total(), total);
        assert_eq!(counted(&profile), counters);
    }
}

/// A recorder driven by the fuzzer: stacks, counters, batches sent, put back, coalesced, and a
/// coordinator that loses its dictionaries.
fn honest(mut input: Input<'_>) {
    let limits = RecorderLimits {
        nodes_max: 1 + usize::from(input.byte()),
        series_max: 1 + usize::from(input.byte() % 16),
    };
    let mut recorder = Recorder::new(SENDER, Measure::on_cpu(), limits);
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let mut map = IdMap::default();
    let (mut added, mut counters) = (Values::default(), 0_u64);
    while !input.is_empty() {
        match input.byte() % 8 {
            0..=3 => {
                let values = stack(&mut recorder, &mut input);
                add_values(&mut added, &values);
            }
            4 => {
                let (bin, value) = (u32::from(input.byte()), input.long());
                recorder.count(CounterSource::Host, bin, CounterKind::Lost, value);
                counters = counters.saturating_add(value);
            }
            5 => recorder.coalesce(),
            6 => {
                let lost = recorder.take(usize::from(input.byte()));
                recorder.put_back(lost);
                recorder.restart_dictionary();
                map = IdMap::default();
            }
            _ => send(
                &mut recorder,
                &mut profile,
                &mut map,
                usize::from(input.byte()),
            ),
        }
    }
    while recorder.pending_rows() > 0 {
        send(&mut recorder, &mut profile, &mut map, usize::MAX);
    }
    send(&mut recorder, &mut profile, &mut map, usize::MAX);
    assert_eq!(profile.grand_total(), added);
    assert_eq!(recorder.samples(), added[0]);
    assert_eq!(counted(&profile), counters);
}

fn stack(recorder: &mut Recorder, input: &mut Input<'_>) -> Values {
    let process = Process {
        pid: u32::from(input.byte() % 32),
        ..Process::default()
    };
    let series = recorder.series(&Series {
        host: SENDER.to_owned(),
        process,
        ..Series::default()
    });
    let bin = u32::from(input.byte() % 64);
    let depth = usize::from(input.byte() % 16);
    let frames: Vec<_> = input
        .slice(depth)
        .iter()
        .map(|b| {
            let kind = FrameKind::from_u8(b % 6).unwrap_or(FrameKind::User);
            let mut frame = Frame::named(kind, format!("f{}", b / 6), "m");
            frame.racy = b % 7 == 0;
            recorder.frame(&frame)
        })
        .collect();
    let values = [u64::from(input.byte()), input.long(), 0];
    recorder.add_stack(series, bin, &frames, &values);
    values
}

fn send(recorder: &mut Recorder, profile: &mut Profile, map: &mut IdMap, rows_max: usize) {
    let segment = recorder.take(rows_max);
    let head = Head {
        probe: "on-cpu".to_owned(),
        measures: Measure::on_cpu(),
    };
    let bytes = encode_segment(&head, &segment).expect("a recorder's segment can be encoded");
    let (back_head, back) = decode_segment(&bytes, LIMITS).expect("and decoded");
    assert_eq!((&back_head, &back), (&head, &segment));
    profile
        .absorb(map, SENDER, &back, Keep::Cells)
        .expect("and absorbed");
}
