//! Tests of the reader: samples into stacks with counts.

use super::*;

/// A sample: header, and frames leaf first as `NAME MODULE`.
fn sample(header: &str, frames: &[(&str, &str)]) -> String {
    let frames = frames
        .iter()
        .map(|(name, module)| format!("\t{:>16} {name} ({module})\n", "401136"));
    format!("{header}\n{}\n", frames.collect::<String>())
}

const APP: &str = "/usr/bin/app";

#[test]
fn samples_become_counts_and_periods_become_time() {
    let text = [
        sample(
            "app 7/7 1.5:   1000 cpu-clock:u: ",
            &[("f+0x1", APP), ("main+0x9", APP)],
        ),
        sample(
            "app 7/7 1.6:   2000 cpu-clock:u: ",
            &[("f+0x2", APP), ("main+0x9", APP)],
        ),
        sample("app 7/8 1.7:   4000 cpu-clock:u: ", &[]),
    ];
    let imported = read(text.concat().as_bytes(), |_| ());
    assert_eq!(folded(&imported, 0), ["[unknown] 1", "main;f 2"]);
    assert_eq!(folded(&imported, 1), ["[unknown] 4000", "main;f 3000"]);
    let profile = &imported.profile;
    let measures: Vec<(&str, &str)> = profile
        .measures
        .iter()
        .map(|m| (m.name.as_str(), m.unit.as_str()))
        .collect();
    assert_eq!(measures, [("samples", "count"), ("cpu", "ns")]);
    assert_eq!(
        (profile.probe.as_str(), imported.stats.stacks),
        ("on-cpu", 3)
    );
    assert_eq!(
        imported.stats.notes["samples without a stack, counted under [unknown]"],
        1
    );
    assert_eq!(imported.stats.foreign.lines(), 0);
}

#[test]
fn other_events_are_counted_and_left_out() {
    let text = [
        sample("app 7 1.5:      1 page-faults: ", &[("f", APP)]),
        sample("app 7 1.6:   1000 cpu-clock: ", &[("g", APP)]),
        sample("app 7 1.7:      2 page-faults: ", &[("f", APP)]),
        sample("app 7 1.8:   1000 cpu-clock:u: ", &[("h", APP)]),
    ]
    .concat();
    let first = read(text.as_bytes(), |_| ());
    assert_eq!(folded(&first, 0), ["f 2"]);
    assert_eq!(folded(&first, 1), ["f 3"]);
    assert_eq!(first.profile.probe, "page-faults");
    let others: Vec<(&str, u64)> = first
        .stats
        .other_events
        .iter()
        .map(|(e, n)| (e.as_str(), *n))
        .collect();
    assert_eq!(others, [("cpu-clock", 1), ("cpu-clock:u", 1)]);
    assert_eq!(
        first.stats.notes["samples of other events, which were left out"],
        2
    );
    // A name without modifiers stands for all of them; one with them for itself.
    for (event, lines) in [
        ("cpu-clock", vec!["g 1", "h 1"]),
        ("cpu-clock:u", vec!["h 1"]),
        ("cpu", vec![]),
    ] {
        let imported = read(text.as_bytes(), |o| o.perf.event = Some(event.to_owned()));
        assert_eq!(folded(&imported, 0), lines, "{event}");
    }
    // A text may name any number of events; what is kept of them has a bound.
    let many: String = (0..200)
        .map(|i| sample(&format!("a 7 1.5: 1 e{i}: "), &[("f", APP)]))
        .collect();
    let imported = read(many.as_bytes(), |_| ());
    assert!(imported.stats.other_events.len() <= 65);
    assert_eq!(imported.stats.other_events.values().sum::<u64>(), 199);
}

