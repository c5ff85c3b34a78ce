//! A module whose reader was killed: it samples on, for nobody.
//!
//! In: its name, an ear. Out: what another reader (`staprun -A`) still gets of it, the module unloaded, and a finding that
//! says both. Never: a wait without a bound, or a reader that is asked to end before it hears that: it would die of it, and
//! with it what the module still has.

use super::last;
use super::report::Account;
use super::run::{self, Ear};
use super::{command, tool};
use crate::process::{Child, Processes};
use model::{Finding, FindingCode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Until the new reader has the module and hears a signal.
const ATTACH: Duration = Duration::from_millis(1_500);
/// From then until it has printed and unloaded.
const END: Duration = Duration::from_millis(1_300);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
/// SIGINT in the signal masks of /proc/PID/status.
const SIGINT_BIT: u64 = 1 << 1;
/// Of a reader that we have killed: what hinders one hinders another, and a teardown's time is up.
pub(super) const DID_NOT_END: &str = "did not end in time and was killed by the agent";

/// What was got.
pub(super) struct Recovered {
    pub account: Account,
    /// What the reader said.
    pub said: String,
    pub finding: Finding,
}

/// Ends the loaded module `name`, whose reader is gone.
pub(super) async fn recover(
    processes: &Processes,
    staprun: &Path,
    name: &str,
    ear: &Ear,
) -> Recovered {
    let (account, said) = match read_rest(processes, staprun, name, ear).await {
        Ok(read) => read,
        Err(e) => (Account::default(), format!("staprun -A: {e}\n")),
    };
    let why = format!("was killed; {} rows were recovered", account.rows);
    Recovered {
        account,
        said,
        finding: unloaded(staprun, name, &why).await,
    }
}

/// Unloads what is still there, and tells of it; `why` is what became of its reader, and how much of its output came by another.
pub(super) async fn unloaded(staprun: &Path, name: &str, why: &str) -> Finding {
    let how = match unload(staprun, name).await {
        Ok(()) => "it was unloaded".to_owned(),
        Err(why) => format!("it could not be unloaded: {why}"),
    };
    let told = format!("the reader of module {name} {why}, and {how}");
    Finding::new(FindingCode::StapModuleLeft, told)
}

/// Attaches to it, and ends it as if its reader were there.
async fn read_rest(
    processes: &Processes,
    staprun: &Path,
    name: &str,
    ear: &Ear,
) -> io::Result<(Account, String)> {
    let argv = command::attach(staprun, name);
    let mut reader = run::start(processes, &argv, Arc::clone(ear)).await?;
    let last_line = &reader.last;
    end(reader.child, name, async {
        last::ask(name, last_line, last::COMES_AGAIN).await;
    })
    .await;
    let account = reader.account.await.unwrap_or_default();
    Ok((account, reader.said.text().await))
}

/// Ends a module by its second reader, once that hears signals and `first` is done: it waits up to two seconds for messages that
/// the first one has read.
pub(super) async fn end(mut child: Child, name: &str, first: impl Future<Output = ()>) {
    let mut hears = false;
    for _ in 0..ATTACH.as_millis() / LOOK.as_millis() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid()));
        hears = tool::is_used(name) && hears_interrupt(&status.unwrap_or_default());
        if hears || child.ended_within(LOOK).await.is_some() {
            break;
        }
    }
    if hears {
        first.await;
    }
    child.interrupt();
    let _ = child.ended_within(END).await;
    child.kill().await;
}

/// Whether SIGINT is more than the process's end, by its /proc/PID/status (its line `SigCgt`).
fn hears_interrupt(status: &str) -> bool {
    let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & SIGINT_BIT != 0)
}

/// What is still there then.
async fn unload(staprun: &Path, name: &str) -> Result<(), String> {
    if !tool::is_loaded(name) {
        return Ok(());
    }
    let (staprun, name) = (staprun.to_path_buf(), name.to_owned());
    let unload = tokio::task::spawn_blocking(move || tool::unload(&staprun, &name));
    unload.await.unwrap_or_else(|e| Err(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_a_signal_says_so_in_its_status() {
        let status = |mask: &str| format!("Name:\tstapio\nSigIgn:\tffffffffffffffff\n{mask}\n");
        assert!(hears_interrupt(&status("SigCgt:\t0000000000014007")));
        assert!(!hears_interrupt(&status("SigCgt:\t0000000000010005")));
        assert!(!hears_interrupt(&status("SigBlk:\t0000000000014007")));
        assert!(!hears_interrupt(""));
    }
}
