//! What SystemTap says, as a table. Pure.
//!
//! In: nothing. Out: rows for `diagnose`. Never: a remedy that takes away a guard of the kernel's.
//!
//! The words are those of SystemTap 2.3 to 5.x (translator: main.cxx, elaborate.cxx, tapsets.cxx, translate.cxx; runtime:
//! unwind.c, stack.c, transport; staprun: common.c, staprun.c, staprun_funcs.c), of the kernel's module loader, and of
//! tools around it; those that could be made to happen are recorded in agent/testdata/stap.

use model::FindingCode;

/// What a message does to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nothing.
    Harmless,
    /// Samples are missing or shorter, counted elsewhere.
    Weakens,
    /// What was printed before is all there is, or something of it is lost.
    Cuts,
    /// Nothing was captured.
    Prevents,
}

/// One thing that SystemTap says.
pub(super) struct Row {
    /// Words, all of which are in its line.
    pub words: &'static [&'static str],
    /// Words of following lines that belong to it.
    pub goes_on: &'static [&'static str],
    /// What it means.
    pub code: FindingCode,
    /// What it does.
    pub weight: Weight,
    /// What to do, where the code's own remedy is too general.
    pub remedy: &'static str,
}

const fn row(words: &'static [&'static str], code: FindingCode, weight: Weight) -> Row {
    Row {
        words,
        goes_on: &[],
        code,
        weight,
        remedy: "",
    }
}

const fn told(
    words: &'static [&'static str],
    code: FindingCode,
    weight: Weight,
    remedy: &'static str,
) -> Row {
    Row {
        words,
        goes_on: &[],
        code,
        weight,
        remedy,
    }
}

const HEADERS: &str = "Install the kernel's own build files: linux-headers-RELEASE (Debian, Ubuntu), kernel-devel-RELEASE (RHEL, Fedora), kernel-default-devel (SUSE), or have the module built elsewhere (docs/systemtap.md).";
const INSTALL_NEWER: &str = "Install a SystemTap that is at least as new as the kernel, or use --engine native; docs/systemtap.md says how a patched runtime is given with stap -R.";

use Weight::{Cuts, Harmless, Prevents, Weakens};

