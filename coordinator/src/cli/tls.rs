//! `fleetflame tls`: certificates for a fleet. In: host names. Out: a folder for each, and one for
//! the coordinator. Never: a CA key on disk (make all certificates of a fleet at once).

use super::COMPLETE;
use super::output::{Output, usage};
use crate::clock;
use crate::transport::pki::Authority;
use clap::Args;
use model::HostName;
use std::path::PathBuf;

/// Arguments of `tls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetflame tls ./tls kong-1 kong-2 kong-3

Copy ./tls/kong-1 to /etc/fleetflame/tls on kong-1, and so on; keep ./tls/coordinator here. The CA's
key is not kept: for a new host, make the whole fleet's certificates again.")]
pub struct TlsArgs {
    /// A folder that does not exist yet
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The names that the hosts have in jobs
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// How long the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u16,
}

pub fn tls(args: &TlsArgs, output: &Output) -> anyhow::Result<u8> {
    let hosts: Result<Vec<HostName>, _> = args.hosts.iter().map(HostName::new).collect();
    let hosts = hosts.map_err(|e| usage(e.to_string()))?;
    if args.dir.exists() {
        return Err(usage(format!("{} exists already", args.dir.display())));
    }
    let authority = Authority::new(clock::wall_unix_ms(), i64::from(args.days.max(1)))?;
    authority.issue_coordinator(&args.dir.join("coordinator"))?;
    for host in &hosts {
        authority.issue_agent(&args.dir.join(host.as_str()), host)?;
    }
    output.data(&format!(
        "{0}/coordinator   use it with --tls {0}/coordinator\n{0}/HOST          copy each to its host's /etc/fleetflame/tls\n",
        args.dir.display()
    ))?;
    Ok(COMPLETE)
}
