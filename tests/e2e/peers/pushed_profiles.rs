//! What `fleetflame push` hands to stores, read by Google's pprof. In: a run, a Pyroscope by gRPC and by `/ingest`, a
//! Parca. Out: each host's sums, time and duration, equal to the run's. Never: a payload that only our reader has seen.

use std::path::Path;

use anyhow::{Context, Result};
use fleetflame::store::{PROFILE_FILE, RunDir, RunRecord, utc_text};
use model::format::ffz::encode_profile;
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
use model::{HostName, JobSpec, RunId};

use crate::fleetflame;
use crate::google_pprof::{Pprof, total};
use crate::sampled_fleet::{self, HOSTS};
use crate::store::{ALL, Knows, StoreServer};

/// 2026-02-02T02:40:00Z.
const MS: u64 = 1_770_000_000_000;

fn write_run(folder: &Path) -> Result<()> {
    let host = |name: &str| JobHost {
        targets: vec![],
        name: HostName::new(name).expect("a name"),
        reach: Reach::Local,
        labels: Default::default(),
    };
    let job = JobSpec {
        title: "Kong".into(),
        hosts: HOSTS.map(host).into(),
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
        arm_timeout_ms: None,
        script: None,
        simulated: None,
    };
    let mut record = RunRecord::begin(RunId::from_parts(MS, 7), job, utc_text(MS));
    record.captured_from = Some(utc_text(MS));
    let dir = RunDir::create(folder)?;
    dir.write(PROFILE_FILE, &encode_profile(&sampled_fleet::profile())?)?;
    dir.write_record(&record)?;
    Ok(())
}

#[test]
fn google_s_pprof_finds_each_host_s_sums_in_what_was_pushed() -> Result<()> {
    let stage = tempfile::tempdir()?;
    write_run(&stage.path().join("kong-cpu"))?;
    let pprof = Pprof::new(stage.path())?;
    let profile = sampled_fleet::profile();
    let old = Knows {
        http2: false,
        ..ALL
    };
    for (kind, knows) in [("pyroscope", ALL), ("pyroscope", old), ("parca", ALL)] {
        let server = StoreServer::start(knows);
        let to = format!("{kind}:http://{}", server.address);
        fleetflame(stage.path(), &["push", "./kong-cpu", "--to", &to])?;
        let taken = server.taken();
        assert_eq!(taken.len(), HOSTS.len(), "{to}");
        for (host, taken) in HOSTS.iter().zip(taken) {
            assert_eq!(
                taken.labels.get("host").map_or(*host, String::as_str),
                *host
            );
            std::fs::write(stage.path().join("pushed.pb.gz"), &taken.payload)?;
            let [samples, cpu, _] = total(&profile, |s| s.host == *host);
            assert_eq!(
                pprof.sums("pushed.pb.gz")?,
                [samples, cpu],
                "{host} at {to}"
            );
            let raw = pprof.says(&["-raw", "pushed.pb.gz"])?;
            let line = |begins: &str| raw.lines().find(|l| l.starts_with(begins));
            let time = line("Time: ").context("a time")?;
            assert!(time.contains("2026-02-02 02:40:00"), "{time}");
            assert!(line("Duration: 10").is_some(), "{raw}");
        }
    }
    Ok(())
}
