//! The text of a built-in probe, whole and damaged.
//!
//! In: a recording of the real probe. Out: nothing. Never: a stack that is made up from a damaged line.

use super::*;
use proptest::prelude::*;

#[derive(Default)]
struct Ear {
    ready: bool,
    marks: Vec<u64>,
    stacks: Vec<Counted>,
    copied: Vec<Copied>,
    seen: u64,
    missed: Missed,
}

impl Hears for Ear {
    fn ready(&mut self) {
        self.ready = true;
    }

    fn mark(&mut self, ms: u64) {
        self.marks.push(ms);
    }

    fn stack(&mut self, stack: &Counted) {
        self.stacks.push(stack.clone());
    }

    fn copied(&mut self, sample: Copied) {
        self.copied.push(sample);
    }

    fn missed(&mut self, missed: Missed) {
        self.missed = missed;
    }

    fn seen(&mut self, events: u64) {
        self.seen = events;
    }
}

fn read(pieces: &[&[u8]]) -> (Ear, Account) {
    let (mut ear, mut reader) = (Ear::default(), Reader::default());
    for piece in pieces {
        reader.feed(piece, &mut ear);
    }
    let account = reader.end();
    (ear, account)
}

const RECORDED: &str = include_str!("../../../testdata/stap/oncpu-user.stdout");

#[test]
fn a_recorded_capture_is_read_to_its_last_line() {
    let (ear, account) = read(&[RECORDED.as_bytes()]);
    assert!(ear.ready && account.foreign == 0, "{account:?}");
    let (rows, samples) = account.end.expect("the last line");
    assert_eq!((rows, samples), (account.rows, account.samples));
    assert_eq!(samples, ear.stacks.iter().map(|s| s.count).sum::<u64>());
    // The workload is deep at one place: leaf, two above it, main, libc.
    assert!(
        ear.stacks
            .iter()
            .all(|s| s.kernel.is_empty() && s.user.len() == 6)
    );
    assert!(ear.marks.is_sorted() && ear.marks.len() > 5);
}

#[test]
fn without_its_last_line_a_report_has_no_end() {
    let cut = &RECORDED[..RECORDED.len() - 4];
    let (_, account) = read(&[cut.as_bytes()]);
    assert_eq!((account.end, account.foreign), (None, 1));
}

#[test]
fn what_is_no_line_of_ours_is_counted_and_shown() {
    let text = "ff1\n+1 2 3 0xffff81|0x55 0x66\n+1 2 3 0x55\n+x 2 3 |0x55\n----- probe hit report:\n+1 2 3 |55\n\n=1 2\n";
    let (ear, account) = read(&[text.as_bytes()]);
    assert_eq!(ear.stacks.len(), 1);
    assert_eq!(ear.stacks[0].kernel, [0xffff81]);
    assert_eq!(ear.stacks[0].user, [0x55, 0x66]);
    assert_eq!((account.foreign, account.end), (4, Some((1, 2))));
    assert!(account.examples[2].contains("probe hit report"));
}

#[test]
fn a_flood_without_line_breaks_takes_no_more_than_a_line() {
    let (mut ear, mut reader) = (Ear::default(), Reader::default());
    for _ in 0..1_000 {
        reader.feed(&[b'x'; 4_096], &mut ear);
    }
    assert!(reader.line.len() <= LINE_BYTES_MAX);
    reader.feed(b"\n+1 1 1 |0x1\n", &mut ear);
    assert_eq!((ear.stacks.len(), reader.end().foreign), (1, 1));
}

proptest! {
    #[test]
    fn where_the_text_is_cut_does_not_show(at in 0..RECORDED.len()) {
        let (whole, account) = read(&[RECORDED.as_bytes()]);
        let (first, second) = RECORDED.as_bytes().split_at(at);
        let (pieces, other) = read(&[first, second]);
        prop_assert_eq!(whole.stacks, pieces.stacks);
        prop_assert_eq!(account, other);
    }

    #[test]
    fn any_text_is_survived(text in "[+@=f0-9a-fx| \n]{0,200}") {
        let (ear, account) = read(&[text.as_bytes()]);
        prop_assert_eq!(account.rows, ear.stacks.len() as u64);
    }

    #[test]
    fn where_a_copied_sample_is_cut_does_not_show(at in 0..copied_sample().len() * 2, damage in any::<u8>()) {
        let mut bytes = [copied_sample(), copied_sample()].concat();
        for damaged in [false, true] {
            if damaged {
                bytes[at] = damage;
            }
            let (whole, account) = read(&[&bytes]);
            let (first, second) = bytes.split_at(at);
            let (pieces, other) = read(&[first, second]);
            prop_assert_eq!(&whole.copied, &pieces.copied);
            prop_assert_eq!(&account, &other);
            prop_assert_eq!(account.samples, whole.copied.iter().filter(|c| c.counts).count() as u64);
        }
    }
}

