//! Recordings of the real perf, with the fields that its users ask for. How they were made stands
//! in `testdata/perf/README.md`.

use super::*;

const DEFAULT: &[u8] = include_bytes!("../../../../testdata/perf/default.txt");
const PID_TID_CPU: &[u8] = include_bytes!("../../../../testdata/perf/pid-tid-cpu.txt");
const NO_TIME: &[u8] = include_bytes!("../../../../testdata/perf/no-time.txt");
const NO_EVENT: &[u8] = include_bytes!("../../../../testdata/perf/no-event.txt");
const COMM_ONLY: &[u8] = include_bytes!("../../../../testdata/perf/comm-only.txt");
const BARE: &[u8] = include_bytes!("../../../../testdata/perf/bare.txt");
const NO_DSO: &[u8] = include_bytes!("../../../../testdata/perf/no-dso.txt");
const NS_MISC: &[u8] = include_bytes!("../../../../testdata/perf/ns-misc.txt");
const INLINED: &[u8] = include_bytes!("../../../../testdata/perf/inlined.txt");
const SRCLINE: &[u8] = include_bytes!("../../../../testdata/perf/srcline.txt");
const TWO_EVENTS: &[u8] = include_bytes!("../../../../testdata/perf/two-events.txt");
const NO_CALLCHAIN: &[u8] = include_bytes!("../../../../testdata/perf/no-callchain.txt");
const LOST: &[u8] = include_bytes!("../../../../testdata/perf/lost.txt");
const PYTHON: &[u8] = include_bytes!("../../../../testdata/perf/python.txt");
const NODE: &[u8] = include_bytes!("../../../../testdata/perf/node.txt");

const COMMS: [&str; 3] = ["log (x) 12 [3]", "timer;1.5: a", "work"];

/// Samples of a text as perf separates them: by empty lines.
fn blocks(text: &[u8]) -> usize {
    let text = std::str::from_utf8(text).unwrap();
    text.split("\n\n").filter(|b| !b.trim().is_empty()).count()
}

#[test]
fn every_sample_of_every_recording_is_read() {
    for (name, text) in [
        ("default", DEFAULT),
        ("pid-tid-cpu", PID_TID_CPU),
        ("no-time", NO_TIME),
        ("no-event", NO_EVENT),
        ("comm-only", COMM_ONLY),
        ("bare", BARE),
        ("no-dso", NO_DSO),
        ("ns-misc", NS_MISC),
        ("inlined", INLINED),
        ("srcline", SRCLINE),
        ("two-events", TWO_EVENTS),
        ("python", PYTHON),
        ("node", NODE),
    ] {
        let ear = hear(text);
        assert_eq!(ear.samples.len(), blocks(text), "{name}");
        assert_eq!(
            (ear.foreign.as_slice(), ear.cut),
            (&[][..], false),
            "{name}"
        );
        let lines = text
            .split(|b| *b == b'\n')
            .filter(|l| l.starts_with(b"\t"))
            .count();
        let frames: usize = ear.samples.iter().map(|s| s.frames.len()).sum();
        assert_eq!(frames, lines, "{name}");
    }
}

#[test]
fn the_fields_that_are_printed_are_known() {
    for (name, text) in [
        ("default", DEFAULT),
        ("pid-tid-cpu", PID_TID_CPU),
        ("no-time", NO_TIME),
        ("no-event", NO_EVENT),
        ("no-dso", NO_DSO),
        ("ns-misc", NS_MISC),
        ("no-callchain", NO_CALLCHAIN),
    ] {
        for sample in hear(text).samples {
            assert!(COMMS.contains(&sample.comm.as_str()), "{name}: {sample:?}");
            let pid = ["pid-tid-cpu", "no-dso", "ns-misc"].contains(&name);
            assert_eq!(sample.ids.0.is_some(), pid, "{name}: {sample:?}");
            assert!(sample.ids.1.is_some(), "{name}: {sample:?}");
            let time = name != "no-time";
            assert_eq!(sample.time_ns.is_some(), time, "{name}: {sample:?}");
            let period = ["default", "no-time", "ns-misc", "no-callchain"].contains(&name);
            assert_eq!(sample.period, period.then_some(5_025_125), "{name}");
            let event = if name == "no-event" { "" } else { "cpu-clock" };
            assert_eq!(sample.event, event, "{name}");
        }
    }
}

