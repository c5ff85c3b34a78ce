//! Who a script is for on this machine, and what its macros stand for.
//!
//! In: a script with its values, the processes that match the target. Out: bindings. Never: a path of a container taken
//! for the host's; a file that was replaced since the process started.

use crate::host::program::{libraries_of_process, program_of};
use crate::stapxx::{self, Bindings, Runs, check_path, filter_of_script};
use model::profile::Process;
use model::script::Script;
use model::{Finding, FindingCode};
use native::TargetWatch;

/// What a script is for on this machine.
pub(super) struct Found {
    /// The processes, and their program and libraries.
    pub pids: Vec<u32>,
    /// The same, as series have them.
    pub processes: Vec<Process>,
    /// What macros stand for that are of no process: program, libraries, arguments.
    pub bindings: Bindings,
    /// What weakens it.
    pub findings: Vec<Finding>,
}

/// For which processes a script is run.
pub(super) struct Bound {
    /// `-x`: the one process that `target()` is.
    pub target: Option<u32>,
    /// What all its macros stand for, processes too.
    pub bindings: Bindings,
    /// What weakens it.
    pub findings: Vec<Finding>,
}

/// Which one process the script is for, or all of them at once; what its macros stand for then.
///
/// # Errors
/// `script-target`: it is for one process, and there are several.
pub(super) fn bind(script: &Script, found: Found) -> Result<Bound, Vec<Finding>> {
    let mut findings = found.findings;
    let (runs, more) = stapxx::runs_for(&script.file, filter_of_script(script), found.pids.len());
    match (runs, &found.pids[..]) {
        (Runs::Each, [pid]) => Ok(Bound {
            target: Some(*pid),
            bindings: found.bindings.for_process(*pid),
            findings,
        }),
        (Runs::Each, _) => {
            let remedy = "Name one process (--pick busiest:1, --target pid:N), or write $^pid_ok in the script.";
            let refused = |f: Finding| {
                Finding::new(FindingCode::ScriptTarget, f.evidence).with_remedy(remedy)
            };
            Err(more.into_iter().map(refused).collect())
        }
        (Runs::Together | Runs::Once, pids) => {
            findings.extend(more);
            Ok(Bound {
                target: None,
                bindings: found.bindings.for_processes(pids),
                findings,
            })
        }
    }
}

/// Who is captured, and what the script's macros stand for. Blocks.
///
/// # Errors
/// There is nobody, or its files are not the host's.
pub(super) fn find(script: &Script, mut watch: TargetWatch) -> Result<Found, Vec<Finding>> {
    let (pids, _) = watch.scan();
    let Some(first) = pids.first().copied() else {
        let said = "no process matches the target, and a script's macros are of one";
        return Err(vec![Finding::new(FindingCode::TargetNotFound, said)]);
    };
    let of_target = |said: String| vec![Finding::new(FindingCode::ScriptTarget, said)];
    let program = program_of(first).map_err(of_target)?;
    if program.is_replaced {
        let said = format!(
            "{} was replaced on disk since process {first} started: \
             probes would go into the new file, and never be hit",
            program.path
        );
        return Err(of_target(said));
    }
    let mut findings = watch.take_findings();
    let path = program.visible_path(&program.path).map_err(of_target)?;
    check_path(&path).map_err(|f| vec![f])?;
    let mut bindings = Bindings {
        exec_path: Some(path),
        ..Bindings::default()
    };
    let mapped = libraries_of_process(first).map_err(of_target)?;
    for library in &mapped.libraries {
        let visible = program
            .visible_path(library)
            .map_err(|why| Finding::new(FindingCode::TargetFile, why))
            .and_then(|path| check_path(&path).map(|()| path));
        match visible {
            Ok(path) => _ = bindings.libraries.insert(path),
            // A library that the script does not use must not keep it from running.
            Err(finding) => findings.push(finding),
        }
    }
    for (name, value) in &script.arguments {
        bindings
            .arguments
            .insert(name.clone(), value.clone().into_bytes());
    }
    Ok(Found {
        processes: pids.iter().filter_map(|pid| watch.process(*pid)).collect(),
        pids,
        bindings,
        findings,
    })
}
