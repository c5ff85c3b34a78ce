//! The machine's SystemTap: where it is, which it is, whether it may; what of ours is loaded.
//!
//! In: a fixed list of folders, /proc, /sys. Out: paths, a report. Never: a program that others than root and the
//! agent's own user could have written, or a module unloaded that is not ours or that is in use.

use super::command;
use super::module;
use super::probes::PROBES;
use crate::engine::program;
use crate::process::ask;
use model::host::EngineReport;
use model::job::{Event, Probe};
use model::{Finding, FindingCode};
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `stap --version` takes ten milliseconds of CPU.
const VERSION: Duration = Duration::from_secs(3);
/// Unloading waits for handlers that run.
const UNLOAD: Duration = Duration::from_secs(4);
/// Held by whoever captures with SystemTap on this machine.
const LOCK: &str = "/run/fleetflame-stap.lock";
/// The only folder from which members of stapusr alone may load: below /lib/modules/RELEASE.
const BLESSED: &str = "systemtap";
/// include/uapi/linux/capability.h.
const CAP_SYS_MODULE: u32 = 16;

/// A program of SystemTap by name.
///
/// # Errors
/// As [`program::find`].
pub(super) fn find(name: &str) -> Result<PathBuf, Finding> {
    let install = "Install systemtap-runtime (staprun), and systemtap with the kernel's headers where modules are built (docs/systemtap.md), or use --engine native.";
    program::find(name, install)
}

/// stap with its version, if one is there that will do.
///
/// # Errors
/// `engine-unavailable`: there is none, or it is too old.
pub(super) fn translator() -> Result<(PathBuf, (u32, u32)), Finding> {
    let stap = find("stap")?;
    let argv = [OsString::from(&stap), "--version".into()];
    let answer = ask(&argv, &command::ENVIRONMENT, true, VERSION);
    let version = answer
        .ok()
        .and_then(|a| command::parse_version(&format!("{}{}", a.stdout, a.stderr)));
    new_enough(&stap, version).map(|version| (stap, version))
}

fn new_enough(stap: &Path, version: Option<(u32, u32)>) -> Result<(u32, u32), Finding> {
    let (major, minor) = command::OLDEST;
    let said = match version {
        Some(version) if version >= command::OLDEST => return Ok(version),
        Some((has, point)) => format!(
            "{} is SystemTap {has}.{point}, and {major}.{minor} is the oldest that will do",
            stap.display()
        ),
        None => format!("{} does not say its version", stap.display()),
    };
    let remedy = format!(
        "Install SystemTap {major}.{minor} or newer, have modules built elsewhere (docs/systemtap.md), or use --engine native."
    );
    Err(Finding::new(FindingCode::EngineUnavailable, said).with_remedy(remedy))
}

/// The running kernel: its release, and which build of it.
pub(super) fn kernel() -> (String, String) {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    (
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/kernel/version"),
    )
}

/// Where modules may lie, in the order in which they are looked for.
pub(super) fn folders(kernel: &str) -> Vec<PathBuf> {
    vec![
        PathBuf::from(module::FOLDER),
        Path::new("/lib/modules").join(kernel).join(BLESSED),
    ]
}

/// Why the kernel would refuse any module, before one is built in vain.
pub(super) fn lockdown() -> Option<Finding> {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    (mode != "none").then(|| {
        let said = format!("the kernel is locked down ({mode})");
        Finding::new(FindingCode::StapModuleRefused, said)
            .with_remedy("Sign the module with an enrolled key (mokutil), or use --engine native.")
    })
}

/// What decides whether staprun may load a module for us.
#[derive(Clone, Copy, Debug)]
struct Rights {
    is_root: bool,
    /// A member of stapdev, stapsys or stapusr.
    is_member: bool,
    /// Root's programs have CAP_SYS_MODULE here.
    has_module: bool,
    /// setuid has no effect.
    is_fixed: bool,
}

