//! The built-in probes: agent/probes, embedded.
//!
//! In: what is measured. Out: a script's text. Never: a word of an order in it: what differs between orders are the
//! script's numbers ($1, $2) and definitions.

use model::job::Probe;
use model::{CaptureOrder, Finding, FindingCode};

/// How long lines are.
const LINES: &str = include_str!("../../../probes/lines.stp");
/// What all that count stacks end in.
const REPORT: &str = include_str!("../../../probes/report.stp");

/// Which samples, waits and events count.
const CHANCE: &str = include_str!("../../../probes/chance.stp");
/// The end of all that count or print.
const LAST: &str = include_str!("../../../probes/last.stp");

/// Who is captured, and when is reported: of those that sample, and of those that fire on every event.
const SLICES: &str = include_str!("../../../probes/slices.stp");
const EVENTS: &str = include_str!("../../../probes/events.stp");
/// The look of those that fire on every event, and what stands for it in those that need none.
const LOOK: &str = include_str!("../../../probes/look.stp");
const NO_LOOK: &str = "@define ff_looks(word) %( %)\n";
/// What stands for waits in those that measure none.
const NO_WAITS: &str = "@define ff_unfinished %( %)\n";
/// The start of those that are told their targets when they are loaded.
const ARMED: &str = include_str!("../../../probes/armed.stp");

/// Most processes of a probe that fires on every event: each is a parameter of the module.
const TARGETS_MAX: usize = 32;
/// How parameters are called, up to their number.
const PARAMETER: &str = "ff_process_";

/// The parameter of how many samples, waits or events one counts.
const ONE_IN: &str = "ff_one_in";

/// What those that measure waits have in common.
const WAITS: &str = include_str!("../../../probes/offcpu.stp");

/// A built-in probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuiltIn {
    /// Its name: of its file, and in modules and coverage.
    pub name: &'static str,
    text: &'static str,
    /// It has the kernel's stacks too.
    pub kernel: bool,
    /// It copies samples, which are unwound here: it needs no unwind data, and ends in nothing else.
    pub copies: bool,
    /// It weighs waits or calls by what they took or moved; `$2` is the shortest one that counts, not a period.
    pub waits: bool,
    /// It fires on every event, in every process: who is captured is told when it is loaded, and before the start it looks
    /// how many events there are.
    pub events: bool,
    /// It is put into the file with malloc, `@3`, for one process, and has a report of its own.
    pub heap: bool,
}

pub(super) const ON_CPU_USER: BuiltIn = BuiltIn {
    name: "oncpu-user",
    text: include_str!("../../../probes/oncpu-user.stp"),
    kernel: false,
    copies: false,
    waits: false,
    events: false,
    heap: false,
};

pub(super) const ON_CPU_MIXED: BuiltIn = BuiltIn {
    name: "oncpu-mixed",
    text: include_str!("../../../probes/oncpu-mixed.stp"),
    kernel: true,
    ..ON_CPU_USER
};

pub(super) const OFF_CPU_USER: BuiltIn = BuiltIn {
    name: "offcpu-user",
    text: include_str!("../../../probes/offcpu-user.stp"),
    waits: true,
    ..ON_CPU_USER
};

pub(super) const OFF_CPU_MIXED: BuiltIn = BuiltIn {
    name: "offcpu-mixed",
    text: include_str!("../../../probes/offcpu-mixed.stp"),
    kernel: true,
    ..OFF_CPU_USER
};

pub(super) const LUA: BuiltIn = BuiltIn {
    name: "lua",
    text: include_str!("../../../probes/lua.stp"),
    copies: true,
    ..ON_CPU_USER
};

pub(super) const VFS: BuiltIn = BuiltIn {
    name: "vfs",
    text: include_str!("../../../probes/vfs.stp"),
    waits: true,
    events: true,
    ..ON_CPU_USER
};

pub(super) const LOCK: BuiltIn = BuiltIn {
    name: "lock",
    text: include_str!("../../../probes/lock.stp"),
    ..VFS
};

pub(super) const ALLOC: BuiltIn = BuiltIn {
    name: "alloc",
    text: include_str!("../../../probes/alloc.stp"),
    heap: true,
    ..VFS
};

/// All of them.
pub(super) const ALL: [BuiltIn; 8] = [
    ON_CPU_USER,
    ON_CPU_MIXED,
    OFF_CPU_USER,
    OFF_CPU_MIXED,
    LUA,
    VFS,
    LOCK,
    ALLOC,
];

