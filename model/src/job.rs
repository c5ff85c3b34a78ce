//! What the user asked for. In: flags or YAML (read elsewhere). Out: a checked [`JobSpec`].
//! Never: a choice that depends on a host (that is the plan's).

use crate::destination::Destination;
use crate::ids::HostName;
use crate::order::Budgets;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// How stacks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The best that can run on each host; the plan says why.
    Auto,
    /// The built-in sampler.
    Native,
    /// SystemTap.
    Stap,
    /// The system's own perf.
    Perf,
    /// Scripted stacks, for tests of scale. Never chosen by `auto`.
    Simulated,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Where CPU time goes.
    OnCpu,
    /// Where threads wait.
    OffCpu,
    /// Lua code.
    Lua,
    /// Allocations that are not freed.
    Alloc,
    /// File system traffic.
    Vfs,
    /// Lock contention.
    Lock,
    /// What a script of the user's measures.
    Script,
}

/// Which event makes the sampler take a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The kernel's CPU clock: works everywhere, virtual machines included.
    CpuClock,
    /// The processor's cycle counter: more exact where there is one.
    Cycles,
}

/// Which processes of a host are captured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// nginx, OpenResty, Kong and APISIX masters with their workers, found by themselves.
    Nginx,
    /// One process by its id.
    Pid(u32),
    /// Every process of this executable.
    Exe(String),
    /// Every process whose command line matches this regular expression.
    Cmd(String),
    /// A systemd unit's processes.
    Unit(String),
    /// A container's processes.
    Container(String),
}

/// Which of the matching processes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// All of them.
    All,
    /// The N that use the most CPU.
    Busiest(u32),
    /// N at random.
    Random(u32),
}

/// Where a host is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// This machine: the agent is started as a child.
    Local,
    /// A running agent at `ADDR:PORT`, over mutual TLS.
    Direct(String),
    /// Through the operator's own ssh; the agent is sent there and removed again.
    Ssh(Destination),
}

/// A host of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHost {
    /// Its name in this run.
    pub name: HostName,
    /// Where it is reached.
    pub reach: Reach,
    /// Targets on this host, where they differ from the job's (process ids do); else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// What the inventory says that it is like; kept with the run, so that parts of it can be named by
    /// labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

impl JobHost {
    /// A host with the job's targets, and without labels.
    #[must_use]
    pub fn new(name: HostName, reach: Reach) -> Self {
        Self {
            name,
            reach,
            targets: Vec::new(),
            labels: Labels::new(),
        }
    }
}

/// Labels of a host; one may have several values, as Ansible's groups do.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

/// What the user asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// A title for pictures and reports.
    pub title: String,
    /// The hosts; at least one, each name once.
    pub hosts: Vec<JobHost>,
    /// The targets; at least one.
    pub targets: Vec<Target>,
    /// Which of the matching processes.
    pub pick: Pick,
    /// How.
    pub engine: EngineChoice,
    /// What.
    pub probe: Probe,
    /// By which event.
    pub event: Event,
    /// Samples a second and CPU.
    pub sample_hz: u32,
    /// How long, in milliseconds.
    pub duration_ms: u64,
    /// Kernel frames too.
    pub kernel: bool,
    /// Off-CPU only: waits shorter than this, in microseconds, are added up under one frame.
    #[serde(default)]
    pub min_wait_us: u32,
    /// Segments of the request's path that stand below each stack taken in one; 0 for none.
    #[serde(default)]
    pub uri_segments: u32,
    /// What an agent may use up.
    pub budgets: Budgets,
    /// How long hosts may take to get ready, in milliseconds; none says that it goes by the engine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arm_timeout_ms: Option<u64>,
    /// The script of [`Probe::Script`]; none with every other probe.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub script: Option<crate::script::Script>,
    /// What the simulated engine plays, for tests of scale.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub simulated: Option<crate::order::Simulated>,
}

/// Highest sampling rate that is accepted: above it the sampler itself is what is seen.
pub const SAMPLE_HZ_MAX: u32 = 1_999;
/// Most segments of a request's path that are shown.
pub const URI_SEGMENTS_MAX: u32 = 16;
/// Longest capture that is accepted: one hour.
pub const DURATION_MS_MAX: u64 = 3_600_000;