/// The stacks of a recording that is read with the given fields are those of all others.
#[test]
fn fields_do_not_change_the_stacks() {
    let stacks = |text: &[u8], n: usize| {
        let samples = hear(text).samples.into_iter().take(n);
        samples.map(|s| s.frames).collect::<Vec<_>>()
    };
    for (name, text) in [
        ("no-time", NO_TIME),
        ("no-event", NO_EVENT),
        ("comm-only", COMM_ONLY),
        ("bare", BARE),
    ] {
        let n = blocks(text);
        assert!(n >= 8, "{name}");
        assert_eq!(stacks(text, n), stacks(DEFAULT, n), "{name}");
    }
    let bare = |stacks: Vec<Vec<String>>| -> Vec<Vec<String>> {
        let name = |frame: &String| frame.split('@').next().unwrap().to_owned();
        stacks
            .iter()
            .map(|s| s.iter().map(name).collect())
            .collect()
    };
    assert_eq!(stacks(NO_DSO, 8), stacks(NO_DSO, 8));
    assert_eq!(bare(stacks(NO_DSO, 3)), bare(stacks(DEFAULT, 3)));
}

#[test]
fn inlined_functions_are_known_with_and_without_lines_of_the_source() {
    let (inlined, srcline) = (read(INLINED, |_| ()), read(SRCLINE, |_| ()));
    assert_eq!(folded(&inlined, 0), folded(&srcline, 0));
    let stacks = folded(&inlined, 0);
    let stack = "clone3;start_thread;thread;hash_headers;outer_inlined_[i];mix_[i]";
    assert!(stacks.iter().any(|s| s.starts_with(stack)), "{stacks:#?}");
    let deleted: Vec<_> = hear(SRCLINE)
        .samples
        .into_iter()
        .flat_map(|s| s.frames)
        .filter(|f| f.ends_with("(deleted)"))
        .collect();
    assert_eq!(deleted[0], "@/opt/gateway/plugin.so (deleted)");
}

#[test]
fn the_first_of_two_events_is_taken() {
    let imported = read(TWO_EVENTS, |_| ());
    assert_eq!(imported.profile.probe, "context-switches");
    let clocks = imported.stats.other_events["cpu-clock"];
    assert_eq!(imported.stats.samples + clocks, blocks(TWO_EVENTS) as u64);
    let other = read(TWO_EVENTS, |o| o.perf.event = Some("cpu-clock".to_owned()));
    assert_eq!(
        (other.stats.samples, other.profile.probe.as_str()),
        (clocks, "on-cpu")
    );
    assert_eq!(other.profile.grand_total()[1], clocks * 10_309_278);
}

#[test]
fn what_was_lost_is_counted_and_a_cut_end_is_told() {
    let ear = hear(LOST);
    assert_eq!(ear.lost, [305, 136, 144]);
    assert!(ear.cut);
    assert_eq!(
        ear.samples.last().unwrap().frames.last().unwrap(),
        "recurse@"
    );
    let imported = read(LOST, |_| ());
    assert_eq!(imported.stats.lost_samples, 305 + 136 + 144);
    assert_eq!(imported.stats.samples, ear.samples.len() as u64);
    assert_eq!(imported.stats.notes.len(), 2, "{:?}", imported.stats.notes);
}

#[test]
fn without_callchains_a_sample_is_a_line() {
    let imported = read(NO_CALLCHAIN, |_| ());
    let lines = NO_CALLCHAIN
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .count();
    assert_eq!(imported.stats.samples, lines as u64);
    assert_eq!(imported.stats.foreign.lines(), 0);
    let stacks = folded(&imported, 0);
    assert!(stacks.contains(&"read_zero_[k] 1".to_owned()), "{stacks:?}");
    assert!(stacks.contains(&"[plugin.so] 1".to_owned()), "{stacks:?}");
}

#[test]
fn code_of_just_in_time_compilers_is_known() {
    let java = folded(
        &read(TWO_EVENTS, |o| o.perf.event = Some("cpu-clock".to_owned())),
        0,
    );
    let stack = "main;Lorg/example/Filter:::apply_[j];Lorg/example/Rule:::test(Lorg/example/Request:)Z_[i] ";
    assert!(java.iter().any(|s| s.contains(stack)), "{java:#?}");
    let stacks = folded(&read(NODE, |_| ()), 0);
    assert!(
        stacks
            .iter()
            .any(|s| s.contains(";JS:* /opt/gateway/server.js:1:1_[j]")),
        "{stacks:?}"
    );
    assert!(
        stacks
            .iter()
            .all(|s| s.contains(";v8::internal::(anonymous namespace)::Invoke;")),
        "{stacks:?}"
    );
    let python = read(PYTHON, |_| ());
    assert_eq!(
        python.profile.grand_total()[1],
        blocks(PYTHON) as u64 * 10_309_278
    );
    assert_eq!(python.profile.probe, "on-cpu");
}
