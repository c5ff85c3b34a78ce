//! Headers: every list of fields, and every comm.

use super::*;

/// The one sample of a header with one frame behind it.
fn header(line: &str) -> Heard {
    let ear = hear(format!("{line}\n\t          401136 work+0x10 (/usr/bin/app)\n\n").as_bytes());
    assert_eq!(ear.foreign, [], "{line}");
    assert_eq!(ear.samples.len(), 1, "{line}");
    let heard = ear.samples.into_iter().next().unwrap();
    assert_eq!(heard.frames, ["work@/usr/bin/app"], "{line}");
    heard
}

type Ids = (Option<u32>, Option<u32>);
const NO_IDS: Ids = (None, None);
const TID: Ids = (None, Some(1234));
const BOTH: Ids = (Some(1200), Some(1234));
const TIME: Option<u64> = Some(12_345_678_901_000);
const PERIOD: Option<u64> = Some(10_101_010);

#[test]
fn every_list_of_fields_gives_its_fields() {
    type Case = (&'static str, Ids, Option<u64>, Option<u64>, &'static str);
    let cases: [Case; 19] = [
        (
            "nginx  1234 12345.678901:   10101010 cpu-clock: ",
            TID,
            TIME,
            PERIOD,
            "cpu-clock",
        ),
        (
            "nginx 1200/1234 12345.678901:   10101010 cpu-clock: ",
            BOTH,
            TIME,
            PERIOD,
            "cpu-clock",
        ),
        (
            "nginx  1200/1234  [003] 12345.678901:   10101010 cycles:uppp: ",
            BOTH,
            TIME,
            PERIOD,
            "cycles:uppp",
        ),
        (
            "nginx  1234 [003] 12345.678901:   10101010 cycles: ",
            TID,
            TIME,
            PERIOD,
            "cycles",
        ),
        // Nanoseconds (--ns), and the letters of -F +misc.
        (
            "nginx 1200/1234 [001] U  12345.678901000:   10101010 cycles: ",
            BOTH,
            TIME,
            PERIOD,
            "cycles",
        ),
        (
            "nginx 1200/1234 K  12345.678901000: cycles: ",
            BOTH,
            TIME,
            None,
            "cycles",
        ),
        // perf before 4.1 printed no period.
        (
            "nginx  1234 [003] 12345.678901: cpu-clock: ",
            TID,
            TIME,
            None,
            "cpu-clock",
        ),
        ("nginx  1234 12345.678901: ", TID, TIME, None, ""),
        (
            "nginx  1234 12345.678901:   10101010 ",
            TID,
            TIME,
            PERIOD,
            "",
        ),
        (
            "nginx  1234   10101010 cpu-clock: ",
            TID,
            None,
            PERIOD,
            "cpu-clock",
        ),
        (
            "nginx 1200/1234   [003]   10101010 cpu-clock: ",
            BOTH,
            None,
            PERIOD,
            "cpu-clock",
        ),
        ("nginx  1234 cpu-clock: ", TID, None, None, "cpu-clock"),
        ("nginx  1200/1234 ", BOTH, None, None, ""),
        ("nginx  1234 [003] ", TID, None, None, ""),
        ("nginx cpu-clock: ", NO_IDS, None, None, "cpu-clock"),
        ("nginx ", NO_IDS, None, None, ""),
        // Tracepoints print their text behind the event.
        (
            "nginx  1234 [003] 12345.678901: sched:sched_switch: prev_comm=nginx prev_pid=1234 prev_state=S ==> next_pid=0",
            TID,
            TIME,
            None,
            "sched:sched_switch",
        ),
        (
            "nginx  1234 [003] 12345.678901: probe:do_sys_open: (ffffffff811d)",
            TID,
            TIME,
            None,
            "probe:do_sys_open",
        ),
        (
            "nginx  1234 12345.678901:   10101010 cpu/event=0x3c,name=busy/u: ",
            TID,
            TIME,
            PERIOD,
            "cpu/event=0x3c,name=busy/u",
        ),
    ];
    for (line, ids, time_ns, period, event) in cases {
        let heard = header(line);
        assert_eq!(heard.comm, "nginx", "{line}");
        assert_eq!((heard.ids, heard.time_ns), (ids, time_ns), "{line}");
        assert_eq!(
            (heard.period, heard.event.as_str()),
            (period, event),
            "{line}"
        );
    }
    let time_first = header("12345.678901:   10101010 cpu-clock: ");
    assert_eq!((time_first.comm.as_str(), time_first.time_ns), ("", TIME));
    // Words that end in a colon, and numbers, before a lone number that is followed by an event.
    for comm in ["timer;1.5: a", "a: 12 b: c", "x:", "12 y: 3"] {
        for rest in [
            "1234    5025125 cpu-clock: ",
            "1200/1234 [001]    5025125 cpu-clock:u: ",
        ] {
            let heard = header(&format!("{comm} {rest}"));
            assert_eq!(
                (heard.comm.as_str(), heard.ids.1),
                (comm, Some(1234)),
                "{rest}"
            );
            assert_eq!(heard.period, Some(5_025_125), "{comm} {rest}");
        }
    }
    // The kernel's own tasks, and one that has gone: perf prints -1 for what it does not know.
    assert_eq!(
        header("swapper     0 [000] 1.5:          1 cycles: ").ids,
        (None, Some(0))
    );
    assert_eq!(
        header(":-1    -1/-1    1.5:          1 cycles: ").ids,
        NO_IDS
    );
}

#[test]
fn a_comm_may_hold_whatever_a_thread_calls_itself() {
    for comm in [
        "V8 WorkerThread",
        "nginx: worker",
        "a b (c) [3] 12",
        "log (x) 12 [3]",
        "timer;1.5: a",
        "9",
        "12 34",
        "x 1.5: 7",
        "kworker/u8:3-ev",
        "[watchdog/0]",
        "#comment",
        "日本",
        "-- ",
    ] {
        for rest in [
            "1200/1234 [003] 12345.678901:   10101010 cycles: ",
            "1234 12345.678901: cycles: ",
        ] {
            let heard = header(&format!("{comm} {rest}"));
            assert_eq!(heard.comm, comm.trim(), "{rest}");
            assert_eq!(heard.ids.1, Some(1234), "{comm}");
            assert_eq!(heard.time_ns, TIME, "{comm}");
        }
    }
    // perf writes a newline in a comm as it is. The first half is then no header; nothing is lost.
    let ear = hear(b"two\nlines 1234 1.5: 1 cycles: \n\t          401136 f (/b)\n\n");
    assert_eq!(
        (ear.samples.len(), ear.samples[0].comm.as_str()),
        (1, "lines")
    );
    assert_eq!(
        ear.foreign,
        [("lines outside the stacks", "two".to_owned())]
    );
}
