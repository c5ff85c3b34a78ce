//! `fleetflame push`: a run to a store of profiles. In: a run, targets, labels. Out: what was accepted where, a ledger in
//! the run directory. Never: credentials from the command line, or sent where others can read them.

use super::input::{self, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::{COMPLETE, FAILED, INTERRUPTED, NOTHING, PARTIAL};
use crate::push::{
    self, Headers, LEDGER_FILE, Ledger, Outcome, Parcels, Policy, Sender, Target, link, parse_label,
};
use crate::store::{RunDir, StoreError, utc_text};
use crate::{clock, render::printable};
use anyhow::Context as _;
use base64::Engine as _;
use clap::Args;
use hyper::http::HeaderValue;
use model::job::parse_duration_ms;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const AUTH_VARIABLE: &str = "FLEETFLAME_PUSH_AUTH";
/// Where distributions keep the authorities that they trust: Debian, Fedora, SUSE, Alpine.
const SYSTEM_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Arguments of `push`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame push 01JD3K --to pyroscope:http://127.0.0.1:4040
  fleetflame push ./kong-cpu --to parca:https://parca.example:7070 --label cluster=bj --ca ca.pem
  FLEETFLAME_PUSH_AUTH='basic user:password' fleetflame push 01JD3K --to pyroscope:https://profiles.example
  fleetflame push 01JD3K:kong-2 --to pyroscope:http://127.0.0.1:4040 --again

Each host is one profile, with the labels host, job_id (the run), probe, engine, config_hash and those of
its fleet file. What a store has accepted is kept in pushed.json of the run directory, and is not sent
again. FLEETFLAME_PUSH_AUTH holds TOKEN, `bearer TOKEN` or `basic USER:PASSWORD`.")]
pub struct PushArgs {
    /// A run, RUN:HOST, RUN:rest-of:HOST or RUN@SELECTION
    #[arg(value_name = "RUN")]
    run: String,
    /// pyroscope:URL or parca:URL; repeatable
    #[arg(long, value_name = "STORE:URL", required = true)]
    to: Vec<Target>,
    /// A label of all profiles; repeatable. service_name replaces the name of the busiest processes
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Also what was accepted before
    #[arg(long)]
    again: bool,
    /// X-Scope-OrgID, for a Pyroscope of many tenants
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Authorities that may have signed the store's certificate (PEM), instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with what FLEETFLAME_PUSH_AUTH would hold, readable by its owner only
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// How long one attempt may take; there are at most 6
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms, default_value = "30s")]
    timeout: u64,
    #[command(flatten)]
    root: Root,
}

pub fn push(args: &PushArgs, output: &Output) -> anyhow::Result<u8> {
    let mut senders = senders(args)?;
    let input = input::read(&args.run, &args.root, &ReadArgs::default(), output)?;
    let (Some(record), Some(dir)) = (&input.record, &input.dir) else {
        return Err(usage(format!(
            "{} is a file, not a run: it does not say when it was taken, and stores keep profiles by time",
            args.run
        )));
    };
    let labels: BTreeMap<String, String> = args.label.iter().cloned().collect();
    let parcels = Parcels::new(&input.profile, record, labels)
        .with_context(|| format!("failed to push {}", args.run))?;
    let mut hosts = parcels.hosts();
    hosts.retain(|host| input.part.has_host(host));
    if hosts.is_empty() {
        output.talk("there is nothing to push: no host has a stack\n");
    }
    if !dir.is_settled() {
        output.talk(
            "agents may still hold a part of this run: what `fleetflame collect` adds later would be pushed as a second \
             profile beside this one\n",
        );
    }
    let mut ledger = read_ledger(dir)?;
    let policy = Policy {
        attempt: Duration::from_millis(args.timeout),
        ..Policy::default()
    };
    let (outcomes, interrupted) = super::runtime()?.block_on(async {
        let cancel = super::capture::cancel_by_signal()?;
        let mut outcomes = Vec::new();
        for sender in &mut senders {
            let keep = |ledger: &mut Ledger, parcel: &push::Parcel, target: &str| {
                ledger.note(target, parcel, utc_text(clock::wall_unix_ms()));
                dir.write(LEDGER_FILE, &ledger.to_bytes())
            };
            let how = (&policy, args.again);
            tokio::select! {
                outcome = push::push(&parcels, &hosts, sender, &mut ledger, how, keep) => {
                    outcomes.push((sender.target.to_string(), outcome?));
                }
                () = cancel.cancelled() => return Ok((outcomes, true)),
            }
        }
        Ok::<_, anyhow::Error>((outcomes, false))
    })?;
    let code = if interrupted {
        INTERRUPTED
    } else {
        exit_code(&outcomes, hosts.is_empty())
    };
    tell(&record.id.to_string(), &outcomes, code, output)?;
    Ok(code)
}