impl Rights {
    fn own() -> Self {
        let of = |name| nix::unistd::Group::from_name(name).ok().flatten();
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let mut known = ["stapdev", "stapsys", "stapusr"].into_iter().filter_map(of);
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            is_member: known.any(|group| groups.contains(&group.gid)),
            has_module: native::root_would_have(CAP_SYS_MODULE),
            is_fixed: native::no_new_privileges(),
        }
    }

    /// Why it may not.
    fn lack(self) -> Option<&'static str> {
        if !self.is_root && !self.is_member {
            return Some(
                "the agent runs without root's rights, and its user is in none of stapdev, stapsys, stapusr",
            );
        }
        if !self.is_root && self.is_fixed {
            return Some(
                "setuid programs have no effect for the agent (NoNewPrivileges), and staprun is one",
            );
        }
        (!self.has_module).then_some(
            "CAP_SYS_MODULE is not in the agent's bounding set, so that not even root's programs may load a module",
        )
    }
}

/// Whether what modules are built from is there for the running kernel.
pub(super) fn has_headers(kernel: &str) -> bool {
    Path::new("/lib/modules")
        .join(kernel)
        .join("build/.config")
        .exists()
}

/// Modules of ours that are loaded: name, and whether a stapio uses it. From /proc/modules (`NAME SIZE USED …`).
pub(super) fn loaded() -> Vec<(String, bool)> {
    let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    parse_modules(&text)
}

/// Whether a module of ours is loaded.
pub(super) fn is_loaded(name: &str) -> bool {
    loaded().iter().any(|(n, _)| n == name)
}

/// Whether a reader has it open.
pub(super) fn is_used(name: &str) -> bool {
    loaded().iter().any(|(n, used)| n == name && *used)
}

fn parse_modules(text: &str) -> Vec<(String, bool)> {
    let row = |line: &str| {
        let mut words = line.split(' ');
        let (name, _, used) = (words.next()?, words.next()?, words.next()?);
        command::is_ours(name).then(|| (name.to_owned(), used != "0"))
    };
    text.lines().filter_map(row).collect()
}

/// Unloads a module that nobody uses. Blocks for up to some seconds.
///
/// # Errors
/// What staprun said.
pub(super) fn unload(staprun: &Path, name: &str) -> Result<(), String> {
    let argv = command::unload(staprun, name);
    match ask(&argv, &command::ENVIRONMENT, false, UNLOAD) {
        Ok(_) if !is_loaded(name) => Ok(()),
        Ok(answer) => Err(answer.stderr),
        Err(e) => Err(e.to_string()),
    }
}

/// Unloads what a killed capture has left. To be called with the lock held, so that nothing is just being loaded.
pub(super) fn unload_left(staprun: &Path) -> Vec<Finding> {
    let left = loaded().into_iter().filter(|(_, used)| !used);
    let unloaded = left.map(|(name, _)| {
        let said = match unload(staprun, &name) {
            Ok(()) => {
                format!("module {name} was left by a capture that was killed, and was unloaded")
            }
            Err(why) => format!("module {name} was left by a capture that was killed: {why}"),
        };
        Finding::new(FindingCode::StapModuleLeft, said)
    });
    unloaded.collect()
}

