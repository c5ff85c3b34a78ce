//! `fleetflame runs`: the stored runs. In: a root. Out: a table or JSON. Never: a run left out
//! because its record is damaged.

use super::COMPLETE;
use super::input::Root;
use super::output::Output;
use crate::render::table;
use crate::store::{Listed, RunStore as _};
use clap::Args;
use serde_json::json;

/// Arguments of `runs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame runs
  fleetflame runs --runs /var/lib/fleetflame/runs --json")]
pub struct RunsArgs {
    #[command(flatten)]
    root: Root,
}

pub fn runs(args: &RunsArgs, output: &Output) -> anyhow::Result<u8> {
    let runs = args.root.store().list()?;
    if output.json {
        let list: Vec<serde_json::Value> = runs.iter().map(document).collect();
        output.document(&list)?;
        return Ok(COMPLETE);
    }
    if runs.is_empty() {
        output.talk(&format!("no runs in {}\n", args.root.runs.display()));
        return Ok(COMPLETE);
    }
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    output.data(&table(
        &["run", "started", "state", ">hosts", "title"],
        &rows,
        output.bold(),
    ))?;
    Ok(COMPLETE)
}

fn row(run: &Listed) -> Vec<String> {
    match &run.record {
        Ok(record) => vec![
            record.id.to_string(),
            record.started.clone(),
            record.state.to_string(),
            record.job.hosts.len().to_string(),
            record.title.clone(),
        ],
        Err(error) => {
            let name = run
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            vec![
                name,
                "-".into(),
                "unreadable".into(),
                "-".into(),
                error.to_string(),
            ]
        }
    }
}

fn document(run: &Listed) -> serde_json::Value {
    match &run.record {
        Ok(record) => json!({
            "path": run.path, "id": record.id, "title": record.title, "state": record.state,
            "started": record.started, "ended": record.ended, "hosts": record.job.hosts.len(),
        }),
        Err(error) => json!({ "path": run.path, "error": error.to_string() }),
    }
}