/// How long hosts may take to get ready, in milliseconds, unless the job says otherwise.
pub const ARM_TIMEOUT_MS: u64 = 10_000;
/// How long hosts may take to get ready where SystemTap may have to build a module first, unless the job says
/// otherwise: passes 1 to 4 take 10 to 80 s by how busy a host is, and three minutes at most.
pub const ARM_TIMEOUT_STAP_MS: u64 = 240_000;

impl JobSpec {
    /// How long hosts may take to get ready, in milliseconds, where these engines were chosen: what was asked for, or by
    /// the slowest of them.
    #[must_use]
    pub fn arm_timeout_ms(&self, mut engines: impl Iterator<Item = EngineChoice>) -> u64 {
        let has_stap = engines.any(|engine| engine == EngineChoice::Stap);
        let usual = if has_stap {
            ARM_TIMEOUT_STAP_MS
        } else {
            ARM_TIMEOUT_MS
        };
        self.arm_timeout_ms.unwrap_or(usual)
    }

    /// What its profile measures.
    #[must_use]
    pub fn measures(&self) -> Vec<crate::profile::Measure> {
        crate::profile::Measure::of(self.probe, self.script.as_ref())
    }

    /// The targets on one host.
    #[must_use]
    pub fn targets_of(&self, host: &HostName) -> &[Target] {
        let own = self
            .hosts
            .iter()
            .find(|h| h.name == *host)
            .map(|h| &h.targets[..]);
        own.filter(|t| !t.is_empty()).unwrap_or(&self.targets)
    }

    /// Checks what YAML and flags cannot check for themselves.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        if self.hosts.is_empty() {
            return Err(
                "no host: give --local, --ssh DEST, --host NAME=ADDR:PORT, or hosts: in the job"
                    .into(),
            );
        }
        let mut names: Vec<&HostName> = self.hosts.iter().map(|h| &h.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!(
                "host {} is listed twice; give each host a name of its own",
                twice[0]
            ));
        }
        if self.targets.is_empty() && self.hosts.iter().any(|h| h.targets.is_empty()) {
            return Err(
                "no target: give --target nginx, --target pid:N, exe:PATH or cmd:REGEX".into(),
            );
        }
        if self.sample_hz == 0 || self.sample_hz > SAMPLE_HZ_MAX {
            return Err(format!(
                "a rate of {} Hz is not possible: use 1 to {SAMPLE_HZ_MAX}",
                self.sample_hz
            ));
        }
        if self.duration_ms < 100 || self.duration_ms > DURATION_MS_MAX {
            return Err(format!(
                "a duration of {} ms is not possible: use 100ms to 1h",
                self.duration_ms
            ));
        }
        if self.min_wait_us > MIN_WAIT_US_MAX {
            return Err(format!(
                "a shortest wait of {} us is not possible: use 0ms to 1s",
                self.min_wait_us
            ));
        }
        if self.uri_segments > URI_SEGMENTS_MAX {
            return Err(format!(
                "{} segments of a path are not possible: use 1 to {URI_SEGMENTS_MAX}",
                self.uri_segments
            ));
        }
        if (self.probe == Probe::Script) != self.script.is_some() {
            return Err("a script is named by a flag: --probe script:FILE.sxx".into());
        }
        if let Pick::Busiest(0) | Pick::Random(0) = self.pick {
            return Err("--pick needs at least 1 process, such as busiest:1".into());
        }
        Ok(())
    }
}

macro_rules! words {
    ($type:ty, $what:literal, $($variant:path => $word:literal),+ $(,)?) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $word,)+ })
            }
        }

        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($variant),)+
                    _ => Err(format!("{text:?} is no {}; use one of: {}", $what, [$($word),+].join(", "))),
                }
            }
        }
    };
}

words!(EngineChoice, "engine", EngineChoice::Auto => "auto", EngineChoice::Native => "native",
    EngineChoice::Stap => "stap", EngineChoice::Perf => "perf", EngineChoice::Simulated => "simulated");
words!(Probe, "probe", Probe::OnCpu => "on-cpu", Probe::OffCpu => "off-cpu", Probe::Lua => "lua",
    Probe::Alloc => "alloc", Probe::Vfs => "vfs", Probe::Lock => "lock", Probe::Script => "script");