/// What engine stap can measure here.
pub(in crate::engine) const PROBES: [Probe; 6] = [
    Probe::OnCpu,
    Probe::OffCpu,
    Probe::Lua,
    Probe::Vfs,
    Probe::Lock,
    Probe::Alloc,
];
/// Waits shorter than this are none: between two looks at the clock.
const WAIT_NS_MIN: u64 = 1_000;

impl BuiltIn {
    /// The probe of an order.
    ///
    /// # Errors
    /// `probe-unavailable`.
    pub(super) fn of(order: &CaptureOrder) -> Result<Self, Finding> {
        match (order.probe, order.kernel) {
            (Probe::OnCpu, false) => Ok(ON_CPU_USER),
            (Probe::OnCpu, true) => Ok(ON_CPU_MIXED),
            (Probe::OffCpu, false) => Ok(OFF_CPU_USER),
            (Probe::OffCpu, true) => Ok(OFF_CPU_MIXED),
            (Probe::Lua, _) if cfg!(target_arch = "x86_64") => Ok(LUA),
            (Probe::Lua, _) => {
                let said = "the probe lua reads registers of x86-64, and this is another machine";
                Err(Finding::new(FindingCode::ProbeUnavailable, said))
            }
            (Probe::Vfs, _) => Ok(VFS),
            (Probe::Lock, _) => Ok(LOCK),
            (Probe::Alloc, _) => Ok(ALLOC),
            _ => {
                let said = format!("probe {} is not part of this version", order.probe);
                Err(Finding::new(FindingCode::ProbeUnavailable, said))
            }
        }
    }

    /// By its name.
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|probe| probe.name == name)
    }

    /// The whole script.
    pub(super) fn script(self) -> String {
        if self.copies {
            return format!("{CHANCE}\n{}\n{LAST}", self.text);
        }
        if self.heap {
            return format!("{LINES}\n{LOOK}\n{ARMED}\n{}\n{LAST}", self.text);
        }
        if self.events {
            let targets = declared();
            return format!(
                "{LINES}\n{REPORT}\n{LOOK}\n{ARMED}\n{targets}\n{CHANCE}\n{EVENTS}\n{}\n{LAST}",
                self.text
            );
        }
        let (look, waits) = match self.waits {
            true => (LOOK, WAITS),
            false => (NO_LOOK, NO_WAITS),
        };
        format!(
            "{LINES}\n{REPORT}\n{look}\n{SLICES}\n{CHANCE}\n{}\n{waits}\n{LAST}",
            self.text
        )
    }

    /// Most processes that it is told when it is loaded; 0 where they are told later.
    pub(super) fn targets_max(self) -> usize {
        match (self.events, self.heap) {
            (true, true) => 1,
            (true, false) => TARGETS_MAX,
            _ => 0,
        }
    }

    /// What the module is told when it is loaded: who is captured.
    pub(super) fn parameters(self, pids: impl Iterator<Item = u32>) -> Vec<String> {
        let named = pids.take(if self.heap { 0 } else { self.targets_max() });
        let named = named.enumerate();
        named
            .map(|(i, pid)| format!("{PARAMETER}{}={pid}", i + 1))
            .collect()
    }

    /// What the module is told when it is loaded: of how many samples, waits or events one is taken. Of memory every
    /// allocation is: what is freed is known by what was allocated.
    pub(super) fn thinned(self, one_in: u64) -> Option<String> {
        (!self.heap).then(|| format!("{ONE_IN}={one_in}"))
    }

    /// What `$2` is: nanoseconds between two samples, or those from which on a wait counts.
    pub(super) fn period_ns(self, sample_hz: u32, min_wait_us: u32) -> u64 {
        if self.heap {
            1
        } else if self.events {
            (u64::from(min_wait_us) * 1_000).max(1)
        } else if self.waits {
            (u64::from(min_wait_us) * 1_000).max(WAIT_NS_MIN)
        } else {
            1_000_000_000 / u64::from(sample_hz.max(1))
        }
    }
}

