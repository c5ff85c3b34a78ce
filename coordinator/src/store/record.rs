//! A run's record, `run.json`: what was asked, planned, captured, found and compared.
//!
//! In: the run's values. Out: JSON with a schema number. Never: a record of another schema read
//! as if it were this one. Fields that a newer fleetflame adds are passed over.

use super::StoreError;
use compare::Ranking;
use model::{Coverage, Finding, FindingCode, JobSpec, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The schema that is written and read. It rises when a reader of the old one would go wrong.
pub const SCHEMA: u32 = 1;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has begun and not ended; or the coordinator died.
    Running,
    /// All that was asked for was captured.
    Complete,
    /// Something is missing; the findings say what.
    Partial,
    /// Nothing was captured.
    Failed,
    /// A person or a signal ended it; what was captured until then is kept.
    Interrupted,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What the plan decided for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The engine's word.
    pub engine: String,
    /// Why that one.
    pub reason: String,
}

/// What wrote the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This program's version.
    pub fleetflame: String,
    /// The version of ffz in `profile.ffz`.
    pub ffz: u32,
}

impl Default for Versions {
    fn default() -> Self {
        let ffz = u32::from(model::format::ffz::MAGIC[3]);
        Self {
            fleetflame: env!("CARGO_PKG_VERSION").to_owned(),
            ffz,
        }
    }
}

/// The record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run's id.
    pub id: RunId,
    /// The title that stands on its pictures.
    pub title: String,
    /// How far it is.
    pub state: RunState,
    /// What was asked.
    pub job: JobSpec,
    /// What was planned, by host.
    #[serde(default)]
    pub plan: BTreeMap<String, HostPlan>,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// When the hosts began to capture, by the coordinator's wall clock; none while it runs, and where
    /// nobody began or an older version wrote the record.
    #[serde(default)]
    pub captured_from: Option<String>,
    /// When it ended; none while it runs.
    #[serde(default)]
    pub ended: Option<String>,
    /// How far the result can be trusted.
    #[serde(default)]
    pub coverage: Coverage,
    /// Which host is unlike the others; none while it runs.
    #[serde(default)]
    pub ranking: Option<Ranking>,
    /// The same by other denominators, where they were counted.
    #[serde(default)]
    pub more_rankings: Vec<Ranking>,
    /// What was found beside the coverage's own findings.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// How long the parts took, in milliseconds, by the part's word (`survey`, `arm`, `capture`).
    #[serde(default)]
    pub timings_ms: BTreeMap<String, u64>,
    /// What wrote it.
    pub versions: Versions,
    /// Findings that were passed over because a newer fleetflame named them.
    #[serde(skip)]
    pub unread_findings: usize,
}

impl RunRecord {
    /// The record of a run that begins now.
    #[must_use]
    pub fn begin(id: RunId, job: JobSpec, started: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            id,
            title: job.title.clone(),
            state: RunState::Running,
            job,
            plan: BTreeMap::new(),
            started: started.into(),
            captured_from: None,
            ended: None,
            coverage: Coverage::default(),
            ranking: None,
            more_rankings: Vec::new(),
            findings: Vec::new(),
            timings_ms: BTreeMap::new(),
            versions: Versions::default(),
            unread_findings: 0,
        }
    }

    /// Reads a record; `path` is named in errors.
    ///
    /// # Errors
    /// [`StoreError::Schema`] for another schema, [`StoreError::Record`] for damaged JSON.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, StoreError> {
        let damaged = |source| StoreError::Record {
            path: path.to_owned(),
            source,
        };
        let mut json: Value = serde_json::from_slice(bytes).map_err(damaged)?;
        let found = json.get("schema").and_then(Value::as_u64).unwrap_or(0);
        if found != u64::from(SCHEMA) {
            return Err(StoreError::Schema {
                path: path.to_owned(),
                found,
                expected: SCHEMA,
            });
        }
        let unread_findings = drop_unknown_findings(&mut json);
        let mut record: Self = serde_json::from_value(json).map_err(damaged)?;
        record.unread_findings = unread_findings;
        Ok(record)
    }

    /// When second 0 of the run was, in milliseconds since 1970: the common start, or the beginning of
    /// the run where that is not known.
    #[must_use]
    pub fn second_zero_unix_ms(&self) -> Option<u64> {
        let text = self.captured_from.as_ref().unwrap_or(&self.started);
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
    }

    /// Every finding of the run once, the gravest first.
    #[must_use]
    pub fn all_findings(&self) -> Vec<Finding> {
        let mut all = self.coverage.findings.clone();
        all.extend(self.findings.iter().cloned());
        all.extend(self.ranking.iter().flat_map(|r| r.findings.iter().cloned()));
        all.sort_by(|a, b| b.severity().cmp(&a.severity()).then_with(|| a.cmp(b)));
        all.dedup();
        all
    }
}

