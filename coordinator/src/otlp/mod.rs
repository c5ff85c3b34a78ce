//! OpenTelemetry's profiles, `opentelemetry.proto.profiles.v1development`: out only, and unstable, because the format is.
//!
//! In: a profile, and when its second 0 was. Out: the bytes of one `ProfilesData`, which depend on the content only.
//! Never: a value that is left out or rounded, or a time that was not measured.
//!
//! The messages are those of the crate opentelemetry-proto, whose version is pinned: it stands for the version of the
//! format. What they mean is in the comments of its proto files; names of attributes are OpenTelemetry's semantic
//! conventions where these have one, else they begin with `fleetflame.`.

mod dictionary;
#[cfg(test)]
mod tests;

use dictionary::{Dictionary, texts_of};
use model::format::in_order::{Walk, series};
use model::profile::{Measure, NodeId, Process, Profile, ROOT, Series, SeriesId, Totals, Values};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development as wire;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use std::collections::BTreeMap;

const SECOND_NS: u64 = 1_000_000_000;
/// No reader of Protocol Buffers takes a message of 2 GiB or more (protobuf.dev, "Proto Limits").
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Why a profile cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// More than one message may have.
    #[error(
        "OTLP allows 2 GiB in a message, and this would have {0} bytes; export each host by itself (RUN:HOST)"
    )]
    TooLarge(usize),
}

/// Writes a profile. With `second_zero_unix_ns` and seconds in the profile every value stands with its second; without
/// either a sample has the sum alone.
///
/// # Errors
/// [`OtlpError::TooLarge`].
pub fn write(profile: &Profile, second_zero_unix_ns: Option<u64>) -> Result<Vec<u8>, OtlpError> {
    let data = message(profile, second_zero_unix_ns);
    let len = data.encoded_len();
    if len > MESSAGE_BYTES_MAX {
        return Err(OtlpError::TooLarge(len));
    }
    Ok(data.encode_to_vec())
}

fn message(profile: &Profile, second_zero_unix_ns: Option<u64>) -> wire::ProfilesData {
    let walk = Walk::of(profile);
    let mut dictionary = Dictionary::new(profile);
    let mut resource_profiles: Vec<wire::ResourceProfiles> = Vec::new();
    let mut last: Option<(&str, &Process)> = None;
    for id in series(profile) {
        let (Some(series), Some(totals)) = (profile.series.get(id), profile.totals.get(&id)) else {
            continue;
        };
        let rows = rows(profile, &walk, id, totals, second_zero_unix_ns);
        let profiles = profiles(profile, series, &rows, &mut dictionary);
        // Series come sorted by host and process.
        let owner = (series.host.as_str(), &series.process);
        if last != Some(owner) {
            last = Some(owner);
            resource_profiles.push(resource(series));
        }
        let scopes = resource_profiles.last_mut().map(|r| &mut r.scope_profiles);
        if let Some(scope) = scopes.and_then(|s| s.first_mut()) {
            scope.profiles.extend(profiles);
        }
    }
    wire::ProfilesData {
        resource_profiles,
        dictionary: Some(dictionary.finish()),
    }
}

/// One stack of a series: its values, each with the instant of its second where that is known.
struct Row {
    node: NodeId,
    values: Vec<(Option<u64>, Values)>,
}

/// The rows of a series in the order of the call tree.
fn rows(
    profile: &Profile,
    walk: &Walk,
    id: SeriesId,
    totals: &Totals,
    second_zero_unix_ns: Option<u64>,
) -> Vec<Row> {
    let mut seconds: BTreeMap<NodeId, Vec<(Option<u64>, Values)>> = BTreeMap::new();
    if let Some(zero) = second_zero_unix_ns {
        let cells = profile.cells.range((id, 0)..=(id, u32::MAX));
        for ((_, second), cell) in cells {
            let at = zero.saturating_add(u64::from(*second) * SECOND_NS);
            for (node, values) in cell.rows() {
                seconds.entry(node).or_default().push((Some(at), *values));
            }
        }
    }
    // Totals are whole, also where a part of the seconds is not there; all samples are to have the same shape.
    let whole = !seconds.is_empty()
        && totals.iter().all(|(node, sum)| {
            let of = seconds.get(node).map_or(&[][..], Vec::as_slice);
            (0..sum.len()).all(|i| {
                let seconds: u128 = of.iter().map(|(_, v)| u128::from(v[i])).sum();
                seconds == u128::from(sum[i])
            })
        });
    let rows = walk.rows(totals).into_iter();
    rows.map(|(node, sum)| {
        let node = NodeId(node);
        let values = match seconds.remove(&node) {
            Some(values) if whole => values,
            _ => vec![(None, sum)],
        };
        Row { node, values }
    })
    .collect()
}

