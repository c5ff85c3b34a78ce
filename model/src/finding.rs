//! Findings: what went wrong or weakens a result, as data.
//!
//! In: a code from the table below and the tool's own words. Out: the same text for terminal,
//! JSON, report and page. Never: a code without a section in docs/findings.md (a test checks it).

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; the result is as good as without it.
    Note,
    /// The result is weaker than it looks, or something was lost and counted.
    Warning,
    /// Something that was asked for did not happen.
    Error,
}

impl Severity {
    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! finding_codes {
    ($($variant:ident, $code:literal, $severity:ident, $what:literal, $remedy:literal;)*) => {
        /// The stable code of a finding. Scripts may match on its text; the text never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FindingCode { $(#[doc = $what] $variant,)* }

        impl FindingCode {
            /// Every code there is.
            pub const ALL: &'static [FindingCode] = &[$(FindingCode::$variant,)*];

            /// The code's text, in kebab case.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(FindingCode::$variant => $code,)* }
            }

            /// How much a finding of this code weighs.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(FindingCode::$variant => Severity::$severity,)* }
            }

            /// What it means, as a sentence.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(FindingCode::$variant => $what,)* }
            }

            /// What to do about it, as a sentence.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(FindingCode::$variant => $remedy,)* }
            }
        }
    };
}