#[test]
fn processes_are_told_apart_and_threads_on_demand() {
    let text = [
        sample("nginx 7/7 1.5: 1 cycles: ", &[("f", APP)]),
        sample("thread pool 7/8 1.6: 1 cycles: ", &[("f", APP)]),
        sample("nginx 9/9 1.7: 1 cycles: ", &[("f", APP)]),
    ]
    .concat();
    let by = |by_tid: bool| {
        let imported = read(text.as_bytes(), |o| o.perf.by_tid = by_tid);
        let series = &imported.profile.series;
        let mut names: Vec<String> = series
            .as_slice()
            .iter()
            .map(|s| {
                format!(
                    "{} {} {} {}",
                    s.process.comm, s.process.pid, s.thread, s.event
                )
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(by(false), ["nginx 7  cycles", "nginx 9  cycles"]);
    assert_eq!(
        by(true),
        [
            "nginx 7 nginx cycles",
            "nginx 7 thread pool cycles",
            "nginx 9 nginx cycles"
        ]
    );
}

#[test]
fn frames_have_the_kind_that_their_module_says() {
    let text = sample(
        "java 7 1.5: 1 cycles: ",
        &[
            ("nft_do_chain+0x1", "[nf_tables]"),
            ("do_syscall_64", "[kernel.kallsyms]"),
            ("__vdso_gettimeofday+0x3", "[vdso]"),
            ("[unknown]", "/opt/plugin.so (deleted)"),
            ("La/F;::apply->La/R;::test(La/Q;)Z", "/tmp/perf-7.map"),
            ("std::unique_ptr<A>::operator->", APP),
            ("mix", "inlined"),
            ("[unknown]", "[unknown]"),
        ],
    );
    let imported = read(text.as_bytes(), |_| ());
    assert_eq!(
        folded(&imported, 0),
        [
            "[unknown];mix_[i];std::unique_ptr<A>::operator->;La/F:::apply_[j];La/R:::test(La/Q:)Z_[i];\
          [plugin.so];__vdso_gettimeofday;do_syscall_64_[k];nft_do_chain_[k] 1"
        ]
    );
}

#[test]
fn callers_above_a_function_can_be_left_out() {
    let text = sample(
        "a 7 1.5: 1 cycles: ",
        &[("leaf", APP), ("access", APP), ("lua", APP), ("main", APP)],
    );
    for (name, line) in [
        ("access", "access;leaf 1"),
        ("acc", "main;lua;access;leaf 1"),
        ("leaf", "leaf 1"),
    ] {
        let imported = read(text.as_bytes(), |o| {
            o.perf.skip_after = vec![name.to_owned()]
        });
        assert_eq!(folded(&imported, 0), [line]);
    }
    // The next sample has its callers.
    let two = text.repeat(2);
    let imported = read(two.as_bytes(), |o| {
        o.perf.skip_after = vec!["access".to_owned()]
    });
    assert_eq!(folded(&imported, 0), ["access;leaf 2"]);
}

#[test]
fn offsets_are_kept_where_no_run_changes_them() {
    let text = "a 7 1.5: 1 cycles: \n\
                \t            1105 [unknown] (/opt/plugin.so (deleted))\n\
                \t    7f0a7bbf7105 [unknown] (/opt/plugin.so)\n\
                \t    7f0a7bbf7105 [unknown] (/opt/plugin.so+0x1105)\n\
                \t    7f0a7bbf7105 [unknown] (//anon)\n\
                \tffffffff81000010 [unknown] ([nf_tables])\n\
                \t            1105 known+0x5 (/opt/plugin.so)\n\n";
    let plain = read(text.as_bytes(), |_| ());
    assert_eq!(
        folded(&plain, 0),
        ["known;[nf_tables]_[k];[anon];[plugin.so];[plugin.so];[plugin.so] 1"]
    );
    let kept = read(text.as_bytes(), |o| o.keep_offsets = true);
    assert_eq!(
        folded(&kept, 0),
        ["known;[nf_tables]_[k];[anon];[plugin.so]+0x1105;[plugin.so];[plugin.so]+0x1105 1"]
    );
}

#[test]
fn a_stack_over_the_depth_is_counted_where_it_is_cut() {
    let frames: String = (0..3_000)
        .map(|i| format!("\t{:>16} f{i} ({APP})\n", "401136"))
        .collect();
    let text = format!("a 7 1.5: 1 cycles: \n{frames}\n");
    let imported = read(text.as_bytes(), |o| o.limits.depth_max = 100);
    assert_eq!((imported.stats.samples, imported.stats.deeper), (1, 1));
    let lines = folded(&imported, 0);
    let names: Vec<&str> = lines[0].strip_suffix(" 1").unwrap().split(';').collect();
    assert_eq!(
        (names.len(), names[0], names[99], names[100]),
        (101, "f2999", "f2900", "[deeper]")
    );
}

#[test]
fn inputs_that_measure_different_things_are_not_added() {
    let clock = sample("a 7 1.5:   1000 cpu-clock: ", &[("f", APP)]);
    let faults = sample("a 7 1.5:   1 page-faults: ", &[("f", APP)]);
    let bare = sample("a 7 1.5: cpu-clock: ", &[("f", APP)]);
    let both = |a: &str, b: &str| {
        let mut import = crate::format::import::Import::new(ImportOptions::new("one"));
        import.next_input("one").unwrap();
        import.feed(a.as_bytes()).unwrap();
        import.next_input("two").unwrap();
        import.feed(b.as_bytes()).unwrap();
        import.finish()
    };
    let error = both(&clock, &faults).unwrap_err();
    assert!(
        matches!(error, crate::format::import::ImportError::Merge(_)),
        "{error}"
    );
    let same = both(&clock, &clock).unwrap();
    assert_eq!(
        (folded(&same, 0), folded(&same, 1)),
        (vec!["f 2".to_owned()], vec!["f 2000".to_owned()])
    );
    // Time that only one of them has is no sum: samples are what is left.
    for (a, b) in [
        (&clock[..], &bare[..]),
        (&bare, &clock),
        (&clock, "f 1\n"),
        ("f 1\n", &clock),
    ] {
        let less = both(a, b).unwrap();
        assert_eq!(
            (folded(&less, 0), less.profile.measures.len()),
            (vec!["f 2".to_owned()], 1)
        );
        assert_eq!(less.profile.grand_total(), [2, 0, 0]);
        assert_eq!(less.stats.notes.len(), 1, "{:?}", less.stats.notes);
    }
}
