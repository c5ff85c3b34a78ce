//! What a host's stacks weigh on the wire: ffz beside sorted folded text under zstd, and beside pprof.
//!
//! In: made-up hosts. Out: bytes of whole messages. Never: a peer that carries less (where ffz has
//! processes and seconds, the text has them too) or that is unsorted (sorting halves it).

use crate::args;
use crate::inputs::fleet::{Counted, Fleet, SECONDS, WORKERS, frame, series};
use crate::inputs::random::{Random, mix};
use crate::setting::Setting;
use crate::table::Goal;
use anyhow::ensure;
use model::format::ffz::{Head, Known, Limits, add_totals, encode_profile, encode_segment};
use model::format::import::{Import, ImportOptions};
use model::profile::{
    Frame, FrameId, FrameKind, IdMap, Keep, Measure, Process, Profile, Recorder, RecorderLimits,
    Series, SeriesId,
};
use std::io::Write as _;

const PART: &str = "wire";
const PERIOD_NS: u64 = 10_101_010;
/// The level that the peer's text is compressed with.
const ZSTD_LEVEL: i32 = 3;
/// Part of a later tick's stacks that no tick before it had.
const NEW_PERCENT: usize = 20;
/// Samples of a tick: all workers busy at 99 Hz.
const TICK_SAMPLES: u64 = WORKERS * 99 * TICK_S;
const TICK_S: u64 = 25;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    for stacks in [10_000, 100_000] {
        setting.step(format!("a host of {stacks} stacks"));
        setting.attempt(PART, "first snapshot", |s| snapshot(s, stacks));
    }
    setting.attempt(PART, "decode and merge", |s| decode(s, 10_000));
    setting.attempt(PART, "ticks", |s| ticks(s, 10_000));
    setting.attempt(PART, "a minute", minute);
    Ok(())
}

/// A whole host at once, without seconds.
fn snapshot(setting: &mut Setting, stacks: usize) -> anyhow::Result<()> {
    let fleet = Fleet::new(stacks, 80, 17);
    let counted = fleet.host(0);
    let mut profile = fleet.totals(0, &counted);
    let folded = zstd::bulk::compress(&fleet.folded(&counted), ZSTD_LEVEL)?;
    let theirs = [folded.len() as f64];
    let ffz = encode_profile(&profile)?;
    let bytes = [ffz.len() as f64];
    let what = format!("first snapshot of {stacks} stacks, totals of samples and nanoseconds");
    let report = &mut setting.report;
    let against = format!("{what}, against sorted folded text of samples under zstd -{ZSTD_LEVEL}");
    report.row(PART, against, "bytes", &bytes, &theirs, None);
    // The text has no time, so what is held against the goal has none.
    profile.measures.truncate(1);
    let ffz = encode_profile(&profile)?;
    let bytes = [ffz.len() as f64];
    let what = format!("first snapshot of {stacks} stacks, totals of samples");
    let goal = Goal::at_most(0.5)
        .aim(0.35)
        .probe(if stacks > 50_000 { 0.27 } else { 0.39 });
    let against = format!("{what}, against sorted folded text under zstd -{ZSTD_LEVEL}");
    setting.report.row(
        PART,
        against,
        "bytes",
        &bytes,
        &[folded.len() as f64],
        Some(goal),
    );

    let (from, to) = (setting.out("wire.ffz"), setting.out("wire.pb.gz"));
    std::fs::write(&from, &ffz)?;
    let arguments = args!["export", "--quiet", &from, "--format", "pprof", "-o", &to];
    setting.fleetflame("export", arguments)?.run()?;
    let pprof = std::fs::metadata(&to)?.len() as f64;
    ensure!(pprof > 0.0, "the export is empty");
    let goal = Goal::at_most(0.75).aim(0.6).probe(0.6);
    let against = format!("{what}, against gzip pprof (our export)");
    setting
        .report
        .row(PART, against, "bytes", &bytes, &[pprof], Some(goal));
    Ok(())
}