/// Removes findings whose code this version does not know, and counts them.
fn drop_unknown_findings(json: &mut Value) -> usize {
    match json {
        Value::Object(map) => map
            .iter_mut()
            .map(|(key, value)| match value {
                Value::Array(list) if key == "findings" => {
                    let before = list.len();
                    let known = |f: &Value| {
                        f.get("code")
                            .and_then(Value::as_str)
                            .and_then(FindingCode::parse)
                            .is_some()
                    };
                    list.retain(known);
                    before - list.len()
                }
                other => drop_unknown_findings(other),
            })
            .sum(),
        Value::Array(list) => list.iter_mut().map(drop_unknown_findings).sum(),
        _ => 0,
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC, such as `2026-02-01T10:00:00.250Z`.
#[must_use]
pub fn utc_text(unix_ms: u64) -> String {
    use time::macros::format_description;
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|t| t.format(FORM).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::job::{EngineChoice, Event, JobHost, Pick, Probe, Reach, Target};
    use model::{HostName, order::Budgets};

    /// A record of a run over `hosts`.
    pub(crate) fn record_of(hosts: &[&str]) -> RunRecord {
        let host = |name: &&str| JobHost {
            targets: vec![],
            name: HostName::new(*name).unwrap(),
            reach: Reach::Local,
            labels: Default::default(),
        };
        let job = JobSpec {
            title: "Kong, all nodes".into(),
            hosts: hosts.iter().map(host).collect(),
            targets: vec![Target::Nginx],
            pick: Pick::All,
            engine: EngineChoice::Auto,
            probe: Probe::OnCpu,
            event: Event::CpuClock,
            sample_hz: 99,
            duration_ms: 30_000,
            kernel: true,
            min_wait_us: 0,
            uri_segments: 0,
            budgets: Budgets::default(),
            arm_timeout_ms: None,
            script: None,
            simulated: None,
        };
        RunRecord::begin(
            RunId::from_parts(1_770_000_000_000, 7),
            job,
            utc_text(1_770_000_000_000),
        )
    }

    #[test]
    fn a_record_survives_json_and_newer_fields() {
        let mut record = record_of(&["a", "b"]);
        record
            .findings
            .push(Finding::new(FindingCode::FewSamples, "12").on("a"));
        let mut json = serde_json::to_value(&record).unwrap();
        json["moon_phase"] = "full".into();
        let path = Path::new("run.json");
        assert_eq!(
            RunRecord::parse(json.to_string().as_bytes(), path).unwrap(),
            record
        );
        json["findings"][0]["code"] = "from-the-future".into();
        let back = RunRecord::parse(json.to_string().as_bytes(), path).unwrap();
        assert_eq!((back.findings.len(), back.unread_findings), (0, 1));
    }

    #[test]
    fn another_schema_is_refused_by_its_number() {
        let mut json = serde_json::to_value(record_of(&["a"])).unwrap();
        json["schema"] = 2.into();
        let error =
            RunRecord::parse(json.to_string().as_bytes(), Path::new("run.json")).unwrap_err();
        assert!(error.to_string().contains("schema 2"), "{error}");
        assert!(RunRecord::parse(b"{}", Path::new("run.json")).is_err());
        assert!(RunRecord::parse(b"{", Path::new("run.json")).is_err());
    }

    #[test]
    fn second_zero_is_the_common_start_or_else_the_beginning() {
        let mut record = record_of(&["a"]);
        assert_eq!(record.second_zero_unix_ms(), Some(1_770_000_000_000));
        record.captured_from = Some(utc_text(1_770_000_002_250));
        assert_eq!(record.second_zero_unix_ms(), Some(1_770_000_002_250));
        record.captured_from = Some("yesterday".into());
        assert_eq!(record.second_zero_unix_ms(), None);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(utc_text(1_770_000_000_250), "2026-02-02T02:40:00.250Z");
    }
}