/// As agent/probes/lua.stp prints it: two pieces of memory, with line feeds in them.
fn copied_sample() -> Vec<u8> {
    let mut words = vec![7, 0x55, 0x7ffc];
    words.extend([0x0a0a_0a0a; 7]);
    words.extend([0x1000, 2, 0x0a, 0x0a0a, 0x7ffc, 4, 1, 2, 3, 4, 0, 0]);
    let words = words.iter().flat_map(|word: &u64| word.to_le_bytes());
    b"*      "
        .iter()
        .copied()
        .chain(words)
        .chain(*b"\n")
        .collect()
}

#[test]
fn a_copied_sample_is_read_by_its_lengths_and_not_by_lines() {
    let bytes = copied_sample();
    // SystemTap loses a message where one ends within the last 8 bytes of a page.
    assert_eq!(bytes.len() % 16, 8);
    let mut before = bytes.clone();
    before[0] = b'?';
    let last = b"=1                     1               \n";
    assert_eq!(last.len() % 16, 8);
    let (ear, account) = read(&[&before, b"@5                     \n", &bytes, last]);
    assert_eq!((account.samples, account.end), (1, Some((1, 1))));
    assert_eq!((account.foreign, ear.marks), (0, vec![5]));
    assert_eq!([false, true], [ear.copied[0].counts, ear.copied[1].counts]);
    let sample = &ear.copied[1];
    assert_eq!(
        (sample.pid, sample.registers[..2].to_vec()),
        (7, vec![0x55, 0x7ffc])
    );
    let addresses: Vec<_> = sample.memory.iter().map(|(at, b)| (*at, b.len())).collect();
    assert_eq!(addresses, [(0x1000, 16), (0x7ffc, 32)]);
}

#[test]
fn a_copied_sample_with_made_up_lengths_costs_no_more_than_a_line() {
    let mut bytes = copied_sample();
    for length in [2_u64 << 20, u64::MAX, u64::MAX / 8] {
        bytes[95..103].copy_from_slice(&length.to_le_bytes());
        let (ear, account) = read(&[&bytes, b"\n", &copied_sample()]);
        assert_eq!((ear.copied.len(), account.samples), (1, 1), "{length}");
        assert!(account.foreign > 0);
    }
}

#[test]
fn a_wait_for_a_cpu_is_told_from_one_for_something_else() {
    let (ear, account) =
        read(&[b"+7 2 300 0x1|0x2\n+7 1 50 !0x1|0x2\n+7 1 9 ~|0x2\n+7 1 9 0x1!|0x2\n"]);
    let waited: Vec<_> = ear.stacks.iter().map(|s| (s.sum_of, s.sum)).collect();
    let expected = [(SumOf::Plain, 300), (SumOf::Cpu, 50), (SumOf::CpuAfter, 9)];
    assert_eq!(waited, expected);
    assert_eq!(ear.stacks[1].kernel, [1]);
    assert_eq!(account.foreign, 1);
}

#[test]
fn memory_that_was_not_followed_is_told() {
    let (ear, account) = read(&[b"-5 2 300\n-5 2\n-5 2 x\n"]);
    let expected = Missed {
        freed: 5,
        allocated: 2,
        bytes: 300,
    };
    assert_eq!((ear.missed, account.foreign), (expected, 2));
}

#[test]
fn bytes_and_their_calls_time_are_told_apart_and_calls_count_once() {
    let (ear, account) =
        read(&[b"#41\n+7 2 300 r|0x2\n+7 2 900 R|0x2\n+7 1 9 w|0x2\n+7 1 5 W|0x2\n+7 1 5 x|0x2\n"]);
    let sums: Vec<_> = ear.stacks.iter().map(|s| (s.sum_of, s.sum)).collect();
    let expected = [
        (SumOf::Read, 300),
        (SumOf::ReadNs, 900),
        (SumOf::Written, 9),
        (SumOf::WrittenNs, 5),
    ];
    assert_eq!(sums, expected);
    assert!(
        ear.stacks
            .iter()
            .all(|s| s.kernel.is_empty() && s.user == [2])
    );
    assert_eq!((account.samples, account.again, ear.seen), (6, 3, 41));
    assert_eq!(account.foreign, 1);
}

#[test]
fn lines_that_are_longer_than_they_have_to_be_say_the_same() {
    let lines = b"ff1    \n@5                     \n+7 2 0000000000000000000000009 |0x10 0x20 \n\
                  =1                     2               \n";
    let (ear, account) = read(&[lines]);
    let stack = &ear.stacks[0];
    assert_eq!((stack.pid, stack.count, stack.sum), (7, 2, 9));
    assert_eq!(stack.user, [0x10, 0x20]);
    assert_eq!((account.samples, account.end), (2, Some((1, 2))));
    assert_eq!((account.foreign, ear.marks), (0, vec![5]));
}