/// Complete when everything is there, partial when something is, failed when nothing is.
fn exit_code(outcomes: &[(String, Outcome)], nothing: bool) -> u8 {
    let there = |o: &Outcome| o.sent.len() + o.already.len();
    if nothing {
        NOTHING
    } else if outcomes.iter().all(|(_, o)| o.failed.is_empty()) {
        COMPLETE
    } else if outcomes.iter().any(|(_, o)| there(o) > 0) {
        PARTIAL
    } else {
        FAILED
    }
}

fn tell(
    run: &str,
    outcomes: &[(String, Outcome)],
    code: u8,
    output: &Output,
) -> anyhow::Result<()> {
    if output.json {
        let targets: Vec<serde_json::Value> = outcomes
            .iter()
            .map(|(to, outcome)| {
                let failed = outcome.failed.iter();
                let failed: Vec<_> = failed
                    .map(|f| json!({ "host": f.host, "error": f.said, "remedy": f.remedy }))
                    .collect();
                json!({ "to": to, "sent": outcome.sent, "already": outcome.already, "failed": failed })
            })
            .collect();
        return output.document(&json!({ "run": run, "targets": targets, "exit_code": code }));
    }
    let (mut text, mut talk) = (String::new(), String::new());
    for (to, outcome) in outcomes {
        let (sent, already) = (outcome.sent.len(), outcome.already.len());
        let _ = writeln!(
            text,
            "{to}: {sent} sent, {already} accepted before, {} failed",
            outcome.failed.len()
        );
        for failure in &outcome.failed {
            let said = printable(&failure.said);
            let _ = writeln!(talk, "{to}: {}: {said}\n  {}", failure.host, failure.remedy);
        }
    }
    output.data(&text)?;
    output.talk(&talk);
    Ok(())
}

fn read_ledger(dir: &RunDir) -> anyhow::Result<Ledger> {
    let bytes = match dir.read(LEDGER_FILE) {
        Ok(bytes) => bytes,
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Ledger::default());
        }
        Err(error) => return Err(error.into()),
    };
    Ledger::parse(&bytes).map_err(|why| {
        let path = dir.path().join(LEDGER_FILE);
        anyhow::anyhow!(
            "failed to read {}: {why}; remove it to push everything again",
            path.display()
        )
    })
}

fn senders(args: &PushArgs) -> anyhow::Result<Vec<Sender>> {
    let mut targets = args.to.clone();
    targets.sort();
    targets.dedup();
    let headers = Headers {
        authorization: authorization(args)?,
        tenant: args.tenant.as_deref().map(tenant).transpose()?,
    };
    if headers.authorization.is_some() {
        if targets.len() > 1 {
            return Err(usage(
                "credentials are for one store: push to one --to at a time",
            ));
        }
        if let Some(open) = targets.iter().find(|t| !t.tls && !t.is_loopback()) {
            return Err(usage(format!(
                "credentials are not sent to {open}, where others can read them; use https"
            )));
        }
    }
    let roots = match targets.iter().any(|t| t.tls) {
        true => Some(roots(args.ca.as_deref())?),
        false => None,
    };
    let sender = |target: Target| {
        let dialler = link::Dialler::new(&target, roots.clone())?;
        Ok(Sender::new(target, dialler, headers.clone()))
    };
    targets.into_iter().map(sender).collect()
}

