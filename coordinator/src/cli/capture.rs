//! `fleetflame capture` and `collect`: a run, and the rest of one. In: a job. Out: a run directory,
//! the ranking, an exit code. Never: a run directory without its record.

use super::input::Root;
use super::job_flags::{JobFlags, WaysFlags};
use super::output::Output;
use super::progress::Progress;
use crate::clock::SystemClock;
use crate::conclude::exit_code;
use crate::render::{findings_text, printable};
use crate::store::{DEFAULT_ROOT, RunRecord, RunStore as _};
use crate::{Rooms, clock};
use clap::Args;
use model::job::Probe;
use model::{JobSpec, Severity};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Arguments of `capture`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame capture --local --target nginx --duration 10s
  fleetflame capture --ssh kong-1,kong-2,kong-3 --target nginx --duration 30s --out ./kong-cpu
  fleetflame capture --fleet fleet.yaml --select 'role=kong,10%' --target nginx
  fleetflame capture --host kong-1=10.0.0.1:7443 --host kong-2=10.0.0.2:7443 --target nginx --out ./kong-cpu
  fleetflame capture job.yaml --duration 1m --json

Ctrl-C ends the capture on every host and keeps what was captured until then.")]
pub struct CaptureArgs {
    #[command(flatten)]
    pub job: JobFlags,
    /// The run directory [default: fleetflame-runs/RUN-STARTED]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `collect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame collect ./kong-cpu
  fleetflame collect 01JD3K --tls ./tls

Agents hold what they could not send for 24 hours.")]
pub struct CollectArgs {
    /// A run's directory, its id or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    root: Root,
    #[command(flatten)]
    ways: WaysFlags,
}

pub fn capture(args: &CaptureArgs, output: &Output) -> anyhow::Result<u8> {
    let job = args.job.read()?;
    let connectors = args.job.ways.connectors(&job)?;
    let out = args.out.clone().unwrap_or_else(default_out);
    let progress = Progress::new(&names(&job), output.json, output.is_quiet());
    let record = super::runtime()?.block_on(async {
        let rooms = Rooms {
            out: out.clone(),
            connectors,
            clock: Arc::new(SystemClock),
            watch: &progress,
            cancel: cancel_by_signal()?,
        };
        crate::run(&job, rooms).await
    });
    progress.finish();
    tell(&record?, &out, output)
}

pub fn collect(args: &CollectArgs, output: &Output) -> anyhow::Result<u8> {
    let dir = args.root.store().open(&args.run)?;
    let job = dir.record()?.job;
    let connectors = args.ways.connectors(&job)?;
    let progress = Progress::new(&names(&job), output.json, output.is_quiet());
    let record = super::runtime()?.block_on(async {
        let rooms = Rooms {
            out: dir.path().to_owned(),
            connectors,
            clock: Arc::new(SystemClock),
            watch: &progress,
            cancel: cancel_by_signal()?,
        };
        crate::collect(&dir, rooms).await
    });
    progress.finish();
    tell(&record?, dir.path(), output)
}

fn names(job: &JobSpec) -> Vec<String> {
    job.hosts.iter().map(|h| h.name.to_string()).collect()
}

fn default_out() -> PathBuf {
    let started = crate::store::utc_text(clock::wall_unix_ms());
    let stamp: String = started
        .chars()
        .map(|c| if c == ':' { '-' } else { c })
        .collect();
    Path::new(DEFAULT_ROOT).join(stamp)
}

/// A token that SIGINT or SIGTERM cancels. A second signal ends the program at once: the agents'
/// leases clean up.
pub fn cancel_by_signal() -> anyhow::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        token.cancel();
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        std::process::exit(i32::from(super::INTERRUPTED));
    });
    Ok(cancel)
}

/// Says how a run came out, and where to look.
pub fn tell(record: &RunRecord, out: &Path, output: &Output) -> anyhow::Result<u8> {
    let code = exit_code(record);
    if output.json {
        let document = serde_json::json!({
            "event": "run", "out": out, "exit_code": code, "run": record,
        });
        output.data(&format!("{document}\n"))?;
        return Ok(code);
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{}: {}",
        record.state,
        printable(&record.coverage.line())
    );
    if let Some(ranking) = &record.ranking {
        for sentence in ranking.sentences().iter().take(5) {
            let _ = writeln!(text, "{}", printable(sentence));
        }
        let _ = writeln!(text, "({})", printable(&ranking.note));
    }
    let weighty: Vec<_> = record
        .all_findings()
        .into_iter()
        .filter(|f| f.severity() > Severity::Note)
        .collect();
    if !weighty.is_empty() {
        let _ = write!(text, "\n{}", findings_text(&weighty));
    }
    let at = out.display();
    let has_stacks = record.coverage.hosts.values().any(|h| h.stats.samples > 0);
    if record.job.probe == Probe::Script {
        let _ = writeln!(
            text,
            "\n{at}/hosts/         what the script printed on each host"
        );
    }
    if record.job.probe != Probe::Script || has_stacks {
        let _ = writeln!(text, "\n{at}/merged.svg   the whole fleet");
        let _ = writeln!(text, "{at}/hosts/         one graph a host");
        if record.coverage.hosts.len() > 1 {
            let _ = writeln!(text, "{at}/diff/          each host against the rest");
        }
    }
    let _ = writeln!(text, "{at}/report.md      for the ticket");
    let _ = writeln!(text, "{at}/report.html    the same with its pictures");
    output.data(&text)?;
    Ok(code)
}
