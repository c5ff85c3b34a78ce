//! The program from outside: what it writes where, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use assert_cmd::Command;
use compare::{Per, rank};
use fleetflame::render::write_all;
use fleetflame::store::{PROFILE_FILE, RunDir, RunRecord, RunState, utc_text};
use model::format::ffz::{Limits, Want, decode_profile, encode_profile};
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::profile::{Frame, FrameKind, Measure, Process, Profile, Series};
use model::{HostCoverage, HostName, HostOutcome, JobSpec, RunId};
use std::path::Path;
use std::process::Output;

const MS: u64 = 1_770_000_000_000;

/// A profile of three hosts; `b` limits rates more than the others.
fn fleet() -> Profile {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    for (host, limit) in [("a", 20), ("b", 60), ("c", 20)] {
        let process = Process {
            role: "nginx: worker".into(),
            ..Process::default()
        };
        let series = Series {
            host: host.into(),
            process,
            engine: "native".into(),
            ..Series::default()
        };
        let series = profile.series.intern(&series);
        let mut stack = |names: &[&str], samples: u64| {
            let frames: Vec<_> = names
                .iter()
                .map(|n| {
                    profile
                        .frames
                        .intern(&Frame::named(FrameKind::User, *n, "nginx"))
                })
                .collect();
            profile.add_stack(series, &frames, &[samples, samples * 10_000_000, 0]);
        };
        stack(&["main", "rate_limit"], limit * 10);
        stack(&["main", "route"], 1_000 - limit * 10);
    }
    profile
}

fn run_in(root: &Path) -> RunRecord {
    let hosts = ["a", "b", "c"].map(|h| JobHost {
        targets: vec![],
        name: HostName::new(h).unwrap(),
        reach: Reach::Local,
        labels: Default::default(),
    });
    let job = JobSpec {
        title: "Kong".into(),
        hosts: hosts.into(),
        targets: vec![Target::Nginx],
        pick: Pick::All,
        engine: EngineChoice::Auto,
        probe: Probe::OnCpu,
        event: Event::CpuClock,
        sample_hz: 99,
        duration_ms: 10_000,
        kernel: true,
        min_wait_us: 0,
        uri_segments: 0,
        budgets: Default::default(),
        arm_timeout_ms: Some(1_000),
        script: None,
        simulated: None,
    };
    let mut record = RunRecord::begin(RunId::from_parts(MS, 7), job, utc_text(MS));
    let profile = fleet();
    for host in profile.hosts() {
        let mut coverage = HostCoverage {
            outcome: HostOutcome::Complete,
            engine: "native".into(),
            captured: true,
            ..HostCoverage::default()
        };
        coverage.stats.samples = 1_000;
        record.coverage.hosts.insert(host, coverage);
    }
    record.state = RunState::Complete;
    record.ranking = Some(rank(&profile, Per::Share, 1));
    let run = RunDir::create(root.join("fleetflame-runs").join(record.id.to_string())).unwrap();
    run.write(PROFILE_FILE, &encode_profile(&profile).unwrap())
        .unwrap();
    assert_eq!(write_all(&run, &profile, &record).unwrap(), []);
    run.write_record(&record).unwrap();
    record
}

fn fleetflame(root: &Path, arguments: &[&str]) -> Output {
    fleetflame_with(root, arguments, "")
}