/// The first row whose words are all in a line is its meaning: the more exact stand first.
pub(super) const ROWS: &[Row] = &[
    // Unwinding (runtime/unwind.c, runtime/stack.c). "Missing unwind data for module," before 2.6.
    row(
        &["Missing unwind data for", "retry with -DDEBUG_UNWIND"],
        FindingCode::StapUnmapped,
        Weakens,
    ),
    row(
        &["Missing unwind data for", "rerun with 'stap -d"],
        FindingCode::StapUnwindMissing,
        Weakens,
    ),
    row(
        &["_stp_read_address failed to access memory"],
        FindingCode::StapUnwindOdd,
        Weakens,
    ),
    row(
        &["DWARF expression stack", "in CFI"],
        FindingCode::StapUnwindOdd,
        Weakens,
    ),
    row(
        &["DWARF expression in CFI"],
        FindingCode::StapUnwindOdd,
        Weakens,
    ),
    row(
        &["failed to access memory for deref"],
        FindingCode::StapUnwindOdd,
        Weakens,
    ),
    row(&["string copy fault"], FindingCode::StapUnwindOdd, Weakens),
    // Limits of the runtime.
    row(
        &["Skipped too many probes"],
        FindingCode::StapSkippedTooMany,
        Cuts,
    ),
    row(&["Skipped due to "], FindingCode::StapSkipped, Weakens),
    row(
        &["probe overhead", "exceeded threshold"],
        FindingCode::StapOverload,
        Cuts,
    ),
    row(
        &["--suppress-time-limits", "requires guru mode"],
        FindingCode::StapOptions,
        Prevents,
    ),
    row(&["Array overflow, check "], FindingCode::StapMapFull, Cuts),
    row(&["MAXACTION exceeded"], FindingCode::StapMaxAction, Cuts),
    row(
        &["MAXNESTING exceeded"],
        FindingCode::StapScriptFailed,
        Cuts,
    ),
    row(&["division by 0"], FindingCode::StapScriptFailed, Cuts),
    row(&["empty aggregate"], FindingCode::StapScriptFailed, Cuts),
    row(&["read fault "], FindingCode::StapScriptFailed, Cuts),
    row(
        &["too many pending (warning) messages"],
        FindingCode::StapMessagesLost,
        Harmless,
    ),
    told(
        &["too many pending (error) messages"],
        FindingCode::StapMessagesLost,
        Cuts,
        "Its first errors are among the findings; the rest are like them.",
    ),
    row(
        &["There were ", " transport failures"],
        FindingCode::StapOutputLost,
        Cuts,
    ),
    // What a script is made of (passes 1 and 2), the more exact first.
    row(
        &["unable to find member", "for struct MRef"],
        FindingCode::StapLuajit,
        Prevents,
    ),
    row(
        &["unable to find member", "ptr32"],
        FindingCode::StapLuajit,
        Prevents,
    ),
    told(
        &["unable to find member 'strmask'"],
        FindingCode::StapLuajit,
        Prevents,
        "The tapset is older than LuaJIT's of 2020: use a newer one.",
    ),
    row(
        &["type definition '", "' not found in"],
        FindingCode::StapDebuginfo,
        Prevents,
    ),
    row(
        &["No DWARF information found"],
        FindingCode::StapDebuginfo,
        Weakens,
    ),
    row(
        &["missing", "kernel/module debuginfo"],
        FindingCode::StapDebuginfo,
        Weakens,
    ),
    row(
        &["Missing separate debuginfos, use:"],
        FindingCode::StapDebuginfo,
        Weakens,
    ),
    Row {
        words: &["semantic error: while resolving probe point"],
        goes_on: &[
            "semantic error: no match",
            "semantic error: probe point mismatch",
            "semantic error: profiling timer support",
            "source:",
        ],
        code: FindingCode::StapProbePoint,
        weight: Prevents,
        remedy: "",
    },
    row(
        &["semantic error: no match"],
        FindingCode::StapProbePoint,
        Prevents,
    ),
    row(
        &["semantic error: probe point mismatch"],
        FindingCode::StapProbePoint,
        Prevents,
    ),
    row(
        &["semantic error: profiling timer support"],
        FindingCode::StapProbePoint,
        Prevents,
    ),
    Row {
        words: &["semantic error: "],
        goes_on: &["source:"],
        code: FindingCode::StapScript,
        weight: Prevents,
        remedy: "",
    },
    Row {
        words: &["parse error: "],
        goes_on: &["saw: ", "source: "],
        code: FindingCode::StapScript,
        weight: Prevents,
        remedy: "",
    },
    row(
        &["Input file '", "' is empty or missing"],
        FindingCode::StapScript,
        Prevents,
    ),
    // Building (passes 3 and 4).
    told(
        &["Checking \"/lib/modules/", "failed with error"],
        FindingCode::StapKernelFiles,
        Prevents,
        HEADERS,
    ),
    told(
        &["Incorrect version or missing kernel-devel package"],
        FindingCode::StapKernelFiles,
        Prevents,
        HEADERS,
    ),
    told(
        &["/stap", "_src.c:", ": error: "],
        FindingCode::StapKernelUnlike,
        Prevents,
        INSTALL_NEWER,
    ),
    told(
        &["/runtime/", ": error: "],
        FindingCode::StapKernelUnlike,
        Prevents,
        INSTALL_NEWER,
    ),
    told(
        &["kernel", "outside tested range"],
        FindingCode::StapKernelUnlike,
        Weakens,
        INSTALL_NEWER,
    ),
    told(
        &["Can't resolve ", "!"],
        FindingCode::StapKernelUnlike,
        Prevents,
        INSTALL_NEWER,
    ),
    // Options.
    row(
        &["stap: unrecognized option"],
        FindingCode::StapOptions,
        Prevents,
    ),
    row(
        &["staprun: unrecognized option"],
        FindingCode::StapOptions,
        Prevents,
    ),
    row(
        &["--runtime=", "unavailable; this build lacks"],
        FindingCode::StapOptions,
        Prevents,
    ),
    row(
        &["You can't specify", "options together"],
        FindingCode::StapOptions,
        Prevents,
    ),
    // Loading (staprun).
    told(
        &["Couldn't insert module", ": File exists"],
        FindingCode::StapModuleLeft,
        Prevents,
        "A module of this name is loaded already: `staprun -d NAME` as root unloads one that nobody uses.",
    ),
    row(
        &["Rerun with staprun option '-R'"],
        FindingCode::StapModuleLeft,
        Harmless,
    ),
    told(
        &["is not a zombie systemtap module"],
        FindingCode::StapModuleLeft,
        Harmless,
        "Nothing to do: it was gone already.",
    ),
    told(
        &["Cannot attach to module", "not running?"],
        FindingCode::StapModuleLeft,
        Harmless,
        "Nothing to do: it was gone already.",
    ),
    told(
        &["Disconnecting from systemtap module"],
        FindingCode::StapModuleLeft,
        Cuts,
        "Somebody sent SIGQUIT; `staprun -A NAME` recovers the data, `staprun -d NAME` unloads it.",
    ),
    told(
        &["Couldn't insert module", "Operation not permitted"],
        FindingCode::StapModuleRefused,
        Prevents,
        "The kernel is locked down (Secure Boot) or the agent lacks CAP_SYS_MODULE: sign the module with an enrolled key (mokutil), or use --engine native.",
    ),
    told(
        &["Couldn't insert module", "Key was rejected"],
        FindingCode::StapModuleRefused,
        Prevents,
        "Sign the module with a key that is enrolled (mokutil), or use --engine native.",
    ),
    told(
        &["Couldn't insert module", "Required key not available"],
        FindingCode::StapModuleRefused,
        Prevents,
        "Sign the module with a key that is enrolled (mokutil), or use --engine native.",
    ),
    told(
        &["Couldn't insert module", "Cannot allocate memory"],
        FindingCode::StapModuleRefused,
        Prevents,
        "Lower memory_mb_max in the job: SystemTap's maps are allocated when the module is loaded.",
    ),
    row(
        &["Couldn't insert module"],
        FindingCode::StapModuleRefused,
        Prevents,
    ),
    row(
        &["Unable to canonicalize path"],
        FindingCode::StapModuleRefused,
        Prevents,
    ),
    told(
        &["module version mismatch"],
        FindingCode::StapModuleRefused,
        Prevents,
        "The cached module is of another kernel: remove ~/.systemtap/cache, and install the headers of exactly the running kernel.",
    ),
    row(
        &["Build-id mismatch"],
        FindingCode::StapModuleRefused,
        Prevents,
    ),
    Row {
        words: &["Members of the \"stapusr\""],
        goes_on: &[
            "the \"/lib/modules/",
            "Module \"",
            "Unable to canonicalize that directory",
            "Unable to verify the signature",
        ],
        code: FindingCode::StapNotPermitted,
        weight: Prevents,
        remedy: "Members of stapusr alone may load modules from /lib/modules/RELEASE/systemtap only: put the module there, or the agent's user into stapdev.",
    },
    row(
        &["Unable to verify the signature for the module"],
        FindingCode::StapNotPermitted,
        Prevents,
    ),
    Row {
        words: &["The effective user ID of staprun must be set to the root user"],
        goes_on: &["Check permissions on staprun"],
        code: FindingCode::StapNotPermitted,
        weight: Prevents,
        remedy: "Reinstall staprun so that it is setuid root (mode 4754, root:stapusr), or run the agent as root.",
    },
    Row {
        words: &["You are trying to run systemtap as a normal user"],
        goes_on: &["You should either be root"],
        code: FindingCode::StapNotPermitted,
        weight: Prevents,
        remedy: "",
    },
    row(
        &["staprun: Permission denied"],
        FindingCode::StapNotPermitted,
        Prevents,
    ),
    told(
        &["could not increase map resource limit"],
        FindingCode::StapNotPermitted,
        Prevents,
        "The BPF runtime needs RLIMIT_MEMLOCK; fleetflame does not use it.",
    ),
    // Scripts that ended without what they were for (stapxx, FlameGraph).
    row(
        &["No backtraces found"],
        FindingCode::StapTargetSilent,
        Weakens,
    ),
    row(
        &["Too few backtraces"],
        FindingCode::StapTargetSilent,
        Weakens,
    ),
    row(
        &["Found 0 JITted samples"],
        FindingCode::StapTargetSilent,
        Weakens,
    ),
    row(
        &["quitting without samples in target context"],
        FindingCode::StapTargetSilent,
        Cuts,
    ),
    row(
        &["No stack counts found"],
        FindingCode::NothingCaptured,
        Prevents,
    ),
    // The end: of use only where nothing else explains it.
    row(
        &["staprun exited with status: "],
        FindingCode::StapRunFailed,
        Cuts,
    ),
    row(
        &["kbuild exited with status: "],
        FindingCode::StapRunFailed,
        Prevents,
    ),
    row(
        &["Pass 1: ", " failed."],
        FindingCode::StapRunFailed,
        Prevents,
    ),
    row(
        &["Pass 2: ", " failed."],
        FindingCode::StapRunFailed,
        Prevents,
    ),
    row(
        &["Pass 3: ", " failed."],
        FindingCode::StapRunFailed,
        Prevents,
    ),
    row(
        &["Pass 4: ", " failed."],
        FindingCode::StapRunFailed,
        Prevents,
    ),
    row(&["Pass 5: ", " failed."], FindingCode::StapRunFailed, Cuts),
];

/// What SystemTap and its compiler say when all is well, or beside a message that the table knows;
/// `^` in front means that the line begins so.
pub(super) const USUAL: &[&str] = &[
    "^Pass ",
    "^WARNING: Number of errors: ",
    "^WARNING: Tracing ",
    "^WARNING: Start tracing ",
    "^WARNING: Time's up. Quitting now",
    "^WARNING: Kernel function symbol table missing",
    "^Tip: ",
    "^Try '--help'",
    "^A message like [man ",
    "^To reconnect, type ",
    "^source:",
    "^saw:",
    " parse error.",
    " parse errors.",
    "^In file included from",
    "^from /",
    ": In function ",
    ": note: ",
    ": warning: ",
    ": error: ",
    "^cc1: ",
    "^make[",
    "^make: ",
    "^----- ",
];