words!(Event, "event", Event::CpuClock => "cpu-clock", Event::Cycles => "cycles");

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Nginx => f.write_str("nginx"),
            Target::Pid(pid) => write!(f, "pid:{pid}"),
            Target::Exe(path) => write!(f, "exe:{path}"),
            Target::Cmd(regex) => write!(f, "cmd:{regex}"),
            Target::Unit(unit) => write!(f, "unit:{unit}"),
            Target::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "nginx" | "kong" | "openresty" | "apisix") {
            return Ok(Target::Nginx);
        }
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        if value.is_empty() {
            return Err(format!(
                "{text:?} is no target; use nginx, pid:N, exe:PATH, cmd:REGEX, unit:NAME or container:ID"
            ));
        }
        match kind {
            "pid" => value
                .parse()
                .ok()
                .filter(|pid| *pid > 0)
                .map(Target::Pid)
                .ok_or_else(|| format!("{value:?} is no process id")),
            "exe" if value.starts_with('/') => Ok(Target::Exe(value.to_owned())),
            "exe" => Err(format!("exe:{value} must be an absolute path")),
            "cmd" => Ok(Target::Cmd(value.to_owned())),
            "unit" => Ok(Target::Unit(value.to_owned())),
            "container" => Ok(Target::Container(value.to_owned())),
            _ => Err(format!(
                "{kind:?} is no kind of target; use nginx, pid:N, exe:PATH, cmd:REGEX, unit:NAME or container:ID"
            )),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pick::All => f.write_str("all"),
            Pick::Busiest(n) => write!(f, "busiest:{n}"),
            Pick::Random(n) => write!(f, "random:{n}"),
        }
    }
}

impl FromStr for Pick {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |n: &str| {
            n.parse()
                .map_err(|_| format!("{n:?} is no number of processes"))
        };
        match text.split_once(':') {
            None if text == "all" => Ok(Pick::All),
            Some(("busiest", n)) => Ok(Pick::Busiest(number(n)?)),
            Some(("random", n)) => Ok(Pick::Random(number(n)?)),
            _ => Err(format!(
                "{text:?} is no choice of processes; use all, busiest:N or random:N"
            )),
        }
    }
}

/// Parses a duration such as `30s`, `500ms`, `2m` or `1h` into milliseconds.
///
/// # Errors
/// A sentence that shows the accepted forms.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no duration; write 500ms, 30s, 2m or 1h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(bad)
}

/// Longest wait that may be left out of sight, in microseconds: one second.
pub const MIN_WAIT_US_MAX: u32 = 1_000_000;

/// Parses a wait such as `50us`, `1ms` or `0ms` into microseconds.
///
/// # Errors
/// A sentence that shows the accepted forms.
pub fn parse_wait_us(text: &str) -> Result<u32, String> {
    let bad = |_| format!("{text:?} is no wait; write 50us, 1ms or 0ms");
    let wait: u64 = match text.strip_suffix("us") {
        Some(number) => number.parse().map_err(|_| bad(String::new()))?,
        None => parse_duration_ms(text).map_err(bad)?.saturating_mul(1_000),
    };
    u32::try_from(wait)
        .ok()
        .filter(|&wait| wait <= MIN_WAIT_US_MAX)
        .ok_or_else(|| format!("{text} is too long for a shortest wait: 0ms to 1s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_parse_and_print_the_same() {
        for text in [
            "nginx",
            "pid:12",
            "exe:/usr/sbin/nginx",
            "cmd:^nginx: w",
            "unit:kong.service",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["all", "busiest:3", "random:1"] {
            assert_eq!(text.parse::<Pick>().unwrap().to_string(), text);
        }
        assert!("pid:0".parse::<Target>().is_err());
        assert!("exe:nginx".parse::<Target>().is_err());
        assert!(
            "gdb"
                .parse::<EngineChoice>()
                .unwrap_err()
                .contains("native")
        );
    }

    #[test]
    fn waits_are_in_microseconds() {
        assert_eq!(parse_wait_us("50us"), Ok(50));
        assert_eq!(parse_wait_us("2ms"), Ok(2_000));
        assert_eq!(parse_wait_us("1s"), Ok(1_000_000));
        for bad in ["2s", "us", "5", "-1us", "1000001us"] {
            assert!(parse_wait_us(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration_ms("30s"), Ok(30_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        for bad in [
            "30",
            "",
            "s",
            "-1s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }
}
