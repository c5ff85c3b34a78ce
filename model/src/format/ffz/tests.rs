//! ffz by properties: what is written is read back, and damage is an error, never a panic.

use super::*;
use crate::profile::tests::{any_rows, profile_from};
use crate::profile::{Recorder, RecorderLimits, Series, Values};
use proptest::prelude::*;

proptest! {
    #[test]
    fn decoding_an_encoded_profile_gives_it_back(rows in any_rows()) {
        let profile = profile_from(&rows);
        let bytes = encode_profile(&profile).unwrap();
        let back = decode_profile(&bytes, Limits::FILE, Want::Cells).unwrap();
        prop_assert_eq!(back.canonical(), profile.canonical());
        let totals = decode_profile(&bytes, Limits::FILE, Want::Totals).unwrap();
        prop_assert_eq!(totals.grand_total(), profile.grand_total());
        prop_assert!(totals.cells.is_empty());
        prop_assert_eq!(encode_profile(&back).unwrap(), bytes);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_an_error(rows in any_rows(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let bytes = encode_profile(&profile_from(&rows)).unwrap();
        let mut flipped = bytes.clone();
        let i = at.index(bytes.len());
        flipped[i] ^= 1 << bit;
        prop_assert!(decode_profile(&flipped, Limits::FILE, Want::Cells).is_err());
        prop_assert!(decode_profile(&bytes[..i], Limits::FILE, Want::Cells).is_err());
    }

    #[test]
    fn any_bytes_are_an_error_and_not_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_segment(&bytes, Limits::BATCH);
        bytes.splice(0..0, MAGIC);
        prop_assert!(decode_segment(&bytes, Limits::BATCH).is_err());
    }
}

fn segment_of_one() -> (Head, crate::profile::Segment) {
    let measures = Measure::on_cpu();
    let mut recorder = Recorder::new("h", measures.clone(), RecorderLimits::default());
    let series = recorder.series(&Series {
        host: "h".into(),
        ..Series::default()
    });
    recorder.add_stack(series, 7, &[], &[1, 2, 0]);
    (
        Head {
            probe: "on-cpu".into(),
            measures,
        },
        recorder.take(usize::MAX),
    )
}

#[test]
fn a_segment_survives_the_wire() {
    let (head, segment) = segment_of_one();
    let bytes = encode_segment(&head, &segment).unwrap();
    assert_eq!(
        decode_segment(&bytes, Limits::BATCH).unwrap(),
        (head, segment)
    );
}

#[test]
fn another_version_or_kind_of_file_is_named() {
    assert_eq!(
        decode_segment(b"PK\x03\x04", Limits::BATCH),
        Err(FfzError::NotFfz)
    );
    assert_eq!(
        decode_segment(b"ffz\x02", Limits::BATCH),
        Err(FfzError::Version(2))
    );
    assert_eq!(decode_segment(b"", Limits::BATCH), Err(FfzError::NotFfz));
}

#[test]
fn absurd_lengths_and_cyclic_parents_are_refused() {
    // A block that claims 4 GiB raw.
    let mut bytes = MAGIC.to_vec();
    bytes.push(block::HEAD);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    assert!(matches!(
        decode_segment(&bytes, Limits::BATCH),
        Err(FfzError::TooLarge { .. })
    ));
    // A node whose parent is itself, with good checksums.
    let (head, segment) = segment_of_one();
    let good = encode_segment(&head, &segment).unwrap();
    let head_len = block::BLOCK_HEAD_BYTES
        + u32::from_le_bytes(good[9..13].try_into().unwrap()) as usize
        + MAGIC.len();
    let mut cyclic = good[..head_len].to_vec();
    let mut raw = Vec::new();
    for number in [0, 0, 1, 0, 0, 0] {
        varint::put(&mut raw, number); // no strings, no frames, one node going back by 0
    }
    block::put_block(&mut cyclic, block::DICTIONARY, &raw).unwrap();
    block::put_block(&mut cyclic, block::END, &[0]).unwrap();
    let error = decode_segment(&cyclic, Limits::BATCH).unwrap_err();
    assert_eq!(
        error,
        FfzError::Malformed("a node's parent does not come before it")
    );
    // A count that is larger than the bytes that follow costs no memory.
    let mut counted = good[..head_len].to_vec();
    let mut raw = Vec::new();
    varint::put(&mut raw, 0);
    varint::put(&mut raw, u64::MAX);
    block::put_block(&mut counted, block::DICTIONARY, &raw).unwrap();
    assert!(decode_segment(&counted, Limits::BATCH).is_err());
}

/// A document of a good head and these blocks.
fn with_blocks(bases: [u64; 3], blocks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut head = Vec::new();
    varint::put_bytes(&mut head, b"p");
    varint::put(&mut head, 1);
    varint::put_bytes(&mut head, b"samples");
    varint::put_bytes(&mut head, b"count");
    bases.iter().for_each(|b| varint::put(&mut head, *b));
    let mut bytes = MAGIC.to_vec();
    block::put_block(&mut bytes, block::HEAD, &head).unwrap();
    for (kind, raw) in blocks {
        block::put_block(&mut bytes, *kind, raw).unwrap();
    }
    block::put_block(&mut bytes, block::END, &[0]).unwrap();
    bytes
}

#[test]
fn one_long_text_cannot_be_named_a_million_times() {
    let limits = Limits {
        block_raw_bytes_max: 1 << 20,
        total_raw_bytes_max: 1 << 20,
    };
    let too_large = Err(FfzError::Malformed("the texts are too large"));
    let mut table = Vec::new();
    varint::put(&mut table, 2);
    varint::put_bytes(&mut table, b"");
    varint::put_bytes(&mut table, &[b'x'; 100_000]);
    // Each entry names the long text once, in the one place that is given; 1,000 of them are 100 MB.
    let dictionary = |entry: &[u8], before: &[u64], after: &[u64]| {
        let mut raw = table.clone();
        before.iter().for_each(|n| varint::put(&mut raw, *n));
        (0..1_000).for_each(|_| raw.extend_from_slice(entry));
        after.iter().for_each(|n| varint::put(&mut raw, *n));
        raw
    };
    for place in 1..4 {
        let mut frame = [0; 7];
        frame[place] = 1;
        let raw = dictionary(&frame, &[1_000], &[0, 0]);
        let bytes = with_blocks([0, 1, 0], &[(block::DICTIONARY, &raw)]);
        assert_eq!(
            decode_segment(&bytes, limits),
            too_large,
            "a frame's text {place}"
        );
    }
    for place in 0..7 {
        let mut series = [0; 12];
        series[place] = 1;
        let raw = dictionary(&series, &[0, 0, 1_000], &[]);
        let bytes = with_blocks([0, 1, 0], &[(block::DICTIONARY, &raw)]);
        assert_eq!(
            decode_segment(&bytes, limits),
            too_large,
            "a series' text {place}"
        );
    }
    let raw = dictionary(&[1, 0, 0, 3, 1], &[1_000], &[]);
    let bytes = with_blocks([0, 1, 0], &[(block::COUNTERS, &raw)]);
    assert_eq!(
        decode_segment(&bytes, limits),
        too_large,
        "a counter's host"
    );
    // Nor a little in each of many blocks.
    let mut frame = table.clone();
    [60].iter().for_each(|n| varint::put(&mut frame, *n));
    (0..60).for_each(|_| frame.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0]));
    frame.extend_from_slice(&[0, 0]);
    let blocks: Vec<(u8, &[u8])> = vec![(block::DICTIONARY, &frame); 5];
    assert_eq!(
        decode_segment(&with_blocks([0, 1, 0], &blocks), limits),
        too_large
    );
    assert!(decode_segment(&with_blocks([0, 1, 0], &blocks[..1]), limits).is_ok());
}