finding_codes! {
    // --- reaching hosts
    HostUnreachable, "host-unreachable", Error, "No connection to the host could be opened.",
        "Check that fleetflame-agent runs there, that the address and port are right, and that no firewall stands between.";
    HostIdentity, "host-identity", Error, "The peer's certificate does not prove the host it claims to be.",
        "Issue a certificate for exactly this host name from the fleet's CA, and check that the address is the right host.";
    HostLost, "host-lost", Error, "The host fell silent during the run and did not come back.",
        "Look at the host and its agent; what it had sent is in the result. If the agent lives, `fleetflame collect RUN` fetches the rest.";
    HostProtocol, "host-protocol", Error, "The peer broke the wire protocol, and the connection was closed.",
        "Check that agent and coordinator are of the same version and that the port belongs to a fleetflame-agent.";
    HostVersion, "host-version", Error, "Agent and coordinator speak different versions of the wire protocol.",
        "Install the same version on both sides.";
    HostLate, "host-late", Error, "The host was not ready when the capture had to start.",
        "See the host's other findings; a longer arm time can be given with --arm-timeout.";
    HostHeld, "host-held", Error, "Nothing was begun on the host, because another one fell silent over the same.",
        "Look at the host that the evidence names before you try again; without it among the hosts, another one is tried first.";
    ConnectionResumed, "connection-resumed", Note, "The connection broke during the run and was taken up again; nothing was lost.",
        "Nothing to do. If it happens often, look at the network between coordinator and host.";
    BatchGap, "batch-gap", Warning, "Batches that the agent sent never arrived; their stacks are missing.",
        "Run `fleetflame collect RUN` while the agent still holds them.";
    BatchDamaged, "batch-damaged", Error, "A batch did not match its checksum or could not be decoded, and was refused.",
        "Run the capture again; if it repeats, the host's memory or the agent's binary is damaged.";
    ClockUncertain, "clock-uncertain", Warning, "The host's clock offset is known only roughly, so its seconds may be shifted against the others'.",
        "Compare totals rather than single seconds, or capture over a faster network.";
    RemainderHeld, "remainder-held", Note, "An agent may still hold stacks of this run.",
        "Run `fleetflame collect RUN` within 24 hours.";
    RemainderGone, "remainder-gone", Warning, "The agent no longer holds the rest of this run.",
        "What had arrived is in the result; capture again for the whole.";
    // --- reaching hosts over ssh
    SshProgramMissing, "ssh-program-missing", Error, "The ssh program of this machine could not be run.",
        "Install the OpenSSH client on the machine where fleetflame runs.";
    SshConfigInvalid, "ssh-config-invalid", Error, "The operator's own ssh refuses its configuration or the destination.",
        "Correct what the evidence names; `ssh DEST true` must work on this machine.";
    SshNameUnknown, "ssh-name-unknown", Error, "The host's name could not be resolved.",
        "Check the spelling, ssh_config and DNS; `ssh DEST true` must work on this machine.";
    SshPortClosed, "ssh-port-closed", Error, "The host answers, and nothing listens on its ssh port.",
        "Start sshd there, or give the right port in ssh_config or as ssh://HOST:PORT.";
    SshNoRoute, "ssh-no-route", Error, "The network has no way to the host.",
        "Check the address, the VPN and the route; a jump host is given with ProxyJump in ssh_config.";
    SshTimeout, "ssh-timeout", Error, "The host did not answer in time.",
        "Check that it is up and that no firewall drops the packets; a jump host is given with ProxyJump in ssh_config.";
    SshClosed, "ssh-closed", Error, "The host closed the connection before anything could be run.",
        "Look at sshd's log there: MaxStartups, AllowUsers, DenyUsers, a ban of this address, or a full process table.";
    SshHostKeyUnknown, "ssh-host-key-unknown", Error, "The host's key is not known here, so it was not trusted.",
        "Compare the fingerprint by another way, then log in once by hand or add the key to known_hosts.";
    SshHostKeyChanged, "ssh-host-key-changed", Error, "The host has another key than known_hosts says: it was set up anew, or somebody stands between.",
        "Find out which. Only when the host was set up anew: `ssh-keygen -R HOST`, and take the new key as for a new host.";
    SshAuthRefused, "ssh-auth-refused", Error, "The host refused every key that was offered.",
        "Load the right key into ssh-agent (`ssh-add -l` lists them), check the user name, and authorized_keys on the host. Passwords are never asked for.";
    SshNoCommonCipher, "ssh-no-common-cipher", Error, "This machine's ssh and the host's sshd have no algorithm in common.",
        "Update the older side, or allow the algorithm that the evidence names for this one host in ssh_config.";
    SshSessionsExhausted, "ssh-sessions-exhausted", Error, "The host lets this login open no further session.",
        "Raise MaxSessions in its sshd_config to 2 or more, and check that the key is not bound to a forced command.";
    SshNoShell, "ssh-no-shell", Error, "The login has no shell that runs commands.",
        "Use a user with a login shell; a forced command or /usr/sbin/nologin cannot start the agent.";
    SshNoAnswer, "ssh-no-answer", Error, "The login works, but what came back was not the answer of our program.",
        "Try `ssh DEST uname -m`: it must print one word and end. Look for output or waits in the login's start-up files.";
    // --- the agent that is sent
    AgentNoFolder, "agent-no-folder", Error, "No folder on the host can hold and run the agent.",
        "Give the login one folder without noexec among $XDG_RUNTIME_DIR, ~/.cache, /var/tmp, /dev/shm and /run, or python3 or perl, or install the agent as a daemon.";
    AgentNoSpace, "agent-no-space", Error, "The host has no room for the agent's 9 MB.",
        "Free some space in the folder that the evidence names.";
    AgentNoBinary, "agent-no-binary", Error, "There is no agent program for the host's processor or system.",
        "Build one with deploy/build-agent on such a machine, and name it with --agent-binary.";
    AgentDamaged, "agent-damaged", Error, "The agent did not arrive as it was sent.",
        "Try again; if it repeats, look at the disk of the host.";
    AgentNotStarted, "agent-not-started", Error, "The agent was sent, and did not start.",
        "See its own words in the evidence. A missing GLIBC version means that a static agent is needed (deploy/build-agent).";
    AgentNoSudo, "agent-no-sudo", Warning, "The agent runs without root's privileges, so it may not see every process.",
        "Allow exactly this agent in sudoers with NOPASSWD (docs/operate.md shows the line), or log in as root.";
    AgentGone, "agent-gone", Error, "The agent that was sent to the host has ended.",
        "See the host's log (out of memory, logins that are killed at logout); capture again.";
    // --- policy and privilege
    PolicyRefused, "policy-refused", Error, "The host's own policy does not allow this order.",
        "Ask for less, or have the host's owner change its policy file.";
    PolicyUnsafe, "policy-unsafe", Error, "The policy file could be written by others, so it is not trusted.",
        "chown root and chmod go-w the file and the directories above it.";
    PolicyInvalid, "policy-invalid", Error, "The policy file cannot be read as a policy.",
        "Correct the line that the evidence names; `fleetflame example policy` prints one that works.";
    PerfNotPermitted, "perf-not-permitted", Error, "The kernel does not let the agent sample.",
        "Run the agent as root, give it CAP_PERFMON and CAP_SYS_PTRACE, or set kernel.perf_event_paranoid to 1 or less.";
    PerfRestricted, "perf-restricted", Warning, "Only part of the stacks can be sampled with the agent's privileges.",
        "Give the agent the capability that the evidence names.";
    PerfAttrUnsupported, "perf-attr-unsupported", Note, "This kernel lacks a feature of perf_event_open; the sampler does without.",
        "Nothing to do unless the evidence says what is lost.";
    NoRealtime, "no-realtime", Warning, "The sampler could not run at real-time priority, so some stacks may be torn.",
        "Give the agent CAP_SYS_NICE (and a real-time share in its cgroup).";
    KernelNamesHidden, "kernel-names-hidden", Note, "Kernel frames have no names because /proc/kallsyms hides its addresses.",
        "Give the agent CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1.";
    PidNamespace, "pid-namespace", Warning, "The agent runs in a pid namespace of its own, so it sees only the processes of its container.",
        "Give the agent the host's pid namespace: hostPID: true in Kubernetes, --pid=host for docker and podman.";
    ResourceLimit, "resource-limit", Warning, "A resource limit of the agent's process made the capture smaller.",
        "Raise the limit that the evidence names (LimitMEMLOCK=, LimitNOFILE= in the unit).";
    // --- engines and targets
    EngineUnavailable, "engine-unavailable", Error, "The engine that was asked for cannot run.",
        "Ask for --engine auto or native, or do what the evidence says.";
    ProbeUnavailable, "probe-unavailable", Error, "The probe that was asked for cannot be measured by this engine.",
        "Ask for --probe on-cpu, or another engine.";
    TargetNotFound, "target-not-found", Error, "No process on the host matches the target.",
        "Check the target on the host (`fleetflame-agent check` lists gateway processes).";
    TargetVanished, "target-vanished", Warning, "A target process ended during the capture.",
        "Its window is in coverage; capture again if the whole time is needed.";
    LuaUnwindFailed, "lua-unwind-failed", Warning, "More Lua stacks than usual could not be followed.",
        "Samples under [lua-unwind-failed] have no Lua frames; compare Lua functions only where they are few. docs/operate.md names the reasons.";
    TargetReloaded, "target-reloaded", Warning, "The gateway was reloaded during the capture; old and new workers are both in the result.",
        "Compare by generation, or capture again without a reload.";
    RequestsUnknown, "requests-unknown", Note, "The gateway's requests could not be counted, so there is no cost per request.",
        "Nothing to do for shares and CPU time; for a cost per request, use an nginx with its stub_status module and give the agent CAP_SYS_PTRACE, or name the gateway's page in the policy (requests_url).";
    RequestPaths, "request-paths", Note, "Stacks stand above the paths of the requests that they were taken in.",
        "Compare paths by `fleetflame top --by uri`; timers, filters in C and what nginx does before Lua runs have no path.";
    TargetFile, "target-file", Warning, "A file mapped by the target could not be used for names or unwinding.",
        "Stacks through it may be unnamed or short; see the evidence.";
    TargetTooBig, "target-too-big", Warning, "The target has more mappings, threads or processes than the agent will look at.",
        "Name fewer processes (--pick busiest:N); what was left out is counted.";
    EngineFailed, "engine-failed", Error, "The engine stopped by itself before its time.",
        "See the evidence; what it had captured is in the result.";
    // --- the system's perf
    PerfVersion, "perf-version", Error, "The host's perf does not understand what it is asked.",
        "Install the perf that belongs to the kernel, 5.10 or newer (linux-perf, linux-tools, perf), or use --engine native.";
    PerfWarning, "perf-warning", Note, "perf said something that fleetflame has no name for.",
        "Read the evidence; the result is as it is shown.";
    TargetUncovered, "target-uncovered", Warning, "Processes that are targets were not captured.",
        "Name fewer processes (--pick busiest:N), use --engine native, or capture again when the gateway is settled.";
    // --- scripts
    ScriptInvalid, "script-invalid", Error, "The script cannot be expanded into what stap is given.",
        "Correct the line that the evidence names; `fleetflame-agent args FILE` lists what a script asks for.";
    ScriptArgument, "script-argument", Error, "An argument's value may not go into a script.",
        "Give a number, words, or probe points: quotes, semicolons, braces, comments and macros are never put into a kernel module.";
    ScriptTarget, "script-target", Error, "The script's macros cannot be bound to this target.",
        "See the evidence; a program that was replaced on disk must be restarted before probes can reach it.";
    ScriptSuspicious, "script-suspicious", Warning, "Something in the script or its arguments is almost surely a mistake.",
        "See the evidence; `fleetflame-agent expand --strict` refuses it.";
    ScriptUnfiltered, "script-unfiltered", Warning, "The script does not tell processes apart, so its result mixes all that run the same code.",
        "Put `if ($^pid_ok)` around what its probes do, or take the result as that of the whole host.";
    ScriptPerProcess, "script-per-process", Note, "The script is written for one process: it takes a run for each.",
        "Nothing to do; with `$^pid_ok` instead of a test for target() one run would do.";
    ScriptUnit, "script-unit", Note, "The script does not tell what the counts of its stacks are.",
        "Say it: --unit samples, ns, us, ms or bytes; until then pictures say `sum`.";
    // --- SystemTap
    StapNotPermitted, "stap-not-permitted", Error, "SystemTap does not let the agent load a module.",
        "Run the agent as root, or put its user into the groups that docs/systemtap.md names.";
    StapRate, "stap-rate", Error, "There are too many events for a probe that takes a stack of each.",
        "Name fewer processes (--pick busiest:1), or raise cpu_pct_max in the job if the host can bear it.";
    StapTargetLate, "stap-target-late", Warning, "Processes came too late to be captured.",
        "Capture again; a probe that fires on every event is told its processes when its module is loaded.";
    StapFreedBefore, "stap-freed-before", Note, "Memory was freed that had not been seen allocated.",
        "Nothing to do: what was allocated before the capture is not in the result.";
    StapUntracked, "stap-untracked", Warning, "There was more memory at once than the probe can follow.",
        "Capture for a shorter time; what was not followed may have been freed or not.";
    StapBusy, "stap-busy", Error, "Another SystemTap capture runs on this host.",
        "Wait for its end, or capture with --engine native; two of them would disturb each other.";
    StapModuleLeft, "stap-module-left", Warning, "A module of a capture that was killed was still loaded, and was unloaded.",
        "Nothing to do if the evidence says that it was unloaded; else run `staprun -d NAME` as root.";
    StapModuleRefused, "stap-module-refused", Error, "The kernel refused the module.",
        "Use a module that was built for exactly this kernel; with Secure Boot it must be signed by an enrolled key.";
    StapKernelFiles, "stap-kernel-files", Error, "What a module is built from is missing for this kernel.",
        "Install the headers of exactly the running kernel, or have the module built on another host (docs/systemtap.md).";
    StapScriptModule, "stap-script-module", Error, "The host cannot build the script's module, and none that was built elsewhere will do.",
        "Build it where stap and the kernel's build files are: fleetflame-agent build-module --script (docs/systemtap.md).";
    StapKernelUnlike, "stap-kernel-unlike", Error, "This version of SystemTap does not fit this kernel.",
        "Install a newer SystemTap, or use --engine native.";
    StapOptions, "stap-options", Error, "SystemTap does not understand or does not allow what it is asked.",
        "Install SystemTap 4.4 or newer; options that take away its limits are never used without the host's policy.";
    StapScript, "stap-script", Error, "The script has an error.",
        "Correct the place that the evidence names; a built-in probe with this finding is a bug, report it.";
    StapProbePoint, "stap-probe-point", Error, "A place where the script wants to probe does not exist on this host.",
        "Try `stap -l` with the probe point of the evidence; functions that were inlined cannot be probed.";
    StapDebuginfo, "stap-debuginfo", Error, "Debug information that the script needs is missing.",
        "Install the debuginfo package of the file in the evidence, of exactly its build; the built-in on-CPU probes need none.";
    StapLuajit, "stap-luajit", Error, "The script's idea of LuaJIT is not the LuaJIT that runs.",
        "Use the script's variant for GC64 (luajit_gc64), or a newer tapset.";
    StapUnwindMissing, "stap-unwind-missing", Warning, "Stacks end early because SystemTap was not given a module's unwind data.",
        "Capture again, so that a module of what is mapped now is built; build-module takes an --image for each file (docs/systemtap.md).";
    StapUnmapped, "stap-unmapped", Note, "Stacks passed through code that belongs to no file, such as compiled Lua.",
        "Use --engine native for stacks through JIT code. DEBUG_UNWIND, which SystemTap suggests, only floods the output.";
    StapUnwindOdd, "stap-unwind-odd", Note, "Some stacks could not be followed to their end.",
        "Nothing to do if they are few; a newer SystemTap knows more forms of unwind data.";
    StapOneFrame, "stap-one-frame", Error, "SystemTap gives stacks of one frame only, without saying that anything is wrong.",
        "This version cannot read user memory on this kernel: install a newer SystemTap, or use --engine native.";
    StapSkipped, "stap-skipped", Warning, "SystemTap skipped samples.",
        "Shares stay right if it skipped evenly. Lower --hz; SystemTap 4.4 or newer skips far less.";
    StapBiased, "stap-biased", Warning, "So many samples were skipped that shares may be wrong.",
        "Do not act on small differences. Lower --hz, name fewer processes, or use --engine native.";
    StapSkippedTooMany, "stap-skipped-too-many", Error, "SystemTap ended the run because it had skipped too many samples.",
        "Lower --hz or name fewer processes; SystemTap 4.4 or newer skips far less.";
    StapOverload, "stap-overload", Error, "SystemTap ended the run because its probes took too much of a CPU.",
        "Lower --hz, shorten the capture or name fewer processes. The guard is there for the gateway: do not switch it off.";
    StapMapFull, "stap-map-full", Error, "There were more distinct stacks than SystemTap had room for, and it ended the run.",
        "Raise memory_mb_max in the job, lower --hz, or shorten the capture.";
    StapMaxAction, "stap-max-action", Error, "A handler of the script did more than SystemTap allows in one go.",
        "Make the handler do less, or raise MAXACTION in a script of your own.";
    StapScriptFailed, "stap-script-failed", Error, "The script failed while it ran.",
        "See the evidence for the place; what was printed until then is in the result.";
    StapMessagesLost, "stap-messages-lost", Note, "SystemTap had more warnings than it could pass on.",
        "The warnings that did come say which; the stacks are not affected.";
    StapOutputLost, "stap-output-lost", Warning, "Stacks were lost because they were printed faster than they could be read.",
        "Raise memory_mb_max in the job, so that the buffers are larger, or lower --hz.";
    StapOutputCut, "stap-output-cut", Warning, "The end of SystemTap's report is missing.",
        "What came is in the result; see the other findings for why it was cut.";
    StapTargetSilent, "stap-target-silent", Warning, "The script had not a single sample of its target.",
        "Take a busy worker: a master or an idle worker has no on-CPU stacks.";
    StapRunFailed, "stap-run-failed", Error, "SystemTap ended with an error.",
        "See the evidence and the other findings of this host.";
    StapRetried, "stap-retried", Warning, "SystemTap ended a run by itself, and the rest was captured with other settings.",
        "The evidence says what was changed, why, and what it costs; lower --hz from the start to have one run.";
    StapSmaller, "stap-smaller", Note, "The capture was made smaller so that it keeps to its memory budget.",
        "Raise memory_mb_max in the job for deeper stacks or longer slices.";
    StapWarning, "stap-warning", Note, "SystemTap said something that fleetflame has no name for.",
        "Read the evidence; the result is as it is shown.";
    // --- budgets and losses
    BudgetStacks, "budget-stacks", Warning, "There were more distinct stacks than the budget; new ones were counted under [pruned].",
        "Totals are exact. Raise the budget's stacks_max, or shorten the capture.";
    BudgetMemory, "budget-memory", Warning, "The agent reached its memory budget and joined seconds together.",
        "Totals are exact, the time axis is coarser. Raise memory_mb_max or use a faster link.";
    BudgetBytes, "budget-bytes", Warning, "The agent reached its output budget and ended the capture early.",
        "Raise output_mb_max, lower the rate, or shorten the capture.";
    BudgetCpu, "budget-cpu", Warning, "The agent used more CPU than its budget and ended the capture early.",
        "Lower the rate, or raise cpu_pct_max.";
    BudgetSeries, "budget-series", Warning, "There were more processes and threads than the agent keeps apart; the rest were joined by role.",
        "Nothing to do for merged graphs; name fewer targets to see each one.";
    SamplesLost, "samples-lost", Warning, "Samples were lost, throttled or dropped.",
        "Shares stay right if the loss is even. Lower --hz if the share is above a few percent.";
    SamplerSlow, "sampler-slow", Warning, "Handling a sample took longer than its bound, and the sample was dropped and counted.",
        "Lower --hz, or name fewer targets.";
    WaitsThinned, "waits-thinned", Note, "There were more switches than stacks are taken; each stack stands for several of its thread.",
        "Nothing to do where stacks and switch records agree; else name fewer processes.";
    WaitsUnpaired, "waits-unpaired", Warning, "Some waits have no beginning or no end, because records were lost; they are in no stack.",
        "Name fewer processes (--pick busiest:N).";
    WaitsUnseen, "waits-unseen", Note, "Some threads waited from before the capture until after it, so that nothing is known of them.",
        "Nothing to do if they are idle; capture longer if they are not.";
    FewSamples, "few-samples", Note, "There are too few samples for fine differences to mean anything.",
        "Capture longer, or at a higher rate.";
    NothingCaptured, "nothing-captured", Error, "Not a single stack was captured.",
        "See the findings of each host; an idle target has no on-CPU stacks.";
    // --- the end
    LeaseExpired, "lease-expired", Error, "The agent lost its coordinator and stopped by itself.",
        "Run `fleetflame collect RUN` to fetch what it still holds.";
    Interrupted, "interrupted", Warning, "The run was interrupted; what was captured until then is kept.",
        "Run it again for the whole time.";
    DiskFull, "disk-full", Error, "A file could not be written because the disk is full or the quota is reached.",
        "Free some space and run `fleetflame collect RUN` or the capture again.";
    // --- results and comparison
    RankingFewHosts, "ranking-few-hosts", Note, "There are fewer than four hosts, so none is called odd; only differences are told.",
        "Read the intervals: they say whether hosts differ, not which of them is wrong. Capture more hosts of the same kind.";
    DenominatorMissing, "denominator-missing", Warning, "What values were to be divided by is not there, so that comparison was not made.",
        "Use --by share, or capture with an engine and a target that give CPU time and requests.";
    NoSeconds, "compared-without-seconds", Note, "There are no seconds, so intervals count samples as if each came by itself.",
        "Take intervals as too narrow, by a third or more; compare runs or ffz files, which have seconds.";
    CompareRefused, "compare-refused", Error, "The sides measure different things and were not compared.",
        "Compare profiles of the same probe and unit.";
    ComparedBuilds, "compared-builds", Note, "The sides ran different builds of a module.",
        "Frames are the same by name and module; a function that was renamed, inlined or split shows as gone and new.";
    ComparedTruncated, "compared-truncated", Warning, "Many more stacks were cut short on one side, so what it has near the root is partly missing.",
        "Compare functions by their own samples, or capture again in a mode that reads whole stacks.";
    ComparedReload, "compared-reload", Warning, "One side was reloaded during its capture: cold caches and both generations are in it.",
        "Capture again without a reload, or compare the seconds before it.";
    ComparedConfig, "compared-config", Warning, "The sides ran with different configurations of the gateway.",
        "A difference may be the configuration's. Bring the hosts to the same one, and compare again.";
    ComparedUnlike, "compared-unlike", Warning, "The two sides were taken differently (engine, mode, event or rate).",
        "Compare captures of the same engine and rate.";
    FormatDamaged, "format-damaged", Error, "A file or batch is damaged or not what it claims to be.",
        "Take it again from its source.";
    InputSkipped, "input-skipped", Warning, "Some lines of an input were not stacks and were skipped.",
        "See the examples in the evidence.";
    InputWeak, "input-weak", Warning, "Something in an input weakens the result.",
        "See the evidence; where it says that the end is missing, take the input again.";
    SourceUnknown, "source-unknown", Warning, "Inlined functions and lines of some frames of an input could not be looked up.",
        "Give the very build of the program that ran (--binary, --symfs) and its debug info, which the evidence says how to get.";
    InputPruned, "input-pruned", Warning, "An input has more distinct stacks than the budget; the rest were counted under [pruned] or [deeper].",
        "Give more with --nodes-max, or leave out --keep-offsets.";
}

