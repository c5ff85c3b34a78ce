//! Text of the real perf script (see agent/testdata/perf) into a recorder.

use super::*;
use model::profile::{Measure, RecorderLimits, Segment};
use std::collections::BTreeMap;

const WELL: &[u8] = include_bytes!("../../../testdata/perf/script-well.txt");
const LOST: &[u8] = include_bytes!("../../../testdata/perf/script-lost.txt");
const PERIOD_NS: u64 = 10_101_010;

/// Takes these pids within a window.
struct Only(Vec<u32>, (u64, u64), u64);

impl Targets for Only {
    fn of(&mut self, pid: u32, _tid: u32) -> Option<(Process, String)> {
        let process = Process {
            pid,
            role: "split".into(),
            ..Process::default()
        };
        self.0.contains(&pid).then(|| (process, "split".to_owned()))
    }

    fn window(&self) -> (u64, u64) {
        self.1
    }

    fn version(&self) -> u64 {
        self.2
    }
}

fn taken() -> Taken {
    Taken {
        host: "h".into(),
        mode: "dwarf".into(),
        event: "cpu-clock".into(),
        kernel: true,
        period_ns: PERIOD_NS,
        is_clock: true,
    }
}

fn recorder() -> Recorder {
    Recorder::new("h", Measure::on_cpu(), RecorderLimits::default())
}

/// Reads `text` in pieces of `step` bytes.
fn read(text: &[u8], step: usize, taken: Taken, targets: &mut Only) -> (Account, Segment) {
    let (mut reader, mut recorder) = (StackReader::new(taken), recorder());
    for piece in text.chunks(step) {
        reader.feed(piece, targets, &mut recorder);
    }
    let account = reader.end(targets, &mut recorder);
    (account, recorder.take(usize::MAX))
}

/// Stacks as folded text, and the sum of the second measure.
fn folded(segment: &Segment) -> (BTreeMap<String, u64>, u64) {
    let (mut stacks, mut sum_ns) = (BTreeMap::new(), 0);
    for (_, _, cell) in &segment.cells {
        for (node, values) in cell.nodes.iter().zip(&cell.values) {
            let mut labels = Vec::new();
            let mut at = *node;
            while at.0 != 0 {
                let node = segment.nodes[at.0 as usize - segment.base_nodes as usize];
                labels.push(segment.frames[node.frame.0 as usize].label());
                at = node.parent;
            }
            labels.reverse();
            *stacks.entry(labels.join(";")).or_default() += values[0];
            sum_ns += values[1];
        }
    }
    (stacks, sum_ns)
}

/// Headers of a recording: pid and time.
fn headers(text: &[u8]) -> Vec<(u32, u64)> {
    let text = std::str::from_utf8(text).unwrap();
    let header = |line: &str| {
        let (ids, rest) = line.trim().split_once(' ')?;
        let (time, event) = rest.trim().split_once(": ")?;
        event.contains("cpu-clock").then_some(())?;
        let (seconds, nanos) = time.split_once('.')?;
        let seconds: u64 = seconds.parse().ok()?;
        let nanos: u64 = nanos.parse().ok()?;
        let pid = ids.split('/').next()?.parse().ok()?;
        Some((pid, seconds * 1_000_000_000 + nanos))
    };
    text.lines().filter_map(header).collect()
}