/// The parameters of who is captured, and the question whether a process is. No handler writes them, so SystemTap takes
/// no lock for them.
fn declared() -> String {
    let each = |write: &dyn Fn(usize) -> String, between: &str| -> String {
        let each: Vec<String> = (1..=TARGETS_MAX).map(write).collect();
        each.join(between)
    };
    let globals = each(&|i| format!("{PARAMETER}{i} = -1"), ", ");
    let asked = each(&|i| format!("p == {PARAMETER}{i}"), " || ");
    format!("global {globals}\nfunction ff_is_target:long(p:long) {{ return {asked} }}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a format of lua.stp prints.
    fn printed(format: &str) -> usize {
        let mut bytes = 0;
        let mut rest = format.replace("\\n", "\n");
        while let Some(first) = rest.chars().next() {
            let (length, width) = match first {
                '%' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let width = rest[1..end].trim_start_matches('-').parse();
                    // The mark of a sample, one character.
                    (end + 1, width.unwrap_or(1))
                }
                _ => (1, 1),
            };
            bytes += width;
            rest = rest.split_off(length);
        }
        bytes
    }

    #[test]
    fn what_lua_prints_never_ends_where_systemtap_would_lose_the_next_message() {
        let formats: Vec<&str> = LUA
            .text
            .split("printf(\"")
            .skip(1)
            .map(|rest| rest.split("\"").next().unwrap())
            .collect();
        let head = formats.iter().find(|f| f.starts_with("%s")).unwrap();
        let tail = formats.iter().find(|f| f.starts_with("%8b%8b\\n")).unwrap();
        assert_eq!((printed(head) + printed(tail)) % 16, 8);
        // What the reader takes for a sample's beginning, a pid and nine registers.
        assert_eq!(printed(head), 7 + 8 * 10);
        let mut pieces = 0;
        for format in formats.iter().filter(|f| *f != head && *f != tail) {
            let is_whole = format.ends_with("\\n");
            assert_eq!(
                printed(format) % 16,
                if is_whole { 8 } else { 0 },
                "{format}"
            );
            pieces += usize::from(!is_whole);
        }
        assert!(pieces >= 3 && formats.len() >= 9, "{formats:?}");
    }

    #[test]
    fn what_reports_print_has_a_length_that_lines_decides() {
        for probe in ALL.into_iter().filter(|probe| !probe.copies) {
            let script = probe.script();
            assert_eq!(script.matches(LINES).count(), 1, "{}", probe.name);
            let others = script.replace(LINES, "").replace("sprintf", "");
            for call in others.split("printf(\"").skip(1) {
                // One that ends a handler of its own, or one that asks for its length.
                let format = call.split('"').next().unwrap();
                let asks = format.contains("%-*d") && others.contains("length = ff_length(");
                assert!(
                    asks || printed(format) % 16 == 8,
                    "{}: {format}",
                    probe.name
                );
            }
        }
    }

    #[test]
    fn events_of_others_are_told_apart_before_anything_that_takes_a_lock() {
        for probe in [VFS, LOCK] {
            let script = probe.script();
            // A condition of a probe, and any global, would take all locks of the handler.
            for line in script.lines().filter(|l| l.starts_with("probe kprobe")) {
                assert!(
                    !line.contains(" if (ff_on") && !line.contains(" if (ff_look"),
                    "{line}"
                );
            }
            assert!(script.contains("%(\n  if (ff_is_near()) {\n    if (ff_is_target"));
            assert!(script.matches("if (ff_is_near() && @ff_").count() >= 2);
            assert!(!script.contains("ff_targets"));
            for i in 1..=TARGETS_MAX {
                let name = format!("{PARAMETER}{i} ");
                assert_eq!(script.matches(&format!("{name}= ")).count(), 1, "{name}");
                assert!(script.contains(&format!("p == {PARAMETER}{i}")));
            }
            assert!(
                script.contains("$2"),
                "a number that the script does not take is a warning"
            );
        }
        let told = VFS.parameters([70, 80].into_iter());
        assert_eq!(told, ["ff_process_1=70", "ff_process_2=80"]);
        assert_eq!(VFS.parameters(1..=99).len(), TARGETS_MAX);
        assert!(OFF_CPU_USER.parameters(1..=9).is_empty());
        assert_eq!((VFS.period_ns(99, 0), LOCK.period_ns(99, 5)), (1, 5_000));
    }

    #[test]
    fn what_is_left_out_is_told_and_not_built() {
        assert_eq!(ALLOC.thinned(4), None);
        for probe in ALL.into_iter().filter(|probe| !probe.heap) {
            let told = probe.thinned(4).unwrap();
            let (name, value) = told.split_once('=').unwrap();
            assert_eq!(value, "4");
            // Declared once, and never written: no handler takes a lock for it.
            let script = probe.script();
            assert_eq!(script.matches(&format!("global {name} = ")).count(), 1);
            assert_eq!(script.matches(&format!("{name} = ")).count(), 1);
            assert!(script.matches(name).count() >= 3, "{}", probe.name);
        }
    }

    #[test]
    fn probes_are_known_by_their_names_and_lua_has_a_report_of_its_own() {
        assert!(
            ALL.iter()
                .all(|probe| BuiltIn::named(probe.name) == Some(*probe))
        );
        assert!(!LUA.script().contains(REPORT) && ON_CPU_USER.script().contains(REPORT));
    }
}
