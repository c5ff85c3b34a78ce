//! What a host said about itself before an agent was there. Pure.
//!
//! In: the output of prepare.sh, with whatever a login shell wrote around it. Out: facts. Never: a path
//! that could be more than one word of a command line.

use super::script::words;

const BEGIN: &str = "\nfleetflame-facts/1\n";
const END: &str = "fleetflame-facts-end";

/// What prepare.sh has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `uname -s`, such as `Linux`.
    pub system: String,
    /// `uname -m`, such as `x86_64`.
    pub machine: String,
    /// `uname -r`.
    pub kernel: String,
    /// The login's user id.
    pub user: Option<u32>,
    /// The C library, in its own words.
    pub libc: String,
    /// Programs that are there, of those that matter.
    pub tools: Vec<String>,
    /// The folder that would be made for the agent.
    pub folder: Option<String>,
    /// A folder where an agent could lie, but no file may be run.
    pub bare: Option<String>,
    /// Free space there, in KiB, when it is known.
    pub free_kib: Option<u64>,
    /// Whether an agent of the asked hash is kept beside it.
    pub kept: bool,
    /// Folders that will not do, each with the reason.
    pub refused: Vec<String>,
    /// Folders that would do, were they not full.
    pub full: Vec<String>,
}

impl Facts {
    /// Whether the host has a program.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.iter().any(|t| t == tool)
    }

    /// Reads the output. None when the script's answer is not in it.
    #[must_use]
    pub fn read(output: &str) -> Option<Self> {
        let (_, after) = output.split_once(BEGIN)?;
        let (body, _) = after.split_once(END)?;
        let mut facts = Self::default();
        for line in body.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim();
            match key {
                "system" => value.clone_into(&mut facts.system),
                "machine" => value.clone_into(&mut facts.machine),
                "kernel" => value.clone_into(&mut facts.kernel),
                "user" => facts.user = value.parse().ok(),
                "libc" => value.clone_into(&mut facts.libc),
                "tool" => facts.tools.push(value.to_owned()),
                "folder" => facts.folder = checked_folder(value),
                "bare" if facts.bare.is_none() => facts.bare = checked_folder(value),
                "free_kib" => facts.free_kib = value.parse().ok(),
                "kept" => facts.kept = value == "yes",
                "refused" => facts.refused.push(value.to_owned()),
                "full" => facts.full.push(value.to_owned()),
                _ => {}
            }
        }
        Some(facts)
    }
}

/// A path that is absolute, one word, and leads nowhere else.
fn checked_folder(path: &str) -> Option<String> {
    let good = path.starts_with('/') && !path.contains("/..") && words(&[path]).is_some();
    good.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_among_noise() {
        let output = "Welcome to kong-1!\n\
            refused a line of a banner\n\
            \nfleetflame-facts/1\nsystem Linux\nmachine x86_64\nkernel 6.1.0\nuser 1000\n\
            libc glibc 2.36\ntool gunzip\ntool head\nrefused /run/user/1000: no such folder\n\
            folder /var/tmp/fleetflame-1000/ab12\nfree_kib 1024\nkept yes\nfleetflame-facts-end\nbye\n";
        let facts = Facts::read(output).unwrap();
        assert_eq!(facts.user, Some(1_000));
        assert_eq!(facts.libc, "glibc 2.36");
        assert!(facts.has("gunzip") && facts.has("head") && !facts.has("sudo"));
        assert_eq!(
            facts.folder.as_deref(),
            Some("/var/tmp/fleetflame-1000/ab12")
        );
        assert_eq!((facts.free_kib, facts.kept), (Some(1_024), true));
        assert_eq!(facts.refused, ["/run/user/1000: no such folder"]);
    }

    #[test]
    fn a_hostile_folder_is_none() {
        for path in ["/tmp/$(reboot)", "relative", "/a/../../etc", "/a b", ""] {
            let output = format!("{BEGIN}folder {path}\n{END}\n");
            assert_eq!(Facts::read(&output).unwrap().folder, None, "{path:?}");
        }
        assert_eq!(Facts::read("machine x86_64\n"), None);
        assert_eq!(Facts::read(BEGIN), None, "an answer without its end");
    }
}