#[test]
fn a_recording_comes_whole_in_pieces_of_any_size() {
    let headers = headers(WELL);
    let (pid, first) = headers[0];
    assert!(headers.len() > 40, "{}", headers.len());
    let targets = || Only(vec![pid], (first, u64::MAX), 0);
    let (account, whole) = read(WELL, WELL.len(), taken(), &mut targets());
    assert_eq!(account.samples, headers.len() as u64);
    assert_eq!((account.others, account.foreign, account.lost), (0, 0, 0));
    assert_eq!(account.other_event, None);
    let (stacks, sum_ns) = folded(&whole);
    assert_eq!(stacks.values().sum::<u64>(), account.samples);
    assert_eq!(sum_ns, account.samples * PERIOD_NS);
    let user = stacks
        .keys()
        .filter(|s| s.starts_with("_start;__libc_start"))
        .count();
    assert_eq!(user, stacks.len(), "{stacks:?}");
    assert!(stacks.keys().any(|s| s.ends_with(";descend;seventy")));
    assert!(stacks.keys().any(|s| s.ends_with(";descend;thirty")));
    for step in [1, 7, 4_096] {
        let (_, again) = read(WELL, step, taken(), &mut targets());
        assert_eq!(folded(&again), (stacks.clone(), sum_ns), "{step}");
    }
    // Seconds are differences to the start.
    let bins: BTreeMap<u32, u64> = whole.cells.iter().fold(BTreeMap::new(), |mut bins, c| {
        *bins.entry(c.1).or_default() += c.2.values.iter().map(|v| v[0]).sum::<u64>();
        bins
    });
    for (bin, count) in bins {
        let of = |t: &&(u32, u64)| (t.1 - first) / 1_000_000_000 == u64::from(bin);
        assert_eq!(
            count,
            headers.iter().filter(of).count() as u64,
            "second {bin}"
        );
    }
}

#[test]
fn only_targets_and_only_the_window_are_taken() {
    let headers = headers(WELL);
    let (pid, _) = headers[0];
    let half = headers[headers.len() / 2].1;
    let mut early = Only(vec![pid], (0, half), 0);
    let (account, _) = read(WELL, 100, taken(), &mut early);
    assert_eq!(account.samples, headers.len() as u64 / 2);
    assert_eq!(account.samples + account.others, headers.len() as u64);
    let (account, segment) = read(WELL, 100, taken(), &mut Only(vec![1], (0, half), 0));
    assert_eq!((account.samples, segment.cells.len()), (0, 0));
}

#[test]
fn losses_are_counted_in_their_second() {
    let headers = headers(LOST);
    let mut all = Only(vec![headers[0].0], (headers[0].1, u64::MAX), 0);
    let mut lost = taken();
    lost.period_ns = 1_001_001;
    let (account, segment) = read(LOST, 1_000, lost, &mut all);
    assert_eq!(account.samples, headers.len() as u64);
    assert!(account.lost > 0);
    let counted: u64 = segment.counters.iter().map(|c| c.value).sum();
    assert_eq!(counted, account.lost);
    assert_eq!(account.foreign, 0, "{:?}", account.examples);
}

#[test]
fn frames_follow_the_product_s_rules() {
    let text = b"  7/7  1.000000001:   10101010 cpu-clock: \n\
        \tffffffff81000000 do_syscall_64 ([kernel.kallsyms])\n\
        \tffffffffc0000000 nf_hook ([nf_tables])\n\
        \tffffffff81000001 [unknown] ([kernel.kallsyms])\n\
        \t    7f0000001000 [unknown] (/opt/my gateway/sbin/nginx)\n\
        \t    7f0000002000 a;b (/usr/lib/libx.so (deleted))\n\
        \t            2000 access (/tmp/perf-7.map)\n\
        \t               0 [unknown] ([unknown])\n\n";
    let (account, segment) = read(text, 9, taken(), &mut Only(vec![7], (0, u64::MAX), 0));
    assert_eq!(account.samples, 1);
    let (stacks, _) = folded(&segment);
    let expected = "[unknown];access_[j];a:b;[nginx];[vmlinux]_[k];nf_hook_[k];do_syscall_64_[k]";
    assert_eq!(stacks.keys().collect::<Vec<_>>(), [expected]);
    assert!(segment.frames.iter().all(|f| f.address == 0));
    let module = |name: &str| {
        segment
            .frames
            .iter()
            .find(|f| f.name == name)
            .unwrap()
            .module
            .clone()
    };
    assert_eq!(
        (module("a;b"), module("nf_hook")),
        ("libx.so".into(), "nf_tables".into())
    );
}

