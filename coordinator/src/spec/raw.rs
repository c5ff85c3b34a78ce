//! A job spec as it is written. In: what serde gives. Out: a [`JobSpec`]. Never: a default that
//! differs from the command line's.

use model::destination::Destination;
use model::job::{DURATION_MS_MAX, parse_duration_ms, parse_wait_us};
use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, SAMPLE_HZ_MAX, Target};
use model::order::{Budgets, Simulated};
use model::{HostName, JobSpec};
use serde::de::{Deserialize, Deserializer, Error as _};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::str::FromStr;

/// The whole document.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJob {
    #[expect(dead_code, reason = "checked while it is read")]
    version: Version,
    #[serde(default)]
    title: String,
    #[serde(default)]
    hosts: Vec<RawHost>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    targets: Vec<Word<Target>>,
    #[serde(default)]
    pick: Option<Word<Pick>>,
    #[serde(default)]
    engine: Option<Word<EngineChoice>>,
    #[serde(default)]
    probe: Option<Word<Probe>>,
    #[serde(default)]
    event: Option<Word<Event>>,
    #[serde(default)]
    sample_hz: Option<Hz>,
    #[serde(default)]
    min_wait: Option<Word<Wait>>,
    #[serde(default)]
    uri_segments: u32,
    #[serde(default)]
    duration: Option<Duration<100>>,
    #[serde(default)]
    kernel: Option<bool>,
    #[serde(default)]
    budgets: RawBudgets,
    #[serde(default)]
    arm_timeout: Option<Duration<1>>,
    #[serde(default)]
    simulated: Option<Simulated>,
}

/// A fleet file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleet {
    #[expect(dead_code, reason = "checked while it is read")]
    version: Version,
    hosts: Vec<RawFleetHost>,
}

/// A host with its labels: of each key one value, or several.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleetHost {
    name: Word<HostWord>,
    #[serde(default)]
    address: Option<Word<Address>>,
    #[serde(default)]
    ssh: Option<Word<Destination>>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    targets: Vec<Word<Target>>,
    #[serde(default)]
    labels: BTreeMap<String, RawLabel>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum RawLabel {
    One(String),
    Several(Vec<String>),
}

/// A host and its labels.
pub type LabelledHost = (JobHost, BTreeMap<String, Vec<String>>);

