//! Job specs as people and enemies write them.

use super::*;
use crate::spec::{CAPTURE, POLICY};
use model::job::{EngineChoice, Pick, Reach, Target};
use std::time::{Duration, Instant};

fn read(text: &str) -> Result<JobSpec, String> {
    read_job(text.as_bytes(), "job.yaml").map_err(|e| e.to_string())
}

const SHORT: &str = "version: 1\nlocal: true\ntargets: [nginx]\n";

#[test]
fn the_example_is_read_and_says_the_defaults() {
    let job = read(CAPTURE).unwrap();
    assert_eq!(job.hosts.len(), 4);
    assert_eq!(job.hosts[1].reach, Reach::Direct("[fd00::2]:7443".into()));
    let over_ssh = Reach::Ssh("deploy@kong-3".parse().unwrap());
    assert_eq!(job.hosts[2].reach, over_ssh);
    assert_eq!(job.hosts[3].reach, Reach::Local);
    let short = read(SHORT).unwrap();
    let told = JobSpec {
        title: String::new(),
        hosts: short.hosts.clone(),
        ..job
    };
    assert_eq!(told, short, "the example's values are the defaults");
}

#[test]
fn the_policy_s_text_is_yaml_with_the_keys_that_agents_know() {
    let value: serde_json::Value = serde_yaml::from_str(POLICY).unwrap();
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let known = "allow_ptrace captures_max cpu_pct_max duration_s_max engines memory_mb_max \
                 output_mb_max probes request_paths sample_hz_max scripts targets version";
    assert_eq!(keys.join(" "), known);
}

#[test]
fn words_mean_what_they_mean_on_the_command_line() {
    let job = read(
        "version: 1\nhosts:\n- {name: a, address: 'h:1'}\ntargets: [pid:7, 'cmd:^nginx: worker']\n\
         pick: busiest:2\nengine: native\nsample_hz: 199\nduration: 500ms\nkernel: false\n\
         budgets: {cpu_pct_max: 3}\n",
    )
    .unwrap();
    assert_eq!(
        job.targets,
        [Target::Pid(7), Target::Cmd("^nginx: worker".into())]
    );
    assert_eq!(
        (job.pick, job.engine),
        (Pick::Busiest(2), EngineChoice::Native)
    );
    assert_eq!(
        (job.sample_hz, job.duration_ms, job.kernel),
        (199, 500, false)
    );
    assert_eq!(
        job.budgets,
        model::order::Budgets {
            cpu_pct_max: 3,
            ..Default::default()
        }
    );
}

#[test]
fn mistakes_are_told_with_their_place_and_what_would_be_right() {
    let with = |line: &str| format!("{SHORT}{line}\n");
    let cases: &[(String, &[&str])] = &[
        (
            with("engine: gdb"),
            &["job.yaml:4:", "auto, native, stap, perf"],
        ),
        (with("enigne: auto"), &["job.yaml:4:1:", "enigne", "engine"]),
        (
            with("sample_hz: fast"),
            &["job.yaml:4:12:", "a whole number"],
        ),
        (with("sample_hz: 100000"), &["job.yaml:4:12:", "1 to 1999"]),
        (
            with("duration: 30"),
            &["job.yaml:4:11:", "500ms, 30s, 2m or 1h"],
        ),
        (with("duration: 1ms"), &["job.yaml:4:11:", "100ms to 1h"]),
        (with("kernel: yes"), &["job.yaml:4:9:", "true"]),
        (with("pick: [all]"), &["job.yaml:4:", "a text"]),
        (with("title: [12]"), &["job.yaml:4:"]),
        (with("budgets: {cpu: 3}"), &["job.yaml:4:", "cpu_pct_max"]),
        (with("local: false"), &["job.yaml:4:1:", "local"]),
        (
            with("hosts: [{name: ../x, address: 'h:1'}]"),
            &["job.yaml:4:", "not a host name"],
        ),
        (
            with("hosts: [{name: a, address: h}]"),
            &["job.yaml:4:", "ADDR:PORT"],
        ),
        (with("hosts: [{name: a}]"), &["host a has no address"]),
        (
            with("hosts: [{name: a, local: true}, {name: a, local: true}]"),
            &["host a is listed twice"],
        ),
        (with("<<: {engine: auto}"), &["job.yaml:4:"]),
        (with("---\nversion: 1"), &["job.yaml:4:", "one job"]),
        (
            "version: 2\n".into(),
            &["job.yaml:1:10:", "write version: 1"],
        ),
        (
            "local: true\ntargets: [nginx]\n".into(),
            &["job.yaml:", "version"],
        ),
        ("version: 1\ntargets: [nginx]\n".into(), &["no host"]),
        ("version: 1\nlocal: true\n".into(), &["no target"]),
        (
            "version: 1\n\tlocal: true\n".into(),
            &["job.yaml:1:10:", "found a tab"],
        ),
        ("just text\n".into(), &["job.yaml:1:1:"]),
        ("- a\n- b\n".into(), &["job.yaml:1:1:"]),
        (
            String::new(),
            &["job.yaml: the file is empty", "fleetflame example capture"],
        ),
        ("# only a remark\n".into(), &["job.yaml:"]),
    ];
    for (text, wanted) in cases {
        let said = read(text).expect_err(text);
        for part in *wanted {
            assert!(
                said.contains(part),
                "{text:?}\nsaid {said:?}\nwithout {part:?}"
            );
        }
        assert!(!said.contains('\n'), "{said:?}");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes is what is tested"
)]
fn hostile_yaml_ends_soon_with_an_error() {
    // Each level is nine times the one below, and the last stands where texts are read.
    let mut bomb = "version: 1\ntargets: [&a [x, x, x, x, x, x, x, x, x]".to_owned();
    let mut flat = "version: 1\ntargets: [&a nginx".to_owned();
    for (of, name) in ('a'..='y').zip('b'..='z') {
        bomb.push_str(&format!(
            ", &{name} [{}]",
            vec![format!("*{of}"); 9].join(", ")
        ));
        flat.push_str(&", *a".repeat(1_000));
    }
    let hostile = [
        format!("{bomb}]\n"),
        format!("{flat}]\n"),
        "[".repeat(200_000),
        "{a: ".repeat(50_000),
        "- ".repeat(200_000),
        format!("version: 1\ntitle: {}\n", "x".repeat(2 << 20)),
        format!("version: 1\n{}", "? a\n".repeat(100_000)),
        "a: &x {b: *x}\n".to_owned(),
        format!("version: 1\ntargets: [{}]\n", "nginx, ".repeat(60_000)),
        format!("version: {}\n", "9".repeat(100_000)),
        "version: !!python/object:os.system 1\n".to_owned(),
    ];
    for text in hostile {
        let began = Instant::now();
        let said = read(&text).expect_err("hostile text was taken");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?} for {text:.40}",
            began.elapsed()
        );
        assert!(
            said.starts_with("job.yaml:") && said.len() < 500,
            "{said:.600}"
        );
    }
    assert!(
        read_job(b"version: 1\ntitle: \xff\n", "job.yaml")
            .unwrap_err()
            .to_string()
            .contains("job.yaml:2:1: the file is not UTF-8")
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_job_or_an_error(text in "[a-z:\\[\\]{}&*!|>'\"\\-\n\t #0-9,]{0,80}") {
        let _ = read(&text);
        let _ = read(&format!("{SHORT}{text}"));
    }
}