fn fleetflame_with(root: &Path, arguments: &[&str], stdin: &str) -> Output {
    let mut command = Command::cargo_bin("fleetflame").unwrap();
    command
        .current_dir(root)
        .args(arguments)
        .write_stdin(stdin)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn runs_and_show_find_a_run_by_the_beginning_of_its_id() {
    let root = tempfile::tempdir().unwrap();
    let id = run_in(root.path()).id.to_string();
    let runs = fleetflame(root.path(), &["runs"]);
    assert!(text(&runs.stdout).contains(&id) && text(&runs.stdout).contains("complete"));
    let show = fleetflame(root.path(), &["show", &id[..6]]);
    assert_eq!(show.status.code(), Some(0), "{}", text(&show.stderr));
    for wanted in [
        "3 of 3 hosts, 0 % of samples lost, by native",
        "is in 60.0 % of its samples, 20.0 % elsewhere (+40.0 ± ",
        "[ranking-few-hosts]",
        "Top frames of 3,000 samples",
    ] {
        assert!(
            text(&show.stdout).contains(wanted),
            "{wanted} is missing in\n{}",
            text(&show.stdout)
        );
    }
    let json = fleetflame(root.path(), &["show", &id, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["run"]["id"], id.as_str());
    assert_eq!(json["top"][0]["name"], "route");
    let list = fleetflame(root.path(), &["--json", "runs"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list[0]["hosts"], 3);
}

#[test]
fn parts_of_a_run_are_drawn_and_compared() {
    let root = tempfile::tempdir().unwrap();
    let id = run_in(root.path()).id.to_string();
    let (b, rest) = (format!("{id}:b"), format!("{id}:rest-of:b"));
    let folded = fleetflame(root.path(), &["diff", &rest, &b, "--folded"]);
    let wanted = "nginx: worker;main;rate_limit 400 600\nnginx: worker;main;route 1600 400\n";
    assert_eq!(text(&folded.stdout), wanted, "{}", text(&folded.stderr));
    let json = fleetflame(root.path(), &["diff", &rest, &b, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["right"]["total"], 1_000);
    let drawn = fleetflame(root.path(), &["diff", &rest, &b, "-o", "b.svg"]);
    assert_eq!((drawn.status.code(), drawn.stdout.len()), (Some(0), 0));
    let svg = std::fs::read_to_string(root.path().join("b.svg")).unwrap();
    assert!(svg.contains("rate_limit (the rest of b 20.00%, b 60.00%, +40.00 points)"));
    let top = fleetflame(root.path(), &["top", &b, "--json", "--by", "total"]);
    let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    assert_eq!(
        (&top["whole"], &top["rows"][0]["total"]),
        (&1_000.into(), &1_000.into())
    );
    let flame = fleetflame(root.path(), &["flame", &id]);
    assert!(text(&flame.stdout).contains("nginx: worker (3,000 samples, 100.00%)"));
    let wrong = fleetflame(root.path(), &["top", &format!("{id}:z")]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("no host z; it has a, b, c"));
}

#[test]
fn a_run_that_never_ended_is_shown_from_what_had_arrived() {
    use fleetflame::store::Intake;
    use model::format::ffz::{Head, encode_segment};
    use model::profile::{Recorder, RecorderLimits};
    let root = tempfile::tempdir().unwrap();
    let mut record = run_in(root.path());
    record.id = RunId::from_parts(MS + 1, 8);
    record.state = RunState::Running;
    let run = RunDir::create(root.path().join("dead")).unwrap();
    run.write_record(&record).unwrap();
    let mut recorder = Recorder::new("a", Measure::on_cpu(), RecorderLimits::default());
    let series = recorder.series(&Series {
        host: "a".into(),
        ..Series::default()
    });
    recorder.add_stack(series, 0, &[], &[41, 0, 0]);
    let head = Head {
        probe: "on-cpu".into(),
        measures: Measure::on_cpu(),
    };
    let batch = encode_segment(&head, &recorder.take(usize::MAX)).unwrap();
    let mut intake = Intake::begin(&run, "on-cpu", Measure::on_cpu());
    intake
        .receive(&HostName::new("a").unwrap(), 0, 1, &batch)
        .unwrap();
    let show = fleetflame(root.path(), &["show", "dead"]);
    assert!(
        text(&show.stdout).contains("Top frames of 41 samples"),
        "{}",
        text(&show.stderr)
    );
    assert!(text(&show.stdout).contains("the run never ended"));
}

#[test]
fn inputs_are_recognised_or_refused_with_what_would_be_accepted() {
    let root = tempfile::tempdir().unwrap();
    let top = fleetflame_with(
        root.path(),
        &["top", "-", "-n", "1"],
        "main;work 3\nmain 1\nnot a stack\n",
    );
    assert_eq!(top.status.code(), Some(0));
    assert!(text(&top.stdout).contains("75.00 %") && text(&top.stderr).contains("[input-skipped]"));
    std::fs::write(root.path().join("p.ffz"), encode_profile(&fleet()).unwrap()).unwrap();
    let top = fleetflame(root.path(), &["top", "p.ffz", "--by", "module"]);
    assert!(text(&top.stdout).contains("3,000"), "{}", text(&top.stderr));
    let cases: &[(&[&str], &str, &str)] = &[
        (&["top", "-"], "{\"json\": 1}", "it looks like JSON"),
        (&["top", "-"], "PERFILE2\u{1}", "perf script"),
        (&["fold", "--from", "svg"], "a 1\n", "use auto, stap, perf"),
        (&["fold", "absent.folded"], "", "no file and no run"),
        (&["fold", "-", "-"], "a 1\n", "once only"),
        (&["export", "-"], "a 1\n", "say --format"),
        (
            &["export", "-", "--format", "jfr"],
            "a 1\n",
            "use folded, pprof, speedscope, ffz or otlp",
        ),
        (&["top", "absent.folded"], "", "no file and no run"),
        (&["top", "01ZZZ"], "", "`fleetflame runs` lists them"),
        (&["top", "run@dc=bj"], "", "`fleetflame runs` lists them"),
        (
            &["top", "-", "--by", "host"],
            "a 1\n",
            "use self, total, line, module, plugin, phase, uri, file or kind",
        ),
        (
            &["diff", "-", "p.ffz", "--by", "per-1k"],
            "a 1\n",
            "has no CPU time",
        ),
        (
            &["diff", "-", "p.ffz", "--by", "cpu"],
            "a 1\n",
            "use --by share",
        ),
        (&["diff", "-", "-"], "a 1\n", "one side only"),
        (&["flame", "-", "--min-width", "200"], "a 1\n", "0 to 100"),
        (&["show", "p.ffz"], "", "not a run"),
    ];
    for (arguments, stdin, wanted) in cases {
        let output = fleetflame_with(root.path(), arguments, stdin);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains(wanted),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let mut damaged = encode_profile(&fleet()).unwrap();
    damaged.truncate(40);
    std::fs::write(root.path().join("p.ffz"), damaged).unwrap();
    let output = fleetflame(root.path(), &["top", "p.ffz"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("failed to read p.ffz: the file ends at byte"));
    let empty = fleetflame_with(root.path(), &["flame"], "");
    assert_eq!(empty.status.code(), Some(4));
    assert!(text(&empty.stdout).contains("no stacks were captured"));
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the pipe must be closed before the program ends"
)]
fn examples_work_and_a_closed_pipe_is_no_failure() {
    let root = tempfile::tempdir().unwrap();
    let example = fleetflame(root.path(), &["example", "capture"]);
    fleetflame::spec::read_job(&example.stdout, "example").unwrap();
    assert!(
        text(&fleetflame(root.path(), &["example", "policy"]).stdout)
            .contains("allow_ptrace: false")
    );

    let mut long = String::new();
    (0..20_000).for_each(|i| long.push_str(&format!("main;a_function_with_a_name_{i} 1\n")));
    std::fs::write(root.path().join("long.folded"), long).unwrap();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("fleetflame"))
        .current_dir(root.path())
        .args(["top", "long.folded", "-n", "20000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        !text(&output.stderr).contains("panicked"),
        "{}",
        text(&output.stderr)
    );
}

/// Bytes that FlameGraph's scripts wrote; see the README beside them.
fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/testdata");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn fold_gives_the_bytes_of_flamegraphs_scripts() {
    let root = tempfile::tempdir().unwrap();
    for name in ["faults", "generated"] {
        let input = golden(&format!("compat/stap/{name}.txt"));
        std::fs::write(root.path().join(name), input).unwrap();
    }
    let due = golden("compat/stap/generated.folded");
    let file = fleetflame(root.path(), &["fold", "--compat-flamegraph", "generated"]);
    assert_eq!(file.status.code(), Some(0), "{}", text(&file.stderr));
    assert!(
        file.stdout == due && file.stderr.is_empty(),
        "{}",
        text(&file.stderr)
    );
    let input = String::from_utf8(golden("compat/stap/generated.txt")).unwrap();
    let arguments = [
        "fold",
        "--from",
        "stap",
        "--compat-flamegraph",
        "-",
        "-o",
        "out",
    ];
    let stdin = fleetflame_with(root.path(), &arguments, &input);
    assert_eq!(stdin.status.code(), Some(0), "{}", text(&stdin.stderr));
    assert!(stdin.stdout.is_empty());
    assert!(std::fs::read(root.path().join("out")).unwrap() == due);
    // A stack goes on from one file to the next, and our own reading differs from the script's.
    let arguments = ["fold", "--compat-flamegraph", "faults", "generated"];
    let both = fleetflame(root.path(), &arguments);
    assert!(
        text(&both.stdout).contains(";dropped "),
        "{}",
        text(&both.stdout)
    );
    let own = fleetflame(root.path(), &["fold", "faults"]);
    assert!(!text(&own.stdout).contains("-64"), "{}", text(&own.stdout));
    assert!(
        text(&own.stderr).contains("warnings and errors of SystemTap"),
        "{}",
        text(&own.stderr)
    );

    let percent = "a%;b\n\t2\n";
    let arguments = ["fold", "--from", "stap", "--compat-flamegraph"];
    let warned = fleetflame_with(root.path(), &arguments, percent);
    assert_eq!(text(&warned.stdout), "a%;b 2\n");
    assert!(text(&warned.stderr).contains("stackcollapse-stap.pl would warn 1 times"));

    let perf = "nginx 12/12 [000] 1.5: 10101010 cpu-clock: \n\t  40252a main+0x1a (/usr/sbin/nginx)\n\nnonsense\n";
    let arguments = ["fold", "--compat-flamegraph", "--tid"];
    let output = fleetflame_with(root.path(), &arguments, perf);
    assert_eq!(text(&output.stdout), "nginx-12/12;main 10101010\n");
    let kernel = "nginx 12/12 [000] 1.5: 10101010 cpu-clock: \n\t  ffffffff8140252a idle+0x1a ([kernel.kallsyms])\n\n";
    let arguments = ["fold", "--compat-flamegraph", "--all", "--pid"];
    let marked = fleetflame_with(root.path(), &arguments, kernel);
    assert_eq!(text(&marked.stdout), "nginx-12;idle_[k] 10101010\n");
    let alone = fleetflame_with(root.path(), &["fold", "--all"], kernel);
    assert_eq!(alone.status.code(), Some(2), "{}", text(&alone.stderr));
    assert!(text(&output.stderr).contains("stackcollapse-perf.pl would warn of 1 "));
}

#[test]
fn fold_says_what_the_scripts_cannot_do() {
    let root = tempfile::tempdir().unwrap();
    for (arguments, stdin, wanted) in [
        (&["--stats", "json"][..], "a\n\t1\n", "no statistics"),
        (&["--keep-offsets"], "a\n\t1\n", "--keep-offsets"),
        (&[], "a;b 1\n", "is for stap and perf, and this is folded"),
        (&["--from", "pprof"], "", "is for stap and perf"),
        (&["-", "-"], "a\n\t1\n", "once only"),
        (&[], "nonsense\n", "say --from"),
    ] {
        let arguments = [&["fold", "--compat-flamegraph"][..], arguments].concat();
        let output = fleetflame_with(root.path(), &arguments, stdin);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    let empty = fleetflame_with(
        root.path(),
        &["fold", "--compat-flamegraph", "--from", "stap"],
        "",
    );
    assert_eq!((empty.status.code(), empty.stdout.len()), (Some(4), 0));
}

#[test]
fn every_export_holds_all_and_pprof_is_read_like_ffz() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("p.ffz"), encode_profile(&fleet()).unwrap()).unwrap();
    for arguments in [
        &["export", "p.ffz", "--format", "pprof", "-o", "p.out"][..],
        &["export", "p.ffz", "-o", "p.pb.gz"],
        &["export", "p.ffz", "-o", "p.speedscope.json"],
        &["export", "p.ffz", "-o", "again.ffz"],
        &["export", "p.pb.gz", "--format", "ffz", "-o", "back.ffz"],
    ] {
        let output = fleetflame(root.path(), arguments);
        let said = (output.status.code(), text(&output.stderr));
        assert_eq!(said, (Some(0), ""), "{arguments:?}");
    }
    let bytes = |name: &str| std::fs::read(root.path().join(name)).unwrap();
    assert!(bytes("p.pb.gz").starts_with(&[0x1f, 0x8b]));
    assert_eq!(bytes("p.out"), bytes("p.pb.gz"));
    let piped = fleetflame(root.path(), &["export", "p.ffz", "--format", "pprof"]);
    assert_eq!(piped.stdout, bytes("p.pb.gz"));
    let json: serde_json::Value = serde_json::from_slice(&bytes("p.speedscope.json")).unwrap();
    assert_eq!(json["profiles"].as_array().unwrap().len(), 6);
    assert_eq!(json["profiles"][0]["name"], "a nginx: worker, samples");

    // The same lines whichever file is read; only its name differs.
    for verb in [
        &["fold"][..],
        &["top", "--by", "total"],
        &["top", "--by", "module"],
    ] {
        let of = |name| {
            let output = fleetflame(root.path(), &[verb, &[name]].concat());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            output.stdout
        };
        let (ffz, pprof) = (of("p.ffz"), of("p.pb.gz"));
        assert_eq!(text(&pprof), text(&ffz), "{verb:?}");
        assert_eq!(of("back.ffz"), ffz);
    }
    let back = std::fs::read(root.path().join("back.ffz")).unwrap();
    let back = decode_profile(&back, Limits::FILE, Want::Totals).unwrap();
    assert_eq!(back.grand_total(), [3_000, 30_000_000_000, 0]);
    let drawn = fleetflame(root.path(), &["flame", "p.pb.gz"]);
    assert!(text(&drawn.stdout).contains("nginx: worker (3,000 samples, 100.00%)"));
    let merged = ["merge", "p.pb.gz", "p.ffz", "-o", "both.pb.gz"];
    let merged = fleetflame(root.path(), &merged);
    assert_eq!(merged.status.code(), Some(0), "{}", text(&merged.stderr));
    let top = fleetflame(root.path(), &["top", "both.pb.gz", "--json"]);
    let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    assert_eq!(top["whole"], 6_000);
}

#[test]
fn a_damaged_pprof_file_is_refused_with_the_place() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("p.pb.gz");
    // A sample type, and a sample with two values.
    std::fs::write(&file, b"\x0a\x04\x08\x01\x10\x02\x12\x04\x12\x02\x01\x01").unwrap();
    let output = fleetflame(root.path(), &["top", "p.pb.gz"]);
    assert_eq!(output.status.code(), Some(1));
    let said = "failed to read p.pb.gz: pprof at byte 6: a sample has 2 values, but there are 1";
    assert!(
        text(&output.stderr).contains(said),
        "{}",
        text(&output.stderr)
    );
    let packed = model::format::pprof::write(&fleet());
    std::fs::write(&file, &packed[..packed.len() / 2]).unwrap();
    let output = fleetflame(root.path(), &["fold", "p.pb.gz"]);
    assert_eq!(output.status.code(), Some(1));
    let said = "the gzip stream is damaged after";
    assert!(
        text(&output.stderr).contains(said),
        "{}",
        text(&output.stderr)
    );
}