#[test]
fn forged_lines_reach_no_further_than_a_sample_may() {
    // A target whose function has line breaks in its name.
    let text = b"  7/7  5.000000001:   10101010 cpu-clock: \n\
        \t            1000 innocent\n\
        \x20   9/9  5.000000002: 99999999999999 cpu-clock: \n\
        \t            1000 forged (/x)\n\n\
        \x20   7/7  900.000000002: 10101010 cpu-clock: \n\
        \t            1000 late (/x)\n\n\
        what is this\n";
    let mut targets = Only(vec![7, 9], (5_000_000_000, 6_000_000_000), 0);
    let (account, segment) = read(text, 64, taken(), &mut targets);
    let (stacks, sum_ns) = folded(&segment);
    assert!(
        stacks.contains_key("forged") && !stacks.contains_key("late"),
        "{stacks:?}"
    );
    assert!(
        sum_ns <= PERIOD_NS * (PERIODS_MAX + 1),
        "a period is bounded: {sum_ns}"
    );
    assert_eq!(account.others, 1);
    assert!(account.foreign > 0 && account.examples.len() <= EXAMPLES_MAX);
}

#[test]
fn a_fallback_to_another_event_is_noticed() {
    let text = b"  7/7  5.0:   10101010 cpu-clock:u: \n\t            1000 f (/x)\n\n";
    let mut targets = Only(vec![7], (0, u64::MAX), 0);
    let (account, _) = read(text, 64, taken(), &mut targets);
    assert_eq!(account.other_event.as_deref(), Some("cpu-clock:u"));
    let user = Taken {
        kernel: false,
        ..taken()
    };
    assert_eq!(read(text, 64, user, &mut targets).0.other_event, None);
    let cycles = Taken {
        event: "cycles".into(),
        is_clock: false,
        ..taken()
    };
    let hybrid = b"  7/7  5.0:   12345 cpu_core/cycles/: \n\t            1000 f (/x)\n\n";
    let (account, segment) = read(hybrid, 64, cycles.clone(), &mut targets);
    assert_eq!(account.other_event, None);
    assert_eq!(
        folded(&segment).1,
        PERIOD_NS,
        "a count of cycles is no time"
    );
    let (account, _) = read(text, 64, cycles, &mut targets);
    assert!(account.other_event.is_some());
}

#[test]
fn a_stack_that_is_too_deep_is_cut_and_said_so() {
    let mut text = b"  7/7  5.0:   10101010 cpu-clock: \n".to_vec();
    for i in 0..2 * DEPTH_MAX {
        text.extend_from_slice(format!("\t{i:>16x} f (/x)\n").as_bytes());
    }
    text.push(b'\n');
    let (account, segment) = read(&text, 999, taken(), &mut Only(vec![7], (0, u64::MAX), 0));
    assert_eq!((account.samples, account.truncated), (1, 1));
    assert!(
        folded(&segment)
            .0
            .keys()
            .all(|s| s.starts_with("[truncated];f;"))
    );
}

#[test]
fn a_new_answer_about_a_pid_is_asked_for() {
    let (mut reader, mut recorder) = (StackReader::new(taken()), recorder());
    let text = b"  7/7  5.0:   10101010 cpu-clock: \n\t            1000 f (/x)\n\n";
    let mut targets = Only(vec![], (0, u64::MAX), 1);
    reader.feed(text, &mut targets, &mut recorder);
    targets.0.push(7);
    reader.feed(text, &mut targets, &mut recorder);
    assert_eq!(recorder.samples(), 0, "the answer is remembered");
    targets.2 = 2;
    reader.feed(text, &mut targets, &mut recorder);
    assert_eq!(recorder.samples(), 1);
    assert_eq!(reader.end(&mut targets, &mut recorder).others, 2);
}
