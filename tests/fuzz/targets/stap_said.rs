//! What SystemTap and its scripts may say, any bytes: every meaning is told once and bounded, no end is believed that was
//! not said, and where a report is cut into pieces does not show.
#![no_main]
#![allow(dead_code, reason = "the agent's own files are compiled in; not all of them is called")]

#[path = "../../../agent/src/engine/stap/diagnose.rs"]
mod diagnose;
#[path = "../../../agent/src/engine/stap/messages.rs"]
mod messages;
#[path = "../../../agent/src/engine/stap/report.rs"]
mod report;

use diagnose::{Ending, ReportEnd, Verdict, conclude, diagnose};
use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use report::{Account, Copied, Counted, Hears, Reader};
use std::collections::BTreeSet;

#[derive(Default, PartialEq, Debug)]
struct Ear {
    marks: u64,
    stacks: Vec<Counted>,
    copied: Vec<Copied>,
}

impl Hears for Ear {
    fn mark(&mut self, _: u64) {
        self.marks += 1;
    }

    fn stack(&mut self, stack: &Counted) {
        self.stacks.push(stack.clone());
    }

    fn copied(&mut self, sample: Copied) {
        self.copied.push(sample);
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

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (choices, cut) = (input.byte(), usize::from(input.word()));
    let bytes = input.rest();
    let text = String::from_utf8_lossy(bytes);
    let said = diagnose(&text);
    let codes: BTreeSet<_> = said.findings.iter().map(|f| f.code).collect();
    assert_eq!(codes.len(), said.findings.len(), "a meaning twice");
    assert!(said.facts.wants_unwind.len() <= 512);
    let code = [Some(0), Some(1), None][usize::from(choices & 3) % 3];
    let (ear, account) = read(&[bytes]);
    let report = match (choices & 4, account.end) {
        (0, _) => ReportEnd::NotAsked,
        (_, None) => ReportEnd::Missing,
        (_, Some((_, printed))) => ReportEnd::Came {
            printed,
            arrived: account.samples,
        },
    };
    let ending = Ending {
        code,
        report,
        samples: account.samples,
    };
    let (verdict, findings) = conclude(&ending, said);
    if verdict == Verdict::Complete {
        assert!(code == Some(0) && report != ReportEnd::Missing);
    } else {
        assert!(!findings.is_empty(), "{verdict:?} without a reason");
    }
    let copied = ear.copied.iter().filter(|c| c.counts).count() as u64;
    assert_eq!(account.rows, ear.stacks.len() as u64 + copied);
    let kept: usize = ear.copied.iter().flat_map(|c| &c.memory).map(|(_, b)| b.len()).sum();
    assert!(kept <= bytes.len(), "memory that was not copied");
    let sum = ear.stacks.iter().fold(copied, |sum, s| sum.saturating_add(s.count));
    assert_eq!(account.samples, sum);
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(read(&[first, second]), (ear, account));
});