impl FindingCode {
    /// Finds the code by its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text)
    }
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FindingCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FindingCode {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown finding code {text:?}")))
    }
}

/// Longest evidence that is kept, in bytes: a tool's whole output does not belong in a finding.
pub const EVIDENCE_BYTES_MAX: usize = 2_000;

/// One finding: its code, where, and the tool's own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of finding.
    pub code: FindingCode,
    /// The host it was found on; none when it concerns the whole run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// What was seen, in the words of the tool or kernel that said it.
    pub evidence: String,
    /// What to do; the code's own remedy unless a more exact one was known.
    pub remedy: String,
}

impl Finding {
    /// A finding with the code's own remedy. Control characters are replaced and the evidence is
    /// cut at [`EVIDENCE_BYTES_MAX`], since it may come from a hostile peer.
    #[must_use]
    pub fn new(code: FindingCode, evidence: impl Into<String>) -> Self {
        Self {
            code,
            host: None,
            evidence: clean(&evidence.into()),
            remedy: code.remedy().to_owned(),
        }
    }

    /// The same finding, on this host.
    #[must_use]
    pub fn on(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The same finding with a more exact remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = clean(&remedy.into());
        self
    }

    /// How much it weighs.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        write!(f, "[{}] {}", self.code, self.code.what())?;
        if !self.evidence.is_empty() {
            write!(f, " ({})", self.evidence)?;
        }
        write!(f, " {}", self.remedy)
    }
}

/// Makes text from outside fit for a terminal: no control characters, bounded length.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(EVIDENCE_BYTES_MAX));
    for c in text.trim().chars() {
        if out.len() + c.len_utf8() > EVIDENCE_BYTES_MAX {
            out.push('…');
            break;
        }
        out.push(if c == '\n' || c == '\t' {
            ' '
        } else if c.is_control() {
            '\u{fffd}'
        } else {
            c
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_parse_back() {
        let texts: BTreeSet<_> = FindingCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), FindingCode::ALL.len());
        for code in FindingCode::ALL {
            assert_eq!(FindingCode::parse(code.as_str()), Some(*code));
            assert!(code.what().ends_with('.') && code.remedy().ends_with('.'));
        }
    }

    #[test]
    fn hostile_evidence_cannot_reach_the_terminal_raw() {
        let f = Finding::new(
            FindingCode::HostProtocol,
            format!("\u{1b}[2J{}", "x".repeat(9_000)),
        );
        assert!(!f.evidence.contains('\u{1b}'));
        assert!(f.evidence.len() <= EVIDENCE_BYTES_MAX + 4);
    }
}