#[test]
fn node_numbers_beyond_u32_are_refused() {
    let raw = [0, 0, 2, 1, 2, 0, 0, 0]; // no texts, no frames, two nodes, no series
    let bytes = with_blocks([0, u64::from(u32::MAX), 0], &[(block::DICTIONARY, &raw)]);
    assert_eq!(
        decode_segment(&bytes, Limits::BATCH),
        Err(FfzError::Malformed("too many nodes"))
    );
}

#[test]
fn eight_workers_for_a_minute_take_tens_of_kilobytes() {
    use crate::profile::{Frame, FrameKind, IdMap, Keep, Process, Profile};
    let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
    let mut seed = 7_u64;
    let mut random = |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for worker in 0..8 {
        let process = Process {
            pid: 100 + worker,
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
                let stack: Vec<_> = (0..20 + leaf % 10)
                    .map(|d| {
                        let name =
                            format!("function_{}_{}", d, leaf >> (10_u64.saturating_sub(d / 2)));
                        recorder.frame(&Frame::named(FrameKind::User, name, "nginx"))
                    })
                    .collect();
                let values: Values = [1, 10_000_000 + random(8_000_000), 0];
                recorder.add_stack(series, bin, &stack, &values);
            }
        }
    }
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let segment = recorder.take(usize::MAX);
    profile
        .absorb(&mut IdMap::default(), "h", &segment, Keep::Cells)
        .unwrap();
    let with_cells = encode_profile(&profile).unwrap().len();
    profile.cells.clear();
    let totals = encode_profile(&profile).unwrap().len();
    println!("8 workers, 60 s, 99 Hz, dithered: {with_cells} bytes, totals alone {totals}");
    // 47,520 samples of 8 workers; the random periods of a dither cost most of it.
    assert!(
        with_cells < 250_000 && totals < 40_000,
        "{with_cells} {totals}"
    );
}

#[test]
fn a_second_that_no_capture_has_is_refused() {
    use super::decode::SECOND_MAX;
    let read = |second: u32, cell: bool| {
        let (head, mut segment) = segment_of_one();
        if cell {
            segment.cells[0].1 = second;
        } else {
            segment.counters.push(crate::profile::CounterRow {
                host: "h".into(),
                source: crate::profile::CounterSource::Host,
                bin: second,
                kind: crate::profile::CounterKind::Lost,
                value: 1,
            });
        }
        let bytes = encode_segment(&head, &segment).unwrap();
        decode_segment(&bytes, Limits::BATCH).map(drop)
    };
    for cell in [true, false] {
        assert_eq!(read(SECOND_MAX, cell), Ok(()));
        assert!(read(SECOND_MAX + 1, cell).is_err());
    }
}
