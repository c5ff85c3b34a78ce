//! A program with known shares and a known depth, built in the ways that gateways are built.
#![expect(clippy::unwrap_used, reason = "test")]

mod support;

use fleetflame_native::TargetSelector;
use support::{Capture, Program, SHARES, alone, capture, compile, config};

const NO_FP: &[&str] = &["-O2", "-fomit-frame-pointer"];

/// Samples wanted: with 400 a share of 70 % is known to 2.3 points.
const WANTED: u64 = 400;

/// Captures for three seconds, and for longer where the machine is too busy to give the program
/// its CPU.
fn sampled(flags: &[&str], depth: usize) -> Capture {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "shares", SHARES, flags);
    let program = Program::start(&path, &["120", &depth.to_string()]);
    let mut seconds = 3.0;
    loop {
        let config = config(vec![TargetSelector::Pid(program.pid())], 499);
        let capture = capture(config, seconds);
        if capture.samples() > WANTED {
            return capture;
        }
        assert!(
            seconds < 25.0,
            "{} samples in {seconds} s",
            capture.samples()
        );
        seconds *= 3.0;
    }
}

/// Leaf and depth by name where there are names; else by what repeats.
fn check(capture: &Capture, depth: usize, recursion: &str, leaves: Option<(&str, &str)>) {
    let n = capture.samples();
    let rooted = capture.summary.rooted as f64 / capture.summary.user_stacks.max(1) as f64;
    assert!(rooted >= 0.99, "{rooted} reach the root");
    // Samples between two rounds are in `main` and `clock_gettime`.
    let levels = |s: &support::Stack| s.user().iter().filter(|f| *f == recursion).count();
    let exact: u64 = capture
        .stacks
        .iter()
        .filter(|s| levels(s) == depth + 1)
        .map(|s| s.samples)
        .sum();
    assert!(
        exact as f64 / n as f64 >= 0.98,
        "{exact} of {n} are exactly {depth} deep"
    );
    let mut by_leaf = std::collections::BTreeMap::<String, u64>::new();
    for stack in &capture.stacks {
        *by_leaf
            .entry(stack.user().last().cloned().unwrap_or_default())
            .or_default() += stack.samples;
    }
    let mut shares: Vec<_> = by_leaf.into_iter().collect();
    shares.sort_by_key(|s| std::cmp::Reverse(s.1));
    eprintln!(
        "{n} samples, rooted {rooted:.4}, leaves {:?}",
        &shares[..shares.len().min(3)]
    );
    let share = |i: usize| shares.get(i).map_or(0.0, |s| s.1 as f64 / n as f64 * 100.0);
    assert!((share(0) - 70.0).abs() < 4.0, "{shares:?}");
    assert!((share(1) - 30.0).abs() < 4.0, "{shares:?}");
    if let Some((first, second)) = leaves {
        assert_eq!(
            (shares[0].0.as_str(), shares[1].0.as_str()),
            (first, second)
        );
    }
}

/// The label that occurs most often in one stack: the recursion's.
fn most_frequent(capture: &Capture) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for label in capture.stacks.iter().flat_map(support::Stack::user) {
        *counts.entry(label).or_default() += 1;
    }
    counts.into_iter().max_by_key(|c| c.1).unwrap().0
}

#[test]
fn without_frame_pointers_shares_and_depth_are_right() {
    let _one = alone();
    let capture = sampled(NO_FP, 20);
    check(&capture, 20, "rec", Some(("seventy", "thirty")));
    let rooted_by_name = capture.share(|s| s.first().is_some_and(|f| f == "_start"));
    assert!(rooted_by_name >= 0.99, "{rooted_by_name} begin at _start");
}

#[test]
fn a_stripped_program_keeps_its_shape_with_function_starts_for_names() {
    let _one = alone();
    let capture = sampled(&["-O2", "-fomit-frame-pointer", "-s"], 20);
    let recursion = most_frequent(&capture);
    assert!(recursion.starts_with("[shares]+0x"), "{recursion}");
    check(&capture, 20, &recursion, None);
}

#[test]
fn a_stripped_static_program_keeps_its_shape() {
    let _one = alone();
    let flags = ["-O2", "-fomit-frame-pointer", "-s", "-static"];
    let capture = sampled(&flags, 20);
    let recursion = most_frequent(&capture);
    check(&capture, 20, &recursion, None);
    assert!(
        capture
            .stacks
            .iter()
            .flat_map(|s| &s.frames)
            .any(|f| f.build_id.is_some())
    );
}

#[test]
fn a_stack_longer_than_the_kernel_s_copy_is_complete() {
    let _one = alone();
    // 100 levels are 23 KB, the kernel copies 16.
    let capture = sampled(NO_FP, 100);
    check(&capture, 100, "rec", Some(("seventy", "thirty")));
    assert_eq!(capture.summary.truncated, 0);
}
