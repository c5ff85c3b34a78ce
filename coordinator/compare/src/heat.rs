//! Who was hot when. In: a profile with its seconds. Out: how busy each worker was in each second,
//! and profiles of some seconds only. Never: a second that was not captured shown as idle.

use model::profile::{Cell, NodeId, Profile, Series, SeriesId, Values, add_values};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One worker of one host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeatRow {
    /// The host.
    pub host: String,
    /// The worker's role and process id.
    pub worker: String,
    /// By second from the heat's first: how many CPUs it used, 1 for one CPU all the time; samples
    /// where the profile carries no CPU time. None where the host has no sample at all.
    pub busy: Vec<Option<f64>>,
}

/// How busy workers were.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Heat {
    /// The first second.
    pub first: u32,
    /// Rows by host and worker.
    pub rows: Vec<HeatRow>,
    /// Whether values are CPUs; else samples.
    pub cpus: bool,
}

/// A worker's process id and start.
type Worker<'a> = (&'a str, u32, u64);

/// How busy each worker of the wanted series was.
#[must_use]
pub fn heat(profile: &Profile, wanted: impl Fn(&Series) -> bool) -> Heat {
    let cpu = profile
        .measures
        .iter()
        .position(|m| m.name == "cpu" && m.unit == "ns");
    let mut of: BTreeMap<Worker<'_>, BTreeMap<u32, f64>> = BTreeMap::new();
    let mut roles: BTreeMap<Worker<'_>, &str> = BTreeMap::new();
    let mut seen: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for ((id, second), cell) in &profile.cells {
        let Some(series) = profile.series.get(*id).filter(|s| wanted(s)) else {
            continue;
        };
        let process = &series.process;
        let worker = (&*series.host, process.pid, process.start_ticks);
        let role = if process.role.is_empty() {
            &process.comm
        } else {
            &process.role
        };
        roles.insert(worker, role);
        let values = cell.values.iter().map(|v| v[cpu.unwrap_or(0)]);
        let value = values.fold(0, u64::saturating_add);
        let value = if cpu.is_some() {
            value as f64 / 1e9
        } else {
            value as f64
        };
        *of.entry(worker).or_default().entry(*second).or_default() += value;
        let range = seen.entry(&series.host).or_insert((*second, *second));
        *range = (range.0.min(*second), range.1.max(*second));
    }
    let first = seen.values().map(|r| r.0).min().unwrap_or(0);
    let last = seen.values().map(|r| r.1).max().unwrap_or(0);
    let rows = of.into_iter().map(|(worker, values)| {
        let (from, to) = seen[worker.0];
        let at = |second: u32| {
            let there = (from..=to).contains(&second);
            there.then(|| values.get(&second).copied().unwrap_or(0.0))
        };
        HeatRow {
            host: worker.0.to_owned(),
            worker: format!("{} {}", roles[&worker], worker.1).trim().to_owned(),
            busy: (first..=last).map(at).collect(),
        }
    });
    Heat {
        first,
        rows: rows.collect(),
        cpus: cpu.is_some(),
    }
}

impl Heat {
    /// The seconds of hosts in which one of their workers was busier than this.
    #[must_use]
    pub fn hotter(&self, above: f64) -> BTreeSet<(&str, u32)> {
        let mut hot = BTreeSet::new();
        for row in &self.rows {
            for (second, busy) in (self.first..).zip(&row.busy) {
                if busy.is_some_and(|b| b > above) {
                    hot.insert((row.host.as_str(), second));
                }
            }
        }
        hot
    }
}

/// The profile of some seconds only: of those for which `wanted` says so, given host and second.
#[must_use]
pub fn of_seconds(mut profile: Profile, wanted: impl Fn(&str, u32) -> bool) -> Profile {
    let hosts: Vec<String> = profile
        .series
        .as_slice()
        .iter()
        .map(|s| s.host.clone())
        .collect();
    let host = |id: SeriesId| hosts.get(id.0 as usize).map_or("", String::as_str);
    profile
        .cells
        .retain(|(id, second), _| wanted(host(*id), *second));
    profile
        .counters
        .retain(|(host, _, second, _), _| wanted(host, *second));
    profile.totals.clear();
    let sums: Vec<(SeriesId, Vec<(NodeId, Values)>)> = {
        let mut sums: BTreeMap<SeriesId, BTreeMap<NodeId, Values>> = BTreeMap::new();
        let rows = |cell: &Cell| cell.rows().map(|(n, v)| (n, *v)).collect::<Vec<_>>();
        for ((id, _), cell) in &profile.cells {
            for (node, values) in rows(cell) {
                add_values(
                    sums.entry(*id).or_default().entry(node).or_default(),
                    &values,
                );
            }
        }
        sums.into_iter()
            .map(|(id, sum)| (id, sum.into_iter().collect()))
            .collect()
    };
    for (id, rows) in sums {
        profile.add_totals(id, rows.iter().map(|(n, v)| (*n, v)));
    }
    profile
}
