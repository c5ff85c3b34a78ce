//! Bootstrap: an agent on a host that has nothing but sshd and sh.
//!
//! ```text
//! prepare.sh ─► Facts ─► steps::decide ─► Steps ─► start.sh ◄── program, compressed ─► channel to the agent
//! ```
//! In: a login, the programs that can be sent. Out: a channel to an agent in a private folder, or one
//! finding. Never: a file that stays when a step fails, or anything run that was not checked.

mod cksum;
mod facts;
mod program;
mod script;
mod steps;

pub use program::Programs;

use super::News;
use super::ssh::channel::{self, Channel};
use super::ssh::diagnose::diagnose;
use super::ssh::session::Session;
use facts::Facts;
use model::{Finding, FindingCode};
use program::Program;
use std::sync::Arc;
use steps::{Steps, Way};

/// What a bootstrap is told beside the login.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Keep the program for the next run.
    pub keep: bool,
    /// Try `sudo -n` when the agent says that privileges are missing.
    pub sudo: bool,
}

/// Gets an agent to run. Gives the channel to it, and how it is joined
/// again.
///
/// # Errors
/// A finding that says which step failed, in the far side's own words.
pub async fn bootstrap(
    session: &Arc<Session>,
    programs: &Arc<Programs>,
    wishes: &Wishes,
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<(Channel, Running), Finding> {
    let random = crate::clock::random_bits()
        .map_err(|e| Finding::new(FindingCode::AgentNotStarted, format!("/dev/urandom: {e}")))?;
    let id = format!("{random:032x}");
    let facts = look(session, &id, "none").await?;
    if facts.system != "Linux" {
        let said = format!("the host runs {} on {}", facts.system, facts.machine);
        return Err(Finding::new(FindingCode::AgentNoBinary, said));
    }
    let program = load(programs, &facts).await?;
    let facts = match wishes.keep {
        // Whether it is there already can only be asked once its hash is known.
        true => look(session, &id, &program.kept_name()).await?,
        false => facts,
    };
    let mut steps = steps::decide(&facts, program.plain.len() as u64)?;
    steps.sudo &= wishes.sudo;
    match start(session, &program, &steps, wishes, tell).await {
        Err(finding) if finding.code == FindingCode::AgentDamaged && steps.way == Way::Kept => {
            // What was kept has gone bad: it is sent and kept anew.
            steps.way = if facts.has("gunzip") {
                Way::Gzip
            } else {
                Way::Plain
            };
            start(session, &program, &steps, wishes, tell).await
        }
        other => other,
    }
}

async fn look(session: &Session, id: &str, kept: &str) -> Result<Facts, Finding> {
    let said = session.run(&line(script::PREPARE, &[id, kept])?).await?;
    Facts::read(&said.stdout).ok_or_else(|| {
        let words = format!("{}\n{}", said.stderr, said.stdout);
        diagnose(&words, FindingCode::SshNoAnswer)
    })
}

/// The program for the host; read and compressed off the runtime's threads.
async fn load(programs: &Arc<Programs>, facts: &Facts) -> Result<Arc<Program>, Finding> {
    let (programs, machine) = (Arc::clone(programs), facts.machine.clone());
    let loaded = tokio::task::spawn_blocking(move || programs.for_machine(&machine)).await;
    let absent = |said: String| Finding::new(FindingCode::AgentNoBinary, said);
    loaded
        .map_err(|e| absent(e.to_string()))?
        .map_err(|e| absent(format!("{e:#}; its C library is {}", facts.libc)))
}

async fn start(
    session: &Arc<Session>,
    program: &Program,
    steps: &Steps,
    wishes: &Wishes,
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<(Channel, Running), Finding> {
    let bytes: &[u8] = match steps.way {
        Way::Gzip => &program.gzip,
        Way::Plain => &program.plain,
        Way::Kept => &[],
    };
    let (length, cksum) = (bytes.len().to_string(), program.cksum.to_string());
    let (size, name) = (program.plain.len().to_string(), program.kept_name());
    let arguments = [
        steps.folder.as_str(),
        &length,
        steps.way.word(),
        &cksum,
        &size,
        &program.blake3,
        if wishes.keep || steps.way == Way::Kept {
            &name
        } else {
            "none"
        },
        if steps.sudo { "yes" } else { "no" },
        steps.via,
    ];
    let line = line(script::START, &arguments)?;
    let (channel, said) = channel::open(Arc::clone(session), &line, bytes, tell).await?;
    if said.contains("fleetflame: sudo:") {
        tell(News::Noted(diagnose(&said, FindingCode::AgentNoSudo)));
    }
    let running = Running {
        folder: steps.folder.clone(),
        via: steps.via,
    };
    Ok((channel, running))
}

/// An agent that runs on a host.
#[derive(Clone, Debug)]
pub struct Running {
    folder: String,
    via: &'static str,
}

impl Running {
    /// The line that joins a channel to it.
    pub(super) fn join_line(&self) -> Result<String, Finding> {
        line(script::JOIN, &[self.via, &self.folder])
    }
}

fn line(script: &str, arguments: &[&str]) -> Result<String, Finding> {
    script::command_line(script, arguments).ok_or_else(|| {
        let said = format!(
            "these cannot be words of a command: {}",
            arguments.join(" ")
        );
        Finding::new(FindingCode::AgentNotStarted, said)
    })
}