/// Receiving: ten hosts' bytes into one sum, from memory to memory in this process.
fn decode(setting: &mut Setting, stacks: usize) -> anyhow::Result<()> {
    const HOSTS: u64 = 10;
    let fleet = Fleet::new(stacks, 80, 17);
    let (mut ffz, mut texts) = (Vec::new(), Vec::new());
    for host in 0..HOSTS {
        let counted = fleet.host(host);
        ffz.push(encode_profile(&fleet.totals(host, &counted))?);
        texts.push(zstd::bulk::compress(&fleet.folded(&counted), ZSTD_LEVEL)?);
    }
    let from_ffz = || -> anyhow::Result<Profile> {
        let (mut sum, mut known) = (Profile::default(), Known::default());
        for bytes in &ffz {
            add_totals(&mut sum, &mut known, bytes, Limits::FILE, |_| {
                Series::default()
            })?;
        }
        Ok(sum)
    };
    let from_text = || -> anyhow::Result<Profile> {
        let mut import = Import::new(ImportOptions::new(""));
        for bytes in &texts {
            import.next_input("")?;
            import.feed(&zstd::decode_all(bytes.as_slice())?)?;
        }
        Ok(import.finish()?.profile)
    };
    let totals = (from_ffz()?.grand_total()[0], from_text()?.grand_total()[0]);
    ensure!(totals.0 == totals.1, "the sums differ: {totals:?}");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=setting.arguments.pairs {
        setting.step(format!(
            "decode and merge: round {round} of {}",
            setting.arguments.pairs
        ));
        ours.push(own_cpu_s(from_ffz)?);
        theirs.push(own_cpu_s(from_text)?);
    }
    let what = format!(
        "decode and add up {HOSTS} hosts × {stacks} stacks, against un-zstd and our own reader of folded text"
    );
    let goal = Some(Goal::at_least(6.0).aim(10.0).probe(11.0));
    setting
        .report
        .row(PART, what, "CPU s", &ours, &theirs, goal);
    Ok(())
}

/// CPU seconds of this process for `work`.
fn own_cpu_s<T>(work: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let before = crate::measure::own_cpu_s();
    let done = work()?;
    let after = crate::measure::own_cpu_s();
    drop(done); // freeing is no part of it
    Ok(after - before)
}

/// A capture in ticks, both sides with worker and second; the dictionary is kept at both
/// ends.
fn ticks(setting: &mut Setting, stacks: usize) -> anyhow::Result<()> {
    let fleet = Fleet::new(stacks, 80, 17);
    let first = fleet.host(0);
    let later = fleet.tick(&first, NEW_PERCENT);
    let mut recorder = recorder_of_one_host();
    for (number, counted) in [&first, &later].into_iter().enumerate() {
        let samples = spread(counted, number as u64);
        record(&mut recorder, &fleet, counted, &samples);
        let ours = [sent_bytes(&mut recorder)? as f64];
        let text = timed_text(&fleet, counted, &samples);
        let theirs = [zstd::bulk::compress(&text, ZSTD_LEVEL)?.len() as f64];
        let (name, goal) = if number == 0 {
            ("first tick", Goal::at_most(0.5).aim(0.35))
        } else {
            ("later tick, 20 % new stacks", Goal::at_most(0.2).aim(0.12))
        };
        let what = format!(
            "{name}: {} stacks, {} values of {WORKERS} workers over {TICK_S} s, both sides with worker and second, against sorted folded text under zstd -{ZSTD_LEVEL}",
            counted.len(),
            samples.len()
        );
        setting
            .report
            .row(PART, what, "bytes", &ours, &theirs, Some(goal));
    }
    // The goal as it was set: one series and no seconds on either side.
    let mut recorder = recorder_of_one_host();
    record_totals(&mut recorder, &fleet, &first);
    sent_bytes(&mut recorder)?;
    record_totals(&mut recorder, &fleet, &later);
    let ours = [sent_bytes(&mut recorder)? as f64];
    let theirs = [zstd::bulk::compress(&fleet.folded(&later), ZSTD_LEVEL)?.len() as f64];
    let what = format!(
        "later tick, {NEW_PERCENT} % new stacks: {} stacks, neither side with worker and second, against sorted folded text under zstd -{ZSTD_LEVEL}",
        later.len()
    );
    let goal = Goal::at_most(0.2).aim(0.12).probe(0.12);
    setting
        .report
        .row(PART, what, "bytes", &ours, &theirs, Some(goal));
    Ok(())
}

fn recorder_of_one_host() -> Recorder {
    Recorder::new("host000", Measure::on_cpu(), RecorderLimits::default())
}

/// One sample: worker, second, place of its stack in the list, how often.
type Sample = (u64, u64, usize, u64);

