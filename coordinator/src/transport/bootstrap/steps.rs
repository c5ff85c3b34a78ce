//! What has to be done on a host so that an agent runs there. Pure.
//!
//! In: the host's facts, the agent for its processor. Out: how the agent gets there, or why it cannot.
//! Never: a step that depends on what a host calls itself.

use super::facts::Facts;
use model::{Finding, FindingCode};

/// How the program gets into its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Compressed, through gunzip.
    Gzip,
    /// As it is.
    Plain,
    /// It is there already, kept from an earlier run.
    Kept,
}

impl Way {
    /// The word that start.sh knows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Plain => "plain",
            Self::Kept => "kept",
        }
    }
}

/// What start.sh is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The agent's own folder, which does not exist yet.
    pub folder: String,
    /// How the program gets there.
    pub way: Way,
    /// How it is run: `file`, or from memory by `python3` or `perl` where no file may be run.
    pub via: &'static str,
    /// Whether `sudo -n` may be tried if the agent says that privileges are missing.
    pub sudo: bool,
}

/// What the rest of a run directory of the agent needs beside its program, in KiB.
const SPARE_KIB: u64 = 64;

/// Decides. `agent_bytes` is the size of the program for this host.
///
/// # Errors
/// `agent-no-folder`, `agent-no-space` or `ssh-no-shell` with what the host said.
pub fn decide(facts: &Facts, agent_bytes: u64) -> Result<Steps, Finding> {
    let from_memory = ["python3", "perl"].into_iter().find(|tool| facts.has(tool));
    let (place, via) = match (&facts.folder, &facts.bare, from_memory) {
        (None, Some(bare), Some(tool)) if facts.full.is_empty() => (Some(bare), tool),
        (folder, ..) => (folder.as_ref(), "file"),
    };
    let Some(folder) = place else {
        if !facts.full.is_empty() {
            return Err(Finding::new(
                FindingCode::AgentNoSpace,
                facts.full.join("; "),
            ));
        }
        let said = facts.refused.join("; ");
        return Err(Finding::new(FindingCode::AgentNoFolder, said));
    };
    let missing: Vec<&str> = ["head", "cksum"]
        .into_iter()
        .filter(|tool| !facts.has(tool))
        .collect();
    if !missing.is_empty() {
        let said = format!("the host has no {}", missing.join(" and no "));
        return Err(Finding::new(FindingCode::SshNoShell, said)
            .with_remedy("Install coreutils or busybox there, or install the agent as a daemon."));
    }
    if let Some(free) = facts.free_kib.filter(|_| !facts.kept)
        && free < agent_bytes.div_ceil(1_024) + SPARE_KIB
    {
        let said = format!("{folder}: {free} KiB are free");
        return Err(Finding::new(FindingCode::AgentNoSpace, said));
    }
    let way = match (facts.kept, facts.has("gunzip")) {
        (true, _) => Way::Kept,
        (false, true) => Way::Gzip,
        (false, false) => Way::Plain,
    };
    Ok(Steps {
        folder: folder.clone(),
        way,
        via,
        // Root would need a file, or a line in sudoers for the whole of python3.
        sudo: via == "file" && facts.user != Some(0) && facts.has("sudo"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            user: Some(1_000),
            tools: ["gunzip", "head", "cksum", "sudo"]
                .map(str::to_owned)
                .into(),
            folder: Some("/var/tmp/fleetflame-1000/ab".into()),
            free_kib: Some(1 << 20),
            ..Facts::default()
        }
    }

    #[test]
    fn the_cheapest_way_is_taken() {
        assert_eq!(decide(&facts(), 9 << 20).unwrap().way, Way::Gzip);
        let kept = Facts {
            kept: true,
            free_kib: Some(0),
            ..facts()
        };
        assert_eq!(decide(&kept, 9 << 20).unwrap().way, Way::Kept);
        let mut bare = facts();
        bare.tools.retain(|t| t != "gunzip" && t != "sudo");
        let steps = decide(&bare, 9 << 20).unwrap();
        assert_eq!((steps.way, steps.sudo), (Way::Plain, false));
    }

    #[test]
    fn where_no_file_may_be_run_the_agent_runs_from_memory() {
        let mut bare = Facts {
            folder: None,
            free_kib: None,
            bare: Some("/var/tmp/fleetflame-1000/ab".into()),
            ..facts()
        };
        bare.tools.push("perl".into());
        let steps = decide(&bare, 9 << 20).unwrap();
        assert_eq!((steps.via, steps.sudo), ("perl", false));
        bare.tools.push("python3".into());
        assert_eq!(decide(&bare, 9 << 20).unwrap().via, "python3");
        assert_eq!(decide(&facts(), 9 << 20).unwrap().via, "file");
    }

    #[test]
    fn root_needs_no_sudo() {
        assert!(decide(&facts(), 1).unwrap().sudo);
        let root = Facts {
            user: Some(0),
            ..facts()
        };
        assert!(!decide(&root, 1).unwrap().sudo);
    }

    #[test]
    fn what_a_host_lacks_is_said_in_its_own_words() {
        let code = |facts: &Facts| decide(facts, 9 << 20).unwrap_err().code;
        let nowhere = Facts {
            folder: None,
            refused: vec!["/var/tmp: noexec (Permission denied)".into()],
            ..facts()
        };
        let finding = decide(&nowhere, 1).unwrap_err();
        assert_eq!(finding.code, FindingCode::AgentNoFolder);
        assert!(finding.evidence.contains("/var/tmp: noexec"));
        let full = Facts {
            full: vec!["/var/tmp: No space left on device".into()],
            ..nowhere
        };
        assert_eq!(code(&full), FindingCode::AgentNoSpace);
        let small = Facts {
            free_kib: Some(100),
            ..facts()
        };
        assert_eq!(code(&small), FindingCode::AgentNoSpace);
        let mut bare = facts();
        bare.tools.clear();
        assert_eq!(code(&bare), FindingCode::SshNoShell);
    }
}