/// The right to capture with SystemTap on this machine; ends with the agent, however it ends.
pub(super) struct Turn(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// Takes the turn.
///
/// # Errors
/// `stap-busy` when somebody has it.
pub(super) fn take_turn(staprun: &Path) -> Result<Turn, Finding> {
    take_turn_at(Path::new(LOCK), staprun)
}

fn take_turn_at(lock: &Path, staprun: &Path) -> Result<Turn, Finding> {
    let busy = |said: String| Finding::new(FindingCode::StapBusy, said);
    let own = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(lock);
    // Without root there is no file of our own that all agents of the machine share.
    let file = own
        .or_else(|_| File::open(staprun))
        .map_err(|e| busy(e.to_string()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map(Turn)
        .map_err(|_| busy("another agent of this machine captures with SystemTap".to_owned()))
}

/// Whether SystemTap can run here, and how. Blocks for some milliseconds.
pub(in crate::engine) fn survey() -> EngineReport {
    let no = |how: String, findings: Vec<Finding>| EngineReport {
        engine: "stap".to_owned(),
        can_run: false,
        how,
        findings,
        events: Vec::new(),
        probes: Vec::new(),
    };
    if let Err(finding) = find("staprun") {
        return no(finding.evidence.clone(), vec![finding]);
    }
    if let Some(said) = Rights::own().lack() {
        let finding = Finding::new(FindingCode::StapNotPermitted, said);
        return no(said.to_owned(), vec![finding]);
    }
    if let Some(finding) = lockdown() {
        return no(finding.evidence.clone(), vec![finding]);
    }
    let (kernel, _) = kernel();
    let (modules, against) = module::count(&folders(&kernel), &kernel);
    let translator = translator();
    let headers = has_headers(&kernel);
    let how = match (&translator, headers) {
        (Ok((_, (major, minor))), true) => format!("stap {major}.{minor}, headers of {kernel}"),
        (Ok((_, (major, minor))), false) => {
            format!("stap {major}.{minor} without headers of {kernel}")
        }
        (Err(why), _) => format!("staprun only ({})", why.evidence),
    };
    let mut how = format!("{how}, {modules} modules for this kernel");
    if !against.is_empty() {
        how.push_str(&format!(" ({})", against.join("; ")));
    }
    let can_build = translator.is_ok() && headers;
    if modules == 0 && !can_build {
        let said = format!("nothing to build a module from: {how}");
        let finding = Finding::new(FindingCode::StapKernelFiles, said.clone());
        return EngineReport {
            // Only an order with the script tells which module is missing, and how it is built.
            probes: vec![Probe::Script.to_string()],
            ..no(said, vec![finding])
        };
    }
    EngineReport {
        engine: "stap".to_owned(),
        can_run: true,
        how,
        findings: Vec::new(),
        events: vec![Event::CpuClock.to_string()],
        probes: PROBES
            .iter()
            .chain([&Probe::Script])
            .map(ToString::to_string)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_of_ours_are_seen_with_their_use() {
        let text = "ff_0123456789abcdef 667648 0 - Live 0x0000 (OE)\nff_aaaaaaaaaaaaaaaa 1 1 - Live 0x0 (OE)\n\
                    stap_5e6c_369 667648 0 - Live 0x0\nff_memless 1 0 - Live 0x0\n";
        let seen = parse_modules(text);
        let expected = [
            ("ff_0123456789abcdef".to_owned(), false),
            ("ff_aaaaaaaaaaaaaaaa".to_owned(), true),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn who_may_not_load_a_module_is_told_why() {
        let root = Rights {
            is_root: true,
            is_member: false,
            has_module: true,
            is_fixed: true,
        };
        let member = Rights {
            is_root: false,
            is_member: true,
            has_module: true,
            is_fixed: false,
        };
        assert_eq!((root.lack(), member.lack()), (None, None));
        for (rights, words) in [
            (
                Rights {
                    has_module: false,
                    ..root
                },
                "CAP_SYS_MODULE",
            ),
            (
                Rights {
                    has_module: false,
                    ..member
                },
                "CAP_SYS_MODULE",
            ),
            (
                Rights {
                    is_fixed: true,
                    ..member
                },
                "NoNewPrivileges",
            ),
            (
                Rights {
                    is_member: false,
                    ..member
                },
                "stapusr",
            ),
        ] {
            assert!(rights.lack().unwrap().contains(words), "{rights:?}");
        }
    }

    #[test]
    fn an_old_systemtap_builds_nothing() {
        let stap = Path::new("/usr/bin/stap");
        assert_eq!(new_enough(stap, Some((4, 4))).unwrap(), (4, 4));
        assert_eq!(new_enough(stap, Some((5, 1))).unwrap(), (5, 1));
        for (version, words) in [
            (Some((4, 3)), "4.3, and 4.4 is the oldest"),
            (Some((2, 9)), "2.9"),
            (None, "does not say"),
        ] {
            let finding = new_enough(stap, version).unwrap_err();
            assert!(finding.evidence.contains(words), "{finding}");
        }
    }

    #[test]
    fn two_captures_on_one_machine_are_refused() {
        let stage = tempfile::tempdir().unwrap();
        let lock = stage.path().join("lock");
        let take = || take_turn_at(&lock, Path::new("/proc/self/exe"));
        let first = take().unwrap();
        assert_eq!(take().err().unwrap().code, FindingCode::StapBusy);
        drop(first);
        assert!(take().is_ok());
    }

    #[test]
    fn a_machine_without_what_modules_are_built_from_says_so() {
        let report = survey();
        assert_eq!(report.engine, "stap");
        assert!(report.can_run || !report.findings.is_empty(), "{report:?}");
        assert!(!report.how.is_empty());
    }
}