/// Spreads as many samples as a tick has over workers, seconds and stacks: each stack once, the rest
/// by weight.
fn spread(counted: &Counted, tick: u64) -> Vec<Sample> {
    let mut random = Random(mix(tick, 23));
    let mut samples: Vec<Sample> = (0..counted.len())
        .map(|n| {
            (
                random.below(WORKERS),
                tick * TICK_S + random.below(TICK_S),
                n,
                1,
            )
        })
        .collect();
    let rest = TICK_SAMPLES.saturating_sub(samples.len() as u64);
    samples.extend((0..rest).map(|_| {
        let stack = random.rank_below(counted.len() as u64) as usize;
        (
            random.below(WORKERS),
            tick * TICK_S + random.below(TICK_S),
            stack,
            1,
        )
    }));
    samples.sort_unstable();
    samples.dedup_by(|b, a| {
        let same = (a.0, a.1, a.2) == (b.0, b.1, b.2);
        if same {
            a.3 += b.3;
        }
        same
    });
    samples
}

/// Adds samples to what the agent's side keeps.
fn record(recorder: &mut Recorder, fleet: &Fleet, counted: &Counted, samples: &[Sample]) {
    let numbers: Vec<FrameId> = frames(recorder, fleet);
    let workers: Vec<SeriesId> = (0..WORKERS)
        .map(|w| recorder.series(&series(0, w)))
        .collect();
    for (worker, second, stack, count) in samples {
        let stack: Vec<FrameId> = counted[*stack]
            .0
            .iter()
            .map(|f| numbers[usize::from(*f)])
            .collect();
        let values = [*count, count * PERIOD_NS, 0];
        recorder.add_stack(workers[*worker as usize], *second as u32, &stack, &values);
    }
}

/// The same without workers and seconds.
fn record_totals(recorder: &mut Recorder, fleet: &Fleet, counted: &Counted) {
    let numbers = frames(recorder, fleet);
    let one = recorder.series(&series(0, 0));
    for (stack, count) in counted {
        let stack: Vec<FrameId> = stack.iter().map(|f| numbers[usize::from(*f)]).collect();
        recorder.add_stack(one, 0, &stack, &[*count, count * PERIOD_NS, 0]);
    }
}

fn frames(recorder: &mut Recorder, fleet: &Fleet) -> Vec<FrameId> {
    let functions = fleet.functions().iter();
    functions.map(|f| recorder.frame(&frame(f))).collect()
}

/// Everything that the recorder has not sent yet, as it goes over the wire.
fn sent_bytes(recorder: &mut Recorder) -> anyhow::Result<usize> {
    let head = Head {
        probe: "on-cpu".to_owned(),
        measures: Measure::on_cpu(),
    };
    let mut bytes = 0;
    loop {
        let segment = recorder.take(usize::MAX);
        if segment.is_empty() {
            return Ok(bytes);
        }
        bytes += encode_segment(&head, &segment)?.len();
    }
}

/// `worker;second;frame;… count`, sorted.
fn timed_text(fleet: &Fleet, counted: &Counted, samples: &[Sample]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = samples
        .iter()
        .map(|(worker, second, stack, count)| {
            let one = vec![(counted[*stack].0.clone(), *count)];
            let process = series(0, *worker).process;
            let mut line = Vec::new();
            let _ = write!(line, "{}/{};{second};", process.role, process.pid); // to memory
            line.extend(fleet.folded(&one));
            line
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// A minute of a gateway host: its weight alone.
fn minute(setting: &mut Setting) -> anyhow::Result<()> {
    for (name, dithered) in [("one period", false), ("dithered periods", true)] {
        let mut recorder = Recorder::new("h", Measure::on_cpu(), RecorderLimits::default());
        fill(&mut recorder, dithered);
        let segment = recorder.take(usize::MAX);
        let head = Head {
            probe: "on-cpu".into(),
            measures: Measure::on_cpu(),
        };
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        profile.absorb(&mut IdMap::default(), "h", &segment, Keep::Cells)?;
        let batch = encode_segment(&head, &segment)?.len() as f64;
        profile.cells.clear();
        let totals = encode_profile(&profile)?.len() as f64;
        let what = format!("ffz of {WORKERS} workers × {SECONDS} s × 99 Hz, {name}");
        let report = &mut setting.report;
        report.row(
            PART,
            format!("{what}, with seconds"),
            "bytes",
            &[batch],
            &[],
            None,
        );
        report.row(
            PART,
            format!("{what}, totals alone"),
            "bytes",
            &[totals],
            &[],
            None,
        );
    }
    Ok(())
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
