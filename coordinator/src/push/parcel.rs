//! What is pushed: one profile for each host of a run, with its labels and its time. Pure.
//!
//! In: a run's profile and record. Out: a [`Parcel`] for each host, whose bytes depend on the run and the labels only, so
//! that a second one is the first one again. Never: a process id in it (every restart would be a new series in the
//! store), or a sum that differs from the host's.

use crate::store::RunRecord;
use model::format::pprof::{Taken, write_taken};
use model::job::Probe;
use model::profile::{Process, Profile, Series, SeriesTable};
use std::collections::{BTreeMap, BTreeSet};

/// Longest value of a label that is taken over from an inventory. Pyroscope takes 2,048 bytes
/// (`-validation.max-length-label-value`).
const LABEL_BYTES_MAX: usize = 1_024;

/// One host's profile on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The host.
    pub host: String,
    /// Labels by name, `__name__` and `service_name` among them.
    pub labels: BTreeMap<String, String>,
    /// `profile.proto` in gzip.
    pub payload: Vec<u8>,
    /// When it was taken.
    pub taken: Taken,
    /// Nominal samples a second.
    pub sample_hz: u32,
}

impl Parcel {
    /// BLAKE3 over labels, time and payload, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (name, value) in &self.labels {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        field(&self.taken.from_unix_ns.to_le_bytes());
        field(&self.taken.duration_ns.to_le_bytes());
        field(&self.payload);
        hasher.finalize().to_hex().to_string()
    }

    /// A UUID that is the same for the same parcel: version 8 (RFC 9562, made by rules of one's own) of the digest.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = self.digest();
        let (a, b) = (&digest[0..8], &digest[8..12]);
        let (c, d, e) = (&digest[13..16], &digest[17..20], &digest[20..32]);
        format!("{a}-{b}-8{c}-8{d}-{e}")
    }
}

/// Why a run cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    /// Its record has no time that can be read.
    #[error("run.json says no time at which the run began")]
    NoTime,
}

/// Makes parcels of one run.
#[derive(Debug)]
pub struct Parcels<'a> {
    profile: &'a Profile,
    record: &'a RunRecord,
    more: BTreeMap<String, String>,
    service: String,
    taken: Taken,
}

impl<'a> Parcels<'a> {
    /// `more` are labels of the user's; they stand above those that are taken from the run.
    ///
    /// # Errors
    /// [`ParcelError`].
    pub fn new(
        profile: &'a Profile,
        record: &'a RunRecord,
        more: BTreeMap<String, String>,
    ) -> Result<Self, ParcelError> {
        let from_ms = record.second_zero_unix_ms().ok_or(ParcelError::NoTime)?;
        let taken = Taken {
            from_unix_ns: from_ms.saturating_mul(1_000_000),
            duration_ns: record.job.duration_ms.saturating_mul(1_000_000),
        };
        let service = service(profile);
        Ok(Self {
            profile,
            record,
            more,
            service,
            taken,
        })
    }

    /// The hosts that have a value, sorted.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let with_value = self
            .profile
            .totals
            .iter()
            .filter(|(_, totals)| totals.values().any(|values| values.iter().any(|v| *v > 0)));
        let hosts = with_value.filter_map(|(id, _)| self.profile.series.get(*id));
        let hosts: BTreeSet<String> = hosts.map(|s| s.host.clone()).collect();
        hosts.into_iter().collect()
    }

    /// The parcel of a host.
    #[must_use]
    pub fn parcel(&self, host: &str) -> Parcel {
        Parcel {
            host: host.to_owned(),
            labels: self.labels(host),
            payload: write_taken(&self.of_host(host), self.taken),
            taken: self.taken,
            sample_hz: self.record.job.sample_hz,
        }
    }

    fn labels(&self, host: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let of_host = |h: &&model::job::JobHost| h.name.to_string() == host;
        if let Some(job) = self.record.job.hosts.iter().find(of_host) {
            for (key, values) in &job.labels {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                labels.insert(label_name(key), values.join("_"));
            }
        }
        let coverage = self.record.coverage.hosts.get(host);
        labels.extend([
            ("probe".to_owned(), self.record.job.probe.to_string()),
            ("service_name".to_owned(), self.service.clone()),
        ]);
        if let Some(coverage) = coverage {
            labels.insert("engine".into(), coverage.engine.clone());
            labels.insert("config_hash".into(), coverage.config_hash.clone());
        }
        labels.extend(self.more.clone());
        labels.insert("host".into(), host.to_owned());
        labels.insert("job_id".into(), self.record.id.to_string());
        labels.insert("__name__".into(), name(self.record.job.probe));
        labels.retain(|_, value| !value.is_empty() && value.len() <= LABEL_BYTES_MAX);
        labels
    }

    /// The host's series without what tells processes apart. Dictionary and tree are whole; the writer passes over what
    /// this host does not have.
    fn of_host(&self, host: &str) -> Profile {
        let mut part = Profile {
            frames: self.profile.frames.clone(),
            tree: self.profile.tree.clone(),
            series: SeriesTable::default(),
            ..Profile::new(&self.profile.probe, self.profile.measures.clone())
        };
        for (id, totals) in &self.profile.totals {
            let Some(series) = self.profile.series.get(*id).filter(|s| s.host == host) else {
                continue;
            };
            let process = Process {
                pid: 0,
                start_ticks: 0,
                generation: 0,
                ..series.process.clone()
            };
            let series = Series {
                process,
                ..series.clone()
            };
            let id = part.series.intern(&series);
            part.add_totals(id, totals.iter().map(|(node, values)| (*node, values)));
        }
        part
    }
}

/// What the stores call the type of profile. Pyroscope's pages know on-CPU profiles by this name.
fn name(probe: Probe) -> String {
    match probe {
        Probe::OnCpu => "process_cpu".to_owned(),
        other => label_name(&other.to_string()),
    }
}

/// The name of the processes that were busiest in the whole run, such as `nginx`: all hosts are to be one service.
fn service(profile: &Profile) -> String {
    let mut by_comm: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, totals) in &profile.totals {
        let comm = profile
            .series
            .get(*id)
            .map_or("", |s| s.process.comm.as_str());
        let sum = totals
            .values()
            .fold(0_u64, |sum, values| sum.saturating_add(values[0]));
        let of = by_comm.entry(comm).or_default();
        *of = of.saturating_add(sum);
    }
    let named = by_comm.into_iter().filter(|(comm, _)| !comm.is_empty());
    let most = named.max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
    most.map_or("fleetflame", |(comm, _)| comm).to_owned()
}

/// A name as Prometheus allows it: letters, digits and `_`, no digit first.
fn label_name(word: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = word.chars().map(allowed).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("_{name}");
    }
    name
}

/// Reads `NAME=VALUE` as a label of the user's.
///
/// # Errors
/// What would be right.
pub fn parse_label(word: &str) -> Result<(String, String), String> {
    let (name, value) = word.split_once('=').ok_or("use NAME=VALUE")?;
    if name.is_empty() || label_name(name) != name {
        return Err(format!(
            "{name:?} is no label's name: letters, digits and _, no digit first"
        ));
    }
    if name.starts_with("__") || matches!(name, "host" | "job_id") {
        return Err(format!("{name} is set by fleetflame"));
    }
    if value.is_empty() || value.len() > LABEL_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(format!(
            "the value of {name} must have 1 to {LABEL_BYTES_MAX} bytes and no control characters"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}
