//! `fleetflame rank`: which host is unlike the others. In: runs, parts of runs, files of hosts. Out:
//! the ranking as sentences or JSON. Never: two hosts taken for one because their files have the same
//! name.

use super::input::{self, Input, Root};
use super::output::{Output, usage};
use super::reading::ReadArgs;
use super::seconds::SecondArgs;
use super::{COMPLETE, NOTHING};
use crate::render::printable;
use clap::Args;
use compare::{Per, Ranking, rank as ranking_of};
use model::Finding;
use model::profile::{Profile, Series};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Resampling begins here: the same inputs give the same intervals.
const SEED: u64 = 1;

/// Arguments of `rank`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame rank 01JD3K                       the hosts of a run, by shares of samples
  fleetflame rank 01JD3K --by per-1k           by CPU time per 1,000 requests
  fleetflame rank 01JD3K@dc=bj --from-second 30
  fleetflame rank kong-*.folded                profiles from elsewhere, one file a host
  fleetflame rank kong-*.pb.gz --json | jq '.ranking.entries[0]'")]
pub struct RankArgs {
    /// RUN, RUN:rest-of:HOST, RUN@SELECTION or FILE; a text or pprof file is one host, named like the file
    #[arg(value_name = "RUN|FILE", required = true)]
    inputs: Vec<String>,
    /// share (of each host's samples), cpu (CPU time per second) or per-1k (CPU time per 1,000 requests)
    #[arg(long, default_value = "share", value_parser = Per::parse)]
    by: Per,
    /// How many hosts are shown
    #[arg(short = 'n', value_name = "HOSTS", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    seconds: SecondArgs,
    #[command(flatten)]
    how: ReadArgs,
    #[command(flatten)]
    root: Root,
}

pub fn rank(args: &RankArgs, output: &Output) -> anyhow::Result<u8> {
    let mut fleet = Profile::default();
    let (mut findings, mut whose) = (Vec::<Finding>::new(), BTreeMap::new());
    for (at, word) in args.inputs.iter().enumerate() {
        let mut input = input::read_seconds(word, &args.root, &args.how, output)?;
        args.seconds.take(&mut input, true)?;
        findings.append(&mut input.findings);
        let name = input.name.clone();
        for host in hosts(&input) {
            if let Some(before) = whose.insert(host.clone(), word) {
                return Err(usage(format!(
                    "{before} and {word} both have stacks of a host {host}; rename one of them, or add them up with `fleetflame merge` first"
                )));
            }
        }
        let profile = input.wanted();
        if at == 0 {
            fleet = profile;
        } else if let Err(error) = fleet.merge(&profile) {
            return Err(usage(format!(
                "{name} does not go with the others: {error}"
            )));
        }
    }
    let ranking = ranking_of(&fleet, args.by, SEED);
    findings.extend(ranking.findings.iter().cloned());
    findings.sort();
    findings.dedup();
    if output.json {
        output
            .document(&json!({ "hosts": whose.len(), "ranking": ranking, "findings": findings }))?;
    } else {
        output.data(&sentences(&ranking, args.rows))?;
        output.talk_findings(&findings);
    }
    Ok(if ranking.entries.is_empty() {
        NOTHING
    } else {
        COMPLETE
    })
}

/// The hosts that an input has stacks of.
fn hosts(input: &Input) -> Vec<String> {
    let wanted = |s: &&Series| input.part.has(s);
    let series = input.profile.series.as_slice().iter().filter(wanted);
    let mut hosts: Vec<String> = series.map(|s| s.host.clone()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// One sentence a host, the most unlike first, and how they are to be read.
pub(super) fn sentences(ranking: &Ranking, hosts_max: usize) -> String {
    let mut text = String::new();
    for sentence in ranking.sentences().iter().take(hosts_max) {
        let _ = writeln!(text, "{}", printable(sentence));
    }
    let more = ranking.entries.len().saturating_sub(hosts_max);
    if more > 0 {
        let plural = if more == 1 { "" } else { "s" };
        let _ = writeln!(text, "… and {more} more host{plural}");
    }
    let _ = writeln!(text, "({})", printable(&ranking.note));
    text
}