impl RawFleet {
    pub(super) fn into_hosts(self) -> Result<Vec<LabelledHost>, String> {
        let labelled = |host: RawFleetHost| {
            let labels = host.labels.into_iter().map(|(key, label)| match label {
                RawLabel::One(value) => (key, vec![value]),
                RawLabel::Several(values) => (key, values),
            });
            let labels = labels.collect();
            let raw = RawHost {
                name: host.name,
                address: host.address,
                ssh: host.ssh,
                local: host.local,
                targets: host.targets,
            };
            Ok((raw.into_host()?, labels))
        };
        self.hosts.into_iter().map(labelled).collect()
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    name: Word<HostWord>,
    #[serde(default)]
    address: Option<Word<Address>>,
    #[serde(default)]
    ssh: Option<Word<Destination>>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    targets: Vec<Word<Target>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudgets {
    cpu_pct_max: Option<u32>,
    memory_mb_max: Option<u32>,
    stacks_max: Option<u32>,
    output_mb_max: Option<u32>,
}

impl RawJob {
    /// The job that is meant, with the defaults for what is not said.
    pub(super) fn into_job(self) -> Result<JobSpec, String> {
        let mut hosts = Vec::new();
        if self.local {
            let name = HostName::new("local").map_err(|e| e.to_string())?;
            hosts.push(JobHost::new(name, Reach::Local));
        }
        for host in self.hosts {
            hosts.push(host.into_host()?);
        }
        let none = Budgets::default();
        let engine = self.engine.map_or(EngineChoice::Auto, |w| w.0);
        let job = JobSpec {
            title: self.title,
            hosts,
            targets: self.targets.into_iter().map(|t| t.0).collect(),
            pick: self.pick.map_or(Pick::All, |w| w.0),
            engine,
            probe: self.probe.map_or(Probe::OnCpu, |w| w.0),
            event: self.event.map_or(Event::CpuClock, |w| w.0),
            sample_hz: self.sample_hz.map_or(99, |hz| hz.0),
            duration_ms: self.duration.map_or(30_000, |d| d.0),
            kernel: self.kernel.unwrap_or(true),
            min_wait_us: self.min_wait.map_or(0, |w| w.0.0),
            uri_segments: self.uri_segments,
            budgets: Budgets {
                cpu_pct_max: self.budgets.cpu_pct_max.unwrap_or(none.cpu_pct_max),
                memory_mb_max: self.budgets.memory_mb_max.unwrap_or(none.memory_mb_max),
                stacks_max: self.budgets.stacks_max.unwrap_or(none.stacks_max),
                output_mb_max: self.budgets.output_mb_max.unwrap_or(none.output_mb_max),
            },
            arm_timeout_ms: self.arm_timeout.map(|d| d.0),
            script: None,
            simulated: self.simulated,
        };
        job.validate()?;
        Ok(job)
    }
}

impl RawHost {
    fn into_host(self) -> Result<JobHost, String> {
        let name = self.name.0.0;
        let reach = match (self.address, self.ssh, self.local) {
            (Some(address), None, false) => Reach::Direct(address.0.0),
            (None, Some(destination), false) => Reach::Ssh(destination.0),
            (None, None, true) => Reach::Local,
            (None, None, false) => {
                return Err(format!(
                    "host {name} has no address; give address: ADDR:PORT, ssh: DEST, or local: true"
                ));
            }
            _ => {
                return Err(format!(
                    "host {name} is reached in several ways; give one of address:, ssh: and local:"
                ));
            }
        };
        let targets = self.targets.into_iter().map(|t| t.0).collect();
        Ok(JobHost {
            name,
            reach,
            targets,
            labels: Default::default(),
        })
    }
}

/// A text that stands for something else; what it may be is told when it is not.
struct Word<T>(T);

impl<'de, T> Deserialize<'de> for Word<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = d.deserialize_str(Text(PhantomData))?;
        text.parse().map(Word).map_err(D::Error::custom)
    }
}

/// Takes texts only: a number or a truth value is not quietly made one.
struct Text(PhantomData<()>);

impl serde::de::Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

struct HostWord(HostName);

impl FromStr for HostWord {
    type Err = model::ids::BadHostName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HostName::new(text).map(Self)
    }
}

/// `ADDR:PORT`, with `[v6]:PORT` too.
struct Address(String);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.rsplit_once(':').filter(|(host, _)| {
            !host.is_empty()
                && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
        });
        match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(port) if port > 0 => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is no address; write ADDR:PORT, such as 10.0.0.7:7443 or [fd00::7]:7443"
            )),
        }
    }
}

/// A wait with its unit.
struct Wait(u32);

impl FromStr for Wait {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_wait_us(text).map(Self)
    }
}

struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match u64::deserialize(d)? {
            1 => Ok(Self),
            other => Err(D::Error::custom(format!(
                "version {other} is not known; write version: 1"
            ))),
        }
    }
}

struct Hz(u32);

impl<'de> Deserialize<'de> for Hz {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let hz = u32::deserialize(d)?;
        if (1..=SAMPLE_HZ_MAX).contains(&hz) {
            return Ok(Self(hz));
        }
        Err(D::Error::custom(format!(
            "a rate of {hz} Hz is not possible: use 1 to {SAMPLE_HZ_MAX}"
        )))
    }
}

/// A time with its unit, at least `MIN_MS` and at most an hour.
struct Duration<const MIN_MS: u64>(u64);

impl<'de, const MIN_MS: u64> Deserialize<'de> for Duration<MIN_MS> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = d.deserialize_str(Text(PhantomData))?;
        let ms = parse_duration_ms(&text).map_err(D::Error::custom)?;
        if (MIN_MS..=DURATION_MS_MAX).contains(&ms) {
            return Ok(Self(ms));
        }
        Err(D::Error::custom(format!(
            "a time of {text} is not possible: use {MIN_MS}ms to 1h"
        )))
    }
}