fn roots(ca: Option<&Path>) -> anyhow::Result<rustls::RootCertStore> {
    let system = || SYSTEM_CA.iter().map(Path::new).find(|p| p.is_file());
    let file = ca.or_else(system).ok_or_else(|| {
        usage(format!(
            "there are no authorities to trust in {}; give --ca FILE",
            SYSTEM_CA.join(", ")
        ))
    })?;
    let failed = || format!("failed to read authorities from {}", file.display());
    let pem = std::fs::read(file).with_context(failed)?;
    link::roots(&pem).with_context(failed)
}

fn tenant(id: &str) -> anyhow::Result<HeaderValue> {
    HeaderValue::from_str(id)
        .map_err(|_| usage("--tenant has characters that a header cannot have"))
}

fn authorization(args: &PushArgs) -> anyhow::Result<Option<HeaderValue>> {
    let (said, from) = match &args.auth_file {
        Some(file) => (read_secret(file)?, file.display().to_string()),
        None => match std::env::var(AUTH_VARIABLE) {
            Ok(said) => (said, AUTH_VARIABLE.to_owned()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(_) => return Err(usage(format!("{AUTH_VARIABLE} is not text"))),
        },
    };
    let header = authorization_of(said.trim());
    let header = header.ok_or_else(|| {
        usage(format!(
            "{from} has to hold TOKEN, `bearer TOKEN` or `basic USER:PASSWORD` on one line"
        ))
    })?;
    Ok(Some(header))
}

/// The header's value; none where it is not one of the three.
fn authorization_of(said: &str) -> Option<HeaderValue> {
    let (scheme, secret) = said.split_once(' ').unwrap_or(("bearer", said));
    let secret = secret.trim();
    if secret.is_empty() {
        return None;
    }
    let text = match scheme.to_ascii_lowercase().as_str() {
        "bearer" if !secret.contains(' ') => format!("Bearer {secret}"),
        "basic" if secret.contains(':') => {
            let packed = base64::engine::general_purpose::STANDARD.encode(secret);
            format!("Basic {packed}")
        }
        _ => return None,
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read_secret(file: &Path) -> anyhow::Result<String> {
    let failed = || format!("failed to read {}", file.display());
    let mode = std::fs::metadata(file).with_context(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let file = file.display();
        return Err(usage(format!(
            "{file} can be read by others (mode {mode:o}): chmod 600 it"
        )));
    }
    std::fs::read_to_string(file).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_three_forms_and_never_shown() {
        let header = |said: &str| authorization_of(said);
        let shown = |said: &str| header(said).unwrap().to_str().unwrap().to_owned();
        assert_eq!(shown("t0ken"), "Bearer t0ken");
        assert_eq!(shown("Bearer t0ken"), "Bearer t0ken");
        assert_eq!(
            shown("basic Aladdin:open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        for wrong in ["", "basic nobody", "digest a:b", "bearer a b", "a\nb"] {
            assert!(header(wrong).is_none(), "{wrong:?}");
        }
        assert!(!format!("{:?}", header("t0ken")).contains("t0ken"));
    }

    #[test]
    fn what_is_there_decides_the_exit_code() {
        let failed = |host: &str| push::Failure {
            host: host.into(),
            said: "no".into(),
            remedy: "none",
        };
        let of = |sent: &[&str], failed: Vec<push::Failure>| {
            let sent = sent.iter().map(|h| (*h).to_owned()).collect();
            let already = vec![];
            (
                "parca:http://a:1".to_owned(),
                Outcome {
                    sent,
                    already,
                    failed,
                },
            )
        };
        assert_eq!(exit_code(&[of(&["a"], vec![])], false), COMPLETE);
        assert_eq!(exit_code(&[of(&["a"], vec![failed("b")])], false), PARTIAL);
        assert_eq!(exit_code(&[of(&[], vec![failed("b")])], false), FAILED);
        assert_eq!(exit_code(&[of(&[], vec![])], true), NOTHING);
    }
}