/// One profile for each measure that has a value.
fn profiles(
    profile: &Profile,
    series: &Series,
    rows: &[Row],
    dictionary: &mut Dictionary<'_>,
) -> Vec<wire::Profile> {
    let texts = [
        ("fleetflame.probe", &profile.probe),
        ("fleetflame.engine", &series.engine),
        ("fleetflame.mode", &series.mode),
        ("fleetflame.event", &series.event),
    ];
    let mut made = Vec::new();
    for (column, measure) in profile.measures.iter().enumerate() {
        let mut samples = Vec::new();
        let mut span: Option<(u64, u64)> = None;
        for row in rows {
            let (values, timestamps_unix_nano) = column_of(row, column);
            if values.is_empty() {
                continue;
            }
            for at in &timestamps_unix_nano {
                let (from, to) = span.unwrap_or((*at, *at));
                span = Some((from.min(*at), to.max(*at)));
            }
            samples.push(wire::Sample {
                stack_index: dictionary.stack(row.node),
                attribute_indices: dictionary.text_attributes(&[("thread.name", &series.thread)]),
                values,
                timestamps_unix_nano,
                ..wire::Sample::default()
            });
        }
        if samples.is_empty() {
            continue;
        }
        let (from, to) = span.map_or((0, 0), |(from, to)| (from, to.saturating_add(SECOND_NS)));
        let period = i64::try_from(series.period_ns).unwrap_or(0);
        made.push(wire::Profile {
            sample_type: Some(dictionary.value_type(&measure.name, unit(measure))),
            samples,
            time_unix_nano: from,
            duration_nano: to - from,
            period_type: (period > 0).then(|| dictionary.value_type("cpu", "nanoseconds")),
            period,
            attribute_indices: dictionary.text_attributes(&texts_of(&texts)),
            ..wire::Profile::default()
        });
    }
    made
}

/// The values of one measure. An int64 holds half of what a u64 does; a larger value becomes several.
fn column_of(row: &Row, column: usize) -> (Vec<i64>, Vec<u64>) {
    let (mut values, mut times) = (Vec::new(), Vec::new());
    for (at, all) in &row.values {
        let mut left = all.get(column).copied().unwrap_or(0);
        while left > 0 {
            let part = i64::try_from(left).unwrap_or(i64::MAX);
            values.push(part);
            times.extend(*at);
            left -= part.unsigned_abs();
        }
    }
    (values, times)
}

/// OpenTelemetry spells units out.
fn unit(measure: &Measure) -> &str {
    match measure.unit.as_str() {
        "ns" => "nanoseconds",
        unit => unit,
    }
}

/// The host and the process. The process's arguments are not known here, and never were.
fn resource(series: &Series) -> wire::ResourceProfiles {
    let process = &series.process;
    let text = |key: &str, value: &str| {
        let value = Value::StringValue(value.to_owned());
        (key.to_owned(), value)
    };
    let number = |key: &str, value: u64| {
        let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
        (key.to_owned(), value)
    };
    let texts = [
        ("host.name", &series.host),
        ("process.executable.name", &process.comm),
        ("service.name", &process.comm),
        ("fleetflame.process.role", &process.role),
    ];
    let numbers = [
        ("process.pid", u64::from(process.pid)),
        ("fleetflame.process.start_ticks", process.start_ticks),
        (
            "fleetflame.process.generation",
            u64::from(process.generation),
        ),
    ];
    let mut said: Vec<(String, Value)> = Vec::new();
    said.extend(
        texts
            .iter()
            .filter(|(_, t)| !t.is_empty())
            .map(|(k, t)| text(k, t)),
    );
    said.extend(
        numbers
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(k, n)| number(k, *n)),
    );
    said.extend(
        process
            .worker
            .map(|w| number("fleetflame.process.worker", u64::from(w))),
    );
    let attributes = said.into_iter().map(|(key, value)| KeyValue {
        key,
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    });
    let scope = InstrumentationScope {
        name: "fleetflame".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    wire::ResourceProfiles {
        resource: Some(Resource {
            attributes: attributes.collect(),
            ..Resource::default()
        }),
        scope_profiles: vec![wire::ScopeProfiles {
            scope: Some(scope),
            ..wire::ScopeProfiles::default()
        }],
        ..wire::ResourceProfiles::default()
    }
}

/// The frames of a node, the innermost first.
fn leaf_first(profile: &Profile, node: NodeId) -> impl Iterator<Item = model::profile::FrameId> {
    let mut at = node;
    std::iter::from_fn(move || {
        let here = (at != ROOT).then(|| profile.tree.get(at)).flatten()?;
        at = here.parent;
        Some(here.frame)
    })
}
